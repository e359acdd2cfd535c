"""What the data alone say about the abundances, before any learned prior: closed-form estimate, its error, the misfit.

The networks see the cube only through these maps, which have no band axis: this is what makes them work on any sensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from .consistency import abundance_std, anchor_brightness, normal_equations, regularise, solve_nonnegative
from .simplex import split_brightness

EVIDENCE_CHANNELS = 5
"""Number of maps per endmember in `Evidence.maps`."""
# Model errors are smooth along the spectrum: so many neighbouring bands repeat one error.
BANDS_PER_ERROR = 9.0
# Weight of the model error, whose distribution over the bands nobody knows, against that of the noise.
_MODEL_ERROR_WEIGHT = 25.0


class Reading(NamedTuple):
    """Abundances as they are read from pixels whose errors are not independent from band to band.

    Attributes:
        coefficients: (N, R) generalised least squares without bounds, in the dtype of the weights.
        weights: (R, B) float64 `E S^-1`, S being the covariance of the errors of a pixel.
        width: least relative standard deviation of a brightness that is held: the coefficients were fitted to it.
    """

    coefficients: torch.Tensor
    weights: torch.Tensor
    width: float = 0.0


@dataclass
class Evidence:
    """Closed-form unmixing of one scene with given endmembers (N pixels, R endmembers, B bands).

    Attributes:
        gram: (R, R) Gram matrix of the endmembers, weighted by noise and model error; holds the brightness prior too.
        rhs: (N, R) right-hand side of the normal equations.
        confidence: (N,) `confidence * gram` is the precision of `scaled_abundances` under sensor noise and uncertain
            endmembers, whose error grows with the brightness of the pixel.
        noise_confidence: () the same under sensor noise alone; 1, and all that a `Reading` counts as error, with one.
        leakage: (R, R) variance of the share of endmember r (row) that its uncertainty makes appear as endmember k.
        scaled_abundances: (N, R) exact solution `b = s * a` under `b >= 0`.
        abundances: (N, R) `b / sum b`.
        unbounded: (N, R) least squares without bounds, over the same `sum b`; may be negative.
        std: (N, R) standard deviation that sensor noise and uncertain endmembers cause in `abundances`. Other model
            error is left out: with exact endmembers and no noise the data have the last word.
        brightness: (N,) `sum b`.
        misfit: (N,) natural logarithm of residual rms over noise, both weighted; 0 where the model fits perfectly.
        noise_std: (B,) effective noise: sensor noise and model error together.
        band_std: (B,) what weighs the bands in `gram` and `rhs`, but for a `Reading`; the model error counts more.
    """

    gram: torch.Tensor
    rhs: torch.Tensor
    confidence: torch.Tensor
    noise_confidence: torch.Tensor
    leakage: torch.Tensor
    scaled_abundances: torch.Tensor
    abundances: torch.Tensor
    unbounded: torch.Tensor
    std: torch.Tensor
    brightness: torch.Tensor
    misfit: torch.Tensor
    noise_std: torch.Tensor
    band_std: torch.Tensor

    def maps(self, valid: torch.Tensor) -> torch.Tensor:
        """The evidence as input maps of the networks, each about in [-1, 1].

        Args:
            valid: (H, W) bool, where the N pixels lie; the mean of the others fills the rest.

        Returns:
            (R, 5, H, W): abundance, log of its standard deviation, log of relative brightness, misfit, and the
            abundance without bounds, whose noise averages out where that of the bounded one leaves a bias.
        """
        relative = self.brightness / self.brightness.median().clamp_min(1e-6)
        channels = [
            2 * self.abundances - 1,
            self.std.log10() / 1.5 + 1.5,
            relative.clamp(0.02, 50).log()[:, None].expand_as(self.std) / 2,
            (self.misfit.clamp_max(6)[:, None].expand_as(self.std) - 1) / 2,
            2 * self.unbounded.clamp(-2, 3) - 1,
        ]
        return scatter(torch.stack(channels, dim=-1), valid).permute(2, 3, 0, 1)

    def counting(self, share: float) -> Evidence:
        """The same evidence with less or more uncertain endmembers.

        Args:
            share: factor of their standard deviation.

        Returns:
            The evidence with its `confidence`, `leakage` and `std`.
        """
        alone = self.noise_confidence.reciprocal()
        confidence = (alone + share**2 * (self.confidence.reciprocal() - alone)).reciprocal()
        std = _abundance_error(self.gram, confidence, self.brightness).to(self.std)
        return replace(self, confidence=confidence, leakage=share**2 * self.leakage, std=std)

    def statistics(self) -> torch.Tensor:
        """What the maps of a scene say about where each endmember sits among the pixels, each about in [-1, 1].

        Returns:
            (R, 5): mean abundance, purity (99.5 % quantile of the abundance), share of the pixels without it, log of
            the root mean square of its standard deviation, mean misfit of the scene.
        """
        columns = [
            2 * self.abundances.mean(0) - 1,
            2 * quantile(self.abundances, 0.995) - 1,
            2 * (self.abundances < 1e-4).to(self.std).mean(0) - 1,
            self.std.square().mean(0).sqrt().log10() / 1.5 + 1.5,
            (self.misfit.mean().clamp_max(6).expand(self.std.shape[1]) - 1) / 2,
        ]
        return torch.stack(columns, dim=1)


def _abundance_error(gram: torch.Tensor, confidence: torch.Tensor, brightness: torch.Tensor) -> torch.Tensor:
    std = abundance_std(gram) * confidence.rsqrt()[:, None] / no_darkness(brightness)[:, None]
    return std.clamp(1e-5, 1.0)


def no_darkness(brightness: torch.Tensor) -> torch.Tensor:
    """Brightness (N,) that can be divided by: at least a thousandth of the median."""
    return torch.maximum(brightness, 1e-3 * brightness.median().clamp_min(1e-6))


def quantile(values: torch.Tensor, level: float) -> torch.Tensor:
    """Quantile along the first axis; unlike `torch.quantile` for any number of values."""
    return values.kthvalue(1 + round(level * (len(values) - 1)), dim=0).values


def scatter(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Put pixel values back on their grid; the rest gets their mean.

    Args:
        values: (N, ...) of the valid pixels, row by row.
        valid: (H, W) bool, N of them true.

    Returns:
        (H, W, ...).
    """
    grid = values.mean(0).expand(*valid.shape, *values.shape[1:]).clone()
    grid[valid] = values
    return grid


def zero_filled(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Pixel values (N, C) as maps (C, H, W), 0 elsewhere."""
    grid = values.new_zeros(*valid.shape, values.shape[1])
    grid[valid] = values
    return grid.permute(2, 0, 1)


def gather_evidence(
    pixels: torch.Tensor,
    endmembers: torch.Tensor,
    noise_std: torch.Tensor,
    brightness: float = 1.0,
    brightness_precision: torch.Tensor | float = 0.0,
    endmember_std: torch.Tensor | None = None,
    reading: Reading | None = None,
) -> Evidence:
    """Unmix in closed form and say how far the result can be trusted.

    Two passes: the first, with the sensor noise alone, measures the model error (wrong endmembers, nonlinearity) as
    the residual in excess of the noise; the second counts it in the weights of the bands, so that a cube without noise
    is not fitted to its few quietest bands.

    Args:
        pixels: (N, B) spectra.
        endmembers: (R, B) spectra.
        noise_std: (B,) sensor noise.
        brightness: expected brightness, used only with a positive precision.
        brightness_precision: number or (), inverse variance of the brightness around it; 0 leaves it free.
        endmember_std: (R, B) standard deviation of the endmembers; exact when `None`.
        reading: of the abundances, with the precision that its weights say, in place of least squares; the model
            error, still measured on the pixels, then changes no weights.

    Returns:
        The `Evidence`; float64 for `gram` and `rhs`, else the dtype of `pixels`.
    """
    num_endmembers, num_bands = endmembers.shape

    def solve(band_std: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        precision = brightness_precision
        if reading is None:
            gram, rhs = normal_equations(pixels, endmembers, band_std)
        else:
            gram = reading.weights @ endmembers.double().T
            rhs = reading.coefficients @ gram
            loosest = (reading.width * brightness) ** -2 if reading.width > 0 else math.inf
            precision = torch.as_tensor(precision).clamp_max(loosest)
        gram, rhs = anchor_brightness(gram, rhs, brightness, precision)
        return gram, rhs, solve_nonnegative(gram, rhs)

    first = solve(noise_std)
    residual = pixels - first[2].to(pixels.dtype) @ endmembers
    freedom = num_bands / max(num_bands - num_endmembers, 1)
    excess = (residual.square().mean(0) * freedom - noise_std.square()).clamp_min(0).mean()
    effective = (noise_std.square() + _MODEL_ERROR_WEIGHT * excess).sqrt()

    if reading is None:
        gram, rhs, scaled = solve(effective)
        weights, errors = endmembers.double() * effective.double().square().reciprocal(), noise_std
    else:  # whose weights are what they are
        gram, rhs, scaled = first
        weights, errors = reading.weights, None
    noise_confidence, confidence, leakage = _confidence(endmembers, scaled, weights, errors, endmember_std)
    abundances, total = split_brightness(scaled)
    free = torch.linalg.solve(regularise(gram), rhs.T).T
    residual = pixels - scaled.to(pixels.dtype) @ endmembers
    chi2 = (residual / noise_std).square().sum(1) / max(num_bands - num_endmembers, 1)
    dtype = pixels.dtype
    return Evidence(
        gram=gram,
        rhs=rhs,
        confidence=confidence,
        noise_confidence=noise_confidence,
        leakage=leakage,
        scaled_abundances=scaled.to(dtype),
        abundances=abundances.to(dtype),
        unbounded=(free / no_darkness(total)[:, None]).to(dtype),
        std=_abundance_error(gram, confidence, total).to(dtype),
        brightness=total.to(dtype),
        misfit=0.5 * chi2.clamp_min(1.0).log(),
        noise_std=(noise_std.square() + BANDS_PER_ERROR * excess).sqrt(),
        band_std=effective,
    )


def _confidence(
    endmembers: torch.Tensor,
    scaled: torch.Tensor,
    weights: torch.Tensor,
    noise_std: torch.Tensor | None,
    endmember_std: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """How much more precise the estimate with weights E W (R, B) is than these say, and what leaks.

    The first, a scalar, under sensor noise alone (1 if these hold all of it: `None`), the second, (N,), with the
    uncertainty of the endmembers: ratio of the traces of `G^-1` and of the sandwich covariance `G^-1 E W S W E^T G^-1`
    (White, 1980), with the true variance `S_n = noise_std^2 + sum_r b_nr^2 endmember_std_r^2`. The third is
    `Evidence.leakage`.
    """
    gram = weights @ endmembers.double().T
    inverse = torch.linalg.inv(regularise(gram))
    influence = (inverse @ weights).square()  # [R, B] variance per unit variance in each band
    trace = inverse.trace()
    variance = trace if noise_std is None else influence.sum(0) @ noise_std.double().square()
    alone = trace / variance.clamp_min(1e-300)
    leakage = torch.zeros_like(gram)
    if endmember_std is not None:
        leakage = BANDS_PER_ERROR * endmember_std.double().square() @ influence.T
        variance = variance + scaled.square() @ leakage.sum(1)  # [N]
    return alone, (trace / variance.clamp_min(1e-300)).expand(len(scaled)), leakage
