import numpy as np
import pytest
import torch
from scipy.io import savemat

from hsunmix.data import Cube, as_cube, read_cube, write_npz

from .files import make_cube

CENTERS = np.linspace(400, 1000, 7)


def test_npy(tmp_path):
    cube = make_cube()
    np.save(tmp_path / "a.npy", cube)
    np.testing.assert_allclose(read_cube(tmp_path / "a.npy").data, cube, rtol=1e-6)


@pytest.mark.parametrize("key", ["cube", "Y", "anything"])
def test_npz(tmp_path, key):
    mask = np.array([1, 1, 0, 1, 1, 1, 1], bool)
    write_npz(tmp_path / "a.npz", **{key: make_cube()}, wavelengths=CENTERS / 1000, band_mask=mask, other=np.ones(3))
    cube = read_cube(tmp_path / "a.npz")
    np.testing.assert_allclose(cube.data, make_cube(), rtol=1e-6)
    np.testing.assert_allclose(cube.wavelengths, CENTERS)
    np.testing.assert_array_equal(cube.band_mask, mask)


def test_wavelengths_and_scale_given(tmp_path):
    np.savez(tmp_path / "a.npz", cube=(make_cube() * 1e4).astype("int16"), wavelengths=np.ones(7))
    cube = read_cube(tmp_path / "a.npz", wavelengths=CENTERS, scale=1e4)
    np.testing.assert_allclose(cube.wavelengths, CENTERS)
    assert cube.data.max() < 1 and cube.scale == 1e4


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_mat_cube_and_matlab_column_order(tmp_path, version):
    cube = make_cube(4, 5, 7)
    flat = cube.reshape(-1, 7, order="F").T  # MATLAB: reshape(Y, nRow * nCol, B)'
    contents = {
        "solid": {"Y": cube, "wavelengths": CENTERS[None]},
        "flat": {"Y": flat, "nRow": np.array([[4.0]]), "nCol": np.array([[5.0]])},
        "flat_pixels_first": {"Y": flat.T, "nRow": np.array([[4.0]]), "nCol": np.array([[5.0]])},
        "samson": {"V": flat, "nRow": np.array([[4.0]]), "nCol": np.array([[5.0]]), "nBand": np.array([[7.0]])},
        "named": {"paviaU": cube, "about": "text"},
    }
    for name, content in contents.items():
        path = tmp_path / f"{name}.mat"
        save_v73(path, content) if version == "7.3" else savemat(path, content)
        result = read_cube(path)
        np.testing.assert_allclose(result.data, cube, rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(read_cube(tmp_path / "solid.mat").wavelengths, CENTERS)


def save_v73(path, content):
    """As MATLAB does: a 512-byte user block, arrays with reversed axes, text as uint16."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w", userblock_size=512) as file:
        for key, value in content.items():
            if isinstance(value, str):
                file[key] = np.array([[ord(c)] for c in value], dtype=np.uint16)
            else:
                file[key] = np.asarray(value).T
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")


def test_mat73_without_h5py_says_what_to_install(tmp_path, monkeypatch):
    save_v73(tmp_path / "a.mat", {"Y": make_cube()})
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ImportError, match=r"hsunmix\[mat73\]"):
        read_cube(tmp_path / "a.mat")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"Y": np.ones((7, 20))}, "nRow"),
        ({"Y": np.ones((7, 21)), "nRow": 4, "nCol": 5}, "4 x 5"),
        ({"a": np.ones((2, 3, 4)), "b": np.ones((2, 3, 4))}, "which array"),
        ({"Y": np.ones((2, 3, 4)) * 1j}, "complex"),
        ({"Y": np.ones((2, 3, 4)), "wavelengths": np.ones(5)}, "4 bands, but there are 5 wavelengths"),
    ],
)
def test_bad_arrays_name_the_file(tmp_path, content, message):
    savemat(tmp_path / "a.mat", content)
    np.savez(tmp_path / "a.npz", **content)
    for name in ("a.mat", "a.npz"):
        with pytest.raises(ValueError, match=message) as error:
            read_cube(tmp_path / name)
        assert name in str(error.value)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.mat"])
def test_damaged_files(tmp_path, name):
    path = tmp_path / name
    if name.endswith("npy"):
        np.save(path, make_cube())
    elif name.endswith("npz"):
        np.savez(path, cube=make_cube())
    else:
        savemat(path, {"Y": make_cube()})
    whole = path.read_bytes()
    for content in (whole[:-40], whole[:60], b"", b"something else entirely"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=name):
            read_cube(path)


def test_pickles_are_never_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[[{}]]], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", cube=np.array([[[{}]]], dtype=object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(ValueError, match=f"{name}.*never loaded"):
            read_cube(tmp_path / name)


def test_unknown_types_and_missing_files(tmp_path):
    (tmp_path / "a.jp2").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"a\.jp2.*\.jp2.*ENVI"):
        read_cube(tmp_path / "a.jp2")
    for name in ("no.npy", "no.mat", "no.npz", "no.img", "no"):
        with pytest.raises(FileNotFoundError, match=name):
            read_cube(tmp_path / name)


@pytest.mark.parametrize(
    ("shape", "advice"),
    [((7, 4, 5), r"transpose\(1, 2, 0\)"), ((4, 7, 5), r"transpose\(0, 2, 1\)"), ((4, 5, 6), "one per")],
)
def test_bands_in_the_wrong_place(shape, advice):
    with pytest.raises(ValueError, match=advice):
        as_cube(np.ones(shape), wavelengths=CENTERS)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.ones((4, 5)), "H, W, B"),
        (np.ones((1, 2, 3, 4)), "H, W, B"),
        (np.ones((2, 2, 3)) * 1j, "complex"),
        (np.ones((0, 2, 3)), "empty"),
        (np.ones((2, 2, 3), dtype=bool), "integers or floats"),
        (np.full((2, 2, 3), "a"), "integers or floats"),
    ],
)
def test_bad_arrays_name_the_argument(bad, message):
    with pytest.raises(ValueError, match="`cube`.*" + message):
        as_cube(bad)


def test_as_cube_takes_what_holds_a_cube(tmp_path):
    data = make_cube().astype(np.float32)
    np.save(tmp_path / "a.npy", data)
    masked = np.ma.masked_array(data, np.zeros(data.shape, bool))
    masked.mask[0, 0, 0] = True
    for given in (data, torch.from_numpy(data), torch.from_numpy(data).double(), str(tmp_path / "a.npy"), Cube(data)):
        np.testing.assert_array_equal(as_cube(given).data, data)
    assert as_cube(masked).nodata_mask.sum() == 1
    cube = Cube(data, wavelengths=CENTERS)
    assert as_cube(cube) is cube
    assert as_cube(cube, wavelengths=CENTERS + 1).wavelengths[0] == 401
    rescaled = as_cube(as_cube(data, scale=10), scale=5)
    np.testing.assert_allclose(rescaled.data, data / 5, rtol=1e-6)
    assert rescaled.scale == 5


def test_missing_values_become_masks():
    data = make_cube()
    data[0, 0] = np.nan
    data[1, 2, 3] = np.inf
    data[:, :, 6] = np.nan
    cube = Cube(data)
    assert np.argwhere(cube.nodata_mask).tolist() == [[0, 0], [1, 2]]
    assert np.flatnonzero(~cube.band_mask).tolist() == [6]
    assert not np.isinf(cube.data).any()
    empty = Cube(np.full((2, 2, 3), np.nan))
    assert empty.nodata_mask.all() and empty.band_mask.all()


def test_missing_values_in_bad_bands_do_not_matter():
    data = make_cube()
    data[0, 0, 2] = np.nan
    mask = np.arange(7) != 2
    assert not Cube(data, band_mask=mask).nodata_mask.any()


def test_caller_keeps_its_arrays():
    data, mask = make_cube().astype(np.float32), np.ones(7, bool)
    data[:, :, 1] = np.nan
    copy = data.copy()
    Cube(data, band_mask=mask)
    np.testing.assert_array_equal(data, copy)
    assert mask.all()
