"""Validation with the real sampler: a pipeline on simulated scenes of materials and sensors held out of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..evaluation.benchmark import ReferenceScene, Score, run
from ..simulation import SceneSimulator
from .examples import load_libraries


def validation_scenes(library: Sequence[str], count: int, seed: int = 70_001) -> list[ReferenceScene]:
    """Noise-free scenes of 48 x 48 pixels with their truth, from the held-out materials of spectral libraries.

    Abundances are counted per endmember of maximum 1 where brightness varies.

    Args:
        library: files; parametric spectra where none is given.
        count: number of scenes.
        seed: of the first; scene i has seed + i.

    Returns:
        The scenes.
    """
    simulator = SceneSimulator(load_libraries(library, held_out=True) or None, height=48, width=48)
    scenes = []
    for index in range(count):
        generator = torch.Generator().manual_seed(seed + index)
        scene = simulator(generator, snr_db=None, dead_pixels=False, mixing="linear")
        endmembers, abundances = scene.endmembers.double(), scene.abundances.double()
        if (scene.brightness - 1).abs().max() > 1e-4:
            peak = endmembers.amax(1)
            endmembers, abundances = endmembers / peak[:, None], abundances * peak
            abundances = abundances / abundances.sum(-1, keepdim=True)
        cube = scene.cube.double().numpy()
        wavelengths = None if scene.wavelengths is None else scene.wavelengths.numpy()
        largest = cube.max()
        scenes.append(
            ReferenceScene(
                f"held out {index}", cube / largest, endmembers.numpy() / largest, abundances.numpy(), wavelengths
            )
        )
    return scenes


def validate(
    pipe: Any,
    name: str,
    scenes: Sequence[ReferenceScene],
    snr_db: Sequence[float] = (10.0, 20.0, 30.0),
    by_number: bool = False,
    tracks: Sequence[str] = ("given", "perturbed"),
    **settings: Any,
) -> list[dict[str, Any]]:
    """Median errors by track and SNR.

    Args:
        pipe: the pipeline.
        name: what it is called in the table.
        scenes: from `validation_scenes`.
        snr_db: noise levels.
        by_number: one record for each number of endmembers instead of one for all.
        tracks: of the benchmark.
        **settings: further arguments of the pipeline, like `num_inference_steps`.

    Returns:
        One record per track and SNR: medians over the scenes of the abundance RMSE of non-negative least squares, of
        the coarse and of the refined maps, of the spectral angles (radians) of the start and the result, and of the
        share of the abundances in their 90 % intervals; the median gain over least squares with the 95 % interval
        of that median (bootstrap over the scenes).
    """
    pipe.set_progress_bar_config(disable=True)
    number = {scene.name: len(scene.endmembers) if by_number else None for scene in scenes}
    cells: dict[tuple[str, float | None, int | None], list[Score]] = {}
    for score in run(pipe, scenes, tracks, snr_db, seeds=(0,), **settings):
        cells.setdefault((score.track, score.snr_db, number[score.scene]), []).append(score)
    records = []
    for (track, level, rank), cell in cells.items():
        names = ("nnls_rmse", "coarse_rmse", "refined_rmse", "coarse_sad", "refined_sad", "coverage")
        medians: dict[str, Any] = {key: float(np.median([getattr(score, key) for score in cell])) for key in names}
        gains = np.array([_gain(score) for score in cell])
        medians |= {"gain": float(np.median(gains)), "gain_interval": _interval_of_median(gains)}
        record = {"pipeline": name, "track": track, "snr_db": level, "scenes": len(cell), **medians}
        records.append(record | ({"num_endmembers": rank} if by_number else {}))
    return records


def _gain(score: Score) -> float:
    return 1 - score.refined_rmse / score.nnls_rmse


def _interval_of_median(values: np.ndarray, resamples: int = 4000) -> list[float]:
    """95 % interval of the median by bootstrap (Efron 1979)."""
    draws = np.random.default_rng(0).choice(values, (resamples, len(values)))
    return np.quantile(np.median(draws, axis=1), [0.025, 0.975]).tolist()


def as_markdown(records: Sequence[dict[str, Any]]) -> str:
    """The records of `validate` as a table.

    Args:
        records: of one or more pipelines.

    Returns:
        A table in Markdown, with its head.
    """
    columns = ["pipeline", "track", "SNR", "NNLS", "coarse", "refined", "gain over NNLS", "SAD start", "SAD refined"]
    columns += ["in 90 % interval"] + (["R", "scenes"] if "num_endmembers" in records[0] else [])
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for r in records:
        cells = [r["pipeline"], r["track"], f"{r['snr_db']:g} dB"]
        cells += [f"{r[key]:.4f}" for key in ("nnls_rmse", "coarse_rmse", "refined_rmse")]
        low, high = r["gain_interval"]
        cells += [f"{r['gain']:.1%} ({100 * low:.0f} to {100 * high:.0f})"]
        cells += [f"{r['coarse_sad']:.3f}", f"{r['refined_sad']:.3f}", f"{r['coverage']:.0%}"]
        if "num_endmembers" in r:
            cells += [str(r["num_endmembers"]), str(r["scenes"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
