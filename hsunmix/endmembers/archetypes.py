"""Archetypal analysis by entropic descent (EDAA: Zouaoui et al., IEEE TIP 2023, doi 10.1109/TIP.2023.3301769).

Endmembers are convex combinations of pixels, pixels are convex combinations of endmembers. Many random starts run in
batches, in the coordinates of the signal subspace.
"""

from __future__ import annotations

import torch

# steps in units of the inverse of the largest entry of the curvature, the smoothness constant on the simplex
_FIT_STEP = 2.0
_MIX_STEP = 4.0
_BATCH = 12  # starts that run together: their weights fit the cache
# weights that give known archetypes: the first fall with distance in units of its median; then come so many updates
_NEARNESS, _UPDATES_TO_START = 50.0, 300


def archetypal_analysis(
    points: torch.Tensor,
    num_endmembers: int,
    num_starts: int,
    generator: torch.Generator | None = None,
    outer: int = 60,
    inner: int = 5,
) -> torch.Tensor:
    """Archetypes of a point cloud, from many random starts.

    Args:
        points: (N, K) points, usually pixels scaled to unit norm.
        num_endmembers: number of archetypes R.
        num_starts: number of starts S.
        generator: source of randomness (on the CPU).
        outer: alternations between the two sets of weights.
        inner: entropic descent updates of each per alternation.

    Returns:
        (S, R, K) archetypes, in the dtype of `points`.
    """
    x = points.float()
    noise = torch.randn(num_starts, num_endmembers, len(x), generator=generator)
    return torch.cat([_descend(x, one.to(x.device), outer, inner) for one in noise.split(_BATCH)]).to(points.dtype)


def polish_archetypes(
    points: torch.Tensor, archetypes: torch.Tensor, outer: int = 120, inner: int = 5
) -> torch.Tensor:
    """Go on with one set of archetypes, which after few alternations still lie too far inside.

    Points that no archetypes explain count less (robust archetypal analysis: Chen, Mairal & Harchaoui, CVPR 2014; here
    with the weights of a Cauchy distribution), since they would pull archetypes out further and further.

    Args:
        points: (N, K) points that they are mixed from.
        archetypes: (R, K).
        outer: alternations, as of `archetypal_analysis`.
        inner: updates of each of the two sets of weights per alternation.

    Returns:
        (R, K) archetypes, in the dtype of `points`.
    """
    x, wanted = points.float(), archetypes.float()[None]
    columns = x.T.contiguous()  # [K, N]
    distance = torch.cdist(wanted[0], x).square()  # [R, N]
    mix = torch.softmax(-_NEARNESS * distance / distance.median().clamp_min(1e-12), -1)[None]
    step = _MIX_STEP / x.square().sum(1).max().clamp_min(1e-12)
    for _ in range(_UPDATES_TO_START):  # weights that give these archetypes
        mix = _entropic_update(mix, step * (wanted - _weighted(mix, columns)) @ columns, 2)
    return _alternate(x, mix, outer, inner, robust=True)[0].to(points.dtype)


def _descend(points: torch.Tensor, noise: torch.Tensor, outer: int, inner: int) -> torch.Tensor:
    """Archetypes (S, R, K) of points (N, K), from one start for each of S fields of noise (S, R, N)."""
    return _alternate(points, torch.softmax(0.1 * noise, -1), outer, inner)


def _alternate(points: torch.Tensor, mix: torch.Tensor, outer: int, inner: int, robust: bool = False) -> torch.Tensor:
    """Archetypes (S, R, K) of points (N, K), from weights (S, R, N): the paper's B, endmembers = mix @ points."""
    fit = torch.full_like(mix, 1 / mix.shape[1])  # the paper's A, [S, R, N]: points = fit^T @ endmembers
    columns = points.T.contiguous()  # [K, N]
    largest = points.square().sum(1).max().clamp_min(1e-12)
    for _ in range(outer):
        archetypes = _weighted(mix, columns)  # [S, R, K]
        gram = archetypes @ archetypes.transpose(1, 2)
        step = _FIT_STEP / gram.amax((1, 2), keepdim=True).clamp_min(1e-12)
        correlation, curvature = (step * archetypes) @ columns, -step * gram
        for _ in range(inner):
            fit = _entropic_update(fit, torch.baddbmm(correlation, curvature, fit), 1)
        counted = fit * _confidence(fit, archetypes, columns) if robust else fit
        fit_gram = counted @ fit.transpose(1, 2)  # [S, R, R]
        step = _MIX_STEP / (fit_gram.amax((1, 2), keepdim=True) * largest)
        target, curvature = step * _weighted(counted, columns), step * fit_gram
        for _ in range(inner):
            mix = _entropic_update(mix, (target - curvature @ _weighted(mix, columns)) @ columns, 2)
    return _weighted(mix, columns)


def _confidence(fit: torch.Tensor, archetypes: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Weights (S, 1, N) of points, 1/2 where the residual is the median one."""
    square = (columns - archetypes.transpose(1, 2) @ fit).square().sum(1, keepdim=True)
    middle = square.median(2, keepdim=True).values.clamp_min(1e-12)
    return middle / (middle + square)


def _weighted(weights: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Weighted sums (S, R, K) of the points, by weights (S, R, N); in this order for BLAS, which is faster so."""
    return (columns @ weights.flatten(0, 1).T).T.unflatten(0, weights.shape[:2])


def _entropic_update(weights: torch.Tensor, descent: torch.Tensor, dim: int) -> torch.Tensor:
    """One multiplicative update, which keeps the weights on the simplex along `dim`; in the memory of `descent`."""
    descent.sub_(descent.amax(dim, keepdim=True)).exp_().mul_(weights.clamp_min(1e-30))
    return descent.div_(descent.sum(dim, keepdim=True))
