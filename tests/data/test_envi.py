import warnings

import numpy as np
import pytest

from hsunmix.data import as_cube, read_cube

from .files import make_cube, write_envi_raw


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip", "BIL"])
@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32", "float64"])
@pytest.mark.parametrize("big_endian", [False, True])
def test_every_layout_gives_the_same_cube(tmp_path, interleave, dtype, big_endian):
    cube = make_cube()
    stored = (cube * 10000).round().astype(dtype) if dtype.endswith("int16") else cube.astype(dtype)
    scale = 10000 if dtype.endswith("int16") else 1
    path = write_envi_raw(
        tmp_path, stored, interleave, big_endian=big_endian, offset=12, reflectance_scale_factor=scale
    )
    result = read_cube(path)
    np.testing.assert_allclose(result.data, stored / scale, rtol=1e-6)
    assert result.data.dtype == np.float32 and result.data.flags.c_contiguous
    assert result.scale == scale and result.name == "scene"
    assert result.band_mask.all() and not result.nodata_mask.any() and result.wavelengths is None


@pytest.mark.parametrize("given", ["scene.hdr", "scene.img", "scene"])
def test_header_data_file_or_common_name(tmp_path, given):
    write_envi_raw(tmp_path, make_cube().astype("float32"))
    assert read_cube(tmp_path / given).shape == (4, 5, 7)


@pytest.mark.parametrize("suffix", ["", ".dat", ".bsq", ".IMG", ".raw"])
def test_data_file_suffixes(tmp_path, suffix):
    write_envi_raw(tmp_path, make_cube().astype("float32"), suffix=suffix)
    for given in ("scene.hdr", "scene" + suffix):
        assert read_cube(tmp_path / given).shape == (4, 5, 7)


def test_header_named_after_the_whole_data_file(tmp_path):
    path = write_envi_raw(tmp_path, make_cube().astype("float32"))
    path.rename(tmp_path / "scene.img.hdr")
    for given in ("scene.img", "scene.img.hdr"):
        assert read_cube(tmp_path / given).shape == (4, 5, 7)


def test_any_suffix_with_a_header_beside_it(tmp_path):
    path = write_envi_raw(tmp_path, make_cube().astype("float32"), suffix=".rfl")
    path.rename(tmp_path / "scene.rfl.hdr")
    assert read_cube(tmp_path / "scene.rfl").shape == (4, 5, 7)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("Micrometers", 1e3), ("um", 1e3), ("Nanometers", 1), (None, 1e3), ("Unknown", 1e3), ("Angstroms", 0.1)],
)
def test_wavelength_units(tmp_path, unit, factor):
    nanometers = np.linspace(400, 2500, 7)
    path = write_envi_raw(
        tmp_path,
        make_cube().astype("float32"),
        wavelength=nanometers / factor,
        fwhm=np.full(7, 10) / factor,
        wavelength_units=unit,
    )
    cube = read_cube(path)
    np.testing.assert_allclose(cube.wavelengths, nanometers)
    np.testing.assert_allclose(cube.fwhm, 10)


def test_impossible_unit_is_corrected_with_a_warning(tmp_path):
    path = write_envi_raw(
        tmp_path, make_cube().astype("float32"), wavelength=np.linspace(0.4, 2.5, 7), wavelength_units="Nanometers"
    )
    with pytest.warns(UserWarning, match="micrometres"):
        assert read_cube(path).wavelengths[0] == pytest.approx(400)


def test_unknown_unit_and_band_counts_as_wavelengths(tmp_path):
    data = make_cube().astype("float32")
    path = write_envi_raw(tmp_path, data, wavelength=list(range(1, 8)), wavelength_units="Index")
    assert read_cube(path).wavelengths is None
    path = write_envi_raw(tmp_path, data, wavelength=list(range(1, 8)), wavelength_units="furlongs")
    with pytest.raises(ValueError, match=r"scene\.hdr.*furlongs"):
        read_cube(path)


def test_unsorted_wavelengths_stay_in_file_order(tmp_path):
    centers = [500.0, 400.0, 450.0, 700.0, 600.0, 550.0, 800.0]
    path = write_envi_raw(tmp_path, make_cube().astype("float32"), wavelength=centers)
    assert read_cube(path).wavelengths.tolist() == centers


def test_bad_band_list(tmp_path):
    path = write_envi_raw(tmp_path, make_cube().astype("float32"), bbl=[1, 0, 1.0, 1, 0.0, 1, 1])
    assert read_cube(path).band_mask.tolist() == [True, False, True, True, False, True, True]


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_ignore_value(tmp_path, dtype):
    data = (make_cube() * 1000).astype(dtype)
    data[0, 0] = -9999  # an empty pixel
    data[1, 1, 3] = -9999  # a pixel that misses a good band
    data[:, :, 5] = -9999  # a band that no pixel has
    path = write_envi_raw(tmp_path, data, data_ignore_value=-9999, reflectance_scale_factor=1000)
    cube = read_cube(path)
    assert np.argwhere(cube.nodata_mask).tolist() == [[0, 0], [1, 1]]
    assert np.flatnonzero(~cube.band_mask).tolist() == [5]
    assert np.isnan(cube.data[0, 0]).all() and np.isnan(cube.data[1, 1, 3])
    assert np.isfinite(cube.data[~cube.nodata_mask][:, cube.band_mask]).all()


def test_ignored_zero_means_whole_pixels(tmp_path):
    data = (make_cube() * 1000).astype("int16")
    data[0, 0] = 0
    data[1, 1, 3] = 0  # a dark pixel
    cube = read_cube(write_envi_raw(tmp_path, data, data_ignore_value=0))
    assert np.argwhere(cube.nodata_mask).tolist() == [[0, 0]]


def test_gains_and_offsets(tmp_path):
    data = (make_cube() * 1000).astype("int16")
    gains, offsets = np.linspace(0.001, 0.002, 7), np.linspace(0, 0.1, 7)
    path = write_envi_raw(tmp_path, data, data_gain_values=gains, data_offset_values=offsets)
    np.testing.assert_allclose(read_cube(path).data, data * gains + offsets, rtol=1e-5)
    assert read_cube(path, scale=1000).data.max() == pytest.approx(data.max() / 1000)


def test_scale_replaces_the_files_factor(tmp_path):
    data = (make_cube() * 1000).astype("int16")
    path = write_envi_raw(tmp_path, data, reflectance_scale_factor=10)
    cube = read_cube(path, scale=1000)
    np.testing.assert_allclose(cube.data, data / 1000, rtol=1e-6)
    assert cube.scale == 1000
    with pytest.raises(ValueError, match="`scale`"):
        read_cube(path, scale=0)


def test_truncated_data(tmp_path):
    path = write_envi_raw(tmp_path, make_cube().astype("float32"))
    data = tmp_path / "scene.img"
    data.write_bytes(data.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"scene\.img: truncated: 557 bytes.* 560 "):
        read_cube(path)


def test_surplus_data_warns(tmp_path):
    path = write_envi_raw(tmp_path, make_cube().astype("float32"))
    data = tmp_path / "scene.img"
    data.write_bytes(data.read_bytes() + b"\0" * 80)
    with pytest.warns(UserWarning, match="80 more"):
        read_cube(path)


def test_missing_files(tmp_path):
    path = write_envi_raw(tmp_path, make_cube().astype("float32"))
    (tmp_path / "scene.img").rename(tmp_path / "other.img")
    with pytest.raises(FileNotFoundError, match=r"scene\.hdr: no data file"):
        read_cube(path)
    with pytest.raises(FileNotFoundError, match=r"other\.img: no ENVI header .*other\.hdr"):
        read_cube(tmp_path / "other.img")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_cube(tmp_path / "nothing.hdr")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_type": 99}, "data type 99"),
        ({"data_type": 6}, "complex"),
        ({"interleave": "bxq"}, "interleave"),
        ({"bands": None}, "no 'bands'"),
        ({"lines": "many"}, "many"),
        ({"samples": 0}, "at least 1"),
        ({"wavelength": [1, 2, 3]}, "7 bands, but there are 3 wavelengths"),
        ({"wavelength": ["a"] * 7}, "must be numbers"),
        ({"wavelength": [-1.0] * 7}, "positive"),
        ({"bbl": [1, 1]}, "`band_mask`"),
        ({"reflectance_scale_factor": 0}, "scale factor"),
        ({"data_gain_values": [1, 2]}, "data gain values"),
        ({"file_compression": 1}, "compressed"),
        ({"major_frame_offsets": [4, 4]}, "offsets"),
    ],
)
def test_bad_headers_name_the_file(tmp_path, change, message):
    keys = {key.replace("_", " "): value for key, value in change.items()}
    path = write_envi_raw(tmp_path, make_cube().astype("float32"))
    lines = [line for line in path.read_text().splitlines() if line.split(" = ")[0] not in keys]
    for key, value in keys.items():
        if value is not None:
            lines.append(
                f"{key} = " + ("{" + ",".join(map(str, value)) + "}" if isinstance(value, list) else str(value))
            )
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=message) as error:
        read_cube(path)
    assert "scene." in str(error.value)


@pytest.mark.parametrize("content", [b"not a header", b"ENVI\nwavelength = {1, 2", b"\xff\xfe\x00" * 50, b""])
def test_files_that_are_no_headers(tmp_path, content):
    write_envi_raw(tmp_path, make_cube().astype("float32"))
    (tmp_path / "scene.hdr").write_bytes(content)
    with pytest.raises(ValueError, match=r"scene\.hdr"):
        read_cube(tmp_path / "scene.hdr")


def test_headers_with_capital_keys_are_read_in_silence(tmp_path):
    path = write_envi_raw(tmp_path, make_cube().astype("float32"), Sensor_Type="x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "sensor type" in read_cube(path).metadata


def test_header_in_latin_1(tmp_path):
    path = write_envi_raw(tmp_path, make_cube().astype("float32"), wavelength=np.linspace(0.4, 2.5, 7))
    path.write_bytes(path.read_bytes() + "wavelength units = µm\n".encode("latin-1"))
    assert read_cube(path).wavelengths[-1] == pytest.approx(2500)


def test_library_is_no_cube(tmp_path):
    path = write_envi_raw(tmp_path, make_cube().astype("float32"), file_type="ENVI Spectral Library")
    with pytest.raises(ValueError, match="spectral library"):
        read_cube(path)


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
def test_what_spectral_opens_equals_what_is_read(tmp_path, interleave):
    import spectral

    data = (make_cube() * 1000).astype("int16")
    data[0, 0] = -9999
    path = write_envi_raw(
        tmp_path,
        data,
        interleave,
        wavelength=np.linspace(0.4, 1, 7),
        wavelength_units="Micrometers",
        bbl=[0, 1, 1, 1, 1, 1, 1],
        data_ignore_value=-9999,
        reflectance_scale_factor=1000,
    )
    expected = read_cube(path)
    image = spectral.open_image(str(path))
    for opened in (image, image.load()):
        cube = as_cube(opened)
        np.testing.assert_allclose(cube.data, expected.data, rtol=1e-6)
        np.testing.assert_array_equal(cube.nodata_mask, expected.nodata_mask)
        np.testing.assert_array_equal(cube.band_mask, expected.band_mask)
        np.testing.assert_allclose(cube.wavelengths, expected.wavelengths)
        assert cube.scale == 1000
        rescaled = as_cube(opened, scale=500)
        np.testing.assert_allclose(rescaled.data, 2 * expected.data, rtol=1e-6)
        assert rescaled.scale == 500
    part = as_cube(spectral.io.spyfile.SubImage(image, [1, 4], [0, 3]))
    np.testing.assert_allclose(part.data, expected.data[1:4, :3], rtol=1e-6)


def test_truncated_image_opened_by_spectral(tmp_path):
    import spectral

    path = write_envi_raw(tmp_path, make_cube().astype("float32"))
    data = tmp_path / "scene.img"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"scene\.img"):
        as_cube(spectral.open_image(str(path)))


@pytest.mark.parametrize(
    ("dtype", "fill"), [("int16", -9999), ("int16", -50), ("float32", -9999), ("float32", -0.005)]
)
def test_fill_of_aviris_without_an_ignore_value(tmp_path, dtype, fill):
    cube = (make_cube() * 1000).astype(dtype)
    cube[0, 1] = fill
    cube[2, 2, 3] = fill  # in one band only: what this means the file would have to say
    read = read_cube(write_envi_raw(tmp_path, cube, reflectance_scale_factor=1000))
    assert np.argwhere(read.nodata_mask).tolist() == [[0, 1]]
