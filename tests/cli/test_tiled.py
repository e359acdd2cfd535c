"""`hsunmix unmix` in tiles, with a real (tiny) pipeline: results, interruption, several processes."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from hsunmix.cli.main import main
from hsunmix.data import read_cube, read_library, write_cube

from ..pipelines.tiny import tiny_pipeline, tiny_scene

OPTIONS = ["-r", "3", "--steps", "1", "--tile", "32", "--overlap", "8", "-q"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    cube, wavelengths, _ = tiny_scene(height=70, width=60)
    cube[5, 6] = np.nan
    metadata = {"map info": "UTM,1,1,400000,5800000,30,30,33,North,WGS-84,units=Meters".split(",")}
    return write_cube(tmp_path_factory.mktemp("scene") / "scene", cube, wavelengths, metadata=metadata)


@pytest.fixture(scope="module")
def finished(scene, checkpoint, tmp_path_factory):
    """Folder of a run that nothing has interrupted."""
    out = tmp_path_factory.mktemp("finished") / "out"
    assert main(["unmix", str(scene), *OPTIONS, "--report", "--checkpoint", str(checkpoint), "-o", str(out)]) == 0
    return out


def contents(folder):
    """Bytes of all results; `timing.json` says how long it took, `report.html` names the folder."""
    kept = [path for path in sorted(folder.iterdir()) if path.name not in ("timing.json", "report.html")]
    return {path.name: path.read_bytes() for path in kept}


def test_results_of_tiles(finished):
    maps = read_cube(finished / "abundances.hdr")
    assert maps.shape == (70, 60, 3) and np.argwhere(maps.nodata_mask).tolist() == [[5, 6]]
    np.testing.assert_allclose(maps.data[~maps.nodata_mask].sum(axis=1), 1, atol=1e-5)
    assert maps.georeference.crs == "EPSG:32633" and maps.metadata["band names"][0] == "endmember 1"
    assert read_library(finished / "endmembers.hdr").spectra.shape[0] == 3
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["settings"]["tile"] == 32 and summary["quality"]["nodata"] == 1
    assert "seconds" not in summary  # whatever differs from run to run is in timing.json
    timing = json.loads((finished / "timing.json").read_text())
    assert timing["tiles"] == 9 and timing["tiles_resumed"] == 0 and timing["peak_memory_bytes"] > 1e6
    assert {"sample", "scene", "read", "unmix", "store", "merge"} <= set(timing["seconds"]["tiles"])
    assert not [path for path in finished.iterdir() if path.name.startswith(".")]
    assert (finished / "report.html").stat().st_size > 20_000


def test_killed_and_resumed_ends_with_the_same_bytes(scene, checkpoint, finished, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["unmix", str(scene), *OPTIONS, "--checkpoint", str(checkpoint), "-o", str(out)]
    process = subprocess.Popen([sys.executable, "-m", "hsunmix", *command])
    work = out / ".hsunmix-unfinished"
    deadline = time.monotonic() + 240
    while len(list(work.glob("tile_*.npz"))) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = len(list(work.glob("tile_*.npz")))
    assert 2 <= done < 9
    assert [path.name for path in out.iterdir()] == [".hsunmix-unfinished"]  # nothing under a final name
    assert main(command) == 2 and "--resume continues it" in capsys.readouterr().err
    assert main([*command, "--seed", "5", "--resume"]) == 2 and "seed: 0, now 5" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    assert json.loads((out / "timing.json").read_text())["tiles_resumed"] == done
    assert contents(out) == contents(finished) | {}
    assert main([*command, "--resume"]) == 0  # complete: nothing is done again
    assert main(command) == 2


def test_several_processes_give_the_same(scene, checkpoint, finished, tmp_path):
    out = tmp_path / "out"
    command = ["unmix", str(scene), *OPTIONS, "--checkpoint", str(checkpoint), "-o", str(out), "--num-processes", "2"]
    result = subprocess.run(
        [sys.executable, "-m", "hsunmix", *command, "--device", "cpu"],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert result.returncode == 0, result.stderr
    first, second = read_cube(out / "abundances.hdr").data, read_cube(finished / "abundances.hdr").data
    np.testing.assert_allclose(first, second, atol=1e-5)
    np.testing.assert_allclose(
        read_library(out / "endmembers.hdr").spectra, read_library(finished / "endmembers.hdr").spectra, atol=1e-5
    )


def test_a_process_that_fails_ends_all_with_one_message(checkpoint, tmp_path):
    command = ["unmix", "nothing.hdr", *OPTIONS, "--checkpoint", str(checkpoint), "-o", "out", "--num-processes", "2"]
    result = subprocess.run(
        [sys.executable, "-m", "hsunmix", *command], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 2 and "nothing.hdr: no such file" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_small_scene_is_not_tiled(scene, checkpoint, tmp_path):
    out = tmp_path / "out"
    options = ["-r", "3", "--steps", "1", "-q", "--checkpoint", str(checkpoint)]
    assert main(["unmix", str(scene), *options, "-o", str(out)]) == 0
    assert not (out / "timing.json").exists()
    with np.load(out / "results.npz") as archive:
        assert archive["abundances"].shape == (70, 60, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--memory", "many"], "--memory: 'many'"),
        (["--memory", "10M", "--num-processes", "1", "--tile", "0"], "--tile 0"),
        (["--tile", "32", "--overlap", "20"], "--overlap 20"),
        (["--num-processes", "0"], "--num-processes"),
        (["--mask-bands", "all"], "--mask-bands"),
        (["--mask-bands", "0-3000"], "0 of 24 bands left"),
        (["--ortho"], "--ortho"),
        (["--wavelengths", "words.txt"], "--wavelengths"),
    ],
)
def test_options_that_make_no_sense(scene, checkpoint, tmp_path, options, message, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text("red green blue")
    command = ["unmix", str(scene), "-r", "3", "--checkpoint", str(checkpoint), "-o", "out", *options]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
