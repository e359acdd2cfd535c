"""`hsunmix app`: the page in the browser."""

from __future__ import annotations

import argparse
from typing import Any

from .common import choose_device, load_pipeline, say

DESCRIPTION = """\
Show a page in the browser: drop a scene on it, see which materials it holds, click a pixel, download the results.
Needs gradio: pip install "hsunmix[demo]".
"""

EXAMPLES = """\
examples:
  hsunmix app
      for yourself, on this machine
  hsunmix app --host 0.0.0.0 --port 8080 --max-pixels 20000 --max-upload 50M
      for others; every visitor's files are removed when the page is closed, or after --keep minutes without a click
"""


def add_parser(commands: Any, **options: Any) -> argparse.ArgumentParser:
    """Add the subcommand to the command's subparsers."""
    from hsunmix.demo.session import Limits

    usual = Limits()
    parser: argparse.ArgumentParser = commands.add_parser(
        "app", help="a page in the browser", description=DESCRIPTION, epilog=EXAMPLES, **options
    )
    parser.set_defaults(run=run)
    where = parser.add_argument_group("where")
    where.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="default: 127.0.0.1, this machine only")
    where.add_argument("--port", metavar="N", type=int, help="default: the first free one from 7860 on")
    where.add_argument("--open", action="store_true", help="open it in this machine's browser")
    method = parser.add_argument_group("method")
    method.add_argument("--checkpoint", metavar="DIR_OR_REPO", default="base", help="default: base")
    method.add_argument("--device", metavar="NAME", default="auto", help="cpu, cuda, mps (default: the fastest)")
    limits = parser.add_argument_group("what a visitor may ask for")
    text = "of a scene (default: %(default)s)"
    limits.add_argument("--max-pixels", metavar="N", type=int, default=usual.pixels, help=f"pixels {text}")
    limits.add_argument("--max-values", metavar="N", type=int, default=usual.values, help=f"pixels times bands {text}")
    limits.add_argument("--max-upload", metavar="SIZE", default="200M", help="of the files (default: %(default)s)")
    limits.add_argument(
        "--max-visitors",
        metavar="N",
        type=int,
        default=usual.visitors,
        help="with a scene open (default: %(default)s)",
    )
    limits.add_argument(
        "--keep", metavar="MINUTES", type=float, default=usual.minutes,
        help="remove what a visitor gave after so long without a click (default: %(default)g)",
    )  # fmt: skip
    return parser


def run(args: argparse.Namespace) -> int:
    """Show the page until interrupted."""
    from hsunmix.data.optional import require

    for module in ("gradio", "rasterio"):
        require(module, "demo", "the page in the browser")
    from hsunmix.demo.app import serve
    from hsunmix.demo.session import Limits
    from hsunmix.demo.unmixing import Unmixer
    from hsunmix.tiling import parse_size

    for option in ("max_pixels", "max_values", "max_visitors", "keep"):
        if not getattr(args, option) > 0:
            raise ValueError(f"--{option.replace('_', '-')} must be positive, got {getattr(args, option)}")
    limits = Limits(args.max_pixels, args.max_values, parse_size(args.max_upload), args.keep, args.max_visitors)
    device = choose_device(args.device)
    pipe = load_pipeline(args.checkpoint, device, quiet=True)
    server = serve(Unmixer(lambda: pipe, args.checkpoint, limits), args.host, args.port, args.open)
    say(f"{server.url} (Ctrl+C stops it)")
    server.wait()
    return 0
