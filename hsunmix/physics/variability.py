"""Endmembers that vary over the scene: what their variation adds to each pixel, so that it can be taken out.

The same material is brighter here and redder there (grain size, moisture, canopy). Two kinds of variation are told
from the data. Changes of shape are smooth along the spectrum: they count as an error of that covariance, under which
generalised least squares (Aitken, 1935) reads the abundances from the finer features. Changes of scale, one for each
endmember, are smooth over the scene and show where the coefficients of neighbouring pixels do not sum to one (extended
linear mixing model: Drumetz et al., IEEE TIP 2016).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from .consistency import nnls, regularise, solve_nonnegative
from .evidence import Reading, zero_filled

_CURVE_LENGTH = 0.2  # correlation length of changes of shape, as a share of the bands
_UNEVEN = 0.02  # variance of changes of shape that are not smooth, as a share of that of smooth ones
_LARGE = 0.01  # variance of directions that tell how large changes are, as a share of the largest
_WINDOW = 7  # pixels, box filtered twice: about as wide as the scales are smooth
# Ridge of the scales: what errors that neighbours share call for, and how much more for each unit of the variance that
# the scales leave in the sums of the coefficients. Illumination that varies is left alone by it.
_RIDGE, _RIDGE_PER_VARIANCE = 3e-3, 50.0
_LEAST_SCALE, _LARGEST_SCALE = 0.5, 2.0
# Of the variation of the sums that scales were fitted to: as much may be left, unseen; and the most.
_FITTED_SHARE, _MOST_WIDTH = 0.5, 0.05


class ConstantPart(NamedTuple):
    """Pixels without the variation of the endmembers, and how large that is.

    Attributes:
        pixels: (N, B) in the dtype of those given.
        error: ratio of the standard deviation of the abundances in `reading` to that of ordinary least squares under
            sensor noise, at least 1.
        reading: of the abundances, by generalised least squares.
        change: relative standard deviation of the changes of shape.
    """

    pixels: torch.Tensor
    error: float
    reading: Reading
    change: float


def constant_part(
    pixels: torch.Tensor, endmembers: torch.Tensor, noise_std: torch.Tensor, valid: torch.Tensor
) -> ConstantPart:
    """Take the variation of the endmembers out of the pixels.

    Args:
        pixels: (N, B) spectra.
        endmembers: (R, B) spectra in the scale in which abundances sum to one, on average.
        noise_std: (B,) sensor noise.
        valid: (H, W) bool, N of them true: where the pixels lie.

    Returns:
        The pixels with ordinary endmembers.
    """
    y, spectra, variance = pixels.double(), endmembers.double(), noise_std.double().square()
    shape, change = _shape_covariance(y, spectra, variance)
    diagonal = variance + _UNEVEN * shape.diagonal().mean()
    inverse = torch.linalg.inv(shape + diagonal.diag())
    weights = spectra @ inverse  # [R, B]
    gram = weights @ spectra.T
    rhs = y @ weights.T
    coefficients = solve_nonnegative(gram, rhs)
    scales = _scales(coefficients, valid)
    rest = ((y - coefficients @ spectra) @ inverse) * diagonal
    ordinary = (spectra / variance) @ spectra.T
    error = torch.linalg.inv(regularise(gram)).trace() / torch.linalg.inv(regularise(ordinary)).trace()
    constant = (scales * coefficients) @ spectra + rest
    unbounded = torch.linalg.solve(regularise(gram), rhs.T).T
    fitted = (scales - 1) * coefficients  # bounded: of twins only the sum is known, and scales would tear them apart
    width = min(_FITTED_SHARE * float(fitted.sum(1).std(correction=0)), _MOST_WIDTH)
    reading = Reading(unbounded + fitted, weights, width)
    return ConstantPart(constant.to(pixels.dtype), float(error.sqrt().clamp_min(1.0)), reading, change)


def _shape_covariance(
    pixels: torch.Tensor, endmembers: torch.Tensor, noise_var: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """Covariance (B, B) of the changes of shape, from the residual that they leave, and their relative size.

    The residual shows what lies outside of the endmembers' span; there the directions count in which changes are
    large, since in all others it is noise.
    """
    bands = endmembers.shape[1]
    coefficients = nnls(pixels, endmembers)
    position = torch.linspace(0, 1, bands, dtype=pixels.dtype, device=pixels.device)
    smooth = (-0.5 * ((position[:, None] - position) / _CURVE_LENGTH).square()).exp()
    amount = coefficients.square().mean(0).sqrt()[:, None] * endmembers  # [R, B]
    covariance = (amount.T @ amount) * smooth
    basis = torch.linalg.qr(endmembers.T)[0]
    outside = torch.eye(bands, dtype=pixels.dtype, device=pixels.device) - basis @ basis.T
    values, vectors = torch.linalg.eigh(outside @ covariance @ outside)
    large = values > _LARGE * values.max()
    shown = ((pixels - coefficients @ endmembers) @ vectors[:, large]).square().mean(0)
    excess = shown.sum() - noise_var @ vectors[:, large].square().sum(1)
    factor = excess.clamp_min(0) / values[large].sum().clamp_min(1e-30)
    return factor * covariance, float(factor.sqrt())


def _scales(coefficients: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Inverse scale (N, R) of each endmember in each pixel, by which the coefficients around it sum to one.

    Ridge regression in a window about each pixel, towards 1; the rougher the sums are, the less it follows them.
    """
    rank = coefficients.shape[1]
    products = (coefficients[:, :, None] * coefficients[:, None, :]).flatten(1)
    sums = _window_mean(torch.cat([products, coefficients], 1), valid)
    gram, total = sums[:, : rank * rank].unflatten(1, (rank, rank)), sums[:, rank * rank :]
    target = (total - gram.sum(2))[..., None]  # [N, R, 1]: of `1 - sum b`
    eye = torch.eye(rank, dtype=gram.dtype, device=gram.device)

    def fit(ridge: float) -> torch.Tensor:
        scales = 1 + torch.linalg.solve(gram + ridge * eye, target).squeeze(-1)
        return scales.clamp(1 / _LARGEST_SCALE, 1 / _LEAST_SCALE)

    left = ((fit(_RIDGE) * coefficients).sum(1) - 1).square().mean()
    return fit(_RIDGE + _RIDGE_PER_VARIANCE * float(left))


def _window_mean(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean (N, C) of pixel values (N, C) over the window about each pixel; what lies outside counts as 0."""
    maps = zero_filled(values, valid)
    for _ in range(2):
        maps = functional.avg_pool2d(maps, _WINDOW, 1, _WINDOW // 2)
    return maps.permute(1, 2, 0)[valid]
