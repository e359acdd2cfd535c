"""Abundance and brightness maps of real scenes, from which training scenes with other spectra are mixed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import read_cube
from ..endmembers import extract_endmembers
from ..physics import nnls, split_brightness
from ..pipelines.processor import HyperspectralProcessor
from .crops import random_crop, random_integer


def make_real_maps(path: Path | str, num_endmembers: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Unmix a real scene in closed form, with extracted endmembers of equal maximum.

    Args:
        path: cube that `hsunmix.data.read_cube` reads.
        num_endmembers: R.
        seed: of the extraction.

    Returns:
        `abundances` (H, W, R) and `brightness` (H, W), as `RealMaps` reads them from a `.npz` file.
    """
    cube = read_cube(path)
    prepared = HyperspectralProcessor().preprocess(cube)[0]
    grid = prepared.to_map(prepared.pixels).nan_to_num()  # [H, W, K]
    generator = torch.Generator().manual_seed(seed)
    found = extract_endmembers(grid, num_endmembers, prepared.noise_std, prepared.valid, generator).endmembers
    endmembers = found / found.amax(1, keepdim=True)
    abundances, brightness = split_brightness(nnls(grid.flatten(0, 1), endmembers))
    return {
        "abundances": abundances.reshape(*grid.shape[:2], -1).float().numpy(),
        "brightness": brightness.reshape(grid.shape[:2]).float().numpy(),
    }


class RealMaps:
    """Abundance and brightness maps unmixed from real scenes (`make_maps.py`); resampled, cropped, turned at random.

    Args:
        paths: `.npz` files with `abundances` (H, W, R) and `brightness` (H, W).
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self.scenes: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for path in sorted(paths):
            with np.load(path, allow_pickle=False) as arrays:
                abundances, brightness = (torch.from_numpy(arrays[k]).float() for k in ("abundances", "brightness"))
            self.scenes.setdefault(abundances.shape[-1], []).append((abundances, brightness))

    def draw(self, count: int, size: int, generator: torch.Generator) -> dict[str, Any]:
        """A patch of maps, as arguments of the simulator.

        Args:
            count: R.
            size: rows and columns.
            generator: source of all randomness.

        Returns:
            `abundances` (size, size, R) and relative `brightness` (size, size); empty if no scene has R endmembers.
        """
        if count not in self.scenes:
            return {}

        abundances, brightness = self.scenes[count][random_integer(len(self.scenes[count]), generator)]
        both = torch.cat([abundances, brightness[..., None]], dim=-1).permute(2, 0, 1)  # [R + 1, H, W]
        both = _resample(both, float(2 * torch.rand((), generator=generator) - 1))
        while min(both.shape[1:]) < size:  # a reflection can't be larger than what it reflects
            missing = [min(max(0, size - n), n - 1) for n in both.shape[1:]]
            both = torch.nn.functional.pad(both, (0, missing[1], 0, missing[0]), mode="reflect")
        both = random_crop([both.permute(1, 2, 0)], size, generator)[0]
        maps = both[..., :-1][..., torch.randperm(count, generator=generator)].clamp_min(0) + 1e-6
        relative = (both[..., -1] / both[..., -1].median().clamp_min(1e-6)).clamp_min(0.02)
        return {"abundances": maps / maps.sum(-1, keepdim=True), "brightness": relative.contiguous()}


def _resample(maps: torch.Tensor, octaves: float) -> torch.Tensor:
    """Maps (C, H, W) as a sensor of other resolution has them: means over larger pixels, or interpolated smaller ones.

    Both take out part of the noise that unmixing has left in the maps, which a network would else learn to keep.
    """
    height, width = (max(8, round(n * 2.0**octaves)) for n in maps.shape[1:])
    mode = "area" if octaves < 0 else "bilinear"
    return torch.nn.functional.interpolate(maps[None], (height, width), mode=mode)[0]
