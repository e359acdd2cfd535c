"""`python -m hsunmix.cards`: render the cards and the README's tables from the results; `--check` only compares."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..evaluation.benchmark import cells
from ..visualization import plot_sparsification
from ..visualization.report import save_figure
from .released import fill_readme, read_measurements, render


def rendered(root: Path) -> dict[Path, str]:
    """What each file that is made of results should hold.

    Args:
        root: of the source tree.

    Returns:
        Text by path.

    Raises:
        ValueError: results of other weights, or a README without markers.
        OSError: a file is missing.
    """
    files = {}
    for facts in sorted((root / "model_cards").glob("*.json")):
        checkpoint = root / "hsunmix" / "checkpoints" / facts.stem
        beside = f"../{checkpoint.relative_to(root).as_posix()}/"
        files[facts.with_suffix(".md")] = render(facts.parent, checkpoint, beside)
        files[checkpoint / "README.md"] = render(facts.parent, checkpoint)
    found = read_measurements(root / "model_cards" / "results", root / "hsunmix" / "checkpoints" / "base")
    readme = root / "README.md"
    files[readme] = fill_readme(
        readme.read_text(encoding="utf-8"), found, root / "model_cards" / "peers" / "measured.json"
    )
    return files


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 1 where `--check` finds a file that is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m hsunmix.cards", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="source tree (default: this folder)")
    parser.add_argument("--check", action="store_true", help="write nothing, say which files are out of date")
    args = parser.parse_args(argv)
    status = 0
    try:
        files = rendered(args.root)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    for path, text in files.items():
        same = path.is_file() and path.read_text(encoding="utf-8") == text
        if not same and args.check:
            print(f"{path} does not agree with the results: run `python -m hsunmix.cards`", file=sys.stderr)
            status = 1
        elif not same:
            path.write_text(text, encoding="utf-8")
            print(path)
    if not args.check:
        found = read_measurements(
            args.root / "model_cards" / "results", args.root / "hsunmix" / "checkpoints" / "base"
        )
        some = {key: cell for key, cell in cells(found.scenes).items() if key[1] in ("given", "blind")}
        save_figure(plot_sparsification(some), args.root / "docs" / "sparsification.png")
    return status


if __name__ == "__main__":
    sys.exit(main())
