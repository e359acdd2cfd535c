"""Which endmember of one set is which of another."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment

from ..physics import spectral_angle


def match_endmembers(reference: torch.Tensor, candidate: torch.Tensor) -> torch.Tensor:
    """For every reference spectrum its own partner among the candidates, by spectral angle (Hungarian method).

    Args:
        reference: (k, B).
        candidate: (R, B), R at least k.

    Returns:
        (k,) indices of candidates.
    """
    angles = spectral_angle(reference[:, None], candidate[None])
    return torch.as_tensor(linear_sum_assignment(angles.cpu().numpy())[1], device=candidate.device)
