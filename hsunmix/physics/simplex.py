"""The probability simplex: projection, and the split of `b = s * a` into brightness and abundances."""

from __future__ import annotations

import torch


def project_simplex(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """Euclidean projection on the probability simplex, by sorting (Held, Wolfe and Crowder, 1974).

    Args:
        x: (...) real numbers.
        dim: the axis that is to sum to one.

    Returns:
        (...), the shape of `x`; non-negative, summing to one along `dim`.
    """
    x = x.movedim(dim, -1)
    sorted_x = x.sort(dim=-1, descending=True).values
    excess = sorted_x.cumsum(-1) - 1
    rank = torch.arange(1, x.shape[-1] + 1, device=x.device, dtype=x.dtype)
    support = (sorted_x * rank > excess).sum(-1, keepdim=True)
    threshold = excess.gather(-1, support - 1) / support
    return (x - threshold).clamp_min(0).movedim(-1, dim)


def split_brightness(scaled: torch.Tensor, dim: int = -1, eps: float = 1e-8) -> tuple[torch.Tensor, torch.Tensor]:
    """Split `b = s * a` into abundances on the simplex and brightness.

    Args:
        scaled: (..., R) non-negative, the endmembers along `dim`.
        dim: the axis of the endmembers.
        eps: brightness below which a pixel is black: it says nothing and gets equal abundances.

    Returns:
        `(abundances, brightness)`; `abundances` (..., R) with the shape of `scaled`, `brightness` (...) without `dim`.
    """
    brightness = scaled.sum(dim, keepdim=True)
    uniform = torch.full_like(scaled, 1 / scaled.shape[dim])
    abundances = torch.where(brightness > eps, scaled / brightness.clamp_min(eps), uniform)
    return abundances, brightness.squeeze(dim)
