"""From what a chain knows of its errors to standard deviations and intervals that hold on simulated scenes.

Fitted on simulated scenes (by the recipe of the benchmark, of its materials and of held-out ones; 40 to 10 dB), so
that 90 % intervals (`abundance_interval`) cover about 90 %; where model errors are most of what is wrong, on Samson
and Jasper Ridge, where they should cover 83 to 97 %.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Factors(NamedTuple):
    """What a posterior is multiplied by.

    Attributes:
        noisy: the standard deviation, where noise is all that is wrong with the pixels.
        quiet: the same where noise is nothing of it.
        leak: the variance that endmembers leak.
    """

    noisy: float
    quiet: float
    leak: float


# Nobody knows how model errors lie to the endmembers: the more of them, the less is sure. Not so where endmembers
# vary: what that leaves is counted already, rather too much of it. Errors of corrected spectra lie in their span
# mostly, and leak more than those that differ from band to band.
_CONSTANT = {
    "given": Factors(1.1, 1.1, 3.0),
    "library": Factors(1.1, 1.1, 3.0),
    "corrected": Factors(1.2, 1.75, 7.0),
    "extracted": Factors(1.25, 1.8, 2.1),
}
_VARIABLE = {
    "given": Factors(1.5, 1.3, 4.0),
    "library": Factors(1.2, 0.9, 3.0),
    "corrected": Factors(1.55, 0.9, 2.1),
    "extracted": Factors(1.55, 0.9, 2.1),
}
_AT_BOUND = 0.6  # of the standard deviation is left at 0 and 1; from one standard deviation away on all of it
TO_BOUND = 1.5
"""Half-widths of an interval: 0 or 1 lies within it when it is nearer than that."""


def calibration(
    extracted: bool, corrected: bool, endmember_std: torch.Tensor, mixing_model: str, noisiness: float
) -> tuple[float, float]:
    """Factors of the posterior's deviation and of the leaking variance.

    Args:
        extracted: all pixels of the scene have placed the endmembers.
        corrected: they have done so from spectra that the user gave.
        endmember_std: (R, K) standard deviation of the endmembers; 0 where they are given as exact.
        mixing_model: of `hsunmix.physics.MIXING_MODELS`.
        noisiness: share of the noise of the sensor in what is wrong with the pixels, 0 to 1.
    """
    if extracted:
        origin = "corrected" if corrected else "extracted"
    else:
        origin = "library" if endmember_std.any() else "given"
    factors = (_VARIABLE if mixing_model == "variable" else _CONSTANT)[origin]
    return factors.quiet + (factors.noisy - factors.quiet) * noisiness, factors.leak


def near_bounds(std: torch.Tensor, abundances: torch.Tensor) -> torch.Tensor:
    """Standard deviations of abundances, smaller where these are close to 0 or 1.

    A material that seems to be absent mostly is: prior and constraints agree there, and errors are smaller than a
    normal posterior says.

    Args:
        std: (N, R) of the posterior.
        abundances: (N, R).

    Returns:
        (N, R), at most 1.
    """
    distance = torch.minimum(abundances, 1 - abundances)
    return (_AT_BOUND * std + (1 - _AT_BOUND) * torch.minimum(std, distance)).clamp_max(1.0)


def away_from_bounds(std: torch.Tensor, abundances: torch.Tensor) -> torch.Tensor:
    """The inverse of `near_bounds`, for standard deviations below 1."""
    distance = torch.minimum(abundances, 1 - abundances)
    return torch.where(std <= distance, std, (std - (1 - _AT_BOUND) * distance) / _AT_BOUND)
