"""What `SemiBlindUnmixingPipeline` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffusers.utils import BaseOutput

from .scene import SceneModel

Array = Any  # np.ndarray or torch.Tensor, or a list of them where the sizes of the cubes differ


@dataclass
class SemiBlindUnmixingOutput(BaseOutput):
    """Output of `SemiBlindUnmixingPipeline`; N cubes, batch axis always first, a list where sizes differ.

    `brightness[..., None] * (abundances @ endmembers)` rebuilds the cube. Pixels without data are NaN in the maps,
    masked bands are NaN in spectra.

    Attributes:
        abundances: (N, H, W, R), non-negative, summing to one.
        endmembers: (N, R, B) reflectance, in the scale in which the abundances are counted.
        abundance_uncertainty: (N, H, W, R) standard deviation, or `None`.
        endmember_uncertainty: (N, R, B) standard deviation, or `None`.
        coarse_abundances: (N, H, W, R), before diffusion.
        coarse_endmembers: (N, R, B), before diffusion.
        brightness: (N, H, W), 1 for a pixel of ordinary illumination.
        residual: (N, H, W) root mean square over the bands of cube minus model, reflectance.
        noise: (N, B) estimated standard deviation of the sensor noise, reflectance.
        brightness_mode: per cube "free" or "fixed": what was used.
        scene: per cube what was found about the scene as a whole, to unmix further parts of it alike (`scene=`).
    """

    abundances: Array
    endmembers: Array
    abundance_uncertainty: Array | None
    endmember_uncertainty: Array | None
    coarse_abundances: Array
    coarse_endmembers: Array
    brightness: Array
    residual: Array
    noise: Array
    brightness_mode: list[str] | None = None
    scene: list[SceneModel] | None = None
