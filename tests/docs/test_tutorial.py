"""The tutorial as a reader runs it; its own assertions hold what it says."""

import os
import re
import subprocess
import sys

from .documents import ROOT

TUTORIAL = ROOT / "docs" / "tutorial.py"


def test_tutorial_runs_and_writes_only_where_it_says(tmp_path):
    environment = os.environ | {"HSUNMIX_TUTORIAL": str(tmp_path / "files"), "PYTHONPATH": str(ROOT)}
    for name in ("files", "elsewhere"):
        (tmp_path / name).mkdir()
    before = sorted(path.name for path in ROOT.iterdir())
    command = [sys.executable, str(TUTORIAL)]
    done = subprocess.run(
        command, cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "| stagewise | perturbed | 30 dB |" in done.stdout
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert sorted(path.name for path in ROOT.iterdir()) == before
    assert (tmp_path / "files" / "blind" / "abundances.png").stat().st_size > 10_000


def test_tutorial_is_a_notebook_that_checks_its_claims():
    """Cells in percent format, each piece of text before its code, and an assertion in nearly every part."""
    text = TUTORIAL.read_text(encoding="utf-8")
    assert text.startswith("# %% [markdown]\n# # ")
    parts = re.split(r"^# ## ", text, flags=re.MULTILINE)[1:]
    titles = [part.splitlines()[0] for part in parts]
    assert len(titles) == 8
    assert [title for title, part in zip(titles[1:], parts[1:]) if "\nassert " not in part] == []
