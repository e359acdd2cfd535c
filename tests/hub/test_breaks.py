"""Transfers that break half way, and weights that are not what they should be: a usable state after each."""

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

from tests.hub.jobs import finish_jobs, run_jobs, start_jobs
from tests.hub.loopback import Fault, LoopbackHub
from tests.pipelines.tiny import tiny_pipeline

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("breaks")


@pytest.fixture(scope="module")
def hub(folder):
    """A Hub with a sound pipeline in each repository, and what is wrong with it or with the way to it."""
    pipe = tiny_pipeline()
    pipe.save_pretrained(folder / "sound")
    with LoopbackHub() as hub:
        names = ("killed", "once", "never", "truncated", "forged", "renamed", "incomplete")
        for name in names:
            hub.commit_folder(f"user/{name}", folder / "sound")
        sound = hub.files("user/killed")
        hub.commit("user/truncated", {**sound, UNET: sound[UNET][: len(sound[UNET]) // 2]})
        forged = bytearray(sound[UNET])
        forged[-2] ^= 1
        hub.forged[f"user/forged/{UNET}"] = bytes(forged)
        tensors = safetensors.torch.load(sound[UNET])
        tensors["no_such_weight"] = tensors.pop(sorted(tensors)[0])
        hub.commit("user/renamed", {**sound, UNET: safetensors.torch.save(tensors, {"format": "pt"})})
        without = {path: content for path, content in sound.items() if not path.startswith("scheduler/")}
        hub.commit("user/incomplete", without)
        hub.commit("user/half-sent", {"README.md": b"# as it was\n"})
        hub.faults = [
            Fault("GET", f"user/once/resolve/{hub.branches['user/once']['main']}/{UNET}", 1000, times=1),
            Fault("GET", f"user/never/resolve/{hub.branches['user/never']['main']}/{UNET}", 0),
            Fault("POST", "user/unlucky/commit", 10),
        ]
        yield hub


def kill_when_stalled(hub, process, fault, arrivals=0):
    """Wait until a transfer hangs half way and others have arrived, then kill the process, as a power cut would."""
    try:
        assert fault.stalled.wait(120), "the transfer that was to be interrupted never began"
        patience = time.monotonic() + 120
        while len(hub.lfs_objects) < arrivals and time.monotonic() < patience:
            time.sleep(0.05)
    finally:
        process.kill()
        process.communicate()
        hub.faults.remove(fault)


@pytest.fixture(scope="module")
def interrupted(hub, folder):
    """Kill one process in the middle of a download, and one in the middle of an upload; the upload's requests."""
    down = Fault("GET", f"user/killed/resolve/{hub.branches['user/killed']['main']}/{UNET}", 1000, stall=True)
    hub.faults.append(down)
    process = start_jobs(hub, folder / "home", [{"action": "load", "repo": "user/killed"}])
    kill_when_stalled(hub, process, down)
    up = Fault("PUT", "/lfs-put/", 1000, times=1, stall=True)
    hub.faults.append(up)
    hub.before = dict(hub.branches["user/half-sent"])
    process = start_jobs(hub, folder / "sender", [{"action": "push", "repo": "user/half-sent", "seed": 7}])
    kill_when_stalled(hub, process, up, arrivals=2)  # of three networks
    hub.after = dict(hub.branches["user/half-sent"])
    hub.arrived = set(hub.lfs_objects)
    return hub


@pytest.fixture(scope="module")
def reports(interrupted, folder):
    """What later processes make of it, with the same cache; by name."""
    hub = interrupted
    hub.requests.clear()
    jobs = {
        "partly": {"action": "load", "repo": "user/killed", "kwargs": {"local_files_only": True}},
        "again": {"action": "load", "repo": "user/killed", "save_as": str(folder / "again.npz")},
        "pushed again": {"action": "push", "repo": "user/half-sent", "seed": 7},
        "unlucky": {"action": "push", "repo": "user/unlucky", "seed": 7},
        "nothing there": {"action": "load", "repo": "user/unlucky"},
        "once": {"action": "load", "repo": "user/once", "save_as": str(folder / "once.npz")},
    }
    for name in ("never", "truncated", "forged", "renamed", "incomplete"):
        jobs[name] = {"action": "load", "repo": f"user/{name}"}
    jobs["forged network"] = {
        "action": "model",
        "class": "ResUNet2D",
        "repo": "user/forged",
        "kwargs": {"subfolder": "unet"},
    }
    found = dict(zip(jobs, finish_jobs(start_jobs(hub, folder / "home", list(jobs.values()))), strict=True))
    hub.seen = list(hub.requests)
    hub.faults.clear()
    hub.forged.clear()
    later = [
        {"action": "load", "repo": "user/never", "save_as": str(folder / "never.npz")},
        {"action": "load", "repo": "user/forged", "kwargs": {"force_download": True}},
        {"action": "push", "repo": "user/unlucky", "seed": 7},
        {"action": "load", "repo": "user/unlucky"},
    ]
    names = ("never, later", "forged, later", "unlucky, later", "loaded, later")
    return found | dict(zip(names, run_jobs(hub, folder / "home", later), strict=True))


FINE = {"class": "SemiBlindUnmixingPipeline"}


def refusal(report):
    assert "OSError" in report["kinds"], report
    return report["error"]


def test_interrupted_download(reports, folder):
    """Offline it says what is the matter; with a connection the rest is fetched."""
    message = refusal(reports["partly"])
    assert "user/killed" in message and "only partly in the cache" in message and "with a connection" in message
    assert reports["again"] == FINE


def test_a_connection_that_breaks_once_is_taken_up_again(reports, hub, folder):
    assert reports["once"] == FINE
    a, b = np.load(folder / "again.npz"), np.load(folder / "once.npz")
    np.testing.assert_allclose(a["abundances"], b["abundances"], atol=1e-4)
    assert (
        len(
            [
                path
                for method, path in hub.seen
                if method == "GET" and "user/once" in path and path.endswith("/" + UNET)
            ]
        )
        == 2
    )


def test_a_connection_that_keeps_breaking(reports, folder):
    message = refusal(reports["never"])
    assert "user/never" in message and "broke off" in message and "Load it again" in message
    assert reports["never, later"] == FINE
    a, b = np.load(folder / "again.npz"), np.load(folder / "never.npz")
    np.testing.assert_allclose(a["abundances"], b["abundances"], atol=1e-4)


def test_interrupted_upload(interrupted, reports):
    """The repository is as it was; the next push sends only what did not arrive, and all of it is there."""
    hub = interrupted
    assert hub.before == hub.after and len(hub.arrived) == 2
    assert reports["pushed again"] == FINE
    sent_again = {path.rsplit("/", 1)[1] for method, path in hub.seen if method == "PUT"}
    assert sent_again and not sent_again & hub.arrived
    files = hub.files("user/half-sent")
    assert {path.split("/")[0] for path in files if path.endswith(".safetensors")} == {
        "encoder",
        "unet",
        "endmember_unet",
    }


def test_an_upload_whose_commit_fails(reports, hub):
    message = refusal(reports["unlucky"])
    assert "user/unlucky" in message and "broke off" in message and "push again" in message
    assert "user/unlucky holds no model_index.json" in refusal(reports["nothing there"])
    assert reports["unlucky, later"] == FINE and reports["loaded, later"] == FINE


def test_truncated_weights(reports):
    message = refusal(reports["truncated"])
    assert "unet" in message and "truncated or damaged" in message


@pytest.mark.parametrize("name", ["forged", "forged network"])
def test_weights_that_are_not_those_of_the_checksum(reports, hub, name):
    """One bit differs: nothing else would notice it."""
    message = refusal(reports[name])
    assert "tampered" in message and "force_download=True" in message
    assert hashlib.sha256(hub.files("user/forged")[UNET]).hexdigest() in message
    assert reports["forged, later"] == FINE


def test_weights_of_other_names(reports):
    """diffusers would go on with random numbers in their place."""
    assert "lacks weights of ResUNet2D" in refusal(reports["renamed"])


def test_a_part_is_missing(reports):
    assert "has no configuration of `scheduler`" in refusal(reports["incomplete"])


def test_local_folders_are_checked_too(folder, tmp_path):
    from hsunmix import SemiBlindUnmixingPipeline

    tiny_pipeline().save_pretrained(tmp_path)
    path = Path(tmp_path, UNET)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(OSError, match="truncated or damaged"):
        SemiBlindUnmixingPipeline.from_pretrained(tmp_path)
