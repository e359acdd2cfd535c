"""What the library says reaches the terminal in the words of the command line."""

import errno
import inspect
import logging
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import hsunmix
from hsunmix.cli import messages
from hsunmix.cli.main import build_parser, main
from hsunmix.data import write_cube, write_library

from ..data.files import make_cube
from ..pipelines.tiny import tiny_pipeline, tiny_scene

UNMIX = ["unmix", "scene.hdr", "-o", "out"]
CENTERS = np.linspace(400, 1000, 7)


def test_every_argument_that_has_an_option_is_named_by_it():
    """Whatever the pipeline and `open_cube` can complain about."""
    args = build_parser().parse_args(UNMIX)
    known = set(inspect.signature(hsunmix.SemiBlindUnmixingPipeline.__call__).parameters) - {"self"}
    python_only = {
        "guidance_scale", "batch_size", "latents", "scene", "generator", "output_type", "return_dict",
        "callback_on_step_end", "callback_on_step_end_tensor_inputs",
    }  # fmt: skip
    for name in known - python_only:
        said = messages.in_options(f"`{name}` is wrong", args)
        assert "`" not in said and "_" not in said, said
        option = said.split(" ")[0]
        assert option == "the" or option in args.option_names.values()


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("num_endmembers", "--num-endmembers"),
        ("num_inference_steps", "--steps"),
        ("ensemble_size", "--ensemble"),
        ("reflectance_scale", "--scale"),
        ("fixed_endmembers", "--fixed-endmembers"),
        ("read_library", "--library"),
        ("nRow", "`nRow`"),
    ],
)
def test_options(name, option):
    args = build_parser().parse_args(UNMIX)
    assert messages.in_options(f"pass\n  `{name}`.", args) == f"pass {option}."


def test_options_are_those_of_the_command():
    args = build_parser().parse_args(["simulate", "-o", "out"])
    assert messages.in_options("`max_purity`, `num_inference_steps`", args) == "--max-purity, `num_inference_steps`"


def test_warnings_of_the_library_name_options(capsys):
    args = build_parser().parse_args(UNMIX)
    for _ in range(2):  # a second command in the same process says things once
        messages.set_up_messages(args)
    logging.getLogger("hsunmix.anything").warning("Pass `reflectance_scale`, not %s.", 3)
    logging.getLogger("hsunmix.anything").info("not asked for")
    assert capsys.readouterr().err == "hsunmix: warning: Pass --scale, not 3.\n"
    args.scene = "a.hdr"  # as `hsunmix batch` says which one it is at
    logging.getLogger("hsunmix.anything").warning("Too dark.")
    assert capsys.readouterr().err == "hsunmix: warning: a.hdr: Too dark.\n"


def test_a_library_in_the_wrong_place(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scene, wavelengths, _ = tiny_scene(height=6, width=6)
    write_cube(tmp_path / "scene", scene, wavelengths)
    write_library(tmp_path / "library", np.random.default_rng(0).uniform(0.1, 0.9, (60, len(wavelengths))))
    assert main(["unmix", "library.hdr", "-o", "out"]) == 2
    assert "is a spectral library, not an image; read it with --library" in capsys.readouterr().err
    assert main(["unmix", "scene.hdr", "--endmembers", "library.hdr", "-o", "out"]) == 2
    error = capsys.readouterr().err
    assert "60 spectra are given, more than the" in error and "--library" in error and "num_endmembers" not in error


@pytest.mark.parametrize("name", ["known.npy", "known.npz", "known.csv"])
def test_spectra_in_every_format(tmp_path, name, capsys, monkeypatch):
    """All are read before the first thing that is wrong here: the checkpoint."""
    monkeypatch.chdir(tmp_path)
    write_cube(tmp_path / "scene", make_cube(), CENTERS)
    spectra = np.array([CENTERS / 2000, 1 - CENTERS / 2000])
    np.save("known.npy", spectra)
    np.savez("known.npz", endmembers=spectra)
    np.savetxt("known.csv", np.column_stack([CENTERS, spectra.T]), delimiter=",", header="nm,a,b", comments="")
    command = ["unmix", "scene.hdr", "--endmembers", name, "--checkpoint", "nothing", "-o", "out"]
    assert main(command) == 2
    assert capsys.readouterr().err.startswith("hsunmix: error: --checkpoint nothing")


def test_spectra_and_cubes_that_lie_the_wrong_way(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("scene.npy", make_cube())
    np.save("first.npy", make_cube().transpose(2, 0, 1))
    np.save("known.npy", np.full((2, 7), 0.5))
    np.save("turned.npy", np.full((7, 2), 0.5))
    write_library("usgs", np.full((3, 20), 0.5), wavelengths=np.linspace(400, 1000, 20))
    for cube, spectra, message in (
        ("scene.npy", "turned.npy", "one spectrum in each row"),
        ("first.npy", "known.npy", "if the bands of the cube come first"),
        ("scene.npy", "usgs.hdr", "which wavelengths the cube has (--wavelengths)"),
    ):
        assert main(["unmix", cube, "--endmembers", spectra, "-o", "out"]) == 2
        assert message in capsys.readouterr().err


def test_help_says_how_spectra_are_given(capsys):
    assert main(["unmix", "--help"]) == 0
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert ".csv (wavelength in the first column, then one column per spectrum" in text and ".npy" in text


def test_errors_of_the_system_are_sentences():
    args = build_parser().parse_args(UNMIX)
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/root/out")
    assert messages.plain(denied, args) == "/root/out can't be read or written: permission denied"
    assert messages.plain(OSError(errno.EIO, "tile 3 can't be written"), args) == "tile 3 can't be written"
    assert messages.plain(FileNotFoundError("`cube`: no such file"), args) == "the cube: no such file"


def test_push_says_what_is_wrong_before_it_asks_the_hub(capsys):
    assert main(["push", "base", "yours"]) == 2
    assert "yours is no name of a repository: give USER/NAME" in capsys.readouterr().err
    assert main(["push", "nosuch", "you/yours"]) == 2
    assert capsys.readouterr().err.startswith("hsunmix: error: checkpoint nosuch: neither a folder")


@pytest.mark.parametrize("command", ["info", "unmix"])
def test_a_cube_whose_bands_come_first_is_turned_by_the_command_that_is_said(tmp_path, command, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    abundances, spectra = rng.dirichlet(np.ones(3), (20, 18)), rng.uniform(0.1, 0.9, (3, 60))
    cube = (abundances @ spectra).astype(np.float32)
    np.save("first.npy", cube.transpose(2, 0, 1))
    tiny_pipeline().save_pretrained("checkpoint")
    options = [] if command == "info" else ["-r", "2", "--steps", "0", "--checkpoint", "checkpoint", "-o", "out"]
    assert main([command, "first.npy", *options]) == 0
    error = capsys.readouterr().err
    assert "60 x 20 pixels with 18 bands; if the bands of the cube come first" in error
    subprocess.run(sys.executable + re.search("`python( -c .*?)`", error)[1], shell=True, check=True)
    np.testing.assert_array_equal(np.load("first_turned.npy"), cube)
    assert main(["info", "first_turned.npy"]) == 0
    assert "come first" not in capsys.readouterr().err
