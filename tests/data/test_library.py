import numpy as np
import pytest

from hsunmix.data import SpectralLibrary, read_library, write_library

from .files import write_envi_raw

CENTERS = np.linspace(400, 2500, 211)


def smooth(wavelengths):
    return np.stack([0.5 + 0.3 * np.sin(wavelengths / 300), 0.2 + wavelengths / 6000, np.full(len(wavelengths), 0.4)])


def test_round_trip_is_exact(tmp_path):
    spectra, names = smooth(CENTERS).astype(np.float32), ["soil", "leaf (dry)", "été"]
    header = write_library(tmp_path / "lib", spectra, names, CENTERS)
    assert header == tmp_path / "lib.hdr"
    for name in ("lib.hdr", "lib.sli", "lib"):
        library = read_library(tmp_path / name)
        np.testing.assert_array_equal(library.spectra, spectra)
        np.testing.assert_array_equal(library.wavelengths, CENTERS)
        assert library.names == names


def test_names_that_a_header_cannot_hold(tmp_path):
    write_library(tmp_path / "lib", np.ones((4, 5)), ["a, b", "c{d}", "", "two\nlines"])
    assert read_library(tmp_path / "lib.hdr").names == ["a; b", "c(d)", "unnamed 3", "two lines"]


def test_names_lose_the_padding_of_columns(tmp_path):
    padded = ["Andradite WS487 Garnet        BECKb AREF", " soil  (dry) ", "tree"]
    write_library(tmp_path / "lib", np.ones((3, 5)), padded)
    np.savez(tmp_path / "lib.npz", spectra=np.ones((3, 5)), names=padded)
    (tmp_path / "lib.csv").write_text("wavelength," + ",".join(padded) + "\n400,1,1,1\n")
    for name in ("lib.hdr", "lib.npz", "lib.csv"):
        assert read_library(tmp_path / name).names == ["Andradite WS487 Garnet BECKb AREF", "soil (dry)", "tree"]


def test_missing_values_scale_and_units(tmp_path):
    values = np.full((2, 5, 1), 5000.0, dtype=np.float32)
    values[1, 2] = -1.23e34
    path = write_envi_raw(
        tmp_path,
        values,
        suffix=".sli",
        file_type="ENVI Spectral Library",
        data_ignore_value="-1.23e+34",
        wavelength=np.linspace(0.4, 0.8, 5),
        reflectance_scale_factor=10000,
        spectra_names=["first", "second"],
    )
    library = read_library(path)
    assert library.wavelengths[0] == pytest.approx(400)
    assert np.isnan(library.spectra[1, 2]) and library.spectra[0, 0] == pytest.approx(0.5)
    assert library.drop_invalid().names == ["first"]


def test_npz_csv_and_npy(tmp_path):
    spectra = smooth(CENTERS)
    np.savez(tmp_path / "a.npz", endmembers=spectra, names=["a", "b", "c"], wavelengths=CENTERS / 1000)
    rows = ["wavelength,a,b,c", *(",".join(map(str, row)) for row in np.column_stack([CENTERS, spectra.T]).tolist())]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    for name in ("a.npz", "a.csv"):
        library = read_library(tmp_path / name)
        np.testing.assert_allclose(library.spectra, spectra, rtol=1e-6)
        np.testing.assert_allclose(library.wavelengths, CENTERS)
        assert library.names == ["a", "b", "c"]
    np.save(tmp_path / "a.npy", spectra)
    plain = read_library(tmp_path / "a.npy")
    np.testing.assert_allclose(plain.spectra, spectra, rtol=1e-6)
    assert plain.wavelengths is None and plain.names == ["spectrum 1", "spectrum 2", "spectrum 3"]
    (tmp_path / "b.csv").write_text("\n".join(rows[1:]))
    assert read_library(tmp_path / "b.csv").names[0] == "spectrum 1"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252"])
@pytest.mark.parametrize(("separator", "decimal"), [(",", "."), (";", "."), (";", ","), ("\t", ".")])
def test_spreadsheets_of_any_country(tmp_path, encoding, separator, decimal):
    numbers = [["400,5", "0,25", ""], ["500", "1", "0,125"]]
    numbers = [[cell.replace(",", decimal) for cell in row] for row in numbers]
    for names in (["wavelength", '"sol, sec; été"', "b"], None):
        rows = numbers if names is None else [names, *numbers]
        text = "\r\n".join(map(separator.join, rows)) + "\r\n"
        (tmp_path / "a.csv").write_bytes(text.encode(encoding))
        library = read_library(tmp_path / "a.csv")
        assert library.names == (["spectrum 1", "spectrum 2"] if names is None else ["sol, sec; été", "b"])
        np.testing.assert_array_equal(library.wavelengths, [400.5, 500])
        np.testing.assert_array_equal(library.spectra, [[0.25, 1], [np.nan, 0.125]])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "wavelength\n1\n", "wavelength in the first column"),
        ("a.csv", "wavelength,a\n", "no spectra"),
        ("a.csv", "w,a\n400,x\n", "numbers"),
        ("a.csv", 'w,a\n"1,400",1\n', "numbers"),
        ("a.csv", "w a\n400 1\n", "semicolons"),
        ("a.csv", "w,a\n400,1\n500\n", "equally long"),
        ("a.txt", "1 2 3", "ENVI"),
    ],
)
def test_bad_text_files(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read_library(tmp_path / name)
    assert name in str(error.value)


def test_bad_libraries(tmp_path):
    np.savez(tmp_path / "a.npz", other=np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"a\.npz: no spectra"):
        read_library(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", spectra=np.ones((0, 3)))
    with pytest.raises(ValueError, match=r"b\.npz.*no spectra"):
        read_library(tmp_path / "b.npz")
    np.save(tmp_path / "c.npy", np.ones((2, 3, 4)))
    with pytest.raises(ValueError, match=r"c\.npy.*\(L, B\)"):
        read_library(tmp_path / "c.npy")
    path = write_envi_raw(tmp_path, np.ones((2, 3, 4), dtype=np.float32))
    with pytest.raises(ValueError, match="is an image"):
        read_library(path)
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_library(tmp_path / "nothing.sli")
    for bad in ({"names": ["a"]}, {"wavelengths": [1.0]}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))}.* has 1 "):
            SpectralLibrary(np.ones((2, 3)), **bad)
    with pytest.raises(ValueError, match="`spectra`"):
        SpectralLibrary(np.ones(3))
    with pytest.raises(ValueError, match="covers all bands"):
        SpectralLibrary(np.full((2, 3), np.nan)).drop_invalid()


def test_subset_keeps_order():
    library = SpectralLibrary(smooth(CENTERS), ["a", "b", "c"], CENTERS)
    assert library.subset([2, 0]).names == ["c", "a"]
    assert library.subset(np.array([False, True, True])).names == ["b", "c"]
    assert len(library.subset(1)) == 1


def test_resampling_a_smooth_spectrum_is_evaluating_it():
    library = SpectralLibrary(smooth(CENTERS), wavelengths=CENTERS)
    target = np.array([900.0, 512.5, 1777.7, 2433.0, 400.0])  # any order
    result = library.resample(target, fwhm=np.full(5, 12.0))
    np.testing.assert_allclose(result.spectra, smooth(target), atol=2e-3)
    np.testing.assert_allclose(library.resample(target / 1000).spectra[2], 0.4, rtol=1e-5)  # a constant stays


def test_resampling_to_itself_changes_nothing():
    library = SpectralLibrary(smooth(CENTERS), wavelengths=CENTERS)
    np.testing.assert_array_equal(library.resample(CENTERS).spectra, library.spectra)


def test_resampling_blurs_as_the_sensor_does():
    fine = np.arange(900.0, 1101.0)
    line = 1.0 - np.exp(-0.5 * ((fine - 1000) / 2.0) ** 2)
    library = SpectralLibrary(line[None], wavelengths=fine)
    fwhm = 20.0
    variance = 2.0**2 + (fwhm**2 - 1) / 2.3548**2
    depth = 2.0 / np.sqrt(variance)  # of two Gaussians convolved
    result = library.resample([950.0, 1000.0, 1050.0], fwhm=[fwhm] * 3).spectra[0]
    assert result[1] == pytest.approx(1 - depth, abs=0.005)
    assert result[0] == pytest.approx(1, abs=1e-3)


def test_bands_without_support_are_missing():
    gap = CENTERS[(CENTERS < 1350) | (CENTERS > 1450)]
    spectra = smooth(gap)
    spectra[0, np.abs(gap - 800) < 1] = np.nan
    library = SpectralLibrary(spectra, wavelengths=gap)
    result = library.resample([350.0, 800.0, 1400.0, 2000.0, 2600.0])
    assert np.isnan(result.spectra).tolist() == [
        [True, True, True, False, True],
        [True, False, True, False, True],
        [True, False, True, False, True],
    ]
    with pytest.raises(ValueError, match="none of the bands"):
        library.resample([3000.0, 3100.0])
    with pytest.raises(ValueError, match="no wavelengths"):
        SpectralLibrary(smooth(gap)).resample([500.0])


def test_unsorted_and_double_wavelengths():
    centers = np.concatenate([CENTERS, CENTERS[100:120]])
    shuffled = np.random.default_rng(0).permutation(len(centers))
    library = SpectralLibrary(smooth(centers)[:, shuffled], wavelengths=centers[shuffled])
    target = np.linspace(450, 2450, 50)
    np.testing.assert_allclose(library.resample(target).spectra, smooth(target), atol=2e-2)
