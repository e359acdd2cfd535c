"""From what a chain knows of its errors to standard deviations that hold on simulated scenes.

All constants were fitted on simulated scenes of held-out materials, so that 90 % intervals cover about 90 %.
"""

from __future__ import annotations

import torch

# By what is known of the endmembers and by mixing model: factors of the posterior's standard deviation (data and prior
# are taken for independent there) and of the variance that endmembers leak.
_FACTORS = {
    "given": {"linear": (1.1, 0.6), "bilinear": (1.5, 1.1), "variable": (1.95, 1.8)},
    "corrected": {"linear": (1.75, 1.55), "bilinear": (1.75, 1.55), "variable": (2.2, 2.4)},
    "extracted": {"linear": (2.25, 2.7), "bilinear": (2.25, 2.7), "variable": (2.25, 2.7)},
}
_AT_BOUND = 0.6  # of the standard deviation is left at 0 and 1; from one standard deviation away on all of it


def calibration(extracted: bool, corrected: bool, mixing_model: str) -> tuple[float, float]:
    """Factors of the posterior's deviation and of the leaking variance."""
    known = "corrected" if corrected else "extracted" if extracted else "given"
    return _FACTORS[known]["bilinear" if mixing_model == "postnonlinear" else mixing_model]


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
    distance = torch.minimum(abundances, 1 - abundances) / std.clamp_min(1e-12)
    return (std * (_AT_BOUND + (1 - _AT_BOUND) * distance.clamp(0, 1))).clamp_max(1.0)
