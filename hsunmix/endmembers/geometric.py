"""Geometric extraction: endmembers as vertices of the simplex (or cone) that holds the pixels.

Vertex component analysis (VCA: Nascimento and Bioucas-Dias, IEEE TGRS 2005), successive projections (SPA: Araujo et
al., 2001) and minimum volume by maximum likelihood (after SISAL: Bioucas-Dias, WHISPERS 2009).
"""

from __future__ import annotations

import math

import torch


def vertex_components(
    points: torch.Tensor, num_endmembers: int, num_starts: int, generator: torch.Generator | None = None
) -> torch.Tensor:
    """VCA: repeatedly the pixel furthest along a random direction orthogonal to those found.

    Args:
        points: (N, K) coordinates with K >= R.
        num_endmembers: R.
        num_starts: number of random starts S.
        generator: source of randomness (on the CPU).

    Returns:
        (S, R) indices of pixels.
    """
    dim = points.shape[1]
    directions = torch.randn(num_endmembers, num_starts, dim, generator=generator, dtype=points.dtype).to(points)
    chosen: list[torch.Tensor] = []
    basis = points.new_zeros(num_starts, 0, dim)
    for r in range(num_endmembers):
        direction = directions[r] - ((basis @ directions[r][..., None]).transpose(1, 2) @ basis).squeeze(1)
        chosen.append((direction @ points.T).abs().argmax(1))
        basis = _extend(basis, points[chosen[-1]])
    return torch.stack(chosen, 1)


def successive_projections(points: torch.Tensor, num_endmembers: int) -> torch.Tensor:
    """SPA: repeatedly the pixel with the largest residual after projecting out those found.

    Args:
        points: (N, K) coordinates.
        num_endmembers: R.

    Returns:
        (1, R) indices of pixels.
    """
    residual = points.clone()
    chosen = []
    for _ in range(num_endmembers):
        index = residual.square().sum(1).argmax()
        chosen.append(index)
        direction = residual[index] / residual[index].norm().clamp_min(1e-30)
        residual = residual - (residual @ direction)[:, None] * direction
    return torch.stack(chosen)[None]


def _extend(basis: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Append vectors (S, K) to orthonormal bases (S, r, K) by Gram-Schmidt, twice for accuracy."""
    for _ in range(2):
        vectors = vectors - ((basis @ vectors[..., None]).transpose(1, 2) @ basis).squeeze(1)
    return torch.cat([basis, (vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-30))[:, None]], 1)


def minimum_volume(
    points: torch.Tensor,
    init: torch.Tensor,
    plane: torch.Tensor,
    point_std: torch.Tensor | float,
    softest: float = 0.15,
    levels: int = 4,
    steps: int = 8,
) -> torch.Tensor:
    """Minimum-volume simplex with soft facets: the maximum-likelihood simplex of pixels spread evenly over it.

    With `M = E^-1`, a pixel's coefficients are `b = x M`, and uniform abundances blurred by noise have about the
    log-likelihood `N log |det M| + sum_nr log Phi(b_nr / tau_nr)`: the hinge of SISAL made smooth, with the weight
    that the noise says. The vertices lie on the plane `e . plane = 1`, that is, `sum_r m_r = plane`. Newton steps with
    the absolute eigenvalues of the Hessian (the volume is not convex), from soft facets to those that the noise says.

    Args:
        points: (N, R) coordinates in the signal subspace.
        init: (S, R, R) first endmembers, as rows.
        plane: (R,) normal of the plane that holds the vertices.
        point_std: (N,) or scalar standard deviation of the points about the simplex: noise and model error.
        softest: tau at the first level, and its upper bound at all of them.
        levels: number of levels, from soft to hard.
        steps: Newton steps per level.

    Returns:
        (S, R, R) endmembers, as rows, in the dtype of `points`.
    """
    x, normal, start = points.double(), plane.double(), init.double()
    std = torch.as_tensor(point_std, dtype=x.dtype, device=x.device).expand(len(x))
    inverse = torch.linalg.inv(start / (start @ normal)[..., None].clamp_min(1e-9))  # columns m_r, [S, R, R]
    ones = torch.ones(x.shape[1], 1, dtype=x.dtype, device=x.device)
    moves = torch.linalg.svd(ones)[0][:, 1:]  # [R, R-1]: changes that keep sum_r m_r
    for level in torch.logspace(0, -2.5, levels).tolist():
        # of b_nr, with |m_r| from the level before: if tau shrank with the simplex, a point would fit best
        tau = (std[:, None] * inverse.norm(dim=1, keepdim=True)).clamp(softest * level, softest)  # [S, N, R]
        for _ in range(steps):
            inverse = _newton_step(x, inverse, tau, moves)
    return torch.linalg.inv(inverse).to(points.dtype)


def _objective(x: torch.Tensor, m: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood per pixel, (S,)."""
    return -torch.linalg.slogdet(m)[1] - torch.special.log_ndtr((x @ m) / tau).sum(-1).mean(-1)


def _newton_step(x: torch.Tensor, m: torch.Tensor, tau: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    """One Newton step on M with absolute curvature and backtracking, for every start on its own."""
    num_starts, rank, _ = m.shape
    z = (x @ m) / tau
    ratio = torch.exp(-0.5 * (z.square() + math.log(2 * math.pi)) - torch.special.log_ndtr(z))  # phi / Phi
    curvature = (ratio * (z + ratio)).clamp_min(0) / tau.square()
    e = torch.linalg.inv(m)
    gradient = -e.transpose(1, 2) - x.T @ (ratio / tau) / len(x)  # [S, K, R]
    hinge = torch.einsum("snr,nkl->srkl", curvature, x[:, :, None] * x[:, None, :]) / len(x)
    hessian = torch.einsum("srl,sqk->srkql", e, e).contiguous()  # second derivative of -log|det M|: tr(E dM E dM)
    index = torch.arange(rank, device=x.device)
    hessian[:, index, :, index, :] += hinge.transpose(0, 1)
    reduced = torch.einsum("srkql,ra,qb->sakbl", hessian, moves, moves).reshape(num_starts, (rank - 1) * rank, -1)
    slope = torch.einsum("skr,ra->sak", gradient, moves).reshape(num_starts, -1, 1)
    values, vectors = torch.linalg.eigh(reduced)
    values = values.abs().clamp_min(1e-9 * values.abs().amax(1, keepdim=True))
    step = -vectors @ (vectors.transpose(1, 2) @ slope / values[..., None])
    move = torch.einsum("sak,ra->skr", step.reshape(num_starts, rank - 1, rank), moves)
    before, sign = _objective(x, m, tau), torch.linalg.slogdet(m)[0]
    factor = torch.ones(num_starts, 1, 1, dtype=x.dtype, device=x.device)
    for _ in range(12):
        trial = m + factor * move
        better = (_objective(x, trial, tau) <= before) & (torch.linalg.slogdet(trial)[0] == sign)
        if better.all():
            break
        factor = torch.where(better[:, None, None], factor, 0.3 * factor)
    return torch.where(better[:, None, None], trial, m)
