"""Progress: lines in a log, a bar on a terminal, never a bar in a log."""

import sys

from hsunmix.cli.progress import progress


def test_lines_where_there_is_no_terminal(capsys):
    with progress(200, "tile", quiet=False, where=" of this process") as bar:
        for _ in range(200):
            bar.update(1)
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 10 and lines[0] == "hsunmix: 20 of 200 tiles of this process" and "\r" not in captured.err
    assert captured.out == ""


def test_nothing_when_quiet(capsys):
    with progress(3, "tile", quiet=True) as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress(3, "tile", quiet=False) as bar:
        bar.update(3)
    assert "\r" in capsys.readouterr().err
