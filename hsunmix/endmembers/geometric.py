"""Geometric extraction: endmembers as vertices of the simplex (or cone) that holds the pixels.

Vertex component analysis (VCA: Nascimento and Bioucas-Dias, IEEE TGRS 2005), successive projections (SPA: Araujo et
al., 2001) and minimum volume by maximum likelihood (after SISAL: Bioucas-Dias, WHISPERS 2009).
"""

from __future__ import annotations

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
    outliers: float = 0.0,
    anneal: int = 4,
    newton: int = 8,
    soft: float = 0.15,
) -> torch.Tensor:
    """Minimum-volume simplex with soft facets: the maximum-likelihood simplex of pixels spread evenly over it.

    With `M = E^-1`, a pixel's coefficients are `b = x M`, and uniform abundances blurred by noise have about the
    log-likelihood `N log |det M| + sum_nr log Phi(b_nr / tau_nr)`: the hinge of SISAL made smooth, with the weight
    that the noise says, and bounded so that outliers count little. The vertices lie on the plane `e . plane = 1`, that
    is, `sum_r m_r = plane`. Newton steps with the absolute eigenvalues of the Hessian (the volume is not convex),
    from soft facets to those that the noise says.

    Args:
        points: (N, R) coordinates in the signal subspace.
        init: (S, R, R) first endmembers, as rows.
        plane: (R,) normal of the plane that holds the vertices, `e . plane = 1`.
        point_std: (N,) or scalar standard deviation of the points about the simplex: noise and model error.
        outliers: share of the pixels that the simplex need not hold.
        anneal: number of softness levels.
        newton: Newton steps per level.
        soft: softness that the levels begin with, and an upper bound, in units of the coefficients.

    Returns:
        (S, R, R) endmembers, as rows.
    """
    x, d = points.double(), plane.double()
    rank = x.shape[1]
    std = torch.as_tensor(point_std, dtype=x.dtype, device=x.device).expand(len(x))
    e = init.double()
    m = torch.linalg.inv(e / (e @ d)[..., None].clamp_min(1e-9))  # columns m_r, [S, R, R]
    ones = torch.ones(rank, 1, dtype=x.dtype, device=x.device)
    null = torch.linalg.svd(ones)[0][:, 1:]  # [R, R-1]: changes that keep sum_r m_r
    for level in torch.logspace(0, -2.5, anneal).tolist():
        tau = (std[:, None] * m.norm(dim=1, keepdim=True)).clamp(soft * level, soft)  # [S, N, R]
        for _ in range(newton):
            m = _newton_step(x, m, tau, null, outliers)
    return torch.linalg.inv(m)


def _log_hinge(z: torch.Tensor, outliers: float) -> torch.Tensor:
    return torch.log((1 - outliers) * torch.special.ndtr(z) + outliers) if outliers else torch.special.log_ndtr(z)


def _objective(x: torch.Tensor, m: torch.Tensor, tau: torch.Tensor, outliers: float) -> torch.Tensor:
    """Negative log-likelihood per pixel, (S,)."""
    return -torch.linalg.slogdet(m)[1] - _log_hinge((x @ m) / tau, outliers).sum(-1).mean(-1)


def _newton_step(
    x: torch.Tensor, m: torch.Tensor, tau: torch.Tensor, null: torch.Tensor, outliers: float
) -> torch.Tensor:
    """One Newton step on M with absolute curvature and backtracking, for every start on its own."""
    num_starts, rank, _ = m.shape
    z = (x @ m) / tau
    log_phi = _log_hinge(z, outliers)
    ratio = (1 - outliers) * torch.exp(-0.5 * z.square() - 0.9189385332046727 - log_phi)  # d log_phi / dz
    weight = (ratio * (z + ratio)).clamp_min(0) / tau.square()
    inverse = torch.linalg.inv(m)  # E, [S, R, R]
    gradient = -inverse.transpose(1, 2) - x.T @ (ratio / tau) / len(x)  # [S, K, R]
    hessian = torch.einsum("snr,nkl->srkl", weight, x[:, :, None] * x[:, None, :]) / len(x)
    full = torch.einsum("srl,sqk->srkql", inverse, inverse).contiguous()  # -d2 log|det M| = tr(E dM E dM)
    index = torch.arange(rank, device=x.device)
    full[:, index, :, index, :] += hessian.transpose(0, 1)
    reduced = torch.einsum("srkql,ra,qb->sakbl", full, null, null).reshape(num_starts, (rank - 1) * rank, -1)
    slope = torch.einsum("skr,ra->sak", gradient, null).reshape(num_starts, -1)
    values, vectors = torch.linalg.eigh(reduced)
    values = values.abs().clamp_min(1e-9 * values.abs().amax(1, keepdim=True))
    step = -(vectors @ ((vectors.transpose(1, 2) @ slope[..., None]).squeeze(-1) / values)[..., None]).squeeze(-1)
    move = torch.einsum("sak,ra->skr", step.reshape(num_starts, rank - 1, rank), null)
    start = _objective(x, m, tau, outliers)
    sign = torch.linalg.slogdet(m)[0]
    factor = torch.ones(num_starts, 1, 1, dtype=x.dtype, device=x.device)
    for _ in range(12):
        trial = m + factor * move
        good = (_objective(x, trial, tau, outliers) <= start) & (torch.linalg.slogdet(trial)[0] == sign)
        if good.all():
            return trial
        factor = torch.where(good[:, None, None], factor, 0.3 * factor)
    return torch.where(good[:, None, None], trial, m)
