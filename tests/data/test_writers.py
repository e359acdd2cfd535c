import json

import numpy as np
import pytest
import torch

from hsunmix.data import atomic_path, read_cube, write_cube, write_envi, write_json, write_npz

from .files import make_cube, write_envi_raw


def test_maps_round_trip(tmp_path):
    maps = make_cube(3, 4, 2).astype(np.float32)
    maps[0, 0] = np.nan
    header = write_envi(tmp_path / "maps", maps, ["soil, wet", "tree"])
    cube = read_cube(header)
    np.testing.assert_array_equal(cube.data, maps)
    assert cube.metadata["band names"] == ["soil; wet", "tree"]
    assert np.argwhere(cube.nodata_mask).tolist() == [[0, 0]]


def test_cube_round_trip(tmp_path):
    data = make_cube().astype(np.float32)
    centers, mask = np.linspace(400.123456789, 2500, 7), np.array([1, 0, 1, 1, 1, 1, 1], bool)
    cube = read_cube(write_cube(tmp_path / "scene.img", data, centers, np.full(7, 9.5), mask))
    np.testing.assert_array_equal(cube.data, data)
    np.testing.assert_array_equal(cube.wavelengths, centers)
    np.testing.assert_array_equal(cube.fwhm, 9.5)
    np.testing.assert_array_equal(cube.band_mask, mask)
    with pytest.raises(ValueError, match="wavelength"):
        write_cube(tmp_path / "bad", data, centers[:3])
    with pytest.raises(ValueError, match="H, W, B"):
        write_cube(tmp_path / "bad", data[0])


def test_geography_is_kept_and_spectra_are_not(tmp_path):
    system = 'PROJCS["WGS_1984_UTM_Zone_12N",GEOGCS["GCS_WGS_1984",UNIT["Degree",0.0174532925199433]]]'
    path = write_envi_raw(
        tmp_path,
        make_cube().astype("float32"),
        map_info=["UTM", 1, 1, 736600.089, 4078126.75, 2.7, 2.7, 12, "North", "WGS-84", "units=Meters"],
        coordinate_system_string="{" + system + "}",
        wavelength=np.linspace(400, 1000, 7),
        default_bands=[1, 2, 3],
    )
    metadata = read_cube(path).metadata
    header = write_envi(tmp_path / "maps", np.zeros((4, 5, 2)), ["a", "b"], metadata)
    result = read_cube(header).metadata
    assert result["map info"] == metadata["map info"]
    assert system in header.read_text()
    assert "wavelength" not in result and "default bands" not in result


def test_map_errors(tmp_path):
    with pytest.raises(ValueError, match="`band_names` has 1"):
        write_envi(tmp_path / "a", np.zeros((2, 2, 2)), ["a"])
    with pytest.raises(ValueError, match="H, W, C"):
        write_envi(tmp_path / "a", np.zeros((2, 2)), ["a"])
    assert list(tmp_path.iterdir()) == []


def test_names_with_dots_keep_them(tmp_path):
    assert write_envi(tmp_path / "scene.v2", np.zeros((1, 1, 1)), ["a"]) == tmp_path / "scene.v2.hdr"
    assert (tmp_path / "scene.v2.img").exists()


def test_failed_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]


def test_npz_leaves_out_none_and_refuses_objects(tmp_path):
    path = write_npz(tmp_path / "a.npz", maps=np.ones((2, 2)), names=["a", "bc"], nothing=None)
    with np.load(path, allow_pickle=False) as archive:
        assert sorted(archive.files) == ["maps", "names"] and archive["names"].tolist() == ["a", "bc"]
    with pytest.raises(ValueError, match="`bad`"):
        write_npz(tmp_path / "b.npz", bad=[{}])


def test_json_is_valid_for_any_reader(tmp_path):
    content = {
        "number": np.float32(0.5),
        "nan": float("nan"),
        "list": np.array([1.0, np.inf]),
        "tensor": torch.ones(2),
        "path": tmp_path,
        "flag": np.bool_(True),
        "none": None,
        "nested": {"shape": (1, 2), 3: "ü"},
    }
    text = write_json(tmp_path / "a.json", content).read_text(encoding="utf-8")
    assert "NaN" not in text
    result = json.loads(text)
    assert result["number"] == 0.5 and result["nan"] is None and result["list"] == [1.0, None]
    assert (
        result["tensor"] == [1.0, 1.0] and result["flag"] is True and result["nested"] == {"shape": [1, 2], "3": "ü"}
    )
