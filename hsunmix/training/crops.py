"""Random square crops of scenes, flipped and turned."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def random_integer(high: int, generator: torch.Generator) -> int:
    """Uniform in 0 to `high - 1`."""
    return int(torch.randint(high, (), generator=generator))


def random_crop(arrays: Sequence[torch.Tensor], size: int, generator: torch.Generator) -> list[torch.Tensor]:
    """The same crop of several arrays, each flipped and turned alike.

    Args:
        arrays: (H, W, ...) each, with the same H and W.
        size: rows and columns, at most H and W.
        generator: source of all randomness.

    Returns:
        Contiguous arrays (size, size, ...).
    """
    top, left = (random_integer(n - size + 1, generator) for n in arrays[0].shape[:2])
    flip, turns = random_integer(2, generator), random_integer(4, generator)
    crops = [x[top : top + size, left : left + size] for x in arrays]
    return [torch.rot90(x.flip(0) if flip else x, turns, (0, 1)).contiguous() for x in crops]
