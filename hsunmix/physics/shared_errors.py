"""Errors that many pixels share, which the data of all of them show and those of a single pixel can't.

The A-step weighs the prior against the errors of each pixel by itself. Two kinds of error are not like that. A network
that takes a weak gradient for noise leans the same way in thousands of neighbours, whose mean has hardly any noise
left (`smooth_error`). And endmembers that are off make the abundances of the whole scene off by one linear map
(`fit_leak`).
"""

from __future__ import annotations

import torch
from torch.nn import functional

from .evidence import Evidence, no_darkness, zero_filled

_PRESENT = 0.005  # abundance above which the prior counts a material as present
_BLOCKS = (24, 12, 6)  # pixels; multiples of the last
_CHUNK = 1 << 15  # pixels at a time, where each needs R x R numbers
_SHARE = 0.6  # of the estimated error that is taken out: what is present is chosen by the prior, which biases it


def fit_leak(evidence: Evidence, abundances: torch.Tensor) -> torch.Tensor:
    """The linear map K that uncertain endmembers lay over the abundances: the data say `a + a K` instead of `a`.

    Least squares over all pixels under the prior variance `evidence.leakage` of K.

    Args:
        evidence: of N pixels and R endmembers.
        abundances: (N, R) of the prior, on the simplex.

    Returns:
        (R, R) float64; 0 where the endmembers are exact.
    """
    variance = evidence.leakage.flatten()
    free = variance > 1e-12
    leak = torch.zeros_like(variance)
    rank = abundances.shape[1]
    if free.any():
        present, weight, observed = _normalise(evidence, abundances)
        gradient = present * (observed - abundances.double() @ evidence.gram)
        target = ((weight[:, None] * abundances).T @ gradient).flatten()
        system = torch.zeros(rank * rank, rank * rank).to(target)
        for a, p, w in zip(*(x.split(_CHUNK) for x in (abundances, present, weight)), strict=True):
            regressors = (a[:, :, None] * p[:, None, :]).flatten(1)  # [n, (i, k)]: K_ik adds a_i to k
            system += (w[:, None] * regressors).T @ regressors
        system = system * evidence.gram.repeat(rank, rank)
        leak[free] = torch.linalg.solve(system[free][:, free] + variance[free].reciprocal().diag(), target[free])
    return leak.unflatten(0, (rank, rank))


def leaked_abundances(abundances: torch.Tensor, leak: torch.Tensor) -> torch.Tensor:
    """What a leak K adds to the abundances that the data say, for materials that are present.

    Args:
        abundances: (N, R), on the simplex.
        leak: (R, R) K, from `fit_leak`.

    Returns:
        (N, R) float64.
    """
    return (abundances > _PRESENT) * (abundances.double() @ leak)


def smooth_error(
    evidence: Evidence, abundances: torch.Tensor, valid: torch.Tensor, leaked: torch.Tensor
) -> torch.Tensor:
    """Correction of the abundances that a prior expects, on blocks of pixels from large to small.

    Least squares of one correction per block on all its pixels, for the materials present in each (absent ones stay
    absent, so that model error can't leak in). The corrections of all blocks of a size are shrunk together by how far
    they exceed what noise alone would give (empirical Bayes; James and Stein, 1961): where the prior is right, hardly
    anything is left of them.

    Args:
        evidence: of N pixels and R endmembers.
        abundances: (N, R) of the prior, on the simplex.
        valid: (H, W) bool, where the pixels lie.
        leaked: (N, R) from `leaked_abundances`, for which the prior is not to blame.

    Returns:
        (N, R) to be added; 0 where a material is absent.
    """
    present, weight, observed = _normalise(evidence, abundances)
    rank = present.shape[1]
    weighted = weight[:, None] * present
    pairs = torch.stack([_pool(zero_filled(weighted * p[:, None], valid), _BLOCKS[-1]) for p in present.T], dim=1)
    ridge = 1e-6 * evidence.gram.diagonal().mean() * weight.mean() * torch.eye(rank).to(evidence.gram)
    correction = torch.zeros_like(observed)
    for size in _BLOCKS:
        expected = (abundances + correction).clamp_min(0) + leaked
        gradient = weighted * (observed - expected @ evidence.gram)
        sums = _pool(zero_filled(torch.cat([gradient, present], dim=1), valid), size).permute(1, 2, 0)  # [h, w, 2 R]
        system = _pool(pairs, size // _BLOCKS[-1]).permute(2, 3, 0, 1) * evidence.gram  # [h, w, R, R]
        covariance = torch.linalg.inv(system + ridge)
        delta = (covariance @ sums[..., :rank, None]).squeeze(-1)
        count, variance = sums[..., rank:], covariance.diagonal(dim1=-2, dim2=-1)
        excess = (count * delta.square() / variance).sum((0, 1)) / count.sum((0, 1)).clamp_min(1)  # [R]
        blocks = (1 - 1 / excess.clamp_min(1)) * delta
        fine = functional.interpolate(blocks.permute(2, 0, 1)[None], scale_factor=size, mode="bilinear")[0]
        fine = fine[:, : valid.shape[0], : valid.shape[1]].permute(1, 2, 0)[valid]
        correction = correction + present * fine
    return (_SHARE * correction).to(abundances.dtype)


def _normalise(evidence: Evidence, abundances: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which materials are present (N, R), each pixel's weight (N,) under noise alone, and `rhs` at brightness 1."""
    total = no_darkness(evidence.brightness.double())
    weight = evidence.noise_confidence * total.square()
    return (abundances > _PRESENT).double(), weight, evidence.rhs / total[:, None]


def _pool(maps: torch.Tensor, size: int) -> torch.Tensor:
    """Sums (..., C, h, w) over blocks; those at the border may be smaller."""
    sums = functional.avg_pool2d(maps.flatten(0, -3), size, ceil_mode=True, divisor_override=1)
    return sums.unflatten(0, maps.shape[:-2])
