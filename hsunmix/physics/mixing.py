"""Forward mixing models and spectral geometry: how abundances and endmembers make pixels.

Linear model with free brightness: Drumetz et al., IEEE TIP 2020. Bilinear (GBM): Halimi et al., IEEE TGRS 2011.
Post-nonlinear (PPNM): Altmann et al., IEEE TIP 2012.
"""

from __future__ import annotations

import torch


def unit_rows(x: torch.Tensor, eps: float = 1e-12) -> torch.Tensor:
    """Scale the vectors along the last axis to unit Euclidean norm; zero vectors stay zero.

    Args:
        x: (..., B) vectors.
        eps: least norm to divide by.

    Returns:
        (..., B).
    """
    return x / x.norm(dim=-1, keepdim=True).clamp_min(eps)


def spectral_angle(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Spectral angle between spectra along the last axis (Kruse et al., 1993).

    Computed as `2 atan2(|u - v|, |u + v|)`, which keeps its accuracy (and its gradient) at small angles, where the
    arc cosine loses half of the digits.

    Args:
        a: (..., B) spectra.
        b: (..., B) spectra, broadcast against `a`.

    Returns:
        (...) angles in radians, in [0, pi].
    """
    u, v = unit_rows(a), unit_rows(b)
    return 2 * torch.atan2((u - v).norm(dim=-1), (u + v).norm(dim=-1))


def mix_linear(
    abundances: torch.Tensor, endmembers: torch.Tensor, brightness: torch.Tensor | None = None
) -> torch.Tensor:
    """Linear mixture `y = s * a E`.

    Args:
        abundances: (..., R), on the simplex.
        endmembers: (R, B) reflectance.
        brightness: (...) per-pixel brightness; 1 when `None`.

    Returns:
        (..., B) pixels.
    """
    pixels = abundances @ endmembers
    return pixels if brightness is None else pixels * brightness[..., None]


def mix_bilinear(
    abundances: torch.Tensor,
    endmembers: torch.Tensor,
    gamma: torch.Tensor,
    brightness: torch.Tensor | None = None,
) -> torch.Tensor:
    """Generalised bilinear model: `y = s * (a E + sum_{i<j} gamma_ij a_i a_j e_i * e_j)` (Halimi et al., 2011).

    Args:
        abundances: (..., R), on the simplex.
        endmembers: (R, B) reflectance.
        gamma: (..., R (R - 1) / 2) interaction weights in [0, 1], pairs in the order of `torch.triu_indices`.
        brightness: (...) per-pixel brightness; 1 when `None`.

    Returns:
        (..., B) pixels.
    """
    i, j = torch.triu_indices(endmembers.shape[0], endmembers.shape[0], offset=1, device=endmembers.device)
    pairs = gamma * abundances[..., i] * abundances[..., j]
    pixels = abundances @ endmembers + pairs @ (endmembers[i] * endmembers[j])
    return pixels if brightness is None else pixels * brightness[..., None]


def mix_postnonlinear(
    abundances: torch.Tensor,
    endmembers: torch.Tensor,
    nonlinearity: torch.Tensor,
    brightness: torch.Tensor | None = None,
) -> torch.Tensor:
    """Polynomial post-nonlinear model: `y = s * (x + c x^2)` with `x = a E` (Altmann et al., 2012).

    Args:
        abundances: (..., R), on the simplex.
        endmembers: (R, B) reflectance.
        nonlinearity: (...) coefficient c per pixel.
        brightness: (...) per-pixel brightness; 1 when `None`.

    Returns:
        (..., B) pixels.
    """
    linear = abundances @ endmembers
    pixels = linear + nonlinearity[..., None] * linear.square()
    return pixels if brightness is None else pixels * brightness[..., None]
