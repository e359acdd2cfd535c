"""Endmembers that vary over the scene: what their variation adds to each pixel, and what they are without it.

The same material is brighter here and redder there (grain size, moisture, canopy). Two kinds of variation are told
from the data. Changes of shape are smooth along the spectrum. Those that neighbouring pixels share show in what these
leave outside of the span of the endmembers, and are taken out (local endmembers: Canham et al., IEEE TGRS 2011); the
rest counts as an error of that covariance, under which generalised least squares (Aitken, 1935) reads the abundances
from the finer features. Changes of scale, one for each endmember, are smooth over the scene and show where the
coefficients of neighbouring pixels do not sum to one (extended linear mixing model: Drumetz et al., IEEE TIP 2016).
What endmembers are on average over the scene is told, with refined maps, from what they are at its places.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from .consistency import mostly_outside, nnls, regularise, solve_nonnegative
from .evidence import Reading, zero_filled

_CURVE_LENGTH = 0.2  # correlation length of changes of shape, as a share of the bands
_OF_SHAPE = 0.5  # of the variance of a smooth curve times a spectrum; the rest is a change of its scale
_UNEVEN = 0.02  # variance of changes of shape that are not smooth, as a share of that of smooth ones
_LARGE = 0.01  # variance of directions that tell how large changes are, as a share of the largest
_LEAST_CURVE = 1e-3  # the same of curves that changes which neighbours share consist of
_SHARED_UNEVEN = 10.0  # times the variance of changes that are not smooth: neighbours share them, none averages out
_WINDOW = 7  # pixels, box filtered twice: about as wide as scales and shapes are smooth
_STRIDE = 3  # pixels between places for which changes of shape are solved
_FAR_STRIDE = 6  # the same where nothing is interpolated between them
_PLACES_AT_ONCE = 1024
_WITHIN = 0.8  # of the variance of changes of shape: errors of a pixel, since they are not the same about a place
_FEW = 3  # endmembers up to which no move within their span counts
_BANDS_AT_ONCE = 32  # where every place and band has a system of its own
# Ridge of the scales: what errors that neighbours share call for, and how much more for each unit of the variance that
# the scales leave in the sums of the coefficients. Illumination that varies is left alone by it.
_RIDGE, _RIDGE_PER_VARIANCE = 3e-3, 50.0
_LEAST_SCALE, _LARGEST_SCALE = 0.5, 2.0
# Of the variation of the sums that scales were fitted to: as much may be left, unseen; and the most.
_FITTED_SHARE, _MOST_WIDTH = 0.5, 0.05
_FITTED_ERROR = 0.15  # of the squares of what scales were fitted to: in simulated scenes the errors that they leave


class Variation(NamedTuple):
    """How endmembers vary over a scene.

    Attributes:
        change: relative standard deviation of the changes of shape.
        scales: (N, R) float64, how much brighter than on average each endmember is in each pixel.
    """

    change: float
    scales: torch.Tensor


class ConstantPart(NamedTuple):
    """Pixels without the variation of the endmembers, and how large that is.

    Attributes:
        pixels: (N, B) in the dtype of those given.
        common: (N, B) changes that are the same in all pixels, which `pixels` are without, too; they may be an error
            of the endmembers.
        error: ratio of the standard deviation of the abundances in `reading` to that of ordinary least squares under
            sensor noise, at least 1.
        reading: of the abundances, by generalised least squares.
        variation: that was taken out.
    """

    pixels: torch.Tensor
    common: torch.Tensor
    error: float
    reading: Reading
    variation: Variation


def constant_part(
    pixels: torch.Tensor,
    endmembers: torch.Tensor,
    noise_std: torch.Tensor,
    valid: torch.Tensor,
    at_facets: bool = False,
) -> ConstantPart:
    """Take the variation of the endmembers out of the pixels.

    Args:
        pixels: (N, B) spectra.
        endmembers: (R, B) spectra in the scale in which abundances sum to one, on average.
        noise_std: (B,) sensor noise.
        valid: (H, W) bool, N of them true: where the pixels lie.
        at_facets: the reading is as precise as where a material is absent, whose scale then doesn't matter.

    Returns:
        The pixels with ordinary endmembers.
    """
    y, spectra, variance = pixels.double(), endmembers.double(), noise_std.double().square()
    shape, change = _shape_covariance(y, spectra, variance)
    common = torch.zeros_like(y)
    if change > 0:
        _, _, coefficients = _generalised(y, spectra, shape, variance)
        shared, common, fitted_noise = _shared_changes(y, spectra, variance, shape, change, coefficients, valid)
        y = y - shared
        shape, _ = _shape_covariance(y, spectra, variance, fitted_noise)
    inverse, weights, coefficients = _generalised(y, spectra, shape, variance)
    gram = weights @ spectra.T
    scales = _scales(coefficients, valid)
    rest = ((y - coefficients @ spectra) @ inverse) * _uneven(shape, variance)
    constant = (scales * coefficients) @ spectra + rest
    unbounded = torch.linalg.solve(regularise(gram), weights @ y.T).T
    fitted = (scales - 1) * coefficients  # bounded: of twins only the sum is known, and scales would tear them apart
    width = min(_FITTED_SHARE * float(fitted.sum(1).std(correction=0)), _MOST_WIDTH)
    # what scales leave counts as an error too: the weights that say so are these, in another metric
    doubt = (0.0 if at_facets else _FITTED_ERROR) * fitted.T @ fitted / len(fitted)
    weights = torch.linalg.solve(torch.eye(len(gram), dtype=gram.dtype, device=gram.device) + gram @ doubt, weights)
    reading = Reading(unbounded + fitted, weights, width)
    ordinary = (spectra / variance) @ spectra.T
    traces = [torch.linalg.inv(regularise(one)).trace() for one in (weights @ spectra.T, ordinary)]
    error = float((traces[0] / traces[1]).sqrt().clamp_min(1.0))
    variation = Variation(change, scales.reciprocal())
    return ConstantPart(constant.to(pixels.dtype), common.to(pixels.dtype), error, reading, variation)


def mean_endmembers(
    pixels: torch.Tensor,
    scaled_abundances: torch.Tensor,
    noise_std: torch.Tensor,
    prior: torch.Tensor,
    prior_std: torch.Tensor,
    valid: torch.Tensor,
    variation: Variation,
) -> torch.Tensor:
    """Endmembers as they are on average over a scene in which they vary.

    Least squares over all pixels would count each of them by the square of its abundance: what a few regions of much
    of a material look like. Here each place has endmembers of its own, by the pixels around it, that differ from those
    of the scene by a change of shape; what is certain at a place counts no more than that change lets it (random
    effects: Laird and Ware, Biometrics 1982), one R x R solve per place and band. Of the way there within the span of
    the endmembers, (R - 3) / R counts, see `hsunmix.physics.consistency.mostly_outside`.

    Args:
        pixels: (N, B) spectra as measured.
        scaled_abundances: (N, R) `b = s * a`, of ordinary endmembers.
        noise_std: (B,) sensor noise.
        prior: (R, B) expected endmembers.
        prior_std: (R, B) or broadcastable: how far each may be off; 0 keeps an endmember exactly.
        valid: (H, W) bool, N of them true: where the pixels lie.
        variation: of the endmembers, from `constant_part`.

    Returns:
        (R, B) endmembers, in the dtype of `pixels`.
    """
    expected, std = prior.double(), prior_std.double().expand(prior.shape)
    rank = len(expected)
    local = scaled_abundances.double() * variation.scales
    products = _at_places(_window_sum((local[:, :, None] * local[:, None, :]).flatten(1), valid), _FAR_STRIDE)
    products = products.unflatten(1, (rank, rank))[:, None]  # [P, 1, R, R]
    changes = _OF_SHAPE * (variation.change * expected).square()  # [R, B], variances
    precision = (noise_std.double().square() + _WITHIN * local.square().mean(0) @ changes).reciprocal()
    eye = torch.eye(rank, dtype=expected.dtype, device=expected.device)
    moves = []
    for bands in torch.arange(len(precision), device=pixels.device).split(_BANDS_AT_ONCE):
        own, unit = expected[:, bands], std[:, bands].T[..., None]  # [R, b], [b, R, 1]
        residual = pixels[:, bands].double() - local @ own
        seen = torch.stack(
            [_at_places(_window_sum(one[:, None] * residual, valid), _FAR_STRIDE) for one in local.T], 2
        )
        told = precision[bands, None, None] * torch.cat([products.expand(-1, len(bands), -1, -1), seen[..., None]], -1)
        mixed = eye + told[..., :rank] * changes[:, bands].T[:, None]  # [P, b, R, R]
        # so many places see a pixel; in units of the prior's std, so that std = 0 is no special case
        total = unit * torch.linalg.solve(mixed, told).sum(0) * (_FAR_STRIDE / _WINDOW) ** 2  # [b, R, R + 1]
        move = unit * torch.linalg.solve(total[..., :rank] * unit.mT + eye, total[..., rank:])
        moves.append(move.squeeze(-1).T)
    moved = (expected + mostly_outside(torch.cat(moves, 1), expected, _FEW)).clamp_min(0)
    return torch.where(std == 0, prior, moved.to(prior.dtype)).to(pixels.dtype)


def _generalised(
    pixels: torch.Tensor, endmembers: torch.Tensor, shape: torch.Tensor, noise_var: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inverse covariance (B, B) of the errors of a pixel, weights (R, B), non-negative generalised least squares."""
    inverse = torch.linalg.inv(shape + _uneven(shape, noise_var).diag())
    weights = endmembers @ inverse
    return inverse, weights, solve_nonnegative(weights @ endmembers.T, pixels @ weights.T)


def _smooth_curves(bands: int, like: torch.Tensor) -> torch.Tensor:
    """Covariance (B, B) of smooth curves along the spectrum, of variance 1."""
    position = torch.linspace(0, 1, bands, dtype=like.dtype, device=like.device)
    return (-0.5 * ((position[:, None] - position) / _CURVE_LENGTH).square()).exp()


def _uneven(shape: torch.Tensor, noise_var: torch.Tensor, times: float = 1.0) -> torch.Tensor:
    """Variance (B,) of what is independent from band to band: noise, and changes of shape that are not smooth."""
    return noise_var + times * _UNEVEN * shape.diagonal().mean()


def _shape_covariance(
    pixels: torch.Tensor, endmembers: torch.Tensor, noise_var: torch.Tensor, fitted_noise: float = 0.0
) -> tuple[torch.Tensor, float]:
    """Covariance (B, B) of the changes of shape, from the residual that they leave, and their relative size.

    The residual shows what lies outside of the endmembers' span; there the directions count in which changes are
    large, since in all others it is noise. Of the noise, as much as `fitted_noise` says was fitted in each pixel: the
    residual lacks it, and what was fitted is off by as much (as in the Cp of Mallows, Technometrics 1973).
    """
    bands = endmembers.shape[1]
    coefficients = nnls(pixels, endmembers)
    smooth = _smooth_curves(bands, pixels)
    amount = coefficients.square().mean(0).sqrt()[:, None] * endmembers  # [R, B]
    covariance = (amount.T @ amount) * smooth
    outside = _without(torch.eye(bands, dtype=pixels.dtype, device=pixels.device), endmembers)
    values, vectors = torch.linalg.eigh(outside @ covariance @ outside)
    large = values > _LARGE * values.max()
    shown = ((pixels - coefficients @ endmembers) @ vectors[:, large]).square().mean(0)
    excess = shown.sum() - noise_var @ vectors[:, large].square().sum(1) + 2 * fitted_noise
    factor = excess.clamp_min(0) / values[large].sum().clamp_min(1e-30)
    return factor * covariance, float(factor.sqrt())


def _shared_changes(
    pixels: torch.Tensor,
    endmembers: torch.Tensor,
    noise_var: torch.Tensor,
    shape: torch.Tensor,
    change: float,
    coefficients: torch.Tensor,
    valid: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """What changes of shape that neighbours share add to the pixels (N, B), and what of the noise they are fitted to.

    An endmember changes by itself times a smooth curve, a sum of M eigenvectors of `_smooth_curves`. How much of each,
    ridge regression in a window about each place says, with its variance as prior, from what lies outside of the span
    of the endmembers, where errors of the abundances are not seen. Changes that are not smooth are an error of it that
    neighbours share as well.

    Returns:
        The sum of the changes; what of it all pixels share, which may be an error of the endmembers; and the mean over
        the pixels of its product with the noise outside of that span. That as if all pixels were as near to a place as
        those at places, so that it is too much, by as much as it lacks that abundances were fitted to the same noise.
    """
    rank, bands = endmembers.shape
    values, curves = torch.linalg.eigh(_smooth_curves(bands, pixels))
    many = values > _LEAST_CURVE * values.max()
    modes = curves[:, many].T * endmembers[:, None]  # [R, M, B]
    weight = _uneven(shape, noise_var, _SHARED_UNEVEN).rsqrt()
    outside = _without(weight * modes, weight * endmembers)
    overlap = torch.einsum("rmb,skb->rmsk", outside, outside)
    noise = torch.einsum("rmb,skb->rmsk", _without(outside * weight * noise_var, endmembers), modes)
    prior = (change**2 * values[many]).reciprocal().repeat(rank)  # [RM]
    products, seen = [], []
    for own, mode in zip(coefficients.T, weight * outside, strict=True):
        sums = _window_sum(own[:, None] * torch.cat([coefficients, pixels @ mode.T], 1), valid)
        places = _at_places(sums)
        products.append(places[:, :rank])
        seen.append(places[:, rank:])
    together, right = torch.stack(products, 1), torch.stack(seen, 1).flatten(1)  # [P, R, R], [P, RM]
    solved, fitted = [], 0.0
    for some, rhs in zip(together.split(_PLACES_AT_ONCE), right.split(_PLACES_AT_ONCE), strict=True):
        data, noisy = ((some[:, :, None, :, None] * one).flatten(3).flatten(1, 2) for one in (overlap, noise))
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(data + prior.diag()))
        solved.append((inverse @ rhs[..., None]).squeeze(-1))
        fitted += float((inverse * noisy).sum())
    amounts = _between_places(torch.cat(solved), valid).unflatten(1, (rank, -1))  # [N, R, M]
    presence = coefficients.square()[:, :, None]
    mean = (presence * amounts).sum(0) / presence.sum(0).clamp_min(1e-12)  # [R, M]
    shared = (coefficients[:, :, None] * amounts).flatten(1) @ modes.flatten(0, 1)
    common = coefficients @ torch.einsum("rm,rmb->rb", mean, modes)
    pixels_seen = float(_at_places(_window_sum(torch.ones_like(coefficients[:, :1]), valid)).sum())
    return shared, common, fitted / pixels_seen


def _without(spectra: torch.Tensor, endmembers: torch.Tensor) -> torch.Tensor:
    """Spectra (..., B) without their part in the span of the endmembers (R, B)."""
    basis = torch.linalg.qr(endmembers.T)[0]
    return spectra - (spectra @ basis) @ basis.T


def _scales(coefficients: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Inverse scale (N, R) of each endmember in each pixel, by which the coefficients around it sum to one.

    Ridge regression in a window about each pixel, towards 1; the rougher the sums are, the less it follows them. What
    it leaves is fitted once more, since it is too smooth (twicing: Tukey, Exploratory Data Analysis, 1977).
    """
    rank = coefficients.shape[1]

    def around(values: torch.Tensor) -> torch.Tensor:
        return _window_mean(values, valid).permute(1, 2, 0)[valid]

    gram = around((coefficients[:, :, None] * coefficients[:, None, :]).flatten(1)).unflatten(1, (rank, rank))
    eye = torch.eye(rank, dtype=gram.dtype, device=gram.device)

    def fit(ridge: float) -> torch.Tensor:
        factors = torch.linalg.lu_factor(gram + ridge * eye)
        scales = torch.ones_like(coefficients)
        for _ in range(2):
            missing = 1 - (scales * coefficients).sum(1, keepdim=True)
            target = around(missing * coefficients)[..., None]  # [N, R, 1]
            scales = scales + torch.linalg.lu_solve(*factors, target).squeeze(-1)
        return scales.clamp(1 / _LARGEST_SCALE, 1 / _LEAST_SCALE)

    left = ((fit(_RIDGE) * coefficients).sum(1) - 1).square().mean()
    return fit(_RIDGE + _RIDGE_PER_VARIANCE * float(left))


def _window_mean(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean (C, H, W) of pixel values (N, C) over the window about each place; what lies outside counts as 0."""
    maps = zero_filled(values, valid)
    for _ in range(2):
        maps = functional.avg_pool2d(maps, _WINDOW, 1, _WINDOW // 2)
    return maps


def _window_sum(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """The same as a sum in which the pixel itself counts once, and others the less the further they are."""
    return _WINDOW**2 * _window_mean(values, valid)


def _at_places(maps: torch.Tensor, stride: int = _STRIDE) -> torch.Tensor:
    """Values (P, C) of every third (`stride`) pixel and row of maps (C, H, W), repeated until the last one is one."""
    height, width = maps.shape[1:]
    below, right = _margins(height, width, stride)
    maps = functional.pad(maps[None], (0, right, 0, below), mode="replicate")[0]
    return maps[:, ::stride, ::stride].flatten(1).T


def _between_places(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Bilinear interpolation of values (P, C) of `_at_places` to the valid pixels, (N, C)."""
    height, width = valid.shape
    below, right = _margins(height, width)
    maps = values.T.unflatten(1, ((height + below - 1) // _STRIDE + 1, -1))[None]
    maps = functional.interpolate(maps, (height + below, width + right), mode="bilinear", align_corners=True)
    return maps[0, :, :height, :width].permute(1, 2, 0)[valid]


def _margins(height: int, width: int, stride: int = _STRIDE) -> tuple[int, int]:
    """Rows and columns until the last one has a place."""
    return (1 - height) % stride, (1 - width) % stride
