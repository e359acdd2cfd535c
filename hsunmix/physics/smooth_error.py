"""What a prior gets wrong smoothly over many pixels, seen in data that no single pixel could tell it by.

The A-step weighs the prior against the noise of each pixel. Errors of a network are smooth, though: where it takes a
weak gradient for noise, thousands of neighbours lean the same way, and their mean has hardly any noise left.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from .evidence import Evidence

PRESENT = 0.005  # abundance above which the prior counts a material as present
_BLOCKS = (24, 12, 6)  # pixels
_SHARE = 0.75  # of the estimated error that is taken out: what is present is chosen by the prior, which biases it


def smooth_error(evidence: Evidence, abundances: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Correction of the abundances that a prior expects, on blocks of pixels from large to small.

    Least squares of one correction per block on all its pixels, for the materials present in each (absent ones stay
    absent, so that model error can't leak in). The corrections of all blocks of a size are shrunk together by how far
    they exceed what noise and uncertain endmembers alone would give (empirical Bayes; James and Stein, 1961): where
    the prior is right, hardly anything is left of them.

    Args:
        evidence: of N pixels and R endmembers.
        abundances: (N, R) of the prior, on the simplex.
        valid: (H, W) bool, where the pixels lie.

    Returns:
        (N, R) to be added; 0 where a material is absent.
    """
    present = (abundances > PRESENT).double()
    total = evidence.brightness.double()
    total = total.clamp_min(1e-3 * float(total.median().clamp_min(1e-6)))
    weight = evidence.noise_confidence * total.square()  # [N]
    observed = evidence.rhs / total[:, None]
    share = (1 - evidence.confidence / evidence.noise_confidence).clamp_min(0)  # of the variance that no mean removes
    lasting = share[:, None] * evidence.std.double().square()
    correction = torch.zeros_like(observed)
    pairs = _grid((weight[:, None, None] * present[:, :, None] * present[:, None, :]).flatten(1), valid)
    rank = present.shape[1]
    ridge = 1e-6 * (evidence.gram.diagonal().mean() * weight.mean()) * torch.eye(rank).to(evidence.gram)
    for size in _BLOCKS:
        expected = (abundances + correction).clamp_min(0)
        gradient = weight[:, None] * present * (observed - expected @ evidence.gram)
        columns = torch.cat([gradient, present, weight[:, None] * lasting, weight[:, None]], dim=1)
        sums = _pool(_grid(columns, valid), size)  # [3 R + 1, h, w]
        system = _pool(pairs, size).permute(1, 2, 0).unflatten(-1, (rank, rank)) * evidence.gram + ridge
        inverse = torch.linalg.inv(system)  # [h, w, R, R]
        delta = (inverse @ sums[:rank].permute(1, 2, 0)[..., None]).squeeze(-1).permute(2, 0, 1)  # [R, h, w]
        count = sums[rank : 2 * rank]
        variance = inverse.diagonal(dim1=-2, dim2=-1).permute(2, 0, 1)
        variance = variance + sums[2 * rank : 3 * rank] / sums[3 * rank :].clamp_min(1e-300)
        excess = (count * delta.square() / variance).sum((1, 2)) / count.sum((1, 2)).clamp_min(1)
        shrinkage = (1 - 1 / excess.clamp_min(1)).nan_to_num()
        fine = functional.interpolate(
            (shrinkage[:, None, None] * delta)[None], scale_factor=size, mode="bilinear", align_corners=False
        )[0, :, : valid.shape[0], : valid.shape[1]]
        correction = correction + fine.permute(1, 2, 0)[valid] * present
    return (_SHARE * correction).to(abundances.dtype)


def _grid(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(N, C) pixel values as (C, H, W), 0 elsewhere."""
    grid = values.new_zeros(*valid.shape, values.shape[1])
    grid[valid] = values
    return grid.permute(2, 0, 1)


def _pool(maps: torch.Tensor, size: int) -> torch.Tensor:
    """Sums (C, h, w) over blocks; those at the border may be smaller."""
    return functional.avg_pool2d(maps[None], size, ceil_mode=True, divisor_override=1)[0]
