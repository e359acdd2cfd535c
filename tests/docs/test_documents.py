"""README, cards and pages tell the truth: their code runs, their commands exist, their links lead somewhere."""

import argparse
import configparser
import importlib.util
import re
import runpy
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import hsunmix
from hsunmix.cli.main import build_parser, main
from hsunmix.data import read_cube, write_cube, write_library
from hsunmix.simulation import SceneSimulator, parametric_spectra, preset_sensor

from ..data.products import write_emit
from . import documents
from .documents import ROOT

DOCUMENTS = documents.documents()
SENSOR = preset_sensor("enmap").without_water_vapour().select(torch.arange(0, 190, 3))

HUB_REPOSITORY = "you/yours"
# Commands that a test doesn't run, and why. All of them are parsed.
NOT_RUN = {
    r"hsunmix train ": "trains for minutes to hours; the tutorial and tests/training run `tiny`",
    r"hsunmix adapt ": "trains for minutes; tests/training runs it with two steps",
    r"hsunmix simulate --size 1280 ": "writes a granule of 1.8 GB",
    r"hsunmix unmix granule/": "unmixes that granule",
    r"hsunmix benchmark (samson|jasper_ridge|--library)": "a hundred runs; the command with dc1 and dc2 is run",
    r"hsunmix unmix scene\.hdr (-r 4 )?--checkpoint (runs|adapted)": "needs the result of `hsunmix train` or `adapt`",
    rf"hsunmix (push|unmix).* {HUB_REPOSITORY}": "needs a Hub; tests/hub pushes to its own",
    r"hsunmix app": "serves until it is stopped; tests/demo starts it",
    r"hsunmix benchmark \$": "the same commands with the reader's folders instead of file names",
}


def simulated(seed, size=24, count=4):
    """A scene with its truth; small, so that everything about it is quick."""
    settings = {"mixing": "linear", "brightness": "fixed", "noise": "white", "dead_pixels": False, "max_purity": None}
    simulator = SceneSimulator(min_angle_degrees=12.0, height=size, width=size)
    generator = torch.Generator().manual_seed(seed)
    return simulator(generator, num_endmembers=count, snr_db=25.0, sensor=SENSOR, **settings)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with small stand-ins for the files that the documents name."""
    folder = tmp_path_factory.mktemp("documents")
    nanometres = SENSOR.wavelengths.numpy()
    for seed, name in enumerate(("scene", "samson", "dc1", "dc2")):
        scene = simulated(seed)
        write_cube(folder / name, scene.cube.numpy(), nanometres)
        truth = {"endmembers": scene.endmembers.numpy(), "abundances": scene.abundances.numpy()}
        np.savez(folder / f"{name}_reference.npz", **truth)
    spectra = parametric_spectra(20, SENSOR.wavelengths, torch.Generator().manual_seed(0)).numpy()
    write_library(folder / "usgs", spectra, [f"material {index}" for index in range(20)], nanometres)
    write_library(folder / "field", simulated(0).endmembers.numpy(), list("abcd"), nanometres)
    granule = simulated(3, count=6)
    write_emit(folder / "EMIT_L2A_RFL_001.nc", granule.cube.numpy(), nanometres, np.ones(len(nanometres)))
    return folder


@pytest.fixture
def here(files, tmp_path, monkeypatch):
    """A fresh working folder with those files."""
    for path in files.iterdir():
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stand_ins():
    """Names that the documents use for what the reader has: cubes, wavelengths in nm, spectra."""
    scene = simulated(0)
    nanometres, cube = SENSOR.wavelengths.numpy(), scene.cube.numpy()
    cubes = {"cube": cube, "cube1": cube[:12], "cube2": cube[12:, :16]}
    spectra = scene.endmembers.numpy()
    return cubes | {"nm": nanometres, "nanometres": nanometres, "E": spectra, "known": spectra}


def test_there_are_documents_with_code():
    assert {"README.md", "model_cards/base.md", "docs/how_it_works.md", "CONTRIBUTING.md", "CHANGELOG.md"} <= set(
        DOCUMENTS
    )
    assert len(documents.blocks("README.md", "python")) >= 2 and len(documents.shell_commands("README.md")) > 10


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_code_block_escapes_the_tests(name):
    assert documents.languages(name) <= documents.LANGUAGES
    assert len(re.findall(r"^ *```", documents.text_of(name), re.MULTILINE)) == 2 * sum(
        len(documents.blocks(name, language)) for language in documents.LANGUAGES
    )


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if documents.blocks(name, "python")])
def test_python_blocks_run(name, here):
    """In order and in one namespace, as a reader would type them."""
    namespace = stand_ins() | {"__name__": "document"}
    for line, code in documents.blocks(name, "python"):
        program = compile("\n" * line + code, name, "exec")
        if HUB_REPOSITORY not in code:  # needs a Hub; tests/hub makes these calls to its own
            exec(program, namespace)
    out = namespace.get("out")
    if out is not None:
        abundances = out.abundances[0]
        assert abundances.shape[:2] == (24, 24) and np.allclose(abundances.sum(-1), 1, atol=1e-4)


def all_commands():
    """(where, words) of every command in bash blocks and in the help texts."""
    found = [(name, words) for name in DOCUMENTS for words in documents.shell_commands(name)]
    parser = build_parser()
    for sub in [parser, *subparsers(parser).values()]:
        examples = "\n".join(line for line in (sub.epilog or "").splitlines() if line.startswith("  hsunmix "))
        examples = re.sub(r" {3,}\S.*", "", examples.replace("\n  ", "\n").removeprefix("  "), flags=re.MULTILINE)
        found += [(sub.prog, words) for words in documents.commands(examples)]
    return found


def subparsers(parser):
    action = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return action.choices


ALL_COMMANDS = all_commands()
COMMANDS = list(dict.fromkeys(shape for shape in (tuple(words) for _, words in ALL_COMMANDS)))


class Parsed(Exception):
    """Raised in place of the work of a script."""


def parse_script(words, monkeypatch):
    """Run a script up to the point where it has read its command line."""
    original = argparse.ArgumentParser.parse_args

    def parse(self, args=None, namespace=None):
        original(self, args, namespace)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setattr(sys, "argv", list(words))
    with pytest.raises(Parsed):
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_command_exists(command, monkeypatch):
    """Options, scripts and extras; commands of other programs are those that the documents may send a reader to."""
    words = list(command)
    program = Path(words[0]).name
    if program == "hsunmix":
        build_parser().parse_args(words[1:])
    elif program == "accelerate":
        assert words[1] == "launch"
        parse_script(words[2:], monkeypatch)
    elif program == "python" and words[1].endswith(".py"):
        script = words[1:]
        assert (ROOT / script[0]).is_file()
        if script[0].startswith("training/"):
            parse_script(script, monkeypatch)
        else:
            assert len(script) == 1, "a script without options"
    elif program == "pip":
        setup = configparser.ConfigParser()
        setup.read(ROOT / "setup.cfg")
        assert words[1] == "install"
        for word in words[2:]:
            if word.startswith(".["):
                assert set(word[2:-1].split(",")) <= set(setup["options.extras_require"])
            elif word.endswith(".txt"):
                assert (ROOT / word).is_file()
            else:
                assert word in (".", "-c", "-e", "-q")
    elif words[:2] == ["python", "-m"] and words[2].startswith("hsunmix."):
        assert importlib.util.find_spec(words[2])
    elif program == "for":  # a loop of the shell over files that are there
        assert set(words[3 : words.index("do") - 1]) | {words[words.index("do") - 1].rstrip(";")} <= {
            path.stem for path in (ROOT / "model_cards" / "results").glob("*.json")
        }
    elif program == "git":
        assert words[1] in ("clone", "log")
    elif "/" in words[0] and not words[0].startswith(".venv/"):
        assert (ROOT / words[0]).is_file()
    else:
        assert program in ("cd", "ruff", "mypy", "pytest") or words[:3] in (
            ["python", "-m", "venv"],
            [".venv/bin/python", "-m", "pytest"],
        )


def reason_not_to_run(words):
    line = " ".join(["hsunmix", *words[1:]])
    return next((reason for pattern, reason in NOT_RUN.items() if re.match(pattern, line)), None)


IN_DOCUMENTS = list(dict.fromkeys(tuple(words) for name in DOCUMENTS for words in documents.shell_commands(name)))
OWN = [words for words in IN_DOCUMENTS if Path(words[0]).name == "hsunmix"]


@pytest.mark.parametrize("command", [words for words in OWN if not reason_not_to_run(words)], ids=" ".join)
def test_command_runs(command, here, capsys):
    once = ["--seeds", "1"] if "benchmark" in command else []  # five times the runs show nothing else
    assert main([*command[1:], *once]) == 0, capsys.readouterr().err
    if "unmix" in command:
        suffix = ".tif" if "cog" in command else ".hdr"
        maps = read_cube(here / "out" / f"abundances{suffix}")
        valid = ~maps.nodata_mask
        assert valid.any() and np.allclose(maps.data[valid].sum(-1), 1, atol=1e-3)
    elif "benchmark" in command:
        table = (here / command[command.index("-o") + 1] / "benchmark.md").read_text()
        assert table.count("\n| dc") == 16 + 4  # cells, and lines of the summary


def test_every_reason_not_to_run_is_still_needed():
    lines = [" ".join(["hsunmix", *words[1:]]) for words in OWN]
    assert [pattern for pattern in NOT_RUN if not any(re.match(pattern, line) for line in lines)] == []
    assert len([words for words in OWN if not reason_not_to_run(words)]) >= 4


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    for target in documents.links(name):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), f"{name} links to {target}"
        if anchor:
            assert anchor in documents.anchors(file.relative_to(ROOT).as_posix()), f"{name} links to {target}"


def resolve(dotted):
    """The object of a dotted name that begins with `hsunmix`."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            known = getattr(thing, "__dataclass_fields__", {})
            thing = known[part] if part in known else getattr(thing, part)
        return thing
    raise AttributeError(dotted)


@pytest.mark.parametrize("name", [*DOCUMENTS, "docs/tutorial.py"])
def test_names_and_files_in_the_text_exist(name):
    """`hsunmix.a.b` is in the package, `folder/file.py` in the repository, `--option` in a command."""
    options = all_options()
    for code in documents.inline_code(name):
        for dotted in re.findall(r"\bhsunmix\.[A-Za-z_][\w.]*\w", code):
            assert resolve(dotted) is not None, f"{name} names {dotted}"
        for path in re.findall(r"^(?:hsunmix|training|docs|tests|model_cards|pipelines|\.ci)/[\w./]*$", code):
            assert (ROOT / path).exists(), f"{name} names {path}"
        for option in re.findall(r"(?:^|\s)(--[a-z][\w-]+)", code):
            assert option in options, f"{name} names {option}"


def test_names_in_docstrings_exist():
    for path in sorted((ROOT / "hsunmix").rglob("*.py")):
        for dotted in re.findall(r"`(hsunmix(?:\.[A-Za-z_]\w*)+)`", path.read_text(encoding="utf-8")):
            assert resolve(dotted) is not None, f"{path.name} names {dotted}"


def all_options():
    """Options of `hsunmix`, of the training scripts and of the cards."""
    found = {option for sub in subparsers(build_parser()).values() for option in sub._option_string_actions}
    folders = (ROOT / "training", ROOT / "hsunmix" / "training", ROOT / "hsunmix" / "cards")
    sources = [path for folder in folders for path in folder.glob("*.py")]
    for path in sources:
        found |= set(re.findall(r'add(?:_argument)?\(\s*"(--\w+)"', path.read_text(encoding="utf-8")))
    return found


def test_version_is_the_same_everywhere():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["metadata"]["version"] == hsunmix.__version__
    versions = re.findall(r"^## \[([\d.]+)\]", documents.text_of("CHANGELOG.md"), re.MULTILINE)
    assert versions[0] == hsunmix.__version__


def test_picture_is_what_its_script_draws():
    """The texts of the committed picture are those of the script, and both are well-formed."""
    draw = runpy.run_path(str(ROOT / "docs" / "path_of_a_cube.py"))["draw"]
    rng = np.random.default_rng(0)
    maps, spectra = rng.random((4, 4, 4)), rng.random((4, 9))
    found = {"composite": maps[..., :3], "noise": spectra[:1], "coarse": maps, "refined": maps}
    drawn = draw(found | {"endmembers": spectra, "coarse_endmembers": spectra})
    committed = (ROOT / "docs" / "path_of_a_cube.svg").read_text(encoding="utf-8")
    words = [[node.text for node in ElementTree.fromstring(svg).iter() if node.text] for svg in (drawn, committed)]
    assert words[0] == words[1] and len(words[0]) > 30
