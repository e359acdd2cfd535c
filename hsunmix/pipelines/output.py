"""What `SemiBlindUnmixingPipeline` returns."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from diffusers.utils import BaseOutput

from .calibration import TO_BOUND
from .scene import SceneModel

Array = Any  # np.ndarray or torch.Tensor, or a list of them where the sizes of the cubes differ


@dataclass
class SemiBlindUnmixingOutput(BaseOutput):
    """Output of `SemiBlindUnmixingPipeline`; N cubes, batch axis always first, a list where sizes differ.

    `brightness[..., None] * (abundances @ endmembers)` rebuilds the cube (where `mixing_model` is not linear: its
    linear part). Pixels without data are NaN in the maps, masked bands are NaN in spectra.

    Attributes:
        abundances: (N, H, W, R), non-negative, summing to one.
        endmembers: (N, R, B) reflectance, in the scale in which the abundances are counted.
        abundance_uncertainty: (N, H, W, R) standard deviation, calibrated on simulated scenes, or `None`.
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

    @property
    def num_endmembers_probabilities(self) -> list[dict[int, float] | None]:
        """Per cube the probability of each number of endmembers; `None` where the number was given."""
        return [one.number_probabilities for one in self.scene or []]

    @property
    def mixing_model(self) -> list[str]:
        """Per cube what was used, of `hsunmix.physics.MIXING_MODELS`."""
        return [one.mixing_model for one in self.scene or []]

    def abundance_interval(self, level: float = 0.9) -> tuple[Array, Array]:
        """Bounds between which each abundance lies with a given probability.

        Normal intervals of `abundance_uncertainty` within [0, 1], which reach to 0 or 1 where that is at most half a
        half-width further: materials are absent, or alone, more often than nearly so. Calibrated at 0.9 on simulated
        scenes; nearer to 0.5 they cover more than they say, because the errors have heavier tails than the normal
        distribution.

        Args:
            level: probability, in (0, 1).

        Returns:
            `(lower, upper)`, each (N, H, W, R) in [0, 1], a list where `abundances` is one.

        Raises:
            ValueError: no uncertainty was asked for, or `level` is not in (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"`level` must be in (0, 1), but is {level!r}.")
        if self.abundance_uncertainty is None:
            raise ValueError("There is no `abundance_uncertainty`: call the pipeline with `output_uncertainty=True`.")
        reach = NormalDist().inv_cdf((1 + level) / 2)

        def bounds(abundances: Array, std: Array) -> tuple[Array, Array]:
            half = reach * std
            lower, upper = (abundances - half).clip(0, 1), (abundances + half).clip(0, 1)
            return lower * (abundances > TO_BOUND * half), upper + (1 - upper) * (1 - abundances <= TO_BOUND * half)

        if isinstance(self.abundances, list):
            pairs = [bounds(*pair) for pair in zip(self.abundances, self.abundance_uncertainty, strict=True)]
            return [lower for lower, _ in pairs], [upper for _, upper in pairs]
        return bounds(self.abundances, self.abundance_uncertainty)
