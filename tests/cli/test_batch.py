"""`hsunmix batch`: many scenes, of which some fail."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hsunmix.cli import batch, processes
from hsunmix.cli.main import main
from hsunmix.data import write_cube, write_library

from ..data.files import make_cube
from .fake import FakePipeline

CENTERS = np.linspace(400, 1000, 7)


@pytest.fixture
def scenes(tmp_path):
    folder = tmp_path / "scenes"
    folder.mkdir()
    write_cube(folder / "a", make_cube(), CENTERS)
    np.save(folder / "b.npy", make_cube(5, 6))
    write_library(folder / "library", np.full((2, 7), 0.5), ["soil", "tree"], CENTERS)
    np.savez(folder / "a_reference.npz", abundances=np.ones((4, 5, 2)))
    (folder / "notes.txt").write_text("hello")
    (folder / "ENMAP01-____L2A-DT1-QL_QUALITY_CLOUD.TIF").write_bytes(b"")
    return folder


@pytest.fixture
def pipeline(monkeypatch):
    fake = FakePipeline()
    monkeypatch.setattr(batch, "load_pipeline", lambda *_, **__: fake)
    return fake


def test_every_scene_of_a_folder(scenes, tmp_path, pipeline, capsys):
    out = tmp_path / "out"
    assert main(["batch", str(scenes), "-r", "2", "--report", "-o", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["a", "b"]
    assert all((out / name / "summary.json").exists() for name in "ab")
    assert [call.num_endmembers for call in pipeline.calls] == [2, 2]
    assert capsys.readouterr().out.count("done, results in") == 2
    report = re.sub("<[^>]*>", "", (out / "a" / "report.html").read_text())
    assert f"hsunmix unmix {scenes / 'a.hdr'} -o {out / 'a'} -r 2 --report" in report


def test_a_scene_that_fails_does_not_stop_the_rest(scenes, tmp_path, pipeline, capsys):
    (scenes / "a.img").write_bytes(b"short")
    out = tmp_path / "out"
    command = ["batch", str(scenes), "-r", "2", "-o", str(out)]
    assert main(command) == 1
    text = capsys.readouterr().out
    assert "truncated" in text and "b.npy: done" in text and "1 of 2 scenes failed" in text
    assert not (out / "a").exists()
    write_cube(scenes / "a", make_cube(), CENTERS)
    assert main([*command, "--resume"]) == 0
    assert len(pipeline.calls) == 2  # b was complete
    text = capsys.readouterr().out
    assert f"a.hdr: done, results in {out / 'a'}\n" in text
    assert f"b.npy: complete already, results in {out / 'b'}\n" in text
    assert main([*command, "-r", "3", "--resume"]) == 1  # complete, but not what is asked for
    text = capsys.readouterr().out
    assert text.count("with --num-endmembers 2, now with --num-endmembers 3") == 2 and "2 of 2 scenes failed" in text
    assert len(pipeline.calls) == 2
    assert json.loads((out / "a" / "summary.json").read_text())["num_endmembers"] == 2


def test_inputs(scenes, tmp_path, pipeline, capsys):
    assert main(["batch", str(tmp_path / "nowhere"), "-o", str(tmp_path / "out")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["batch", str(tmp_path / "empty"), "-o", str(tmp_path / "out")]) == 2
    assert "no scene" in capsys.readouterr().err


def test_names_of_folders_are_distinct(tmp_path):
    paths = [tmp_path / name for name in ("x/a.hdr", "x/a.npy", "y/b.npy", "x/b.npy", "c.nc")]
    assert batch.distinct_names(paths) == ["a.hdr", "a.npy", "y_b.npy", "x_b.npy", "c"]


@pytest.mark.parametrize("how", ["failure", "signal"])
def test_no_process_is_left_behind(tmp_path, how):
    """Where one process fails, or the command is stopped, the others end too."""
    (tmp_path / "hsunmix").mkdir()
    (tmp_path / "hsunmix" / "__init__.py").write_text("")
    wait = "import os, sys, time\nopen(os.environ['RANK'], 'w').write(str(os.getpid()))\n"
    wait += "while not all(map(os.path.exists, '01')): time.sleep(0.05)\n"  # else one may end before the other begins
    ending = "sys.exit(7) if os.environ['RANK'] == '1' else time.sleep(60)\n"
    (tmp_path / "hsunmix" / "__main__.py").write_text(wait + (ending if how == "failure" else "time.sleep(60)\n"))
    source = Path(processes.__file__).read_text()  # run by itself: it imports nothing of the package
    (tmp_path / "parent.py").write_text(source + "\nsys.exit(run_processes([], 2))\n")
    parent = subprocess.Popen([sys.executable, "parent.py"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": "."})
    while not all((tmp_path / rank).exists() and (tmp_path / rank).read_text() for rank in "01"):
        time.sleep(0.05)
    if how == "signal":
        parent.terminate()
    assert parent.wait(60) == (7 if how == "failure" else 143)
    for rank in "01":
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / rank).read_text()), 0)
