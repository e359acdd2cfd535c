"""What spectra alone leave open: the scale of every endmember, and their part outside a truncated subspace."""

from __future__ import annotations

import torch

from ..physics import solve_nonnegative


def natural_scale(coefficients: torch.Tensor, noise_var: torch.Tensor | float = 0.0) -> tuple[torch.Tensor, float]:
    """Scale of each endmember for which the abundances of all pixels sum to one, as nearly as they can.

    Solves `min_u |b u - 1|^2, u >= 0` with Huber weights. Dividing endmember `r` by `u_r` multiplies its
    coefficients by `u_r`.

    Args:
        coefficients: (N, R) non-negative `b`.
        noise_var: (R, R) covariance of the noise of `b`.

    Returns:
        `(u, variation)`: (R,) factors, and what is left of the relative spread of `b u` once the noise is taken off:
        the variation of brightness.
    """
    b = coefficients.double()
    weight = torch.ones_like(b[:, :1])
    u = b.new_zeros(b.shape[1])
    for _ in range(5):
        gram = b.T @ (weight * b)
        u = solve_nonnegative(gram, (b * weight).sum(0, keepdim=True))[0]
        error = (b @ u - 1).abs()
        scale = 1.4826 * error.median().clamp_min(1e-6)
        weight = (2 * scale / error.clamp_min(1e-12)).clamp_max(1)[:, None]
    spread = (weight[:, 0] * (b @ u - 1).square()).sum() / weight.sum()
    noise = u @ torch.as_tensor(noise_var, dtype=u.dtype, device=u.device).expand(len(u), len(u)) @ u
    return u, float((spread - noise).clamp_min(0).sqrt())


def complete(points: torch.Tensor, coefficients: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted least squares of points on given coefficients: endmembers in coordinates that were not used so far.

    Args:
        points: (N, K) what the endmembers leave unexplained.
        coefficients: (N, R) of the pixels on the endmembers.
        weight: (N, 1) weights.

    Returns:
        (R, K) corrections of the endmembers.
    """
    weighted = coefficients * weight.square()
    gram = weighted.T @ coefficients
    ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram + ridge, weighted.T @ points)
