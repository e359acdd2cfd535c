"""Products of agencies, in small: the real structure, the right numbers, masks, wavelengths, georeference."""

import sys

import numpy as np
import pytest

from hsunmix.data import Cube, open_cube, read_cube

from .files import make_cube
from .products import write_emit, write_enmap, write_prisma, write_tiff

CENTERS = np.array([420.0, 560.0, 660.0, 900.0, 1400.0, 1650.0, 2200.0])


@pytest.fixture
def emit(tmp_path):
    pytest.importorskip("netCDF4")
    good = np.array([1, 1, 1, 1, 0, 1, 1])
    return write_emit(tmp_path / "EMIT_L2A_RFL_001_x.nc", make_cube(6, 5, 7), CENTERS, good)


def test_emit(emit):
    cube = open_cube(emit)
    assert cube.shape == (6, 5, 7) and not cube.in_memory and cube.product == "EMIT L2A reflectance"
    np.testing.assert_allclose(cube.wavelengths, CENTERS, rtol=1e-6)
    np.testing.assert_allclose(cube.fwhm, 8.5)
    assert np.flatnonzero(~cube.band_mask).tolist() == [4]
    assert np.argwhere(cube.nodata_mask).tolist() == [[0, 0]]
    np.testing.assert_allclose(cube.data[1:], make_cube(6, 5, 7)[1:], rtol=1e-6)
    assert cube.metadata["time_coverage_start"].startswith("2022-08-14")


def test_emit_on_the_map(emit):
    cube = open_cube(emit)
    assert cube.georeference is None  # the sensor's grid lies on no map
    grid = cube.ortho
    assert grid.shape == (7, 7) and grid.georeference.crs.startswith("GEOGCS")
    np.testing.assert_allclose(grid.georeference.transform[2], -117.5)
    np.testing.assert_allclose(grid.georeference.transform[5], 34.25)
    laid = grid.apply(cube.data, np.nan)
    np.testing.assert_array_equal(laid[1:, 1:6], cube.data[::-1])
    assert np.isnan(laid[0]).all() and np.isnan(laid[:, 0]).all() and np.isnan(laid[:, 6]).all()
    np.testing.assert_array_equal(laid[2:4], grid.apply(cube.data, np.nan, slice(2, 4)))


def make_prisma(path, **options):
    rng = np.random.default_rng(0)
    vnir, swir = (rng.integers(1, 65536, (4, 6, bands)) for bands in (5, 6))
    vnir[0, 1], swir[0, 1] = 0, 0
    centers = [[970.0, 700.0, 500.0, 410.0, 0.0], [2490.0, 2200.0, 1400.0, 1100.0, 950.0, 0.0]]
    write_prisma(path, vnir, swir, centers, **options)
    return vnir, swir


def test_prisma(tmp_path):
    vnir, swir = make_prisma(tmp_path / "PRS_L2D_STD_x.he5")
    cube = open_cube(tmp_path / "PRS_L2D_STD_x.he5", bands="file")
    assert cube.shape == (4, 6, 9)
    assert cube.wavelengths.tolist() == [970, 700, 500, 410, 2490, 2200, 1400, 1100, 950]
    assert (cube.fwhm == 12).all()
    assert np.flatnonzero(~cube.band_mask).tolist() == [8]  # 950 nm, which VNIR sees too
    np.testing.assert_allclose(cube.data[1:, :, :4], (vnir[1:, :, :4] / 65535 * 0.8), atol=1e-6)
    np.testing.assert_allclose(cube.data[1:, :, 4:], 0.01 + swir[1:, :, :5] / 65535 * 0.69, atol=1e-6)
    assert np.argwhere(cube.nodata_mask).tolist() == [[0, 1]]
    assert cube.georeference.crs == "EPSG:32633"
    np.testing.assert_allclose(cube.georeference.transform, (30, 0, 500000, 0, -30, 5000000))
    masked = open_cube(tmp_path / "PRS_L2D_STD_x.he5")  # the product has no list of bad bands: water vapour is masked
    assert np.flatnonzero(~masked.band_mask).tolist() == [4, 6, 8]


def test_prisma_error_matrix(tmp_path):
    h5py = pytest.importorskip("h5py")
    make_prisma(tmp_path / "a.he5")
    with h5py.File(tmp_path / "a.he5", "r+") as file:
        file["HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields/VNIR_PIXEL_L2_ERR_MATRIX"][2, 1, 3] = 1
    assert np.argwhere(read_cube(tmp_path / "a.he5").nodata_mask).tolist() == [[0, 1], [2, 3]]


def enmap_numbers():
    numbers = (make_cube(5, 6, 8) * 10000).round().astype(np.int16)
    numbers[:, :, 4] = -32768  # a band that the processor has left out
    numbers[2, 3] = -32768
    return numbers


ENMAP_CENTERS = [420.0, 560.0, 900.0, 990.0, 950.0, 1100.0, 1650.0, 2445.0]


def test_enmap(tmp_path):
    numbers = enmap_numbers()
    image = write_enmap(tmp_path, numbers, ENMAP_CENTERS)
    for path in (image, image.with_name(image.name.replace("SPECTRAL_IMAGE.TIF", "METADATA.XML")), tmp_path):
        cube = open_cube(path)
        assert cube.shape == (5, 6, 8) and cube.product == "EnMAP L2A reflectance" and cube.scale == 10000
        np.testing.assert_allclose(cube.wavelengths, ENMAP_CENTERS)
        assert np.flatnonzero(~cube.band_mask).tolist() == [4, 7]  # the overlap of the detectors, above 2440 nm
        np.testing.assert_allclose(cube.data[0, 0, [0, 5]], numbers[0, 0, [0, 5]] / 1e4, rtol=1e-6)
        assert np.argwhere(cube.nodata_mask).tolist() == [[2, 3]]
        assert cube.georeference.crs == "EPSG:32633" and cube.metadata["map info"][0] == "UTM"
        assert cube.saturation == pytest.approx(3.2767)


def test_enmap_without_its_metadata(tmp_path):
    image = write_enmap(tmp_path, enmap_numbers(), ENMAP_CENTERS)
    image.with_name(image.name.replace("SPECTRAL_IMAGE.TIF", "METADATA.XML")).unlink()
    with pytest.raises(FileNotFoundError, match=r"METADATA\.XML is not beside it"):
        open_cube(image)
    write_enmap(tmp_path, enmap_numbers(), ENMAP_CENTERS[:-1])
    with pytest.raises(ValueError, match="7 bands with wavelengths.* has 8 bands"):
        open_cube(image)


NAMES = [f"{center:.1f} nm" for center in CENTERS]


@pytest.mark.parametrize(
    "said",
    [
        {"tags": {"wavelength": "{" + ", ".join(map(str, CENTERS)) + "}", "wavelength_units": "Nanometers"}},
        {"tags": {"wavelength": " ".join(str(center / 1000) for center in CENTERS)}},
        {"band_tags": [{"wavelength": str(center), "wavelength_units": "nm"} for center in CENTERS]},
        {"descriptions": NAMES},
        {"descriptions": [f"Band {i} ({center / 1000:.4f} Micrometers)" for i, center in enumerate(CENTERS)]},
    ],
)
def test_wavelengths_of_a_geotiff(tmp_path, said):
    path = write_tiff(tmp_path / "a.tif", make_cube().astype(np.float32), **said)
    np.testing.assert_allclose(open_cube(path).wavelengths, CENTERS, rtol=1e-6)


def test_geotiff_numbers_and_place(tmp_path):
    numbers = (make_cube() * 5000).round().astype(np.uint16)
    numbers[1, 2] = 0
    path = write_tiff(
        tmp_path / "a.tif", numbers, scales=[2e-4] * 7, nodata=0, blockxsize=16, blockysize=16, tiled=True
    )
    cube = open_cube(path)
    np.testing.assert_allclose(cube.data[0], numbers[0] * 2e-4, rtol=1e-5)
    assert cube.wavelengths is None and np.argwhere(cube.nodata_mask).tolist() == [[1, 2]]
    assert cube.georeference.transform == (30.0, 0.0, 400000.0, 0.0, -30.0, 5800000.0)
    np.testing.assert_allclose(open_cube(path, wavelengths=CENTERS).wavelengths, CENTERS)
    np.testing.assert_allclose(open_cube(path, scale=5000).data[0], numbers[0] * 2e-4, rtol=1e-5)


def open_all(tmp_path):
    """One of each kind."""
    pytest.importorskip("netCDF4")
    make_prisma(tmp_path / "p.he5")
    np.save(tmp_path / "n.npy", make_cube(8, 6, 7).astype(np.float32))
    yield open_cube(write_emit(tmp_path / "e.nc", make_cube(8, 6, 7), CENTERS, np.ones(7)))
    yield open_cube(tmp_path / "p.he5")
    yield open_cube(write_enmap(tmp_path, enmap_numbers(), ENMAP_CENTERS))
    yield open_cube(write_tiff(tmp_path / "t.tif", make_cube(8, 6, 7).astype(np.float32)))
    yield open_cube(tmp_path / "n.npy")


def test_windows_are_parts_of_the_whole(tmp_path):
    for cube in open_all(tmp_path):
        part = cube.window(slice(1, 4), slice(2, 5))
        assert not cube.in_memory and part.in_memory, cube.product
        np.testing.assert_array_equal(part.data, cube.data[1:4, 2:5], err_msg=cube.product)
        np.testing.assert_array_equal(part.nodata_mask, cube.nodata_mask[1:4, 2:5], err_msg=cube.product)
        np.testing.assert_array_equal(part.band_mask, cube.band_mask)
        assert part.wavelengths is cube.wavelengths or np.array_equal(part.wavelengths, cube.wavelengths)
        if cube.georeference is not None:
            a, _, c, _, e, f = cube.georeference.transform
            assert part.georeference.transform[2::3] == (c + 2 * a, f + e)


def test_a_window_keeps_the_bands_of_the_whole():
    data = make_cube()
    data[:2, :2, 3] = np.nan  # the band is there elsewhere
    cube = Cube(data)
    part = cube.window(slice(0, 2), slice(0, 3))
    assert part.band_mask.all() and part.nodata_mask[:, :2].all() and not part.nodata_mask[:, 2].any()


@pytest.mark.parametrize("name", ["e.nc", "p.he5", "t.tif", "SPECTRAL_IMAGE.TIF"])
def test_truncated_files_name_themselves(tmp_path, name):
    for _ in open_all(tmp_path):
        pass
    path = next(path for path in tmp_path.iterdir() if path.name.endswith(name))
    whole = path.read_bytes()
    for size in (0, 60, len(whole) // 2):
        path.write_bytes(whole[:size])
        with pytest.raises((ValueError, OSError), match=name):
            read_cube(path)


def test_hdf_of_another_kind(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["radiance"] = np.ones((2, 2, 2))
        file["sensor_band_parameters/wavelengths"] = np.ones(2)
    with pytest.raises(ValueError, match=r"a\.h5: neither EMIT.*give L2A reflectance.*radiance"):
        open_cube(tmp_path / "a.h5")


@pytest.mark.parametrize(("module", "extra", "name"), [("h5py", "hdf", "e.nc"), ("rasterio", "geo", "t.tif")])
def test_missing_libraries_say_what_to_install(tmp_path, monkeypatch, module, extra, name):
    for _ in open_all(tmp_path):
        pass
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{name}.*hsunmix\[{extra}\]"):
        open_cube(tmp_path / name)
