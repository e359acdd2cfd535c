"""Labelled scenes: patches of cubes with reference abundances and endmembers, as supervision beside simulated ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from ..evaluation.benchmark import load_reference_scene
from ..simulation import Scene


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
            Scenes with the reference as truth; their brightness and noise are unknown (1, and 0 or what was added).
        """

        def integer(high: int) -> int:
            return int(torch.randint(high, (), generator=generator))

        reference = self.scenes[integer(len(self.scenes))]
        cube, abundances = (torch.from_numpy(x).float() for x in (reference.cube, reference.abundances))
        rows, columns = (min(size, n) for n in cube.shape[:2])
        side = min(rows, columns)  # patches are square, so that turning keeps their shape
        patches = []
        for _ in range(count):
            top, left = integer(cube.shape[0] - side + 1), integer(cube.shape[1] - side + 1)
            flip, turns = integer(2), integer(4)
            pixels, maps = (x[top : top + side, left : left + side] for x in (cube, abundances))
            if flip:
                pixels, maps = pixels.flip(0), maps.flip(0)
            pixels, maps = (torch.rot90(x, turns, (0, 1)).contiguous() for x in (pixels, maps))
            noise_std, ratio = torch.zeros(cube.shape[-1]), float("inf")
            if integer(2):
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
