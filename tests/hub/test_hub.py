"""Push to a model Hub and load from it, in fresh processes with an empty cache, against a server on the loopback."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.hub.loopback import LoopbackHub
from tests.pipelines.tiny import tiny_pipeline

ROOT = Path(__file__).parents[2]
WEIGHTS = "diffusion_pytorch_model.safetensors"


def run_jobs(hub, home, jobs, **environment):
    """Do jobs in a fresh process whose only Hub is `hub` and whose only cache is `home`; their reports."""
    inherited = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and not k.startswith("HF_")}
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_TOKEN": hub.token,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        **environment,
    }
    command = [sys.executable, "-m", "tests.hub.client"]
    process = subprocess.run(
        command,
        cwd=ROOT,
        env={**inherited, **settings},
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


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
        jobs = [{"action": "push", "repo": "user/tiny", "save_as": str(folder / "pushed.npz")}]
        hub.push_report = run_jobs(hub, folder / "pusher", jobs)
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
        "model": {"action": "model", "class": "ResUNet2D", "repo": "user/tiny", "kwargs": {"subfolder": "unet"}},
    }
    jobs = {name: {"action": "load", "save_as": str(folder / f"{name}.npz"), **job} for name, job in jobs.items()}
    return dict(zip(jobs, run_jobs(hub, folder / "home", list(jobs.values())), strict=True))


def assert_same_outputs(folder, first, second):
    a, b = np.load(folder / f"{first}.npz"), np.load(folder / f"{second}.npz")
    assert a.files == b.files
    for name in a.files:
        np.testing.assert_allclose(a[name], b[name], atol=1e-4, err_msg=name)


def test_push(hub):
    assert hub.push_report == [{"class": "SemiBlindUnmixingPipeline"}]
    files = hub.files("user/tiny")
    assert {"model_index.json", "README.md", "scheduler/scheduler_config.json"} <= set(files)
    assert {f"{name}/{WEIGHTS}" for name in ("encoder", "unet", "endmember_unet")} <= set(files)
    assert not [path for path in files if path.endswith((".bin", ".pkl", ".pt", ".py"))]


@pytest.mark.parametrize("name", ["main", "cached", "elsewhere", "code", "both", "private"])
def test_load_gives_the_outputs_of_the_pushed_pipeline(folder, loaded, name):
    assert loaded[name] == {"class": "SemiBlindUnmixingPipeline"}
    assert_same_outputs(folder, "pushed", name)


def test_revision_and_variant(folder, loaded):
    for name in ("v2", "sha", "variant"):
        assert loaded[name] == {"class": "SemiBlindUnmixingPipeline"}
        assert_same_outputs(folder, "v2", name)
    first, second = np.load(folder / "pushed.npz"), np.load(folder / "v2.npz")
    assert not np.allclose(first["abundances"], second["abundances"], atol=1e-4)


def test_a_single_model(loaded):
    assert loaded["model"] == {"class": "ResUNet2D"}


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
