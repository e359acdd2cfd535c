"""From what a chain knows of its errors to standard deviations and intervals that hold on simulated scenes.

Fitted on simulated scenes (by the recipe of the benchmark, 40 to 10 dB), so that 90 % intervals (`abundance_interval`)
cover about 90 %; where model errors are most of what is wrong, on Samson and Jasper Ridge, where they should cover 83
to 97 %.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Factors(NamedTuple):
    """What a posterior is multiplied by.

    Attributes:
        noisy: the standard deviation, where noise is all that is wrong with the pixels.
        quiet: the same where noise is nothing of it.
        leak: the variance that endmembers leak by what networks expect of them, unless facets have placed them.
    """

    noisy: float
    quiet: float
    leak: float


# By where endmembers come from. Nobody knows how model errors lie to those that the pixels have placed: the more of
# them, the less is sure. Not so where endmembers vary: what that leaves is counted already, rather too much of it.
# Errors of corrected spectra lie in their span mostly, and leak more than those that differ from band to band, but for
# scenes in which they vary. Exact ones leak nothing.
_APPROXIMATE = Factors(1.5, 1.5, 4.0)
_CONSTANT = {
    "given": Factors(1.1, 1.1, 0.0),
    "approximate": _APPROXIMATE,
    "library": Factors(1.1, 1.1, 3.0),
    "corrected": Factors(1.1, 1.75, 7.0),
    "extracted": Factors(1.15, 1.8, 2.1),
}
_VARIABLE = {
    "given": Factors(1.5, 1.3, 0.0),
    "approximate": _APPROXIMATE,
    "library": Factors(1.2, 0.9, 3.0),
    "corrected": Factors(1.55, 0.9, 2.1),
    "extracted": Factors(1.55, 0.9, 2.1),
}
# Of the variance among alternatives, what facets leave open for each unit of the posterior's deviation, which blurs
# them: errors of fitted endmembers go with both (40 to 10 dB).
_LEFT_BY_FACETS = {"corrected": 8.0, "extracted": 13.0}
_AT_BOUND = 0.6  # of the standard deviation is left at 0 and 1; from one standard deviation away on all of it
TO_BOUND = 1.5
"""Half-widths of an interval: 0 or 1 lies within it when it is nearer than that."""


def calibration(origin: str, mixing_model: str, noisiness: float) -> tuple[float, float]:
    """Factors of the posterior's deviation and of the leaking variance.

    Args:
        origin: of the endmembers, see `hsunmix.pipelines.chain.Chain`.
        mixing_model: of `hsunmix.physics.MIXING_MODELS`.
        noisiness: share of the noise of the sensor in what is wrong with the pixels, 0 to 1.
    """
    factors = (_VARIABLE if mixing_model == "variable" else _CONSTANT)[origin]
    return factors.quiet + (factors.noisy - factors.quiet) * noisiness, factors.leak


def left_by_facets(origin: str, error: float) -> float:
    """Share of the variance among alternatives to the endmembers that facets leave open, at most 1.

    Without noise they would say where endmembers are; where the errors of the abundances blur them, nothing does but
    what the alternatives agree on.

    Args:
        origin: of the endmembers, "corrected" or "extracted".
        error: root mean square of the posterior's standard deviation of the abundances.
    """
    return min(1.0, _LEFT_BY_FACETS[origin] * error)


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
