"""Training of the networks that rank and weigh candidate endmember sets, on simulated scenes with their truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from ..data import write_npz
from ..endmembers import match_endmembers
from ..endmembers.blending import NUM_PROPOSAL_FEATURES, Proposals, gather_proposals, proposal_weights
from ..endmembers.candidates import METHODS, Candidate, propose
from ..endmembers.networks import SmallNetworks
from ..endmembers.scene import prepare_scene
from ..endmembers.selection import (
    NUM_FEATURES,
    Ranking,
    combined_scores,
    describe_candidates,
    measure_candidates,
    rule_scores,
)
from ..endmembers.subspace import SignalSubspace
from ..physics import estimate_noise, spectral_angle, unit_rows
from ..simulation import Scene, SceneSimulator, benchmark_scene
from ..simulation.draws import Draws
from ..simulation.fields import random_curves
from ..simulation.library import LibrarySpectra

_LEAST_ERROR = 0.01  # of angles (radians) and abundances: below, relative gains count less
_LONGEST_STEP = 10.0  # of a gradient: a few scenes have endmembers that are nearly dependent
_LEAST_SQUARE = 1e-10  # of errors: the root has no slope at 0, which scenes of pure pixels reach
_RIDGE = 1e-5  # of spectra of unit norm, where errors make them depend on each other
_PIXELS = 250  # of a scene, whose abundances are kept
_SNR_DB = ((10.0, 45.0), (45.0, 90.0))


@dataclass(frozen=True)
class SimulatedPool:
    """The candidates of one simulated scene (C sets of R endmembers, K coordinates, B bands), and its truth.

    Attributes:
        descriptions: (C, F) from `describe_candidates`.
        rule: (2, C) from `rule_scores`.
        points: (C, R, K) the candidates.
        methods: (C,) positions in `METHODS`.
        basis: (K, B) of the signal subspace.
        noise_std: (B,) of the signal subspace.
        kind: (3,) `ScenePoints.kind`.
        endmembers: (R, B) the truth.
        abundances: (P, R) of some of the pixels, the truth.
    """

    descriptions: torch.Tensor
    rule: torch.Tensor
    points: torch.Tensor
    methods: torch.Tensor
    basis: torch.Tensor
    noise_std: torch.Tensor
    kind: torch.Tensor
    endmembers: torch.Tensor
    abundances: torch.Tensor

    @property
    def candidates(self) -> list[Candidate]:
        """The C candidates."""
        return [Candidate(one, METHODS[k]) for one, k in zip(self.points, self.methods.tolist(), strict=True)]

    @property
    def angles(self) -> torch.Tensor:
        """(C,) mean spectral angle of each candidate to the truth, radians."""
        spectra = SignalSubspace(self.basis, self.noise_std).lift(self.points).clamp_min(0)
        order = [match_endmembers(self.endmembers, one) for one in spectra]
        return torch.stack(
            [spectral_angle(self.endmembers, one[k]).mean() for one, k in zip(spectra, order, strict=True)]
        )

    def proposals(self, scorer: SmallNetworks, approximate: torch.Tensor | None = None) -> Proposals:
        """What the pipeline would weigh, with a given scorer, and with (k, B) approximate spectra or none."""
        scores = combined_scores(self.descriptions, self.rule, scorer)
        ranking = Ranking(scores.argsort(stable=True).tolist(), scores, self.descriptions)
        subspace = SignalSubspace(self.basis, self.noise_std)
        return gather_proposals(subspace, self.kind, self.candidates, ranking, approximate)

    def save(self, path: Path) -> None:
        """Write a `.npz` file."""
        write_npz(path, **{field.name: getattr(self, field.name).numpy() for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> SimulatedPool:
        """Read what `save` has written.

        Raises:
            ValueError: if something is missing, or of another kind than in this version.
        """
        with np.load(path, allow_pickle=False) as archive:
            missing = sorted({field.name for field in fields(cls)} - set(archive.files))
            if missing:
                raise ValueError(f"{path} lacks {', '.join(missing)}: remove it.")
            pool = cls(**{field.name: torch.from_numpy(archive[field.name]) for field in fields(cls)})
        if pool.descriptions.shape[1] != NUM_FEATURES:
            raise ValueError(
                f"{path} holds descriptions of {pool.descriptions.shape[1]} numbers, not {NUM_FEATURES}: remove it."
            )
        if pool.rule.ndim != 2:
            raise ValueError(f"{path} holds one score of the rule for each set, not two: remove it.")
        return pool


def simulated_pools(
    libraries: Sequence[LibrarySpectra], count: int, folder: Path, first_seed: int = 0, size: int = 56
) -> list[SimulatedPool]:
    """Extract the candidates of simulated scenes.

    One scene in four follows the recipe of the benchmark (smooth maps, often without pure pixels), where a library
    has the spectra for it; the others are as varied as the simulator makes them. Noise of 10 to 45 dB, in one of ten
    scenes of 45 to 90 dB.

    Args:
        libraries: spectra; built-in parametric ones where there are none.
        count: number of scenes.
        folder: keeps the results, a file for each scene; what is there is not made again.
        first_seed: of the first scene; scene i has this + i.
        size: rows and columns of a scene.

    Returns:
        The pools.
    """
    simulators = [SceneSimulator(libraries or None, height=size, width=size, snr_db=span) for span in _SNR_DB]
    folder.mkdir(parents=True, exist_ok=True)
    pools = []
    for seed in tqdm(range(first_seed, first_seed + count), desc="candidates"):
        path = folder / f"{seed:07d}.npz"
        if not path.exists():
            generator = torch.Generator().manual_seed(seed)
            _extract(_scene(simulators[seed % 10 == 9], libraries, seed, generator), generator).save(path)
        pools.append(SimulatedPool.load(path))
    return pools


def _extract(scene: Scene, generator: torch.Generator) -> SimulatedPool:
    noise_std = estimate_noise(scene.cube.flatten(0, 1))
    valid = torch.ones(scene.cube.shape[:2], dtype=torch.bool)
    points = prepare_scene(scene.cube, len(scene.endmembers), noise_std, valid)
    pool = propose(points, METHODS, generator)
    measures = measure_candidates(points, pool, generator)
    return SimulatedPool(
        descriptions=describe_candidates(points, pool, measures),
        rule=rule_scores(points, pool, measures),
        points=torch.stack([one.points for one in pool]),
        methods=torch.tensor([METHODS.index(one.method) for one in pool]),
        basis=points.subspace.basis,
        noise_std=points.subspace.noise_std,
        kind=points.kind,
        endmembers=scene.endmembers.double(),
        abundances=scene.abundances.double().flatten(0, 1)[:: max(1, scene.abundances[..., 0].numel() // _PIXELS)],
    )


def fit_scorer(pools: Sequence[SimulatedPool], epochs: int = 30, seed: int = 0) -> SmallNetworks:
    """Train the network that ranks candidates.

    The loss is the expected logarithm of the angle when a set is drawn with probability `softmax(-score)`, over the
    best in the pool, and a share of the logistic loss over pairs (RankNet: Burges et al., ICML 2005).

    Args:
        pools: of simulated scenes.
        epochs: passes over the pools.
        seed: of initial weights, order and dropout.

    Returns:
        The scorer.
    """
    torch.manual_seed(seed)
    features, angles = [pool.descriptions for pool in pools], [pool.angles for pool in pools]
    scorer = SmallNetworks(NUM_FEATURES)
    _standardise(scorer, torch.cat(features), 1e-3)
    optimizer = torch.optim.AdamW(scorer.members.parameters(), lr=3e-3, weight_decay=0.1)
    for _ in range(epochs):
        for batch in torch.randperm(len(features)).split(8):
            loss = torch.stack([_ranking_loss(scorer(features[i]), angles[i]) for i in batch.tolist()]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return scorer.eval()


@torch.no_grad()
def regret(scorer: SmallNetworks, pools: Sequence[SimulatedPool]) -> float:
    """Geometric mean over the pools of the angle of the set chosen over that of the best one."""
    logs = []
    for pool in pools:
        angles = pool.angles
        logs.append((angles[scorer(pool.descriptions).mean(0).argmin()] / angles.min()).log())
    return float(torch.stack(logs).mean().exp())


@dataclass(frozen=True)
class BlendingTask:
    """Proposals for R endmembers of which some were given, and the truth.

    Attributes:
        proposals: for the endmembers.
        truth: (R, B) their spectra, of unit norm.
        abundances: (P, R) of these in some pixels.
        given: number of endmembers given.
        scene: position of the pool that it is made of.
        corrected: smooth errors of the given ones are corrected, as pixels are clear.
    """

    proposals: Proposals
    truth: torch.Tensor
    abundances: torch.Tensor
    given: int
    scene: int
    corrected: bool = False


def blending_tasks(pools: Sequence[SimulatedPool], scorer: SmallNetworks, seed: int = 0) -> list[BlendingTask]:
    """For each pool the blind task, twice that of correcting all endmembers, and once that of correcting some.

    Args:
        pools: of simulated scenes.
        scorer: that ranks the candidates.
        seed: of the errors of the approximate spectra.

    Returns:
        The tasks.
    """
    generator = torch.Generator().manual_seed(seed)
    tasks = []
    for scene, pool in enumerate(tqdm(pools, desc="proposals")):
        rank = len(pool.endmembers)
        for given in (0, rank, rank, int(torch.randint(1, rank, (), generator=generator))):
            order = torch.randperm(rank, generator=generator)
            truth = unit_rows(pool.endmembers)
            proposals = pool.proposals(scorer, misjudged(truth[order[:given]], generator) if given else None)
            rest = match_endmembers(proposals.spectra[1, given:], truth[order[given:]])
            order = torch.cat([order[:given], order[given:][rest]])
            amounts = (pool.abundances * pool.endmembers.norm(dim=1))[:, order]
            shares = amounts / amounts.sum(1, keepdim=True)
            corrected = proposals.corrected is not None
            proposals = replace(proposals, corrected=None)  # large, and of no more use
            tasks.append(BlendingTask(proposals, truth[order].float(), shares.float(), given, scene, corrected))
    return tasks


def misjudged(endmembers: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Endmembers (R, B) turned by smooth curves over the bands: by 1 to 9 degrees, in one scene of seven by less.

    Args:
        endmembers: (R, B) of unit norm.
        generator: source of randomness.

    Returns:
        (R, B), non-negative.
    """
    draws = Draws(generator)
    degrees = draws.scalars.uniform(0, 1) if draws.scalars.random() < 0.15 else draws.scalars.uniform(1, 9)
    count, bands = endmembers.shape
    curves = random_curves(count, torch.linspace(0, 1, bands), draws, draws.scalars.uniform(0.05, 0.3)).to(endmembers)
    level = endmembers if draws.scalars.random() < 0.7 else endmembers.mean(1, keepdim=True)
    curves = curves * level
    curves = unit_rows(curves - (curves * endmembers).sum(1, keepdim=True) * endmembers)
    angle = torch.deg2rad(degrees * (0.3 * draws.normal(count, 1)).exp()).to(endmembers)
    return (angle.cos() * endmembers + angle.sin() * curves).clamp_min(0)


def fit_blender(tasks: Sequence[BlendingTask], epochs: int = 15, seed: int = 0, members: int = 4) -> SmallNetworks:
    """Train the network that weighs proposals: the loss is the logarithms of both errors of the weighted mean.

    Args:
        tasks: from `blending_tasks`.
        epochs: passes over them.
        seed: of initial weights, order and dropout.
        members: number of networks, each trained on its own.

    Returns:
        The blender.
    """
    torch.manual_seed(seed)
    blender = SmallNetworks(NUM_PROPOSAL_FEATURES, members, (48, 48), dropout=0.1)
    _standardise(blender, torch.cat([one.proposals.features[one.proposals.allowed] for one in tasks]), 0.05)
    optimizer = torch.optim.AdamW(blender.members.parameters(), lr=3e-3, weight_decay=0.05)
    steps = epochs * -(-len(tasks) // 16)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for _ in tqdm(range(epochs), desc="blender"):
        for batch in torch.randperm(len(tasks)).split(16):
            losses = [(blending_errors(blender, tasks[i]) + _LEAST_ERROR).log().sum() for i in batch.tolist()]
            loss = torch.stack(losses).mean()
            optimizer.zero_grad()
            loss.backward()
            for member in blender.members:
                torch.nn.utils.clip_grad_norm_(member.parameters(), _LONGEST_STEP, error_if_nonfinite=True)
            optimizer.step()
            schedule.step()
    return blender.eval()


def blending_errors(blender: SmallNetworks, task: BlendingTask) -> torch.Tensor:
    """(2, M) errors of what each of the M members makes of the proposals, as of `_errors`."""
    return _errors(proposal_weights(task.proposals, blender), task)


def _errors(weights: torch.Tensor, task: BlendingTask) -> torch.Tensor:
    """Errors (2, M) of the means by M sets of weights (M, I, R): mean spectral angle, radians; abundance RMSE.

    The latter is what the errors of the spectra do to noise-free pixels: an error towards another endmember is taken
    for a share of that, one in any other direction is not seen. Abundances are counted per endmember of unit norm.
    """
    mean = unit_rows(torch.einsum("mir,irb->mrb", weights, task.proposals.spectra.float()))
    exact = mean.double()
    gram = exact @ exact.transpose(1, 2)
    ridge = _RIDGE * torch.eye(gram.shape[1], dtype=gram.dtype)
    fractions = torch.linalg.solve(gram + ridge, exact @ task.truth.double().T).transpose(1, 2)  # of the true spectra
    fractions = fractions.float()  # [M, R, R]
    found = (task.abundances @ fractions).clamp_min(0)
    found = found / found.sum(2, keepdim=True).clamp_min(1e-6)
    rmse = (found - task.abundances).square().mean((1, 2)).add(_LEAST_SQUARE).sqrt()
    return torch.stack([spectral_angle(mean, task.truth).mean(1), rmse])


@torch.no_grad()
def blending_gain(blender: SmallNetworks, tasks: Sequence[BlendingTask]) -> dict[str, list[list[float]]]:
    """Errors by kind of task (geometric means): of what there was, and of the weighted mean.

    Args:
        blender: the network.
        tasks: from `blending_tasks`.

    Returns:
        By "blind", "some given" and "all given": the mean angle (radians) and the abundance RMSE of the approximate
        spectra (of the candidate that ranks first, where none is given), and of what all members together make of the
        proposals.
    """
    logs: dict[str, list[torch.Tensor]] = {}
    for task in tasks:
        kind = "blind" if task.given == 0 else "all given" if task.given == len(task.truth) else "some given"
        weights = proposal_weights(task.proposals, blender).mean(0)
        first = torch.zeros_like(weights)
        first[0] = 1
        errors = _errors(torch.stack([first, weights]), task)  # [2, 2]
        logs.setdefault(kind, []).append(errors.clamp_min(1e-4).log())
    return {kind: torch.stack(rows).mean(0).exp().T.tolist() for kind, rows in logs.items()}


def _standardise(networks: SmallNetworks, features: torch.Tensor, least: float) -> None:
    networks.mean.copy_(features.mean(0))
    networks.std.copy_(features.std(0) + least)


def _ranking_loss(scores: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
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
