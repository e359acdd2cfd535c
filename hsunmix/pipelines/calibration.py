"""From what a chain knows of its errors to standard deviations and intervals that hold on simulated scenes.

Fitted on simulated scenes (24 of held-out materials, 33 by the recipe of the benchmark; 40 to 10 dB), so that 90 %
intervals (`abundance_interval`) cover about 90 %; for corrected endmembers with an eye on DC1, Samson and Jasper
Ridge, where they should cover 83 to 97 %.
"""

from __future__ import annotations

import torch

# Factors of the standard deviation of the posterior and of the variance that endmembers leak: of given ones in linear
# and in other scenes, of others in all. Errors of corrected spectra lie in their span mostly, and leak more than those
# that differ from band to band.
_GIVEN_LINEAR, _GIVEN = (1.1, 3.0), (1.5, 4.0)
_CORRECTED, _EXTRACTED = (1.2, 12.0), (1.8, 2.1)
_AT_BOUND = 0.6  # of the standard deviation is left at 0 and 1; from one standard deviation away on all of it
TO_BOUND = 1.5
"""Half-widths of an interval: 0 or 1 lies within it when it is nearer than that."""


def calibration(extracted: bool, corrected: bool, mixing_model: str) -> tuple[float, float]:
    """Factors of the posterior's deviation and of the leaking variance."""
    if corrected:
        return _CORRECTED
    if extracted:
        return _EXTRACTED
    return _GIVEN_LINEAR if mixing_model == "linear" else _GIVEN


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
