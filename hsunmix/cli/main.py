"""The command `hsunmix`: reads the command line, runs a subcommand, turns errors into one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from hsunmix import __version__

from . import adapt, app, batch, benchmark, demo, info, push, simulate, train, unmix
from .common import no_empty_folder
from .messages import option_names, plain, set_up_messages

__all__ = ["build_parser", "main"]

EXAMPLES = """\
examples:
  hsunmix demo                                     see it work on a simulated scene
  hsunmix unmix scene.hdr -r 4 -o out              four unknown materials
  hsunmix unmix scene.hdr --library usgs.hdr -o out    materials from a spectral library
  hsunmix batch folder -r 5 -o out                 every scene of a folder
  hsunmix info scene.hdr                           what a file holds
  hsunmix app                                      a page in the browser

`hsunmix COMMAND --help` explains each command.
"""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all other errors of the command."""

    def error(self, message: str) -> NoReturn:
        """Print the message and where to read more; exit code 2."""
        self.exit(2, f"hsunmix: error: {message} (see `{self.prog} --help`)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command; each subcommand sets `run`."""
    parser = Parser(
        prog="hsunmix",
        description="Unmix hyperspectral images: which materials does each pixel hold, and how much of each?",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hsunmix {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for module in (unmix, batch, demo, simulate, benchmark, train, adapt, push, info, app):
        command = module.add_parser(commands, formatter_class=argparse.RawDescriptionHelpFormatter)
        group = command.add_argument_group("messages")
        group.add_argument("-q", "--quiet", action="store_true", help="no progress bars, no summary")
        group.add_argument("-v", "--verbose", action="store_true", help="say what is being done")
        group.add_argument("--debug", action="store_true", help="show the traceback of an error")
        command.set_defaults(option_names=option_names(command))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments without the program's name; None = those of the process.

    Returns:
        0; 2 for bad usage or input; 1 for a failure that is not the user's; 130 when interrupted.
    """
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed help, version or an error
        return stop.code if isinstance(stop.code, int) else 0
    args.argv = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # beside other work, threads that wait awake halve the speed
    set_up_messages(args)
    try:
        with no_empty_folder(getattr(args, "output", None)):
            return int(args.run(args) or 0)
    except KeyboardInterrupt:
        _error("interrupted")
        return 130
    except BrokenPipeError:  # `hsunmix info ... | head`
        sys.stderr.close()
        return 0
    except (ValueError, OSError, ImportError) as error:
        if args.debug:
            raise
        _error(plain(error, args))
        return 2
    except Exception as error:
        if args.debug:
            raise
        _error(
            f"{type(error).__name__}: {error}; this is a bug, or a machine without enough memory (--debug shows where)"
        )
        return 1


def _error(message: str) -> None:
    print(f"hsunmix: error: {' '.join(message.split())}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
