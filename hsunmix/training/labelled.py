"""Labelled scenes: patches of cubes with reference abundances and endmembers, as supervision beside simulated ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from ..evaluation.benchmark import load_reference_scene
from ..simulation import Scene
from .crops import random_crop, random_integer


class LabelledScenes:
    """Random patches of scenes with references, flipped and turned, in part with noise added.

    Args:
        paths: cubes with `NAME_reference.npz` (`endmembers` (R, B), `abundances` (H, W, R)) beside them.
        snr_db: range of the noise added to half of the patches.

    Raises:
        FileNotFoundError: if a reference is missing.
    """

    def __init__(self, paths: Sequence[str | Path], snr_db: tuple[float, float] = (8.0, 40.0)) -> None:
        self.scenes = [load_reference_scene(path) for path in paths]
        self.snr_db = snr_db

    def draw(self, count: int, size: int, generator: torch.Generator) -> list[Scene]:
        """Patches of one of the scenes.

        Args:
            count: number of patches.
            size: rows and columns; at most those of the scene.
            generator: source of all randomness.

        Returns:
            Scenes with the reference as truth; their brightness is unknown (NaN), their noise 0 or what was added.
        """
        reference = self.scenes[random_integer(len(self.scenes), generator)]
        cube, abundances = (torch.from_numpy(x).float() for x in (reference.cube, reference.abundances))
        side = min(size, *cube.shape[:2])
        patches = []
        for _ in range(count):
            pixels, maps = random_crop([cube, abundances], side, generator)
            noise_std, ratio = torch.zeros(cube.shape[-1]), float("inf")
            if random_integer(2, generator):
                low, high = self.snr_db
                ratio = low + (high - low) * float(torch.rand((), generator=generator))
                level = float(pixels.square().mean().sqrt()) * 10 ** (-ratio / 20)
                noise_std = torch.full_like(noise_std, level)
            noisy = pixels + noise_std * torch.randn(pixels.shape, generator=generator)
            patches.append(
                Scene(
                    cube=noisy,
                    clean=pixels,
                    endmembers=torch.from_numpy(reference.endmembers).float(),
                    abundances=maps,
                    brightness=torch.full(maps.shape[:2], math.nan),
                    noise_std=noise_std,
                    wavelengths=None if reference.wavelengths is None else torch.as_tensor(reference.wavelengths),
                    fwhm=None,
                    names=[f"reference {r}" for r in range(len(reference.endmembers))],
                    mixing="linear",
                    snr_db=ratio,
                )
            )
        return patches
