"""Which candidate is right, told without a reference.

Two judges. A rule: inside the data's hull, two kinds of fit together rank well, the residual, which bright pixels
rule, and the angle, in which all pixels count alike; outside of it every set fits, and the smallest simplex that the
data allow is the one (discrepancy principle: Morozov, 1966; minimum volume: Craig, IEEE TGRS 1994). And a small
network that weighs many measures, each compared with the other sets of the pool; it was trained on simulated scenes,
where the truth is known (`hsunmix.training.selection`). The network knows more; the rule knows no simulator, and keeps
it from choices that make sense in simulated scenes only. But where all that endmembers can't explain may be noise, a
simplex looks like a cloud about archetypes: there the rule says so only if the network takes archetypes too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from ..physics import normal_equations, solve_nonnegative
from .candidates import METHODS, Candidate
from .networks import SmallNetworks
from .scene import ScenePoints

_PIXELS, _PAIRS = 1500, 500
_RULE_WEIGHT = 1.0  # against the scores of the network, in units of their spread
_OTHER_FAMILY = 3.0  # is added by the rule; the ranks of a set add up to 2 at most
_MEASURES = 24
_RESIDUAL, _ANGLE, _OUTSIDE, _VOLUME, _BELOW_ZERO = 0, 1, 4, 5, 14  # columns of `measure_candidates`
_LEAST_VOLUME = -20.0  # logarithm; that of singular sets
_NOISY = 4.0  # times the noise that smoothing leaves (variance): less model error may be none at all
_LEAST_BELOW_ZERO = 0.02  # share of a spectrum's norm: minimum volume has overshot; simulated scenes stay below 0.011
NUM_FEATURES = 3 * _MEASURES + 4 * len(METHODS) + 4
"""Length of the description of a candidate."""


@lru_cache(maxsize=1)
def bundled_scorer() -> SmallNetworks:
    """The scorer that comes with the package."""
    return SmallNetworks.load(Path(__file__).with_name("scorer.safetensors"))


@dataclass(frozen=True)
class Ranking:
    """What is known of the C candidates of a pool.

    Attributes:
        order: indices into the pool, best first.
        scores: (C,) lower is better.
        descriptions: (C, F) from `describe_candidates`.
    """

    order: list[int]
    scores: torch.Tensor
    descriptions: torch.Tensor


def rank_candidates(scene: ScenePoints, pool: list[Candidate], generator: torch.Generator | None) -> Ranking:
    """Order the pool, best first.

    Args:
        scene: the pixels.
        pool: candidate sets.
        generator: source of randomness (on the CPU).

    Returns:
        The ranking.
    """
    measures = measure_candidates(scene, pool, generator)
    descriptions = describe_candidates(scene, pool, measures)
    scores = combined_scores(descriptions, rule_scores(scene, pool, measures), bundled_scorer())
    return Ranking(scores.argsort(stable=True).tolist(), scores, descriptions)


@torch.no_grad()
def combined_scores(descriptions: torch.Tensor, rule: torch.Tensor, scorer: SmallNetworks) -> torch.Tensor:
    """The opinion of the network, in units of its spread, and that of the rule.

    Args:
        descriptions: (C, F) from `describe_candidates`.
        rule: (2, C) from `rule_scores`.
        scorer: the network.

    Returns:
        (C,) scores, lower is better.
    """
    opinion = scorer(descriptions).mean(0).double()
    suspected, simplex = rule
    agreed = bool(suspected[opinion.argmin()] < _OTHER_FAMILY)
    relative = (opinion - opinion.mean()) / opinion.std(correction=0).clamp_min(1e-9)
    return relative + _RULE_WEIGHT * (suspected if agreed else simplex)


def measure_candidates(scene: ScenePoints, pool: list[Candidate], generator: torch.Generator | None) -> torch.Tensor:
    """Measures (C, 24), float64, of how each set fits, how it is made, and how it lies among the others.

    Args:
        scene: the pixels.
        pool: C candidate sets.
        generator: source of randomness (on the CPU).

    Returns:
        The measures, most of them logarithms.
    """
    subset = torch.randperm(len(scene.norm), generator=generator)[:_PIXELS].to(scene.norm.device)
    rows = torch.stack([_measures(scene, subset, candidate.points) for candidate in pool])
    return torch.cat([rows, _distances(torch.stack([candidate.points for candidate in pool]))], 1).cpu()


def describe_candidates(scene: ScenePoints, pool: list[Candidate], measures: torch.Tensor) -> torch.Tensor:
    """Descriptions (C, F), float32, of the candidates of one pool, for the scorer.

    Every measure three times, since only comparison tells: minus the median of the pool, as rank within the pool, and
    minus its smallest value; then what proposed the set, and what kind of scene it is, alone and together.

    Args:
        scene: the pixels.
        pool: C candidate sets.
        measures: (C, 24) from `measure_candidates`.

    Returns:
        The descriptions.
    """
    ranks = torch.stack([_ranks(column) for column in measures.T], 1)
    method = torch.tensor([[float(one.method == name) for name in METHODS] for one in pool]).to(measures)
    noise, model_error = scene.kind[:2].tolist()
    kind = torch.cat([torch.tensor([float(scene.num_endmembers)]), scene.kind])
    columns = [
        measures - measures.quantile(0.5, dim=0),
        ranks,
        measures - measures.amin(0),
        method,
        kind.to(measures).expand(len(pool), -1),
        method * noise,
        method * model_error,
        method * (model_error - noise),
    ]
    return torch.cat(columns, 1).float()


def rule_scores(scene: ScenePoints, pool: Sequence[Candidate], measures: torch.Tensor) -> torch.Tensor:
    """Scores (2, C) by fit; sets of another family than the one that the scene calls for come last.

    1. Archetypes, where pixels stick out of the simplex of the best of them no further than model error explains: the
       pixels are then a cloud about it, and its extremes are no materials. The second row, for a network that doesn't
       believe this, leaves it out where noise can explain it (not of two endmembers: minimum volume is often wrong
       about the ends of a line).
    2. Else the smallest simplex that holds all pixels up to noise and model error: that of vertex pixels where there
       are pure ones, else minimum volume, as far as its spectra are not negative.
    3. Where all of those are, the pixels are no simplex: archetypes again.

    Args:
        scene: the pixels.
        pool: C candidate sets.
        measures: (C, 24) from `measure_candidates`.

    Returns:
        The scores, lower is better.
    """
    scores = _ranks(measures[:, _RESIDUAL]) + _ranks(measures[:, _ANGLE])
    inner = [k for k, candidate in enumerate(pool) if candidate.method == "archetypes"]
    vertex = [k for k, candidate in enumerate(pool) if candidate.method in ("vca", "spa")]
    outer = [k for k, candidate in enumerate(pool) if candidate.method == "minimum_volume"]
    noise_var = float(scene.weight @ scene.noise_var / scene.weight.sum())
    outside = (2 * measures[:, _OUTSIDE]).exp()  # mean square
    family = vertex or inner
    if outer:
        scores[outer] = torch.linspace(0, 1, len(outer), dtype=scores.dtype)  # proposed in the order of belief
        physical = [k for k in outer if measures[k, _BELOW_ZERO] < _LEAST_BELOW_ZERO]
        family = physical or inner or vertex
        if physical:
            volume = measures[physical[0], _VOLUME]
            family = [k for k in vertex if outside[k] < noise_var and measures[k, _VOLUME] < volume] or physical
    suspected = family
    if inner:
        excess = max(float(outside[min(inner, key=lambda k: float(scores[k]))]) - noise_var, 0.0)
        if excess < min(scene.num_endmembers - 1, 3) * (scene.model_error**2 + 0.1 * noise_var):
            suspected = inner
            noisy = scene.num_endmembers > 2 and scene.model_error**2 < _NOISY * noise_var
            if not noisy:
                family = inner
    others = torch.tensor([[k not in one for k in range(len(pool))] for one in (suspected, family)])
    return scores + _OTHER_FAMILY * others


def _ranks(values: torch.Tensor) -> torch.Tensor:
    """Ranks in [0, 1]; equal values share a rank."""
    values = values.contiguous()
    return torch.searchsorted(values.sort().values, values).double() / max(len(values) - 1, 1)


def _measures(scene: ScenePoints, subset: torch.Tensor, endmembers: torch.Tensor) -> torch.Tensor:
    """What one set (R, K) makes of the pixels of the subset with the brightness free; (21,)."""
    rank = len(endmembers)
    pixels, norm = scene.smooth[subset], scene.norm[subset]
    weight = scene.weight[subset]
    weight = weight / weight.sum()
    gram, rhs = normal_equations(pixels, endmembers)
    following = (subset[:_PAIRS] + 1).clamp_max(len(scene.norm) - 1)  # mostly the neighbour to the right
    both = solve_nonnegative(gram, torch.cat([rhs, scene.smooth[following] @ endmembers.T]))
    amounts, neighbours = both.split([len(subset), len(following)])
    fitted = amounts @ endmembers
    error = pixels - fitted
    cosine = (pixels * fitted).sum(1) / (norm * fitted.norm(dim=1)).clamp_min(1e-30)
    angle = torch.arccos(cosine.clamp(-1, 1))
    span = torch.linalg.qr(endmembers.T)[0]  # [K, R]
    outside = ((error @ span) / norm[:, None]).square().sum(1)
    eye = torch.eye(rank, dtype=gram.dtype, device=gram.device)
    singular = torch.linalg.svdvals(endmembers)

    shares = _shares(amounts)
    purity = shares.sort(0).values[int(0.995 * len(shares))]
    presence = weight @ shares
    free = torch.linalg.solve(gram + 1e-9 * gram.diagonal().mean() * eye, rhs.T).T
    free = free / free.abs().sum(1, keepdim=True).clamp_min(1e-12)

    spectra = scene.subspace.lift(endmembers)
    below_zero = (spectra.clamp_max(0).square().sum(1) / spectra.square().sum(1)).sqrt()
    bends = spectra.diff(n=2, dim=1).square().sum(1) / max(spectra.shape[1] - 2, 1)  # none among two bands
    roughness = bends.sqrt() / spectra.abs().mean(1)
    return torch.stack(
        [
            _log(error.square().sum(1).mean().sqrt() / norm.square().mean().sqrt()),
            _log(weight @ angle),
            _log(angle.mean()),
            _log(angle.sort().values[int(0.95 * len(angle))]),
            _log((weight @ outside + 1e-8).sqrt()),
            (torch.linalg.slogdet(gram)[1] / (2 * rank)).clamp_min(_LEAST_VOLUME),
            _log(singular[-1] / singular[0]),
            (gram - 9 * eye).max(),  # largest correlation of two endmembers
            weight @ shares.amax(1),
            weight @ -(shares * shares.clamp_min(1e-9).log()).sum(1),
            purity.min(),
            purity.mean(),
            _log(presence.min()),
            _log(presence.max()),
            below_zero.max(),
            below_zero.mean(),
            weight @ (-free).clamp_min(0).sum(1),
            weight @ (free.amin(1) < -0.05).to(weight),
            _log((shares[:_PAIRS] - _shares(neighbours)).abs().sum(1).mean()),
            _log(roughness.max()),
            _log(roughness.mean()),
        ]
    )


def _distances(points: torch.Tensor) -> torch.Tensor:
    """Log of the angle of each set of (C, R, K) to its nearest, its tenth and its average fellow; (C, 3)."""
    count = len(points)
    if count == 1:
        return torch.zeros(1, 3, dtype=points.dtype, device=points.device)
    flat = points.flatten(0, 1)  # not by cosines: those of sets that are nearly the same would lose all digits
    apart = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").square() / 2  # 1 - cosine
    apart = apart.unflatten(1, points.shape[:2]).unflatten(0, points.shape[:2]).transpose(1, 2)  # [C, C, R, R]
    mutual = (apart.amin(3).mean(2) + apart.amin(2).mean(2)) / 2
    angle = (2 * torch.asin((mutual / 2).clamp(0, 1).sqrt())).fill_diagonal_(math.inf)
    nearest = angle.sort(1).values
    return _log(torch.stack([nearest[:, 0], nearest[:, min(9, count - 2)], nearest[:, :-1].mean(1)], 1))


def _shares(amounts: torch.Tensor) -> torch.Tensor:
    return amounts / amounts.sum(1, keepdim=True).clamp_min(1e-12)


def _log(value: torch.Tensor | float) -> torch.Tensor:
    return torch.as_tensor(value).double().clamp_min(1e-9).log()
