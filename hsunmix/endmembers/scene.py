"""The pixels of a scene as the extractors see them: coordinates in the signal subspace, smoothed, with known noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from .subspace import SignalSubspace, box_mean, effective_noise, fit_subspace, wiener_smooth

_EXTRA_DIMENSIONS = 3  # looked at beyond R: dark endmembers live there too, and they tell the model error
# Errors of calibration and atmospheric correction are the same everywhere, and rule the shape of pixels below a tenth
# of ordinary brightness: deep water would be taken for several materials.
_DARK = 0.1  # relative to the rms norm of the pixels
_DARK_ERROR = 0.05  # std of a unit-norm pixel, per `_DARK / norm`
_LEAST_COSINE = 0.1  # to the mean direction: materials of 46 simulated scenes keep above 0.7, noise lies anywhere


@dataclass(frozen=True)
class ScenePoints:
    """N usable pixels of a scene in K >= R whitened coordinates.

    Attributes:
        subspace: between coordinates and spectra.
        raw: (N, K) coordinates, with unit noise variance.
        smooth: (N, K) coordinates after adaptive smoothing.
        norm: (N,) Euclidean norm of `smooth`.
        noise_var: (N,) noise variance left in every coordinate of `smooth / norm`; in dark pixels with the systematic
            errors that it hides elsewhere.
        model_error: rms along the first direction that R endmembers cannot explain, relative to the norm of a pixel.
        num_endmembers: R.
    """

    subspace: SignalSubspace
    raw: torch.Tensor
    smooth: torch.Tensor
    norm: torch.Tensor
    noise_var: torch.Tensor
    model_error: float
    num_endmembers: int

    @property
    def unit(self) -> torch.Tensor:
        """(N, K) smoothed coordinates of unit norm: brightness removed."""
        return self.smooth / self.norm[:, None]

    @cached_property
    def weight(self) -> torch.Tensor:
        """(N,) precision of the unit-norm pixels under noise and model error."""
        return 1 / (self.noise_var + self.model_error**2).clamp_min(1e-30)

    @cached_property
    def kind(self) -> torch.Tensor:
        """(3,) logarithms of noise and model error together, of the model error, of the noise; of unit-norm pixels."""
        values = [float(1 / self.weight.mean()), self.model_error + 1e-6, float(self.noise_var.mean())]
        logs = torch.tensor(values, dtype=torch.float64).clamp_min(1e-9).log()
        return logs * torch.tensor([0.5, 1.0, 0.5])

    @cached_property
    def projected(self) -> torch.Tensor:
        """(N, R) smoothed coordinates seen in perspective, `x / (x . axis)`: brightness removed, simplices kept flat.

        Pixels on the unit sphere lie on a curved simplex, of which a face can bulge beyond the vertices; here every
        simplex stays one, in the plane `x . axis = 1`. Pixels far off the axis, which would land anywhere, go to its
        foot.
        """
        points = self.unit[:, : self.num_endmembers]
        cosine = (points @ self.axis)[:, None]
        return torch.where(cosine > _LEAST_COSINE, points / cosine, self.axis)

    @cached_property
    def axis(self) -> torch.Tensor:
        """(R,) mean direction of the pixels, of unit norm."""
        mean = self.unit[:, : self.num_endmembers].mean(0)
        return mean / mean.norm().clamp_min(1e-30)


def prepare_scene(
    cube: torch.Tensor, num_endmembers: int, noise_std: torch.Tensor, valid: torch.Tensor
) -> ScenePoints:
    """Project a cube on its signal subspace, smooth it there, and leave out pixels that are all noise.

    The subspace is that of local means, with pixels weighed equally whatever their brightness: dark endmembers and
    low signal-to-noise ratios would else lose a direction.

    Args:
        cube: (H, W, B) without NaN.
        num_endmembers: R.
        noise_std: (B,) standard deviation of the noise.
        valid: (H, W) bool.

    Returns:
        The points.
    """
    num_pixels, num_bands = int(valid.sum()), cube.shape[-1]
    noise = effective_noise(cube[valid], noise_std)
    dim = max(min(num_endmembers + _EXTRA_DIMENSIONS, num_bands, num_pixels), num_endmembers)
    subspace = fit_subspace(box_mean(cube, valid, 3)[valid], noise, dim, balance=True)
    maps = subspace.project(cube)
    smooth_maps, noise_maps = wiener_smooth(maps, valid)
    raw, smooth, noise_var = maps[valid], smooth_maps[valid], noise_maps[valid]
    norm = smooth.norm(dim=1)
    usable = norm > 3 * noise_var.sum(1).sqrt()
    if usable.sum() < max(2 * num_endmembers, num_pixels // 2):  # hardly any signal: take what there is
        usable = norm > 1e-6 * norm.max()
    raw, smooth, noise_var, norm = raw[usable], smooth[usable], noise_var[usable], norm[usable]

    power = (raw / norm[:, None])[:, num_endmembers:].square().mean(0)  # of the directions beyond R
    signal = (power - norm.square().reciprocal().mean()).clamp_min(0)
    noise_left = (noise_var[:, num_endmembers:] / norm.square()[:, None]).mean(0)
    kept = num_endmembers + int((signal > noise_left).sum())
    norm = smooth[:, :kept].norm(dim=1)
    darkness = (_DARK**2 * norm.square().mean() / norm.square() - 1).clamp_min(0)
    return ScenePoints(
        subspace=SignalSubspace(subspace.basis[:kept], subspace.noise_std),
        raw=raw[:, :kept],
        smooth=smooth[:, :kept],
        norm=norm,
        noise_var=noise_var[:, :num_endmembers].mean(1) / norm.square() + _DARK_ERROR**2 * darkness,
        model_error=float(signal.max().sqrt()) if len(signal) else 0.0,
        num_endmembers=num_endmembers,
    )
