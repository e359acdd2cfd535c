"""Which candidate is right, told without a reference."""

from __future__ import annotations

import torch

from ..physics import normal_equations, solve_nonnegative
from .candidates import Candidate
from .scene import ScenePoints

_SCORE_PIXELS = 2000


def rank_candidates(
    scene: ScenePoints, pool: list[Candidate], generator: torch.Generator | None
) -> tuple[list[int], torch.Tensor]:
    """Order the pool, best first.

    Args:
        scene: the pixels.
        pool: candidate sets.
        generator: source of randomness (on the CPU).

    Returns:
        `(order, scores)`: indices into the pool, and a score for every candidate, lower is better.
    """
    subset = torch.randperm(len(scene.norm), generator=generator)[:_SCORE_PIXELS].to(scene.norm.device)
    pixels = scene.smooth[subset]
    residual, angle = zip(*(_misfit(pixels, candidate.points) for candidate in pool))
    scores = _ranks(torch.tensor(residual)) + _ranks(torch.tensor(angle))
    return scores.argsort(stable=True).tolist(), scores


def _misfit(pixels: torch.Tensor, endmembers: torch.Tensor) -> tuple[float, float]:
    """Rms residual, and mean angle between pixels and their reconstruction, with the brightness free."""
    gram, rhs = normal_equations(pixels, endmembers)
    fit = solve_nonnegative(gram, rhs) @ endmembers
    residual = (pixels - fit).square().sum(1).mean().sqrt()
    cosine = (pixels * fit).sum(1) / (pixels.norm(dim=1) * fit.norm(dim=1)).clamp_min(1e-30)
    return float(residual), float(torch.arccos(cosine.clamp(-1, 1)).mean())


def _ranks(values: torch.Tensor) -> torch.Tensor:
    """Ranks in [0, 1]; equal values share a rank."""
    order = torch.searchsorted(values.sort().values.contiguous(), values.contiguous())
    return order.double() / max(len(values) - 1, 1)
