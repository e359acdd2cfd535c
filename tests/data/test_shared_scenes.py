import numpy as np
import pytest

from hsunmix.data import open_cube, read_cube, read_library

from ..shared_data import SHARED, needs_data


@needs_data
@pytest.mark.parametrize(
    ("name", "shape", "bad_bands", "nodata"),
    [
        ("scenes/samson", (95, 95, 156), 0, 0),
        ("scenes/jasper_ridge", (100, 100, 198), 0, 0),
        ("unlabelled/enmap_potsdam_1", (64, 128, 224), 6, 0),
        ("unlabelled/abu_urban_2", (100, 100, 207), 0, 0),
        ("envi/emit20250324t221005_jpl_unmix_ex", (10, 10, 285), 41, 0),
        ("envi/ang20150422t163638_corr_v1e_img_4000-4010_550-560", (10, 10, 432), 59, 60),
    ],
)
def test_real_cubes(name, shape, bad_bands, nodata):
    cube = read_cube(SHARED / f"{name}.hdr")
    assert cube.shape == shape and (~cube.band_mask).sum() == bad_bands and cube.nodata_mask.sum() == nodata
    values = cube.data[~cube.nodata_mask][:, cube.band_mask]
    assert -0.2 < values.min() and values.max() < 1.5


@needs_data
@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("unlabelled/enmap_potsdam_1", slice(10, 20), slice(100, 128)),
        ("envi/emit20250324t221005_jpl_unmix_ex", slice(3, 10), slice(0, 4)),  # bil, float32
        ("envi/ang20150422t163638_corr_v1e_img_4000-4010_550-560", slice(0, 2), slice(5, 9)),  # bip, float32
        ("unlabelled/jasper_ridge_f224", slice(50, 60), slice(0, 100)),  # bsq, int16
    ],
)
def test_windows_of_real_cubes(name, rows, columns):
    cube = open_cube(SHARED / f"{name}.hdr")
    part = cube.window(rows, columns)
    assert not cube.in_memory
    np.testing.assert_array_equal(part.data, cube.data[rows, columns])


@needs_data
def test_water_vapour_of_real_cubes():
    cube = open_cube(SHARED / "unlabelled/jasper_ridge_f224.hdr", bands="water")
    assert 40 < (~cube.band_mask).sum() < 70 and not cube.in_memory
    assert open_cube(SHARED / "unlabelled/jasper_ridge_f224.hdr").band_mask.all()  # its header has no list


@needs_data
def test_orientation_agrees_with_the_reference():
    cube = read_cube(SHARED / "scenes/samson.hdr")
    truth = read_library(SHARED / "scenes/samson_reference.npz")
    with np.load(SHARED / "scenes/samson_reference.npz") as archive:
        maps = archive["abundances"]
    rebuilt = maps @ truth.spectra
    cosine = (rebuilt * cube.data).sum(2) / np.linalg.norm(rebuilt, axis=2) / np.linalg.norm(cube.data, axis=2)
    assert np.median(np.arccos(np.clip(cosine, -1, 1))) < 0.05  # transposed maps give 0.18


@needs_data
def test_real_libraries():
    usgs = read_library(SHARED / "libraries/usgs_splib07_av95.hdr")
    assert usgs.spectra.shape == (2457, 224) and np.nanmin(usgs.spectra) > -0.1
    field = read_library(SHARED / "envi/gamsberg_field_library.hdr")
    cube = read_cube(SHARED / "unlabelled/enmap_potsdam_1.hdr")
    sampled = field.resample(cube.wavelengths, cube.fwhm)
    assert sampled.spectra.shape == (27, 224) and np.isfinite(sampled.spectra).all()
