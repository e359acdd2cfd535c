"""One endmember set out of many proposals: candidates extracted from the scene, and approximate spectra from the user.

No candidate is the best in all of its endmembers, and where many good ones differ, their mean is better than most of
them (stacking: Wolpert, Neural Networks 1992). How far approximate spectra are from the subspace of the scene, and how
far they are from what was extracted, tells which of the two to believe. Small networks, trained on simulated scenes
(`hsunmix.training.selection`), give every proposal for every endmember a weight: one where smooth errors of
approximate spectra are corrected (`hsunmix.endmembers.approximate`), one where these are only projected, or none is
given.

Where archetypes rank first, the pixels are a cloud about their simplex, and other archetypes are other local optima of
the same fit: there the first one alone stands against the approximate spectra. (Means of several were 6 % better on
such simulated scenes, but up to twice as bad on Jasper Ridge.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from ..physics import Alternatives, spectral_angle, unit_rows
from .approximate import Corrected, correct_smooth_errors
from .candidates import METHODS, Candidate
from .matching import match_endmembers
from .networks import SmallNetworks
from .scene import ScenePoints
from .selection import NUM_FEATURES, Ranking
from .subspace import SignalSubspace

_BEST, _NEAREST = 24, 8  # candidates that count: those of the best scores, and those nearest to approximate spectra
_LEAST_ANGLE = 1e-3  # radians: nearer is the same
_FAR, _FAR_WIDTH = 0.11, 0.03  # radians: approximate spectra are a few degrees off, candidates for them as much
# Pixels whose error is less than this share of their norm say which of the spectra that they span have the features of
# approximate ones. With a first version of the network that weighs them then, the 81 of 149 simulated scenes below it
# gained 18 % in angle and 27 % in abundances, the others 0 and 5 %; the real ones with references, whose errors are
# two to five times as large, lost.
_CLEAR = 0.0067
_TIMES_ERROR = 2.0  # so far off are the alternatives to corrected spectra: their errors are underestimated
_TEMPERATURE = 0.5  # of the scores, for the consensus of the candidates
NUM_PROPOSAL_FEATURES = 29 + NUM_FEATURES
"""Length of the description of a proposal."""


@dataclass(frozen=True)
class Proposals:
    """I proposals for R endmembers: approximate spectra, the same moved onto the signal subspace, then candidates.

    Attributes:
        spectra: (I, R, B) of unit norm, float64, the endmembers in one order.
        allowed: (I, R) bool; the first two proposals exist for the first k endmembers only, k spectra being given.
        features: (I, R, F) descriptions, float64.
        candidates: (I - 2,) indices into the pool.
        corrected: the approximate spectra without their smooth errors; `None` where they are only projected, or none.
    """

    spectra: torch.Tensor
    allowed: torch.Tensor
    features: torch.Tensor
    candidates: list[int]
    corrected: Corrected | None = None


@dataclass(frozen=True)
class Blend:
    """The weighted mean of the proposals for R endmembers.

    Attributes:
        spectra: (R, B) of unit norm, float64.
        spread: (R,) root mean square of the angles between proposals and their mean, weighted, radians. On simulated
            scenes it is about as large as the error of the mean; 0 where a single proposal counts.
        best: (R, B) the endmembers of the candidate that ranks first, in this order.
        method: what proposed the candidates of the largest weight.
        alternatives: the proposals with their weights. In place of corrected spectra, which have none, count others to
            both sides of them, twice as far off as they are expected to be (root mean square); these may be negative.
    """

    spectra: torch.Tensor
    spread: torch.Tensor
    best: torch.Tensor
    method: str
    alternatives: Alternatives


def gather_proposals(
    subspace: SignalSubspace,
    kind: torch.Tensor,
    pool: Sequence[Candidate],
    ranking: Ranking,
    approximate: torch.Tensor | None = None,
) -> Proposals:
    """Match the candidates of a pool to each other, or to approximate spectra, and describe what each proposes.

    Args:
        subspace: of the scene.
        kind: (3,) `ScenePoints.kind` of the scene.
        pool: C candidates.
        ranking: of the pool, from `rank_candidates`.
        approximate: (k, B) spectra of the first k endmembers, or `None`.

    Returns:
        The proposals, on the CPU.
    """
    spectra = torch.stack([unit_rows(subspace.lift(one.points).clamp_min(0)) for one in pool]).cpu()  # [C, R, B]
    corrected = None
    if approximate is not None and is_clear(kind):
        found = correct_smooth_errors(subspace, approximate, _pixel_error(kind))
        corrected = Corrected(*(one.cpu() for one in found))
    given, anchor, confidence = _references(subspace, spectra[ranking.order[0]], approximate, corrected)
    known = confidence > 0
    spectra = torch.stack([one[match_endmembers(anchor, one)] for one in spectra])
    chosen = _choose(pool, ranking, _rms(spectral_angle(spectra, anchor)) if known.any() else None)

    proposed = torch.cat([given[None], anchor[None], spectra[chosen]])  # [I, R, B]
    count, rank = proposed.shape[:2]
    facts = torch.cat([kind.cpu()[[2, 0, 1]], torch.tensor([float(rank)]).log(), known.double().mean()[None]])
    origin, description = _origin(pool, ranking, chosen)
    belief = torch.softmax(-origin[2:, -2] / _TEMPERATURE, 0)
    features = [
        torch.cat([origin, facts.expand(count, -1)], 1)[:, None].expand(-1, rank, -1),
        _positions(proposed, spectra[ranking.order[0]], belief, confidence),
        description[:, None].expand(-1, rank, -1),
    ]
    allowed = torch.ones(count, rank, dtype=torch.bool)
    allowed[:2] = known
    return Proposals(proposed, allowed, torch.cat(features, -1), chosen, corrected)


def _references(
    subspace: SignalSubspace, top: torch.Tensor, approximate: torch.Tensor | None, corrected: Corrected | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Spectra (R, B) that the candidates are compared with: approximate ones, and these moved onto the subspace.

    Where there is none, the endmember of the candidate that ranks first stands for both; and how well (R,) those on
    the subspace are known: not at all 0, projected 1, corrected the logarithm of one over the error.
    """
    confidence = torch.zeros(len(top), dtype=top.dtype)
    if approximate is None:
        return top, top, confidence
    if corrected is None:
        moved = unit_rows(subspace.lift(subspace.project(approximate.double())).clamp_min(0)).cpu()
        confidence[: len(approximate)] = 1
    else:
        moved, confidence[: len(approximate)] = corrected.spectra, (-_log(corrected.error)).clamp_min(0.01)
    taken = set(match_endmembers(moved, top).tolist())
    others = top[[r for r in range(len(top)) if r not in taken]]
    return torch.cat([unit_rows(approximate.double().cpu()), others]), torch.cat([moved, others]), confidence


def _choose(pool: Sequence[Candidate], ranking: Ranking, distance: torch.Tensor | None) -> list[int]:
    """The candidates that count: the best, and those at the least distance (C,) from approximate spectra."""
    if pool[ranking.order[0]].method == "archetypes":
        return ranking.order[:1]
    near = [] if distance is None else distance.argsort(stable=True)[:_NEAREST].tolist()
    return list(dict.fromkeys(ranking.order[:_BEST] + near))


def _origin(pool: Sequence[Candidate], ranking: Ranking, chosen: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Where proposals come from and how they rank (I, 8), and their descriptions as candidates (I, F)."""
    origin = torch.zeros(2 + len(chosen), 4 + len(METHODS), dtype=torch.float64)
    origin[0, 0] = origin[1, 1] = 1
    origin[range(2, len(origin)), [2 + METHODS.index(pool[k].method) for k in chosen]] = 1
    origin[2:, -2] = ranking.scores[chosen] - ranking.scores.min()
    origin[2:, -1] = torch.tensor(ranking.order).argsort()[chosen] / max(len(pool) - 1, 1)
    description = torch.zeros(len(origin), NUM_FEATURES)
    description[2:] = ranking.descriptions.cpu()[chosen]
    return origin, description


def _positions(
    proposed: torch.Tensor, top: torch.Tensor, belief: torch.Tensor, confidence: torch.Tensor
) -> torch.Tensor:
    """How proposals (I, R, B) lie to the references, to the best candidate and to the consensus: (I, R, 16).

    For one endmember and over all of them; then, alike for all proposals, how much there is to decide.
    """
    given, anchor = proposed[:2]
    count, rank = proposed.shape[:2]
    known = confidence > 0
    consensus = unit_rows((belief[:, None, None] * proposed[2:]).sum(0))
    spread = (belief[:, None] * spectral_angle(proposed[2:], consensus).square()).sum(0).sqrt()
    angles = torch.stack([spectral_angle(proposed, one) for one in (given, anchor, top, consensus)], -1)  # [I, R, 4]
    off, moved = spectral_angle(given, anchor), angles[1, :, 2]  # from the given ones, and from the best candidate
    apart = (spectral_angle(anchor[:, None], anchor[None]) + torch.pi * torch.eye(rank)).amin(1)
    whole = [_rms(angles[:, known, k]) for k in (0, 1)] + [_rms(angles[..., k]) for k in (2, 3)]
    own = torch.stack([confidence, _log(off), _log(spread), _log(apart), _log(moved)], -1)
    means = _log(torch.stack([_rms(one) for one in (off[known], spread, moved)]))
    return torch.cat(
        [
            _log(angles),
            _log(torch.stack(whole, -1))[:, None].expand(count, rank, -1),
            torch.cat([own, means.expand(rank, -1)], -1).expand(count, rank, -1),
        ],
        -1,
    )


def proposal_weights(proposals: Proposals, blender: SmallNetworks) -> torch.Tensor:
    """Weights (M, I, R) of the proposals by the M members of a blender; those for one endmember add up to one."""
    return torch.softmax(-blender(proposals.features).masked_fill(~proposals.allowed, torch.inf), 1)


@lru_cache(maxsize=2)
def bundled_blender(correcting: bool = False) -> SmallNetworks:
    """The weights that come with the package; in float64, so that last bits of the candidates stay last bits.

    Args:
        correcting: those for approximate spectra whose smooth errors are corrected.
    """
    name = "corrector.safetensors" if correcting else "blender.safetensors"
    return SmallNetworks.load(Path(__file__).with_name(name)).double()


def is_clear(kind: torch.Tensor) -> bool:
    """Do the pixels of a scene show the features of its spectra? Then smooth errors of approximate ones are corrected.

    Args:
        kind: (3,) `ScenePoints.kind` of the scene.
    """
    return _pixel_error(kind) < _CLEAR


def _pixel_error(kind: torch.Tensor) -> float:
    """Noise and model error of smoothed pixels together, as a share of their norm, by the kind of the scene."""
    return float(kind[0].exp())


@torch.no_grad()
def blend(
    scene: ScenePoints,
    pool: Sequence[Candidate],
    ranking: Ranking,
    approximate: torch.Tensor | None = None,
    blender: SmallNetworks | None = None,
) -> Blend:
    """The weighted mean of all proposals.

    Args:
        scene: the pixels.
        pool: C candidates.
        ranking: of the pool, from `rank_candidates`.
        approximate: (k, B) spectra of the first k endmembers, or `None`.
        blender: the bundled one when `None`.

    Returns:
        The mean.
    """
    proposals = gather_proposals(scene.subspace, scene.kind, pool, ranking, approximate)
    blender = blender or bundled_blender(proposals.corrected is not None)
    weights = proposal_weights(proposals, blender).mean(0).double()
    weights = weights * _plausibility(proposals)
    weights = weights / weights.sum(0)
    spectra = unit_rows((weights[..., None] * proposals.spectra).sum(0))
    spread = (weights * spectral_angle(proposals.spectra, spectra).square()).sum(0).sqrt()
    shares = {name: 0.0 for name in METHODS}
    for k, weight in zip(proposals.candidates, weights[2:].sum(1).tolist(), strict=True):
        shares[pool[k].method] += weight
    method = max(shares, key=lambda name: shares[name])
    device = scene.raw.device
    alternatives = Alternatives(*(one.to(device) for one in _alternatives(proposals, weights)))
    best = proposals.spectra[2]  # after the two of the approximate spectra
    return Blend(spectra.to(device), spread.to(device), best.to(device), method, alternatives)


def _plausibility(proposals: Proposals) -> torch.Tensor:
    """Factors (I, R) of the weights: what is far from an approximate spectrum is not what that stands for.

    Where most endmembers of a candidate are far off it is no set of these materials, as in a scene that lacks one of
    them; then none of its endmembers counts. Approximate spectra themselves always do, and projected ones; those whose
    errors are corrected may end up anywhere where the scene holds hardly any of the material.
    """
    known = proposals.allowed[0]
    factors = torch.ones_like(proposals.spectra[..., 0])
    if known.any():
        angles = spectral_angle(proposals.spectra, proposals.spectra[0])[:, known]  # [I, k]
        far = torch.maximum(angles, angles.quantile(0.5, dim=1, keepdim=True))
        far[0], far[1] = 0.0, 0.0 if proposals.corrected is None else angles[1]
        factors[:, known] = (-0.5 * ((far - _FAR).clamp_min(0) / _FAR_WIDTH).square()).exp()
    return factors


def _alternatives(proposals: Proposals, weights: torch.Tensor) -> Alternatives:
    """The proposals with their weights (I, R); for corrected ones 2 D others to both sides, in D directions."""
    spectra, corrected = proposals.spectra, proposals.corrected
    if corrected is None or not corrected.directions.shape[1]:
        return Alternatives(spectra, weights)
    count, dim = corrected.directions.shape[:2]
    off = _TIMES_ERROR * math.sqrt(dim) * corrected.directions.transpose(0, 1)  # [D, k, B]
    sides = torch.cat([spectra[1, :count] + off, spectra[1, :count] - off])
    sides = torch.cat([sides, spectra[1, count:].expand(2 * dim, -1, -1)], 1)
    weights = torch.cat([weights, (weights[1] / (2 * dim)).expand(2 * dim, -1)])
    weights[1] = 0.0
    return Alternatives(torch.cat([spectra, sides]), weights)


def _rms(angles: torch.Tensor) -> torch.Tensor:
    """Root mean square over the last axis; 0 where it is empty."""
    return angles.square().sum(-1).div(max(angles.shape[-1], 1)).sqrt()


def _log(angles: torch.Tensor) -> torch.Tensor:
    return angles.clamp_min(_LEAST_ANGLE).log()
