"""How far a command has come: a bar on a terminal, now and then a line in a log."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["progress", "shows_bars"]

_LINES = 10  # at most, where there is no terminal


def shows_bars() -> bool:
    """Whether bars can be drawn; in a log or a pipe they would run into the text."""
    return sys.stderr.isatty()


def progress(total: int, unit: str, quiet: bool, where: str = "") -> Any:
    """Something with `update(n)`, to be used in `with`.

    Args:
        total: what there is to do.
        unit: of it, in singular.
        quiet: show nothing.
        where: is added to the unit, like " of this process".
    """
    if not quiet and not shows_bars():
        return _Lines(total, f"{unit}s{where}")
    from tqdm import tqdm

    return tqdm(total=total, desc=f"{unit}s{where}", unit=unit, disable=quiet, leave=False, smoothing=0.05)


class _Lines:
    def __init__(self, total: int, label: str) -> None:
        self._total, self._label, self._done, self._said = total, label, 0, 0

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, count: int = 1) -> None:
        self._done += count
        share = _LINES * self._done // max(self._total, 1)
        if share > self._said:
            self._said = share
            print(f"hsunmix: {self._done} of {self._total} {self._label}", file=sys.stderr, flush=True)
