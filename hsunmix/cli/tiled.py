"""`hsunmix unmix` of a scene in tiles: plan, settings of the run, progress, results."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsunmix import bundled_checkpoint

from .common import bundled_checkpoints, say, versions
from .known import name_endmembers
from .options import DEFAULT_OVERLAP, SETTINGS
from .processes import Ranks, in_group
from .progress import progress
from .results import SPECTRA, SceneMaps, extent, publish, report, summarize, write_results

if TYPE_CHECKING:
    from hsunmix.data import Cube, SpectralLibrary
    from hsunmix.tiling import TiledUnmixing, TilePlan, TileStore

WORK_FOLDER = ".hsunmix-unfinished"
_PROBABLE_ENDMEMBERS = 8  # to plan the memory, where their number is estimated later


def work_folder(args: argparse.Namespace) -> TileStore:
    """Where finished tiles of this result are kept."""
    from hsunmix.tiling import TileStore

    return TileStore(args.output / WORK_FOLDER)


def _count_endmembers(args: argparse.Namespace, known: dict[str, SpectralLibrary]) -> int:
    """Their number, or one that is probably not exceeded, to plan the memory with."""
    given = [len(library) for key, library in known.items() if key != "library"]
    return args.num_endmembers or max([_PROBABLE_ENDMEMBERS, *given])


def plan_scene(
    args: argparse.Namespace, cube: Cube, known: dict[str, SpectralLibrary], processes: int
) -> TilePlan | None:
    """The tiles of a scene; None where it is small enough to be unmixed at once.

    Raises:
        ValueError: a tile or an overlap that makes no sense, or too little memory.
    """
    from hsunmix.tiling import fits_at_once, parse_size, plan_tiles, tile_size

    height, width, _ = cube.shape
    count = _count_endmembers(args, known)
    try:
        memory = parse_size(args.memory)
    except ValueError as error:
        raise ValueError(f"--memory: {error}") from error
    earlier = work_folder(args).settings() if args.resume else None
    size, overlap = args.tile, args.overlap
    if earlier is not None:  # the tiles of a run that is continued are those that it began with
        size, overlap = size or earlier["tile"], earlier["overlap"] if overlap is None else overlap
    if size is None:
        if processes == 1 and fits_at_once(memory, cube.shape, count):
            return None
        try:
            size = tile_size(memory, cube.shape, count, processes)
        except ValueError as error:
            raise ValueError(f"--memory {args.memory}: {error}") from error
    try:
        return plan_tiles(height, width, size, min(DEFAULT_OVERLAP, size // 2) if overlap is None else overlap)
    except ValueError as error:
        raise ValueError(f"--tile {size} --overlap {overlap}: {error}") from error


def settings_of(
    args: argparse.Namespace, cube: Cube, known: dict[str, SpectralLibrary], plan: TilePlan, device: str
) -> dict[str, Any]:
    """Everything that the result depends on; a run is only continued with the same."""
    from hsunmix.tiling import parse_size, sample_pixels

    earlier = work_folder(args).settings() if args.resume else None
    sample = sample_pixels(parse_size(args.memory), cube.num_bands, _count_endmembers(args, known))
    file = cube.path or args.cube
    stat = file.stat()
    settings: dict[str, Any] = {key: getattr(args, key) for key in SETTINGS}
    for key in ("endmembers", "fixed_endmembers", "library", "wavelengths"):
        if settings[key] is not None:
            settings[f"{key}_content"] = hashlib.sha256(settings[key].read_bytes()).hexdigest()[:16]
    checkpoint = Path(args.checkpoint)
    if args.checkpoint in bundled_checkpoints():
        checkpoint = Path(bundled_checkpoint(args.checkpoint))
    weights = sorted(checkpoint.glob("*/*.safetensors"))
    settings |= {
        "cube": str(file.resolve()),
        "cube_size": stat.st_size,
        "cube_time": stat.st_mtime_ns,
        "shape": list(cube.shape),
        "checkpoint_files": [[str(path.relative_to(checkpoint)), path.stat().st_size] for path in weights],
        "tile": plan.size,
        "overlap": plan.overlap,
        "sample": earlier["sample"] if earlier else sample,
        "device": device.split(":")[0],
        "versions": {key: value for key, value in versions().items() if key in ("hsunmix", "torch")},
    }
    return json.loads(json.dumps(settings, default=str))


def run_tiled(
    args: argparse.Namespace,
    cube: Cube,
    known: dict[str, SpectralLibrary],
    plan: TilePlan,
    ranks: Ranks,
    load: Callable[[], Any],
    lap: Callable[[str], None],
    laps: dict[str, float],
) -> int:
    """Estimate, unmix the tiles of this process, wait for the others, write.

    Args:
        args: of the command line.
        cube: the scene, not read.
        known: spectra that the user gives.
        plan: the tiles.
        ranks: this process among those that share the work.
        load: loads the pipeline.
        lap: ends a stage of the clock.
        laps: seconds by stage.

    Returns:
        Exit code.
    """
    from hsunmix.tiling import TiledUnmixing

    store = work_folder(args)
    settings = settings_of(args, cube, known, plan, ranks.device)
    if ranks.is_main:
        store.begin(settings, args.resume)
        if not args.quiet:
            used = extent(cube.shape, int((~cube.band_mask).sum()))
            say(f"{args.cube}: {used}, {len(plan.tiles)} tiles of {plan.size} x {plan.size} pixels")
    ranks.barrier()
    run = TiledUnmixing(load(), cube, plan, store, _options(args, known, ranks.device, settings["sample"]))
    lap("load")
    if ranks.is_main:
        run.estimate_scene()
    ranks.barrier()
    lap("scene")
    finished = store.finished(plan.tiles)
    ranks.barrier()  # all look before one adds to it
    mine = [tile for tile in plan.tiles[ranks.rank :: ranks.count] if tile.index not in finished]
    if ranks.is_main and finished and not args.quiet:
        say(f"continuing: {len(finished)} of {len(plan.tiles)} tiles are finished")
    where = " of this process" if in_group() else ""
    with progress(len(mine), "tile", args.quiet or not ranks.is_main, where) as bar:
        run.run_tiles(mine, bar.update)
    ranks.barrier()
    lap("tiles")
    if ranks.is_main:
        _write(args, cube, known, run, settings, laps, lap, len(finished), ranks.count)
        store.discard()
    ranks.barrier()
    return 0


def _options(args: argparse.Namespace, known: dict[str, SpectralLibrary], device: str, sample: int) -> Any:
    from hsunmix.tiling import UnmixingOptions

    spectra = {key: library.spectra for key, library in known.items()}
    return UnmixingOptions(
        scene={
            "num_endmembers": args.num_endmembers,
            "brightness": args.brightness,
            "reflectance_scale": args.scale,
            "correct_endmembers": not args.no_correction,
            "facets": args.facets,
            **spectra,
        },
        sampler={
            "num_inference_steps": args.steps,
            "strength": args.strength,
            "mixing_model": args.mixing_model,
            "ensemble_size": args.ensemble,
            "output_uncertainty": args.uncertainty or args.ensemble > 1,
        },
        seed=args.seed,
        batch_tiles=1 if device == "cpu" else 4,
        sample=sample,
    )


def _write(
    args: argparse.Namespace,
    cube: Cube,
    known: dict[str, SpectralLibrary],
    run: TiledUnmixing,
    settings: dict[str, Any],
    laps: dict[str, float],
    lap: Callable[[str], None],
    resumed: int,
    num_processes: int,
) -> None:
    from hsunmix.data import write_json
    from hsunmix.pipelines import SceneModel
    from hsunmix.pipelines.quality import classify_quality
    from hsunmix.tiling import peak_memory

    merged, channels = run.merge()
    found, scene = run.scene_result(), SceneModel.load(run.store.scene_path)
    cube = cube.replaced(scale=cube.scale * scene.scale)
    parts = {name: merged[:, :, part] for name, part in channels.items()}
    residual = parts["residual"][:, :, 0]
    maps = SceneMaps(
        abundances=parts["abundances"],
        uncertainty=parts.get("abundance_uncertainty"),
        brightness=parts["brightness"][:, :, 0],
        residual=residual,
        quality=classify_quality(residual, parts["saturated"][:, :, 0] > 0, found.residual_limit),
    )
    spectra = {key: getattr(found, key) for key in SPECTRA}
    names = name_endmembers(spectra, known)
    staging = run.store.folder / "results"
    write_results(staging, cube, maps, spectra, names, args.format, args.ortho)
    summary = summarize(cube, maps, spectra, names, scene)
    about = {"settings": settings, "versions": versions()}
    write_json(staging / "summary.json", summary | about)
    lap("write")
    seconds = {"stages": laps, "tiles": {key: round(value, 3) for key, value in run.seconds.items()}}
    peak = peak_memory()
    timing = {"seconds": seconds, "peak_memory_bytes": peak, "tiles": len(run.plan.tiles), "tiles_resumed": resumed}
    write_json(staging / "timing.json", timing | {"num_processes": num_processes})  # all else is reproducible
    if args.report:
        from hsunmix.visualization import write_report

        write_report(staging, summary, settings, versions(), args.argv)
    publish(staging, args.output)
    if not args.quiet:
        report(args.output, summary | about, sum(laps.values()))
