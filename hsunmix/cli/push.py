"""`hsunmix push`: a pipeline to the Hugging Face Hub, with its card."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .common import is_repository, load_pipeline, say

DESCRIPTION = """\
Upload a pipeline to the Hugging Face Hub: safetensors and a card, in one commit. Weights that come with the package
bring their measured card; others get one that says what they are, or the one of --card. The token is that of
`hf auth login`, or HF_TOKEN.
"""

EXAMPLES = """\
examples:
  hsunmix push runs/mine/pipeline you/yours
  hsunmix push runs/mine/pipeline you/yours --variant fp16
      weights of half the size, beside those in the repository
  hsunmix push base you/base --private --card my_card.md

afterwards: hsunmix unmix scene.hdr --checkpoint you/yours -o out
"""


def add_parser(commands: Any, **options: Any) -> argparse.ArgumentParser:
    """Add the subcommand to the command's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "push", help="upload a pipeline to the Hub", description=DESCRIPTION, epilog=EXAMPLES, **options
    )
    parser.set_defaults(run=run)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="bundled checkpoint, folder or Hub repository")
    parser.add_argument("repository", metavar="USER/NAME", help="where to; made where it doesn't exist")
    parser.add_argument("--variant", choices=("fp16", "bf16"), help="number format of the weights (default: float32)")
    parser.add_argument("--private", action="store_true", help="nobody else sees a new repository")
    parser.add_argument("--card", metavar="FILE", type=Path, help="README.md of the repository")
    parser.add_argument("--message", metavar="TEXT", help="of the commit")
    parser.add_argument("--create-pr", action="store_true", help="as a pull request")
    return parser


def run(args: argparse.Namespace) -> int:
    """Load, so that only what works is uploaded; upload."""
    if not is_repository(args.repository):
        raise ValueError(f"{args.repository} is no name of a repository: give USER/NAME, with your name on the Hub")
    pipe = load_pipeline(args.checkpoint, "cpu", args.quiet, option="checkpoint")
    address = pipe.push_to_hub(
        args.repository,
        commit_message=args.message,
        private=args.private or None,
        create_pr=args.create_pr,
        variant=args.variant,
        card=args.card,
    )
    say(str(address))
    return 0
