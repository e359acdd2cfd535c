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
) -> list[dict[str, Any]]:
    """Median errors by track and SNR.

    Args:
        pipe: the pipeline.
        name: what it is called in the table.
        scenes: from `validation_scenes`.
        snr_db: noise levels.

    Returns:
        One record per track and SNR: medians over the scenes of the abundance RMSE of non-negative least squares, of
        the coarse and of the refined maps, and of the spectral angles (radians) of the start and the result.
    """
    pipe.set_progress_bar_config(disable=True)
    scores = run(pipe, scenes, ("given", "perturbed"), snr_db, seeds=(0,))
    records = []
    for track, level in dict.fromkeys((score.track, score.snr_db) for score in scores):
        cell = [score for score in scores if (score.track, score.snr_db) == (track, level)]
        names = ("nnls_rmse", "coarse_rmse", "refined_rmse", "coarse_sad", "refined_sad")
        medians = {key: float(np.median([getattr(score, key) for score in cell])) for key in names}
        gain = float(np.median([_gain(score) for score in cell]))
        records.append({"pipeline": name, "track": track, "snr_db": level, **medians, "gain": gain})
    return records


def _gain(score: Score) -> float:
    return 1 - score.refined_rmse / score.nnls_rmse


def as_markdown(records: Sequence[dict[str, Any]]) -> str:
    """The records of `validate` as a table."""
    lines = [
        "| pipeline | track | SNR | NNLS | coarse | refined | gain over NNLS | SAD start | SAD refined |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in records:
        lines.append(
            f"| {r['pipeline']} | {r['track']} | {r['snr_db']:g} dB | {r['nnls_rmse']:.4f} | {r['coarse_rmse']:.4f} "
            f"| {r['refined_rmse']:.4f} | {r['gain']:.1%} | {r['coarse_sad']:.3f} | {r['refined_sad']:.3f} |"
        )
    return "\n".join(lines)
