"""Training of the network that chooses among candidate endmember sets, on simulated scenes with their truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from tqdm.auto import tqdm

from ..data import write_npz
from ..endmembers.candidates import METHODS, propose
from ..endmembers.scene import prepare_scene
from ..endmembers.selection import NUM_FEATURES, CandidateScorer, describe_candidates, measure_candidates
from ..physics import estimate_noise, spectral_angle
from ..simulation import Scene, SceneSimulator, benchmark_scene
from ..simulation.library import LibrarySpectra

_SAVE_EVERY = 10


def simulated_pools(
    libraries: Sequence[LibrarySpectra], count: int, path: Path, first_seed: int = 0, size: int = 56
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Describe the candidates of simulated scenes and say how far each is from the truth.

    One scene in four follows the recipe of the benchmark (smooth maps, often without pure pixels), where a library
    has the spectra for it; the others are as varied as the simulator makes them. Noise of 10 to 45 dB.

    Args:
        libraries: spectra; built-in parametric ones where there are none.
        count: number of scenes.
        path: `.npz` file that keeps the results; a run that was interrupted goes on from it.
        first_seed: of the first scene; scene i has this + i.
        size: rows and columns of a scene.

    Returns:
        `(features, angles)`: for each scene (C, F) descriptions and (C,) mean spectral angles to the truth, radians.
    """
    simulator = SceneSimulator(libraries or None, height=size, width=size, snr_db=(10.0, 45.0))
    features, angles = _load(path)
    for seed in tqdm(range(first_seed + len(features), first_seed + count), initial=len(features), total=count):
        generator = torch.Generator().manual_seed(seed)
        scene = _scene(simulator, libraries, seed, generator)
        noise_std = estimate_noise(scene.cube.flatten(0, 1))
        valid = torch.ones(scene.cube.shape[:2], dtype=torch.bool)
        points = prepare_scene(scene.cube, len(scene.endmembers), noise_std, valid)
        pool = propose(points, METHODS, generator)
        features.append(describe_candidates(points, pool, measure_candidates(points, pool, generator)))
        spectra = torch.stack([points.subspace.lift(one.points).clamp_min(0) for one in pool])
        angles.append(torch.tensor([mean_angle(one, scene.endmembers.double()) for one in spectra]))
        if len(features) % _SAVE_EVERY == 0 or seed + 1 == first_seed + count:
            lengths = np.array([len(one) for one in angles])
            write_npz(path, features=torch.cat(features).numpy(), angles=torch.cat(angles).numpy(), lengths=lengths)
    return features, angles


def mean_angle(found: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean spectral angle in radians between two sets (R, B), matched one to one."""
    angles = spectral_angle(truth[:, None], found[None]).numpy()
    return float(angles[linear_sum_assignment(angles)].mean())


def fit_scorer(
    features: Sequence[torch.Tensor], angles: Sequence[torch.Tensor], epochs: int = 30, seed: int = 0
) -> CandidateScorer:
    """Train a scorer.

    The loss is the expected logarithm of the angle when a set is drawn with probability `softmax(-score)`, over the
    best in the pool, and a share of the logistic loss over pairs (RankNet: Burges et al., ICML 2005).

    Args:
        features: for each pool (C, F).
        angles: for each pool (C,).
        epochs: passes over the pools.
        seed: of initial weights, order and dropout.

    Returns:
        The scorer.
    """
    torch.manual_seed(seed)
    scorer = CandidateScorer()
    everything = torch.cat(list(features))
    scorer.mean.copy_(everything.mean(0))
    scorer.std.copy_(everything.std(0) + 1e-3)
    optimizer = torch.optim.AdamW(scorer.members.parameters(), lr=3e-3, weight_decay=0.1)
    for _ in range(epochs):
        for batch in torch.randperm(len(features)).split(8):
            loss = torch.stack([_loss(scorer(features[i]), angles[i]) for i in batch.tolist()]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return scorer.eval()


@torch.no_grad()
def regret(scorer: CandidateScorer, features: Sequence[torch.Tensor], angles: Sequence[torch.Tensor]) -> float:
    """Geometric mean over the pools of the angle of the set chosen over that of the best one."""
    ratios = [a[scorer(f).mean(0).argmin()] / a.min() for f, a in zip(features, angles, strict=True)]
    return float(torch.stack(ratios).log().mean().exp())


def cross_validated_regret(
    features: Sequence[torch.Tensor], angles: Sequence[torch.Tensor], folds: int = 5, epochs: int = 30
) -> float:
    """`regret` on pools that the scorer has not seen: geometric mean over the folds."""
    logs = []
    for k in range(folds):
        seen = [i for i in range(len(features)) if i % folds != k]
        scorer = fit_scorer([features[i] for i in seen], [angles[i] for i in seen], epochs)
        held_out = range(k, len(features), folds)
        logs.append(np.log(regret(scorer, [features[i] for i in held_out], [angles[i] for i in held_out])))
    return float(np.exp(np.mean(logs)))


def _loss(scores: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    excess = (angles / angles.min()).log().float()  # [C]
    expected = (torch.softmax(-scores, 1) * excess).sum(1)
    gap = excess[:, None] - excess
    difference = scores[:, :, None] - scores[:, None]  # [M, C, C]
    pairs = torch.nn.functional.softplus(-difference * gap.sign()) * gap.abs().clamp_max(1.0)
    return (expected + 0.3 * pairs.mean((1, 2))).mean()


def _scene(
    simulator: SceneSimulator, libraries: Sequence[LibrarySpectra], seed: int, generator: torch.Generator
) -> Scene:
    if libraries and seed % 4 == 0:
        draw = torch.rand(2, generator=generator)
        library = libraries[seed // 4 % len(libraries)]
        try:
            return benchmark_scene(
                library.spectra,
                None,
                generator,
                ("linear", "variable", "bilinear")[seed // 4 % 3],
                snr_db=float(10 + 30 * draw[0]),
                num_endmembers=int(torch.randint(3, 8, (), generator=generator)),
                max_purity=0.8 if draw[1] < 0.6 else 1.0,
            )
        except ValueError:  # a library with too few spectra of the recipe
            pass
    return simulator(generator, dead_pixels=False)


def _load(path: Path) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    if not path.exists():
        return [], []
    with np.load(path, allow_pickle=False) as archive:
        lengths = archive["lengths"].tolist()
        features, angles = torch.from_numpy(archive["features"]), torch.from_numpy(archive["angles"])
    if features.shape[1] != NUM_FEATURES:
        raise ValueError(f"{path} holds descriptions of {features.shape[1]} numbers, not {NUM_FEATURES}: remove it.")
    return list(features.split(lengths)), list(angles.split(lengths))
