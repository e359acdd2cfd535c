"""`hsunmix batch`: every scene of a folder, one after the other; what fails doesn't stop the rest."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable
from copy import copy
from pathlib import Path
from typing import Any

from .common import choose_device, load_pipeline, no_empty_folder, output_folder, say
from .messages import plain
from .options import add_unmixing_options, load_networks
from .processes import group_rank, own_device, run_processes, starts_group
from .unmix import is_complete, unmix_scene

logger = logging.getLogger(__name__)

DESCRIPTION = """\
Unmix many scenes with the same options. Each gets a folder of its own in DIR, named like its file. A scene that fails
is reported, and the others go on; the same command with --resume does what is left.
"""

EXAMPLES = """\
examples:
  hsunmix batch scenes -r 5 -o out
  hsunmix batch EMIT_*.nc --library usgs.hdr -r 6 --format cog --ortho --report -o out
  hsunmix batch scenes -r 5 -o out --resume --num-processes 4
      four scenes at a time; those that are complete are left as they are
"""

SCENE_SUFFIXES = (".hdr", ".nc", ".he5", ".tif", ".tiff", ".npy", ".npz", ".mat")


def add_parser(commands: Any, **options: Any) -> argparse.ArgumentParser:
    """Add the subcommand to the command's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "batch", help="unmix every scene of a folder", description=DESCRIPTION, epilog=EXAMPLES, **options
    )
    parser.set_defaults(run=run)
    parser.add_argument("inputs", metavar="SCENE", type=Path, nargs="+", help="files, or folders of them")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="folder for the results")
    add_unmixing_options(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Unmix the scenes of this process.

    Returns:
        0, or 1 where a scene failed.
    """
    scenes = find_scenes(args.inputs)
    if starts_group(args.num_processes):
        return run_processes(args.argv, args.num_processes)
    rank, count = group_rank()
    output_folder(args.output, (), overwrite=True)
    device = own_device(choose_device(args.device))
    pipe = load_networks(args, load_pipeline, device, quiet=True)
    folders = dict(zip(scenes, distinct_names(scenes)))
    failed = []
    for scene in scenes[rank::count]:
        worked, text = unmix_one(args, scene, args.output / folders[scene], pipe)
        say(f"{scene}: {text}")
        if not worked:
            failed.append(scene)
    if failed:
        share = f" of process {rank + 1}" if count > 1 else ""
        say(f"{len(failed)} of {len(scenes[rank::count])} scenes{share} failed")
    return 1 if failed else 0


def unmix_one(args: argparse.Namespace, scene: Path, folder: Path, pipe: Any) -> tuple[bool, str]:
    """One scene.

    Returns:
        Whether there is a result, and in one line where it is or what went wrong.
    """
    args.scene = scene  # named in all messages about it
    own = copy(args)
    own.cube, own.output, own.quiet = scene, folder, True
    own.argv = ["unmix", str(scene), "-o", str(folder), *_shared_options(args.argv, args)]
    try:
        if is_complete(own):
            return True, f"complete already, results in {folder}"
        with no_empty_folder(folder):
            unmix_scene(own, pipe, alone=True)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        logger.debug("failed", exc_info=True)
        return False, plain(error, args)
    return True, f"done, results in {folder}"


def _shared_options(argv: list[str], args: argparse.Namespace) -> list[str]:
    """The options of the command line without inputs and output, for the command that a report shows."""
    left_out = {str(path) for path in args.inputs} | {"batch", "-o", "--output", str(args.output)}
    return [item for item in argv if item not in left_out]


def find_scenes(inputs: Iterable[Path]) -> list[Path]:
    """Scenes among files and folders; in a folder whatever looks like a cube, spectral libraries left out.

    Raises:
        FileNotFoundError: an input that doesn't exist.
        ValueError: there is no scene.
    """
    scenes: list[Path] = []
    for path in inputs:
        if path.is_dir():
            scenes += [file for file in sorted(path.iterdir()) if _is_scene(file)]
        elif path.exists():
            scenes.append(path)
        else:
            raise FileNotFoundError(f"{path}: no such file or folder")
    if not scenes:
        raise ValueError(f"{', '.join(map(str, inputs))}: no scene; looked for {', '.join(SCENE_SUFFIXES)}")
    return list(dict.fromkeys(scenes))


def _is_scene(path: Path) -> bool:
    if not path.is_file() or path.suffix.lower() not in SCENE_SUFFIXES or path.name.startswith("."):
        return False
    if path.stem.endswith("_reference"):  # truth of a simulated or benchmark scene
        return False
    if path.suffix.lower() == ".hdr":
        return "envi spectral library" not in path.read_text(encoding="utf-8", errors="replace").lower()
    quality_layer = path.name.upper().startswith("ENMAP") and "SPECTRAL_IMAGE" not in path.name.upper()
    return not quality_layer


def distinct_names(scenes: list[Path]) -> list[str]:
    """One folder name per scene: its file's name without suffix, with it where two would be the same."""
    stems = [scene.stem for scene in scenes]
    names = [scene.stem if stems.count(scene.stem) == 1 else scene.name for scene in scenes]
    return [name if names.count(name) == 1 else f"{scene.parent.name}_{name}" for scene, name in zip(scenes, names)]
