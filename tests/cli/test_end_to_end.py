"""The command with a real pipeline: tiny networks, saved and loaded like any checkpoint."""

import json

import numpy as np
import pytest

from hsunmix.cli.main import main
from hsunmix.data import read_cube, read_library, write_cube, write_library

from ..pipelines.tiny import tiny_pipeline, tiny_scene


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def scene(tmp_path):
    cube, wavelengths, endmembers = tiny_scene(height=10, width=9)
    mask = np.ones(len(wavelengths), bool)
    mask[7] = False
    cube[2, 3] = np.nan
    write_library(tmp_path / "known", endmembers, ["soil", "tree", "water"], wavelengths)
    return write_cube(tmp_path / "scene", cube, wavelengths / 1000, band_mask=mask)


@pytest.mark.parametrize(
    "options",
    [
        "-r 3",
        "--endmembers known.sli",
        "--fixed-endmembers known.hdr -r 4",
        "--library known.hdr -r 2",
        "-r 2 --steps 0",
    ],
)
def test_unmix(checkpoint, scene, options, monkeypatch, capsys):
    monkeypatch.chdir(scene.parent)
    command = ["unmix", "scene.hdr", *options.split(), "--checkpoint", str(checkpoint), "-o", "out"]
    assert main(command) == 0, capsys.readouterr().err
    maps = read_cube("out/abundances.hdr")
    assert np.argwhere(maps.nodata_mask).tolist() == [[2, 3]]
    np.testing.assert_allclose(maps.data[~maps.nodata_mask].sum(1), 1, atol=1e-4)
    library = read_library("out/endmembers.hdr")
    missing = np.flatnonzero(np.isnan(library.spectra).any(axis=0))
    known = library.wavelengths
    water = (1310 <= known) & (known <= 1490) | (1770 <= known) & (known <= 2050)
    assert missing.tolist() == sorted({7, *np.flatnonzero(water)})
    assert set(library.names) >= {"--endmembers known.sli": {"soil", "tree", "water"}}.get(options, set())
    summary = json.loads(open("out/summary.json", encoding="utf-8").read())
    assert summary["brightness_mode"] in ("free", "fixed") and summary["snr_db"] is not None


def test_verbose_says_how(checkpoint, scene, monkeypatch, capsys):
    monkeypatch.chdir(scene.parent)
    command = ["unmix", "scene.hdr", "--checkpoint", str(checkpoint), "--overwrite", "-o", "out"]
    assert main([*command, "-v"]) == 0
    captured = capsys.readouterr()
    for word in (
        "bands are used; masked: ",
        " nm",
        "noise: ",
        "extracted, mostly by ",
        "estimated",
        "brightness: ",
        "steps: 2",
    ):
        assert word in captured.err, word
    assert "; -r sets it)" in captured.out and "\r" not in captured.out + captured.err
    assert main([*command, "-r", "3"]) == 0
    captured = capsys.readouterr()
    assert "extracted" not in captured.err and "estimated" not in captured.out


def test_a_missing_material_is_noticed(scene, tmp_path, capsys):
    """Of what explains a scene and what doesn't, with weights that matter little here."""
    for kept, noticed in ((3, False), (2, True)):
        library = read_library(tmp_path / "known.hdr").subset(range(kept))
        write_library(tmp_path / f"known{kept}", library.spectra, library.names, library.wavelengths)
        out = tmp_path / f"out{kept}"
        assert main(["unmix", str(scene), "--fixed-endmembers", f"{tmp_path}/known{kept}.hdr", "-o", str(out)]) == 0
        error = capsys.readouterr().err
        assert ("a material may be missing" in error) == noticed
        assert bool(json.loads((out / "summary.json").read_text())["unexplained"]) == noticed


def test_same_seed_same_files(checkpoint, scene, monkeypatch):
    monkeypatch.chdir(scene.parent)
    for out in ("first", "second"):
        options = "-r 3 --ensemble 2 --uncertainty --seed 4 -q --steps 2".split()
        assert main(["unmix", "scene.hdr", *options, "--checkpoint", str(checkpoint), "-o", out]) == 0
    with np.load("first/results.npz") as first, np.load("second/results.npz") as second:
        assert sorted(first.files) == sorted(second.files) and "abundance_uncertainty" in first.files
        for key in first.files:
            np.testing.assert_array_equal(first[key], second[key], err_msg=key)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("-r 1", "--num-endmembers"),
        ("-r 99", "--num-endmembers"),
        ("-r 3 --steps -1", "--steps"),
        ("-r 3 --strength 2", "--strength"),
        ("-r 3 --ensemble 0", "--ensemble"),
        ("-r 2 --endmembers known.hdr", "--num-endmembers"),
        ("--library known.hdr --endmembers known.hdr", "--library"),
        ("-r 5 --library known.hdr", "--library"),
    ],
)
def test_what_the_pipeline_refuses_is_one_line(checkpoint, scene, options, named, monkeypatch, capsys):
    monkeypatch.chdir(scene.parent)
    assert main(["unmix", "scene.hdr", *options.split(), "--checkpoint", str(checkpoint), "-o", "out"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"hsunmix: error: {named} ") and error.count("\n") == 1 and "`" not in error


def test_damaged_checkpoint(checkpoint, scene, tmp_path, capsys):
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "model_index.json").write_text("{")
    assert main(["unmix", str(scene), "--checkpoint", str(folder), "-o", str(tmp_path / "out")]) == 2
    assert "--checkpoint" in capsys.readouterr().err


def test_demo_and_info(checkpoint, tmp_path, capsys):
    out = tmp_path / "demo"
    assert (
        main(["demo", "--size", "16", "-r", "3", "--steps", "1", "--checkpoint", str(checkpoint), "-o", str(out)]) == 0
    )
    assert "abundance RMSE" in capsys.readouterr().out and (out / "endmembers.png").exists()
    assert main(["info", str(checkpoint)]) == 0
    assert "ResUNet2D" in capsys.readouterr().out


@pytest.mark.parametrize("tiled", [False, True])
def test_integers_whose_scale_is_guessed(checkpoint, tmp_path, tiled):
    cube = (tiny_scene(height=40, width=40)[0] * 10000).astype(np.int16)
    np.save(tmp_path / "scene.npy", cube)
    options = ["--memory", "600M", "--tile", "24"] if tiled else []
    command = ["unmix", str(tmp_path / "scene.npy"), "-r", "3", *options, "--checkpoint", str(checkpoint), "-q"]
    assert main([*command, "-o", str(tmp_path / "out")]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["quality"]["saturated"] == 0 and summary["quality"]["good"] > 1000
    assert summary["cube"]["scale"] == 10000


@pytest.mark.parametrize("tiled", [False, True])
def test_a_scale_that_is_given_is_not_guessed(checkpoint, tmp_path, tiled, caplog):
    np.save(tmp_path / "scene.npy", 10000 * tiny_scene(height=40, width=40)[0])
    options = ["--memory", "600M", "--tile", "24"] if tiled else []
    command = ["unmix", str(tmp_path / "scene.npy"), "-r", "3", "--scale", "1", *options, "-q", "--checkpoint"]
    assert main([*command, str(checkpoint), "-o", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["cube"]["scale"] == 1
    assert "taken as reflectance" not in caplog.text
