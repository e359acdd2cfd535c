"""What approximate spectra say about endmembers: their errors are smooth, and the pixels span the truth.

Spectra from a library or another scene differ from those of this one by illumination, calibration, scattering and much
else that changes little from band to band. So they keep most of their sharp features, and of all spectra in the signal
subspace of the scene only those few are likely that have these (Kriging with a known trend and a Gaussian process as
error: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, section 2.7). How smooth the errors are
and how large shows in what lies off the subspace; where they aren't smooth, the nearest spectrum of it is the best.

Bands count as evenly spaced. Errors of other kinds, such as features of another depth, are only partly covered.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from ..physics import unit_rows
from .subspace import SignalSubspace

# Correlation lengths, as shares of the spectrum, of smooth errors (squared exponential) and of rougher ones
# (Matern 3/2), and what is independent from band to band beside them (standard deviations, relative).
_LENGTHS, _ROUGH_LENGTHS, _INDEPENDENT = (0.05, 0.1, 0.2), (0.2,), (0.01, 0.1, 0.5)
# Errors go with the spectrum, down to this share of its mean, or are alike in all bands.
_LEAST_LEVEL, _EVEN = 0.05, 10.0
_SUBSPACE_ERROR = 0.25  # times the error of a smoothed pixel


class Corrected(NamedTuple):
    """Approximate spectra, moved onto the signal subspace.

    Attributes:
        spectra: (k, B) of unit norm, float64, non-negative.
        error: (k,) expected angle between these and the truth, radians. Relative: where errors are smooth, true ones
            are two to five times as large, as the subspace is not exact.
        directions: (k, K - 1, B) of it, in the subspace and perpendicular to what was given: their outer products add
            up to the covariance of the errors.
    """

    spectra: torch.Tensor
    error: torch.Tensor
    directions: torch.Tensor


def correct_smooth_errors(subspace: SignalSubspace, approximate: torch.Tensor, pixel_error: float) -> Corrected:
    """The most probable spectra of the subspace, given approximate ones whose errors are smooth.

    Errors are a Gaussian process over the bands. Its kinds are weighed by their restricted likelihood (Harville, JASA
    1977), that of the part off the subspace, each with its most likely size.

    Args:
        subspace: of the scene, K coordinates and B bands.
        approximate: (k, B) spectra, in any scale.
        pixel_error: standard deviation of the smoothed pixels of the scene, noise and model error together, in each
            coordinate, as a share of their norm.

    Returns:
        The corrected spectra.
    """
    spectra = unit_rows(approximate.double())
    basis = torch.linalg.qr((subspace.basis * subspace.noise_std).T)[0].T  # [K, B], orthonormal
    along = spectra @ basis.T
    # they keep their projection on what was given: errors are turns, and 0 would be the smoothest of all spectra
    nearest = along / along.square().sum(1, keepdim=True).clamp_min(1e-12) @ basis
    left = spectra - nearest
    lost = (
        _SUBSPACE_ERROR * pixel_error * subspace.noise_std * (spectra / subspace.noise_std).norm(dim=1)[:, None]
    ).square()
    moves = torch.linalg.svd(along[:, None])[2][:, 1:] @ basis  # [k, K - 1, B]
    fits = []
    for floor in (_LEAST_LEVEL, _EVEN):
        level = torch.hypot(spectra, floor * spectra.abs().mean(1, keepdim=True).clamp_min(1e-12))
        size = (left / level).square().mean(1).clamp_min(1e-12)  # a first guess, for what the subspace's error counts
        for kernel in _kernels(spectra):
            covariance = level[:, :, None] * kernel * level[:, None] + torch.diag_embed(lost / size[:, None])
            fits.append(_generalised_least_squares(covariance, moves, left))
    likelihood, weights, uncertainty = (torch.stack(one) for one in zip(*fits, strict=True))  # of F fits, by spectrum
    belief = torch.softmax(likelihood, 0)
    mean = torch.einsum("fk,fkd->kd", belief, weights)
    apart = weights - mean
    uncertainty = torch.einsum("fk,fkde->kde", belief, uncertainty + apart[..., None] * apart[..., None, :])
    found = nearest + torch.einsum("kd,kdb->kb", mean, moves)
    variances, axes = torch.linalg.eigh(uncertainty)
    directions = variances.clamp_min(0).sqrt()[..., None] * (axes.transpose(1, 2) @ moves)
    directions = directions / found.norm(dim=1).clamp_min(1e-12)[:, None, None]
    found = found.clamp_min(0)
    total = directions.square().sum((1, 2)).sqrt()
    error = torch.where(found.any(1), total.clamp_max(math.pi / 2), math.pi / 2)
    return Corrected(unit_rows(found), error, directions * (error / total.clamp_min(1e-12))[:, None, None])


def _kernels(spectra: torch.Tensor) -> list[torch.Tensor]:
    """Covariances (B, B) over the bands of B-band spectra."""
    position = torch.linspace(0, 1, spectra.shape[1], dtype=spectra.dtype, device=spectra.device)
    distance = (position[:, None] - position).abs()
    kernels = [torch.exp(-0.5 * (distance / length).square()) for length in _LENGTHS]
    for length in _ROUGH_LENGTHS:
        scaled = math.sqrt(3) * distance / length
        kernels.append((1 + scaled) * torch.exp(-scaled))
    eye = torch.eye(len(distance), dtype=spectra.dtype, device=spectra.device)
    return [kernel + share**2 * eye for kernel in kernels for share in _INDEPENDENT] + [eye]


def _generalised_least_squares(
    covariance: torch.Tensor, moves: torch.Tensor, left: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fit `left` (k, B) by moves (k, D, B), errors having a multiple of the covariance (k, B, B).

    Returns:
        The restricted log-likelihood (k,) of the best multiple, the weights (k, D), and their covariance (k, D, D).
    """
    degrees = max(left.shape[1] - moves.shape[1], 1)
    root = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(root, torch.cat([moves, left[:, None]], 1).transpose(1, 2), upper=False)
    design, target = white[..., :-1], white[..., -1:]
    precision = design.transpose(1, 2) @ design
    factor = torch.linalg.cholesky(
        precision
        + 1e-12 * precision.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(moves.shape[1]).to(left)
    )
    weights = torch.cholesky_solve(design.transpose(1, 2) @ target, factor)
    size = (target - design @ weights).square().sum((1, 2)).div(degrees).clamp_min(1e-12)
    determinants = root.diagonal(dim1=1, dim2=2).log().sum(1) + factor.diagonal(dim1=1, dim2=2).log().sum(1)
    likelihood = -determinants - 0.5 * degrees * size.log()
    return likelihood, weights[..., 0], size[:, None, None] * torch.cholesky_inverse(factor)
