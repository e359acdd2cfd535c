"""Does the brightness of a scene vary, and in which scale are abundances then counted?

Where it does not vary, freeing it costs accuracy; where it does, fixing it ruins the abundances. The scene tells: with
constant brightness there are weights u > 0 with `b u = 1` in every pixel, b being the unconstrained coefficients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .consistency import fcls, nnls, normal_equations, regularise

BRIGHTNESS_THRESHOLD = 0.07
"""Relative variation above which the brightness counts as free."""
# Share of a scene's energy that a fixed brightness may leave unexplained: errors of approximate endmembers cost less,
# brightness that varies or endmembers in another scale more.
_COST_THRESHOLD = 0.02
_COST_PIXELS = 4000  # enough to tell
_SIGNIFICANT = 2.0  # times the variation that one level may leave: such a level is no accident of wrong endmembers
_NOISE_ERROR = 0.1  # relative error of the estimated variance of the noise
LEAST_WIDTH = 0.002
"""The prior on a constant brightness is never narrower; where spectra are right, freedom costs up to half of the
accuracy in scenes of few mixtures."""
DOUBTFUL_WIDTH = 0.01
"""What it is widened to, at most, where the scale of the spectra is in doubt: a little freedom takes up what wrong
ones leave."""
# Of how far the brightness may vary with these spectra. On simulated scenes (24 of held-out materials, 8 by the recipe
# of the benchmark) this lowers the error by 3 %, from spectra that were 5 degrees off by 8 % at 30 and 40 dB, and
# raises it nowhere by more than 3 %.
_DOUBT_WIDTH = 1 / 3
_LEAST_WEIGHT = 0.05  # of the largest one: with less an endmember says nothing of its scale


@dataclass
class BrightnessModel:
    """How the brightness enters the unmixing.

    Attributes:
        mode: "free" or "fixed".
        variation: relative standard deviation of the brightness, noise removed.
        precision: inverse variance of the prior around the level; 0 when free.
        level: the constant brightness: 1, or another where a cube and its exact endmembers differ by a common factor.
    """

    mode: str
    variation: float
    precision: float
    level: float = 1.0

    @property
    def uneven(self) -> bool:
        """Held fixed, by the user's word, though it varies."""
        return self.mode == "fixed" and self.variation > BRIGHTNESS_THRESHOLD


def brightness_fit(
    pixels: torch.Tensor, endmembers: torch.Tensor, noise_std: torch.Tensor | float
) -> tuple[torch.Tensor, float]:
    """Weights u for which `b u` is as nearly 1 as it can be, and how far from 1 the brightness then varies.

    Least squares with the moments of the unconstrained coefficients b corrected for their noise covariance (errors in
    variables; Fuller, 1987), so that the answer does not depend on the noise level. Divided by `u_r`, endmember r has
    the scale in which abundances sum to one.

    Args:
        pixels: (N, B) spectra.
        endmembers: (R, B) spectra, in any scale.
        noise_std: (B,) standard deviation of the noise.

    Returns:
        `(u, variation)`: (R,) float64, and the relative standard deviation of the brightness, noise removed. With
        hardly more pixels than endmembers nothing can be said: the variation is 0.
    """
    return _fit(*_coefficients(pixels, endmembers, noise_std))


def in_natural_scale(endmembers: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Endmembers in the scale in which abundances sum to one, as nearly as they do in a scene.

    Args:
        endmembers: (R, B) spectra, in any scale.
        weights: (R,) of `brightness_fit`.

    Returns:
        (R, B) in the dtype of `endmembers`.
    """
    weights = weights.clamp_min(_LEAST_WEIGHT * float(weights.max()))
    return endmembers / weights[:, None].to(endmembers.dtype)


def _fit(b: torch.Tensor, covariance: torch.Tensor) -> tuple[torch.Tensor, float]:
    """`brightness_fit` from the coefficients."""
    count, rank = b.shape
    if count <= 2 * rank:
        return torch.ones_like(b[0]), 0.0
    moments = b.T @ b / count - covariance
    values, vectors = torch.linalg.eigh(moments)
    values = values.clamp_min(1e-6 * values.max())  # directions that are all noise say nothing
    u = vectors @ ((vectors.T @ b.mean(0)) / values)
    return u, _spread(b, covariance, u)


def brightness_level(
    pixels: torch.Tensor, endmembers: torch.Tensor, noise_std: torch.Tensor | float
) -> tuple[float, float, float]:
    """The brightness of a scene whose endmembers are exact, and its relative variation, noise removed.

    As `brightness_fit`, with one weight for all endmembers. Endmembers that are each in a scale of their own (maximum
    1, say) show as a variation of their sum.

    Args:
        pixels: (N, B) spectra.
        endmembers: (R, B) spectra.
        noise_std: (B,) standard deviation of the noise.

    Returns:
        `(level, variation, doubt)`, the last with the variation that noise may hide; 1, 0 and infinity where hardly
        more pixels than endmembers, or no light, leave nothing to say.
    """
    return _level(*_coefficients(pixels, endmembers, noise_std))


def _level(b: torch.Tensor, covariance: torch.Tensor) -> tuple[float, float, float]:
    """`brightness_level` from the coefficients."""
    total, variance = b.sum(1), covariance.sum()
    mean = total.mean()
    if b.shape[0] <= 2 * b.shape[1] or mean <= 0:
        return 1.0, 0.0, math.inf
    square = (total.square().mean() - variance).clamp_min(mean**2)  # too much noise assumed: as if it did not vary
    ones = torch.ones_like(b[0])
    left = _spread(b, covariance, ones * mean / square)
    hidden = _NOISE_ERROR * float(variance) * float(mean / square) ** 2
    return float(square / mean), left, math.sqrt(left**2 + hidden)


def brightness_model(
    pixels: torch.Tensor,
    endmembers: torch.Tensor,
    noise_std: torch.Tensor,
    mode: str = "auto",
    exact: bool = False,
) -> BrightnessModel:
    """Choose the brightness prior of a scene.

    Args:
        pixels: (N, B) spectra.
        endmembers: (R, B) spectra.
        noise_std: (B,) standard deviation of the noise.
        mode: "free", "fixed", or "auto": fixed where the brightness varies by less than 7 %. For exact endmembers by
            `brightness_level`; else by `brightness_fit`, unless the fit with a fixed brightness is far worse. The
            level is that of `brightness_level`: of exact endmembers always, of others where it differs from 1 by more
            than their errors explain (a library in another scale than the cube, say).
        exact: the endmembers have no error, so that their scale says how bright the scene is.

    Returns:
        The `BrightnessModel`. A fixed brightness is held as tightly as it seems to vary, but no tighter than .2 %,
        and where endmembers are not exact no tighter than their scale is sure, as noise and the sum of the abundances
        tell, up to 1 %.

    Raises:
        ValueError: for any other mode.
    """
    if mode not in ("auto", "free", "fixed"):
        raise ValueError(f'`brightness` must be "auto", "free" or "fixed", but is {mode!r}.')
    coefficients = _coefficients(pixels, endmembers, noise_std)
    level, variation = 1.0, _fit(*coefficients)[1]
    if mode == "free":
        return BrightnessModel("free", variation, 0.0)
    common, left, doubt = _level(*coefficients)
    if mode == "auto":
        if exact:
            level, variation = common, left
        elif abs(common - 1) > _SIGNIFICANT * doubt:
            level = common
        varies = variation > BRIGHTNESS_THRESHOLD
        if varies or (not exact and _cost_of_fixing(pixels, level * endmembers) > _COST_THRESHOLD):
            return BrightnessModel("free", variation, 0.0)
    least = LEAST_WIDTH
    if not exact:
        least = min(max(least, _DOUBT_WIDTH * doubt, abs(common / level - 1)), DOUBTFUL_WIDTH)
    width = level * (least if mode == "fixed" else max(variation, least))
    return BrightnessModel("fixed", variation, width**-2, level)


def _cost_of_fixing(pixels: torch.Tensor, endmembers: torch.Tensor) -> float:
    """Share of the energy that non-negative least squares explains only with a free brightness."""
    some = pixels[:: max(1, len(pixels) // _COST_PIXELS)]
    free, fixed = ((some - solve(some, endmembers) @ endmembers).square().sum() for solve in (nnls, fcls))
    return float((fixed - free) / some.square().sum().clamp_min(1e-30))


def _coefficients(
    pixels: torch.Tensor, endmembers: torch.Tensor, noise_std: torch.Tensor | float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unconstrained coefficients (N, R) and their covariance (R, R), which all pixels share."""
    gram, rhs = normal_equations(pixels, endmembers, noise_std)
    covariance = torch.linalg.inv(regularise(gram))
    return rhs @ covariance, covariance


def _spread(b: torch.Tensor, covariance: torch.Tensor, u: torch.Tensor) -> float:
    """Root mean square of `b u - 1`, noise removed."""
    variance = (b @ u - 1).square().mean() - u @ covariance @ u
    return float(variance.clamp_min(0).sqrt())
