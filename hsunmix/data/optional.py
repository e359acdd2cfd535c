"""Libraries that only some file formats need: imported when such a file is opened, with advice if missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["require"]


def require(module: str, extra: str, purpose: str) -> Any:
    """Import an optional library.

    Args:
        module: its import name.
        extra: the extra of hsunmix that brings it.
        purpose: what needs it, for the message.

    Returns:
        The module.

    Raises:
        ImportError: it is not installed; the message says what to install.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f'{purpose} needs {module}: `pip install "hsunmix[{extra}]"`, in a clone `pip install ".[{extra}]"`'
        ) from error
