"""What processes that the package starts must find in their environment."""

from __future__ import annotations

import os
from pathlib import Path


def child_environment(**changes: str) -> dict[str, str]:
    """The environment of this process for a child that runs `python -m hsunmix...`.

    A folder `hsunmix` in the current one, the clone of the repository for instance, would otherwise be taken for the
    package by the child.

    Args:
        **changes: variables that are set or replaced.

    Returns:
        Variables by name.
    """
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **changes}
