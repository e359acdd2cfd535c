"""Which candidate is right, told without a reference.

Inside the data's hull, two kinds of fit together rank well: the residual, which bright pixels rule, and the angle, in
which all pixels count alike. Outside it every set fits, and the smallest simplex that the data allow is the one
(discrepancy principle: Morozov, 1966; minimum volume: Craig, IEEE TGRS 1994).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..physics import normal_equations, solve_nonnegative
from .candidates import Candidate
from .scene import ScenePoints

_SCORE_PIXELS = 2000


@dataclass(frozen=True)
class Fit:
    """How a set explains the pixels with the brightness free.

    Attributes:
        residual: rms residual, in the units of the noise.
        angle: mean angle between pixels and reconstruction, weighted by its precision.
        outside: rms distance of unit-norm pixels from the cone of the endmembers, within their span, weighted alike.
        log_volume: of the simplex of the unit-norm endmembers.
    """

    residual: float
    angle: float
    outside: float
    log_volume: float


def rank_candidates(
    scene: ScenePoints, pool: list[Candidate], generator: torch.Generator | None
) -> tuple[list[int], torch.Tensor]:
    """Order the pool, best first.

    1. Archetypes, the best by fit, where pixels stick out of their simplex no further than model error explains: the
       pixels are then a cloud about it, and its extremes are no materials.
    2. Else the smallest simplex that holds all pixels up to noise and model error: that of vertex pixels where there
       are pure ones, else minimum volume.

    Args:
        scene: the pixels.
        pool: candidate sets.
        generator: source of randomness (on the CPU).

    Returns:
        `(order, scores)`: indices into the pool, and a score for every candidate, lower is better. The sets of the
        family that was chosen come first.
    """
    subset = torch.randperm(len(scene.norm), generator=generator)[:_SCORE_PIXELS].to(scene.norm.device)
    fits = [_fit(scene, subset, candidate.points) for candidate in pool]
    scores = _ranks([fit.residual for fit in fits]) + _ranks([fit.angle for fit in fits])
    family = _choose_family(scene, pool, fits, scores)
    scores = scores + 3.0 * torch.tensor([k not in family for k in range(len(pool))])  # ranks add up to 2 at most
    return scores.argsort(stable=True).tolist(), scores


def _choose_family(scene: ScenePoints, pool: list[Candidate], fits: list[Fit], scores: torch.Tensor) -> list[int]:
    """Indices of the candidates to choose from; changes `scores` where minimum volume has its own order."""
    inner = [k for k, candidate in enumerate(pool) if candidate.method == "archetypes"]
    vertex = [k for k, candidate in enumerate(pool) if candidate.method in ("vca", "spa")]
    outer = [k for k, candidate in enumerate(pool) if candidate.method == "minimum_volume"]
    noise_var = float(scene.weight @ scene.noise_var / scene.weight.sum())
    if inner:
        best = min(inner, key=lambda k: float(scores[k]))
        excess = max(fits[best].outside ** 2 - noise_var, 0.0)
        if excess < min(scene.num_endmembers - 1, 3) * (scene.model_error**2 + 0.1 * noise_var):
            return inner
    if outer:
        scores[outer] = torch.linspace(0, 1, len(outer), dtype=scores.dtype)  # proposed in the order of belief
        volume = fits[outer[0]].log_volume
        tight = [k for k in vertex if fits[k].outside ** 2 < noise_var and fits[k].log_volume < volume]
        return tight or outer
    return vertex or inner


def _fit(scene: ScenePoints, subset: torch.Tensor, endmembers: torch.Tensor) -> Fit:
    """Fit of one set (R, K) to the pixels of the subset, by non-negative least squares."""
    pixels, norm = scene.smooth[subset], scene.norm[subset]
    gram, rhs = normal_equations(pixels, endmembers)
    fitted = solve_nonnegative(gram, rhs) @ endmembers
    error = pixels - fitted
    cosine = (pixels * fitted).sum(1) / (norm * fitted.norm(dim=1)).clamp_min(1e-30)
    weight = scene.weight[subset] / scene.weight[subset].sum()
    span = torch.linalg.qr(endmembers.T)[0]  # [K, R]
    return Fit(
        residual=float(error.square().sum(1).mean().sqrt()),
        angle=float(weight @ torch.arccos(cosine.clamp(-1, 1))),
        outside=float((weight @ ((error @ span) / norm[:, None]).square().sum(1)).sqrt()),
        log_volume=float(torch.linalg.slogdet(gram)[1] / 2),
    )


def _ranks(values: list[float]) -> torch.Tensor:
    """Ranks in [0, 1]; equal values share a rank."""
    tensor = torch.tensor(values, dtype=torch.float64)
    return torch.searchsorted(tensor.sort().values, tensor).double() / max(len(tensor) - 1, 1)
