"""Push to a model Hub and load from it, in fresh processes with an empty cache, against a server on the loopback."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from hsunmix import bundled_checkpoint
from hsunmix.cards import MARK
from hsunmix.hub import NETWORKS
from tests.hub.jobs import run_jobs
from tests.hub.loopback import LoopbackHub, metadata_errors
from tests.pipelines.tiny import tiny_pipeline, tiny_scene

WEIGHTS = "diffusion_pytorch_model.safetensors"
HALF = "diffusion_pytorch_model.fp16.safetensors"
CLI = ["unmix", "CUBE", "-r", "3", "-q", "--checkpoint"]


class Evil:
    """Unpickled, it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def hub(folder):
    """A Hub to which one process has pushed `user/tiny`, and on which there are less friendly repositories."""
    with LoopbackHub() as hub:
        (folder / "own.md").write_text("# my own words\n")
        hub.commit("user/kept", {"README.md": b"# written by a person\n"})
        hub.commit("user/replaced", {"README.md": f"{MARK} from other weights -->".encode()})
        hub.push_report = run_jobs(hub, folder / "pusher", [
            {"action": "push", "repo": "user/tiny", "save_as": str(folder / "pushed.npz")},
            {"action": "push", "repo": "user/tiny", "kwargs": {"variant": "fp16"}},
            {"action": "push", "repo": "user/base", "checkpoint": bundled_checkpoint("base")},
            {"action": "push", "repo": "user/own", "kwargs": {"card": str(folder / "own.md")}},
            {"action": "push", "repo": "user/kept"},
            {"action": "push", "repo": "user/replaced"},
            {"action": "push", "repo": "user/saved", "folder": str(folder / "saved")},
            {"action": "push", "repo": "user/network", "component": "unet"},
            {"action": "push", "repo": "user/unsafe", "kwargs": {"safe_serialization": False}},
            {"action": "push", "repo": "user/too-large", "factor": 1e6, "kwargs": {"variant": "fp16"}},
            {"action": "cli", "arguments": ["push", bundled_checkpoint("base"), "user/by-command", "-q"]},
        ])  # fmt: skip
        pushed = hub.files("user/tiny") if "user/tiny" in hub.branches else {}
        code = f"open({str(folder / 'ran')!r}, 'w')\n".encode()
        names = ("pipeline.py", "modeling.py", "unet/resunet_2d.py", "unet/hsunmix.models.resunet_2d.py")
        hub.commit("user/code", {**pushed, **{name: code for name in names}})
        evil = pickle.dumps(Evil(folder / "unpickled"))
        pickles = {
            path.replace(".safetensors", ".bin"): evil if path.endswith(WEIGHTS) else content
            for path, content in pushed.items()
        }
        hub.commit("user/pickles", pickles)
        hub.commit("user/both", {**pushed, **pickles, "unet/model.pkl": evil})
        hub.commit("user/no-pipeline", {"README.md": b"# nothing here\n", "config.json": b"{}"})
        hub.commit("user/private", pushed)
        hub.private.add("user/private")
        other = tiny_pipeline(seed=5)
        other.save_pretrained(folder / "other")
        hub.commit_folder("user/tiny", folder / "other", branch="v2")
        other.save_pretrained(folder / "variant", variant="fp16")
        hub.commit_folder("user/variant", folder / "variant")
        hub.requests.clear()
        hub.pushed_cards = ("tiny", "base", "own", "kept", "replaced", "saved", "network", "by-command")
        yield hub


@pytest.fixture(scope="module")
def loaded(hub, folder):
    """Reports of loads in one fresh process, by name; outputs lie in `<name>.npz`."""
    jobs = {
        "main": {"repo": "user/tiny"},
        "v2": {"repo": "user/tiny", "kwargs": {"revision": "v2"}},
        "sha": {"repo": "user/tiny", "kwargs": {"revision": hub.branches["user/tiny"]["v2"]}},
        "cached": {"repo": "user/tiny", "kwargs": {"local_files_only": True}},
        "elsewhere": {"repo": "user/tiny", "kwargs": {"cache_dir": str(folder / "elsewhere")}},
        "variant": {"repo": "user/variant", "kwargs": {"variant": "fp16"}},
        "half": {"repo": "user/tiny", "kwargs": {"variant": "fp16", "cache_dir": str(folder / "half")}},
        "no-variant": {"repo": "user/variant"},
        "base-class": {"repo": "user/tiny", "action": "load with the base class"},
        "saved": {"repo": "user/saved"},
        "code": {"repo": "user/code"},
        "both": {"repo": "user/both"},
        "pickles": {"repo": "user/pickles"},
        "private": {"repo": "user/private"},
        "private-no-token": {
            "repo": "user/private",
            "kwargs": {"token": False, "cache_dir": str(folder / "no-token")},
        },
        "unknown": {"repo": "user/does-not-exist"},
        "unknown-revision": {"repo": "user/tiny", "kwargs": {"revision": "does-not-exist"}},
        "no-pipeline": {"repo": "user/no-pipeline"},
        "not-cached": {"repo": "user/does-not-exist", "kwargs": {"local_files_only": True}},
        "network": {"action": "model", "class": "ResUNet2D", "repo": "user/network", "kwargs": {}},
    }
    for name, kind in zip(NETWORKS, ("HybridSTU", "ResUNet2D", "ResUNet1D"), strict=True):
        jobs[name] = {"action": "model", "class": kind, "repo": "user/tiny", "kwargs": {"subfolder": name}}
    jobs["pickled"] = {
        "action": "model",
        "class": "ResUNet2D",
        "repo": "user/pickles",
        "kwargs": {"subfolder": "unet"},
    }
    jobs["another"] = {"action": "model", "class": "ResUNet1D", "repo": "user/network", "kwargs": {}}
    out, cli = str(folder / "cli"), [str(folder / "cube.npy") if word == "CUBE" else word for word in CLI]
    jobs["cli"] = {"action": "cli", "arguments": [*cli, "user/tiny", "-o", out]}
    jobs["cli-sha"] = {"action": "cli", "arguments": [*cli, "user/tiny@v2", "-o", out + "2"]}
    jobs["cli-unknown"] = {"action": "cli", "arguments": [*cli, "user/does-not-exist", "-o", out + "3"]}
    np.save(folder / "cube.npy", tiny_scene()[0])
    jobs = {name: {"action": "load", "save_as": str(folder / f"{name}.npz"), **job} for name, job in jobs.items()}
    return dict(zip(jobs, run_jobs(hub, folder / "home", list(jobs.values())), strict=True))


def assert_same_outputs(folder, first, second):
    a, b = np.load(folder / f"{first}.npz"), np.load(folder / f"{second}.npz")
    assert a.files == b.files
    for name in a.files:
        np.testing.assert_allclose(a[name], b[name], atol=1e-4, err_msg=name)


def test_push(hub):
    assert hub.push_report[0] == {"class": "SemiBlindUnmixingPipeline"}
    files = hub.files("user/tiny")
    assert {"model_index.json", "README.md", "scheduler/scheduler_config.json"} <= set(files)
    assert {f"{name}/{WEIGHTS}" for name in NETWORKS} <= set(files)
    assert not [path for path in files if path.endswith((".bin", ".pkl", ".pt", ".py"))]


def test_push_of_a_variant(hub):
    """Half the bytes per weight, beside the weights that are there already."""
    files = hub.files("user/tiny")
    for name in NETWORKS:
        full, half = (safetensors.torch.load(files[f"{name}/{file}"]) for file in (WEIGHTS, HALF))
        assert full.keys() == half.keys()
        for key, value in full.items():
            assert value.dtype == torch.float32 and half[key].dtype == torch.float16
            assert torch.equal(value.half(), half[key])
    assert "user/too-large" not in hub.branches and "beyond its range" in hub.push_report[9]["error"]
    assert "user/unsafe" not in hub.branches and "safe_serialization" in hub.push_report[8]["error"]


def test_the_card_is_ours(hub):
    cards = {name: hub.files(f"user/{name}")["README.md"].decode() for name in hub.pushed_cards}
    assert not [name for name, card in cards.items() if "automatically generated" in card]
    assert not [name for name, card in cards.items() if metadata_errors(card)]
    folder = Path(bundled_checkpoint("base"))
    for name in ("base", "by-command"):  # measured, with its pictures
        assert cards[name] == (folder / "README.md").read_text() and "model-index:" in cards[name]
        pictures = {path.name: path.read_bytes() for path in folder.glob("*.png")}
        assert pictures and {path: hub.files(f"user/{name}").get(path) for path in pictures} == pictures
    for name in ("tiny", "saved", "replaced"):  # of other weights: nothing measured
        assert f'from_pretrained("user/{name}")' in cards[name] and MARK in cards[name]
        assert "model-index:" not in cards[name] and "RMSE" not in cards[name]
    assert "ResUNet2D.from_pretrained" in cards["network"]
    assert cards["own"] == "# my own words\n" and cards["kept"] == "# written by a person\n"


@pytest.mark.parametrize("name", ["main", "cached", "elsewhere", "code", "both", "private", "base-class", "saved"])
def test_load_gives_the_outputs_of_the_pushed_pipeline(folder, loaded, name):
    assert loaded[name] == {"class": "SemiBlindUnmixingPipeline"}
    assert_same_outputs(folder, "pushed", name)


def test_revision_and_variant(folder, loaded):
    for name in ("v2", "sha", "variant"):
        assert loaded[name] == {"class": "SemiBlindUnmixingPipeline"}
        assert_same_outputs(folder, "v2", name)
    first, second = np.load(folder / "pushed.npz"), np.load(folder / "v2.npz")
    assert not np.allclose(first["abundances"], second["abundances"], atol=1e-4)


def test_half_precision(loaded, folder):
    """Only the half-precision files are downloaded; the outputs differ as much as the rounding of the weights says."""
    assert loaded["half"] == {"class": "SemiBlindUnmixingPipeline"}
    cached = {path.name for path in (folder / "half").rglob("snapshots/*/**/*.safetensors")}
    assert cached == {HALF}
    full, half = np.load(folder / "pushed.npz"), np.load(folder / "half.npz")
    np.testing.assert_allclose(full["abundances"], half["abundances"], atol=0.02)
    assert not np.array_equal(full["abundances"], half["abundances"])
    assert "OSError" in loaded["no-variant"]["kinds"] and "has no weights of" in loaded["no-variant"]["error"]


def test_single_networks(loaded):
    assert [loaded[name] for name in NETWORKS] == [{"class": c} for c in ("HybridSTU", "ResUNet2D", "ResUNet1D")]
    assert loaded["network"] == {"class": "ResUNet2D"}
    assert "error" in loaded["pickled"]
    assert "expected shape" in loaded["another"]["error"]  # weights of another network


def test_command_line(loaded, folder):
    assert [loaded[name]["exit code"] for name in ("cli", "cli-sha", "cli-unknown")] == [0, 0, 2]
    first, second = (np.load(folder / name / "results.npz")["abundances"] for name in ("cli", "cli2"))
    assert first.shape == (8, 8, 3) and not np.allclose(first, second, atol=1e-4)  # v2 has other weights
    assert "user/does-not-exist" in loaded["cli-unknown"]["stderr"]
    assert loaded["cli-unknown"]["stderr"].count("\n") == 1


def test_only_json_and_safetensors_are_downloaded(hub, loaded, folder):
    assert {Path(path).suffix for path in hub.downloaded()} <= {".json", ".safetensors"}
    cached = {p.suffix for p in (folder / "home").rglob("snapshots/*/**/*") if p.is_file()}
    assert cached == {".json", ".safetensors"}


def test_no_foreign_code_runs(loaded, folder):
    assert not (folder / "ran").exists() and not (folder / "unpickled").exists()
    assert "error" in loaded["pickles"] and "safetensors" in loaded["pickles"]["error"]


@pytest.mark.parametrize("name", ["unknown", "unknown-revision", "no-pipeline", "private-no-token", "not-cached"])
def test_errors_are_clear(hub, loaded, name):
    """Each is an OSError or ValueError that names the repository, not a traceback from inside a library."""
    repo = {"unknown": "does-not-exist", "not-cached": "does-not-exist"}.get(name, name.replace("-no-token", ""))
    repo = "user/tiny" if name == "unknown-revision" else repo
    report = loaded[name]
    assert {"OSError", "ValueError"} & set(report["kinds"])
    assert repo in report["error"]
    if name == "unknown-revision":
        assert "revision" in report["error"].lower() and "does-not-exist" in report["error"]


def test_offline(hub, loaded, folder):
    """After one load, everything works without a Hub; what was never loaded says so."""
    before = len(hub.requests)
    jobs = [
        {"action": "load", "repo": "user/tiny", "save_as": str(folder / "offline.npz")},
        {"action": "load", "repo": "user/does-not-exist"},
    ]
    reports = run_jobs(hub, folder / "home", jobs, HF_HUB_OFFLINE="1")
    assert reports[0] == {"class": "SemiBlindUnmixingPipeline"}
    assert_same_outputs(folder, "pushed", "offline")
    assert "OSError" in reports[1]["kinds"] and "user/does-not-exist" in reports[1]["error"]
    assert len(hub.requests) == before


def test_without_a_network(hub, loaded, folder):
    """The same where nobody answers, and nobody has said that there is no network."""
    with LoopbackHub() as gone:
        pass  # its port is free again
    cli = ["unmix", str(folder / "cube.npy"), "-r", "3", "-q", "-o", str(folder / "gone"), "--checkpoint"]
    jobs = [
        {"action": "load", "repo": "user/tiny", "save_as": str(folder / "unplugged.npz")},
        {"action": "cli", "arguments": [*cli, "user/does-not-exist"]},
        {"action": "cli", "arguments": ["push", str(folder / "other"), "user/new", "-q"]},
    ]
    used, unmix, push = run_jobs(gone, folder / "home", jobs)
    assert used == {"class": "SemiBlindUnmixingPipeline"}
    assert_same_outputs(folder, "pushed", "unplugged")
    assert unmix["exit code"] == push["exit code"] == 2
    assert "user/does-not-exist" in unmix["stderr"] and "the Hub can't be reached" in unmix["stderr"]
    assert "user/new" in push["stderr"] and "the Hub can't be reached" in push["stderr"]
    assert not (folder / "gone").exists() or not list((folder / "gone").iterdir())
