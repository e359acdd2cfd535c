"""Peak memory of one run, where the operating system says it (Linux)."""

from __future__ import annotations

from pathlib import Path

_PROCESS = Path("/proc/self")


def forget_peak() -> None:
    """Start measuring anew; nothing where the system can't."""
    try:
        (_PROCESS / "clear_refs").write_text("5")
    except OSError:
        return


def peak_memory() -> float | None:
    """Largest resident memory of this process since `forget_peak`, MB (libraries and data included).

    Returns:
        MB; `None` where the system does not say.
    """
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)
