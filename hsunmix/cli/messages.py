"""Messages of the library in the words of the command line: its options instead of the arguments of Python."""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import re
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any

__all__ = ["in_options", "option_names", "plain", "set_up_messages"]

# Arguments of the library whose option has another name. All others have theirs: `fixed_endmembers` is
# `--fixed-endmembers`.
_OTHER_NAMES = {
    "num_inference_steps": "steps",
    "ensemble_size": "ensemble",
    "correct_endmembers": "no_correction",
    "reflectance_scale": "scale",
    "output_uncertainty": "uncertainty",
    "libraries": "library",
    "read_library": "library",
}


def option_names(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Options of a command by the argument of the library that they stand for.

    Args:
        parser: of the command.

    Returns:
        Options like "--num-endmembers", by names like "num_endmembers".
    """
    names = {action.dest: action.option_strings[-1] for action in parser._actions if action.option_strings}
    others = {name: names[option] for name, option in _OTHER_NAMES.items() if option in names}
    return others | names | {"cube": "the cube"}


def in_options(text: str, args: argparse.Namespace) -> str:
    """A message of the library for those who use the command line.

    Args:
        text: with arguments as `num_endmembers`.
        args: of the command line.

    Returns:
        The text on one line, with options as --num-endmembers, and a command instead of `cube.transpose(1, 2, 0)`.
    """
    names = args.option_names
    text = re.sub(r"`cube\.transpose(\([\d, ]+\))`", lambda match: _transposing(match[1], args), text)
    text = re.sub(r"`(\w+)`", lambda match: names.get(match[1], match[0]), text)
    return " ".join(text.split())


def plain(error: Exception, args: argparse.Namespace) -> str:
    """What went wrong, without the numbers of the operating system.

    Args:
        error: of the library or of the system.
        args: of the command line.

    Returns:
        One line.
    """
    if isinstance(error, OSError) and error.strerror == os.strerror(errno.ENOSPC) and getattr(args, "output", None):
        # the system says neither which disk nor what became of the results
        return f"the disk of {args.output} is full: no result was written, older ones are as they were"
    if not isinstance(error, OSError) or not error.strerror:
        return in_options(str(error), args) or type(error).__name__
    if error.filename is None:
        return in_options(error.strerror, args)
    path_of_a_file = error.errno in (errno.ENOTDIR, errno.EEXIST)
    why = "a part of this path is a file, not a folder" if path_of_a_file else error.strerror.lower()
    return f"{error.filename} can't be read or written: {why}"


def _transposing(order: str, args: argparse.Namespace) -> str:
    """A command that writes the cube with its axes in order, where numpy reads its file."""
    given = vars(args)
    path = Path(str(given.get("scene") or given.get("cube") or given.get("file")))
    if path.suffix.lower() != ".npy":
        return f"`cube.transpose{order}`"
    source, target = json.dumps(str(path)), json.dumps(f"{path.stem}_turned.npy")
    code = f"import numpy as np; np.save({target}, np.load({source}).transpose{order})"
    return f"`python -c {shlex.quote(code)}`"


class _OneLine(logging.Formatter):
    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__()
        self._args = args

    def format(self, record: logging.LogRecord) -> str:
        text = in_options(record.getMessage(), self._args)
        kind = "warning: " if record.levelno == logging.WARNING else ""
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        scene = getattr(self._args, "scene", None)  # of many
        return f"hsunmix: {kind}{f'{scene}: ' if scene else ''}{text}{trace}"


def set_up_messages(args: argparse.Namespace) -> None:
    """Log records and warnings on the standard error, one line each.

    Args:
        args: of the command line: `verbose`, `debug`, `option_names`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(args))
    logger = logging.getLogger("hsunmix")
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if args.debug else logging.INFO if args.verbose else logging.WARNING)

    def show(message: Any, *_: Any, **__: Any) -> None:
        print(f"hsunmix: warning: {in_options(str(message), args)}", file=sys.stderr)

    if not args.debug:
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.showwarning = show
