"""Which endmember of one set is which of another."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment

from ..physics import spectral_angle


def match_endmembers(reference: torch.Tensor, candidate: torch.Tensor, known: int = 0) -> torch.Tensor:
    """For every reference spectrum its own partner among the candidates, by spectral angle (Hungarian method).

    Args:
        reference: (k, B).
        candidate: (R, B), R at least k.
        known: so many of the first are partners already.

    Returns:
        (k,) indices of candidates.
    """
    angles = spectral_angle(reference[known:, None], candidate[None, known:])
    found = torch.as_tensor(linear_sum_assignment(angles.cpu().numpy())[1], device=candidate.device)
    return torch.cat([torch.arange(known, device=candidate.device), known + found])
