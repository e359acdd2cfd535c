"""Bad files and bad places: one line that says what is wrong, exit code 2, nothing half-written."""

import errno
import os

import numpy as np
import pytest

from hsunmix.cli import unmix
from hsunmix.cli.main import build_parser, main
from hsunmix.cli.options import load_networks
from hsunmix.data import read_cube, write_cube, write_library

from ..data.files import make_cube, write_envi_raw
from ..data.products import write_emit, write_tiff
from .fake import FakePipeline

CENTERS = np.linspace(400, 1000, 7)


@pytest.fixture(autouse=True)
def pipeline(monkeypatch):
    fake = FakePipeline()
    monkeypatch.setattr(unmix, "load_pipeline", lambda *_, **__: fake)
    return fake


def truncated(folder):
    path = write_cube(folder / "scene", make_cube(), CENTERS)
    (folder / "scene.img").write_bytes((folder / "scene.img").read_bytes()[:-100])
    return [path], "scene.img: truncated"


def wrong_header(folder):
    path = write_envi_raw(folder, make_cube().astype(np.float32))
    path.write_text(path.read_text().replace("bands = 7", "bands = seven"))
    return [path], "not a usable ENVI header"


def header_of_another(folder):
    return [
        write_envi_raw(folder, make_cube().astype(np.float32), wavelength=list(range(400, 900, 50)))
    ], "7 bands, but there are 10 wavelengths"


def all_nodata(folder):
    return [write_cube(folder / "scene", np.full((200, 200, 7), np.nan), CENTERS), "--tile", "64"], "all nodata"


def mismatched_library(folder):
    library = write_library(folder / "known", np.full((2, 9), 0.5), ["a", "b"])
    return [write_cube(folder / "scene", make_cube(), CENTERS), "--library", library], "9 bands, the cube has 7"


def no_bands(folder):
    return [write_cube(folder / "scene", make_cube(), CENTERS), "--mask-bands", "300-"], "0 of 7 bands left"


def folder_of_scenes(folder):
    write_cube(folder / "scene", make_cube(), CENTERS)
    return [folder], f"{folder} is a folder: name one file in it, or unmix all its scenes with `hsunmix batch"


def half_a_granule(folder):
    pytest.importorskip("netCDF4")
    path = write_emit(folder / "emit.nc", make_cube(), CENTERS, np.ones(7))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return [path], "emit.nc: not a readable HDF5 file"


def damaged_blocks(folder):
    path = write_tiff(folder / "scene.tif", make_cube(64, 64, 7).astype(np.float32), wavelengths=None)
    content = path.read_bytes()
    path.write_bytes(content[:2000] + b"\0" * 40_000 + content[42_000:])
    return [path], "can't be read"


@pytest.mark.parametrize(
    "make",
    [
        truncated,
        wrong_header,
        header_of_another,
        all_nodata,
        mismatched_library,
        no_bands,
        folder_of_scenes,
        half_a_granule,
        damaged_blocks,
    ],
)
def test_bad_scenes(tmp_path, make, capsys):
    arguments, message = make(tmp_path)
    out = tmp_path / "out"
    assert main(["unmix", *map(str, arguments), "-r", "2", "-o", str(out)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("hsunmix: error: ") and error.count("\n") == 1
    assert not out.exists()


def test_no_place_for_results(tmp_path, capsys):
    scene = write_cube(tmp_path / "scene", make_cube(), CENTERS)
    (tmp_path / "file").write_text("")
    for place in ("file/out", "file/out/deeper"):
        assert main(["unmix", str(scene), "-r", "2", "-o", str(tmp_path / place)]) == 2
        error = capsys.readouterr().err
        assert "Errno" not in error
        assert f"{tmp_path / 'file'}" in error and "a part of this path is a file, not a folder" in error


def test_a_full_disk_leaves_older_results_alone(tmp_path, capsys, monkeypatch):
    scene = write_cube(tmp_path / "scene", make_cube(), CENTERS)
    out = tmp_path / "out"
    command = ["unmix", str(scene), "-q", "-o", str(out)]
    assert main([*command, "-r", "2"]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez_compressed", full)
    assert main([*command, "-r", "3", "--overwrite"]) == 2
    assert f"the disk of {out} is full" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("kind", ["geotiff", "cog"])
def test_formats(tmp_path, kind):
    scene = write_tiff(tmp_path / "scene.tif", (make_cube(20, 30, 7) * 10000).astype(np.int16))
    np.savetxt(tmp_path / "nm.txt", CENTERS, header="nm")
    out = tmp_path / "out"
    options = ["--scale", "10000", "--wavelengths", str(tmp_path / "nm.txt"), "--format", kind, "--uncertainty"]
    assert main(["unmix", str(scene), "-r", "2", "-q", *options, "-o", str(out)]) == 0
    names = {path.name for path in out.iterdir() if path.suffix == ".tif"}
    assert names == {f"{name}.tif" for name in ("abundances", "uncertainty", "brightness", "residual", "quality")}
    assert read_cube(out / "abundances.tif").georeference == read_cube(scene).georeference
    assert main(["unmix", str(scene), "-r", "2", "-q", *options, "-o", str(out)]) == 2  # there already


def test_emit_on_its_map(tmp_path):
    pytest.importorskip("netCDF4")
    scene = write_emit(tmp_path / "EMIT_L2A_RFL_001.nc", make_cube(12, 9, 7), CENTERS, np.ones(7))
    out = tmp_path / "out"
    assert main(["unmix", str(scene), "-r", "2", "-q", "--ortho", "--format", "geotiff", "-o", str(out)]) == 0
    maps = read_cube(out / "abundances.tif")
    assert maps.shape == (13, 11, 2) and maps.georeference.crs == "EPSG:4326"
    with np.load(out / "results.npz") as archive:
        np.testing.assert_array_equal(maps.data[1:, 1:10], archive["abundances"][::-1])


def test_number_format_and_compilation_of_the_networks():
    done = []

    class Network:
        def compile(self, **options):
            done.append(options)

    class Pipeline:
        encoder, unet = Network(), Network()

        def to(self, dtype):
            done.append(str(dtype))

    args = build_parser().parse_args(["unmix", "a", "-o", "b", "--dtype", "bfloat16", "--compile"])
    load_networks(args, lambda *_: Pipeline(), "cpu", True)
    assert done == ["torch.bfloat16", {"dynamic": False}, {"dynamic": False}]
    done.clear()
    load_networks(build_parser().parse_args(["unmix", "a", "-o", "b"]), lambda *_: Pipeline(), "cpu", True)
    assert done == []


@pytest.mark.parametrize("tiles", [[], ["--tile", "2", "--overlap", "0"]])
def test_what_stops_before_the_results_leaves_no_folder(tmp_path, monkeypatch, tiles):
    """Neither the folder nor those above it; one that was there before stays."""
    scene = write_cube(tmp_path / "scene", make_cube(), CENTERS)
    (tmp_path / "before").mkdir()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(FakePipeline, "__call__", interrupted)
    for place in ("new/results", "before/results", "before"):
        assert main(["unmix", str(scene), *tiles, "-o", str(tmp_path / place)]) == 130
    assert main(["unmix", "nothing.hdr", *tiles, "-o", str(tmp_path / "missing")]) == 2
    assert main(["batch", "nothing.hdr", "-o", str(tmp_path / "missing")]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["before", "scene.hdr", "scene.img"]
    assert not list((tmp_path / "before").iterdir())
