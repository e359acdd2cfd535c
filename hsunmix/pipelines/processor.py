"""From what users hold to what the sampler works on, and back: shapes, scale, bad bands, nodata, band order."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data import Cube, as_cube
from ..data.axes import advice, spectral_axis, why_bands_differ
from ..data.bands import describe_bands
from ..data.cube import measured
from ..physics import estimate_noise, scatter

if TYPE_CHECKING:
    from .scene import SceneModel

logger = logging.getLogger(__name__)
_NOISE_PIXELS = 20_000  # enough to estimate the noise of any scene
_LEAST_NOISE = 1e-3  # of the brightest band's rms: 60 dB, quieter than any sensor and than what the networks know


@dataclass
class PreparedCube:
    """One cube, ready to be unmixed (H x W pixels, N of them valid; B bands, K of them good).

    Attributes:
        pixels: (N, K) reflectance of the valid pixels, bands in ascending order of wavelength.
        valid: (H, W) bool.
        bands: (K,) long, position in the user's cube of every band of `pixels`.
        num_bands: B.
        wavelengths: (K,) nm, or `None`.
        fwhm: (K,) nm, or `None`.
        scale: what the user's numbers were divided by.
        noise_std: (K,) standard deviation of the noise.
    """

    pixels: torch.Tensor
    valid: torch.Tensor
    bands: torch.Tensor
    num_bands: int
    wavelengths: torch.Tensor | None
    fwhm: torch.Tensor | None
    scale: float
    noise_std: torch.Tensor

    def to_map(self, values: torch.Tensor) -> torch.Tensor:
        """Put values of the valid pixels (N, ...) on the grid (H, W, ...), NaN elsewhere."""
        grid = values.new_full((*self.valid.shape, *values.shape[1:]), float("nan"))
        grid[self.valid] = values
        return grid

    def to_spectra(self, spectra: torch.Tensor) -> torch.Tensor:
        """Put spectra (..., K) on the user's bands (..., B), NaN in masked bands."""
        full = spectra.new_full((*spectra.shape[:-1], self.num_bands), float("nan"))
        full[..., self.bands] = spectra
        return full

    def image(self) -> torch.Tensor:
        """The cube (K, H, W) for the encoder; pixels without data get the mean spectrum."""
        return scatter(self.pixels, self.valid).permute(2, 0, 1)

    def to(self, device: torch.device) -> PreparedCube:
        """The same on another device."""
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return replace(self, **moved)


class HyperspectralProcessor:
    """Checks and prepares cubes and spectra for `SemiBlindUnmixingPipeline`."""

    def preprocess(
        self,
        cube: Any,
        wavelengths: Any = None,
        reflectance_scale: float | None = None,
        scene: SceneModel | None = None,
    ) -> list[PreparedCube]:
        """Prepare one cube, a batch or a list.

        Args:
            cube: (H, W, B) or (N, H, W, B) array or tensor, `hsunmix.data.Cube`, what `spectral.open_image` returns,
                or a list of these.
            wavelengths: (B,) band centres in nm or micrometres, for all cubes; those of the cube when `None`.
            reflectance_scale: number that stands for reflectance 1; guessed, with a warning, when `None`.
            scene: bands, scale and noise of the scene that the cubes are parts of; their own when `None`.

        Returns:
            One `PreparedCube` per cube.

        Raises:
            ValueError: if a cube, its wavelengths or its values make no sense; the message says what to do.
        """
        if scene is not None:
            return [scene.prepare(one) for one in self._split(cube)]
        return [self._prepare(one, wavelengths, reflectance_scale) for one in self._split(cube)]

    @staticmethod
    def _split(cube: Any) -> list[Any]:
        if isinstance(cube, (list, tuple)):
            if not cube:
                raise ValueError("`cube` is an empty list: pass at least one cube.")
            return [part for one in cube for part in HyperspectralProcessor._split(one)]
        if isinstance(cube, torch.Tensor):
            cube = cube.detach().float().cpu().numpy() if not cube.is_complex() else cube.detach().cpu().numpy()
        if isinstance(cube, np.ndarray) and cube.ndim == 4:
            return list(cube)
        return [cube]

    def _prepare(self, cube: Any, wavelengths: Any, reflectance_scale: float | None) -> PreparedCube:
        cube = as_cube(cube, wavelengths, reflectance_scale)
        data = cube.data
        bands = np.flatnonzero(cube.band_mask & ~np.isnan(data).all(axis=(0, 1)))
        if len(bands) < 2:
            raise ValueError("`cube` has fewer than two usable bands: the others are masked or hold no finite value.")
        order = None
        if cube.wavelengths is not None:
            order = np.argsort(cube.wavelengths[bands], kind="stable")
            bands = bands[order]
        selected = data[:, :, bands]
        valid = measured(selected, cube.nodata_mask)
        if not valid.any():
            raise ValueError("`cube` has no usable pixel: every one is zero, NaN or nodata.")
        if cube.wavelengths is None:  # whose number would tell
            warn_of_axes(data, data.shape)
        pixels = np.ascontiguousarray(selected[valid], dtype=np.float32)
        scale = self.scale_of(pixels, reflectance_scale)
        # in memory of torch, which is aligned: the last bits of sums depend on where numbers lie
        tensor = torch.from_numpy(pixels / np.float32(scale)).clone()
        step = max(1, len(tensor) // _NOISE_PIXELS)
        noise_std = estimate_noise(tensor[::step], _LEAST_NOISE)
        _say_what_is_used(cube, valid, bands, tensor, noise_std)
        return PreparedCube(
            pixels=tensor,
            valid=torch.from_numpy(valid),
            bands=torch.from_numpy(bands),
            num_bands=cube.num_bands,
            wavelengths=None if cube.wavelengths is None else torch.as_tensor(cube.wavelengths[bands]).float(),
            fwhm=None if cube.fwhm is None else torch.as_tensor(cube.fwhm[bands]).float(),
            scale=scale,
            noise_std=noise_std,
        )

    @staticmethod
    def scale_of(pixels: np.ndarray, reflectance_scale: float | None) -> float:
        """What stands for reflectance 1 in the numbers that are left after the reader's own scaling.

        Args:
            pixels: (N, K) numbers of the usable pixels in good bands.
            reflectance_scale: what the user said, by which they have been divided; guessed when `None`.

        Returns:
            1, or what they are still to be divided by.

        Raises:
            ValueError: no scale makes these numbers reflectance.
        """
        high, middle = np.quantile(pixels, 0.99), np.median(pixels)
        if middle < 0:
            raise ValueError(
                "`cube` has a negative median: this is no reflectance. Check offset, data type, `data ignore value`."
            )
        if high <= 0:
            raise ValueError("`cube` has no positive values: this is no reflectance.")
        if reflectance_scale is not None and high > 2.5:
            logger.warning("`reflectance_scale` leaves values of %.4g, far above reflectance 1: taken as said.", high)
        if reflectance_scale is not None or high <= 2.5:
            return 1.0
        guess = _guessed_scale(high)
        if guess is None:
            raise ValueError(
                f"`cube` reaches {high:.4g}, which is neither reflectance in [0, 1] nor scaled by 100 or 10000: "
                "pass `reflectance_scale`, the number that stands for reflectance 1."
            )
        logger.warning(
            "`cube` reaches %.4g: taken as reflectance times %g. Pass `reflectance_scale` to say otherwise.",
            high,
            guess,
        )
        return guess

    def spectra(self, spectra: Any, prepared: PreparedCube, name: str) -> torch.Tensor:
        """Bring a user's spectra (R, B) to the good bands and the scale of a prepared cube.

        Args:
            spectra: (R, B) array, tensor or `SpectralLibrary`, in the units of the cube or in reflectance.
            prepared: the cube.
            name: the argument, for messages; spectra of a "library" that miss a good band are left out.

        Returns:
            (R, K) float32 tensor.

        Raises:
            ValueError: if the shape doesn't fit, or a spectrum (of a library: each) is not finite or nowhere positive.
        """
        values = getattr(spectra, "spectra", spectra)
        own = getattr(spectra, "wavelengths", None)
        if own is not None and prepared.wavelengths is not None:
            fwhm = None if prepared.fwhm is None else prepared.fwhm.cpu().numpy()
            resampled = spectra.resample(prepared.wavelengths.cpu().numpy(), fwhm)
            values = torch.as_tensor(resampled.spectra).float()
        else:
            values = torch.as_tensor(np.asarray(values) if not isinstance(values, torch.Tensor) else values)
            if values.is_complex() or values.ndim != 2:
                raise ValueError(f"`{name}` must be real and (R, B), but has shape {tuple(values.shape)}.")
            values = values.detach().cpu().to(torch.float32, copy=True)
            if values.shape[1] != prepared.num_bands:
                shape = (*prepared.valid.shape, prepared.num_bands)
                raise ValueError(
                    f"`{name}` has {values.shape[1]} bands, but the cube has {prepared.num_bands}: "
                    + why_bands_differ(values.shape, own is not None, shape, prepared.wavelengths is not None)
                )
            values = values[:, prepared.bands.cpu()]
        complete = torch.isfinite(values).all(1)
        usable = complete & (values.amax(1) > 0)
        if name == "library" and usable.any():  # there are others to choose from
            values = values[usable]
        elif not complete.all():
            raise ValueError(f"`{name}` holds NaN or infinite values in bands that the cube uses.")
        high = float(values.quantile(0.99))
        if high > 2.5:
            like_the_cube = prepared.scale > 1 and 0.01 < high / prepared.scale < 2.5
            scale = prepared.scale if like_the_cube else _guessed_scale(high)
            if scale is None:
                raise ValueError(f"`{name}` reaches {high:.4g}: neither reflectance nor scaled by 100 or 10000.")
            logger.warning("`%s` reaches %.4g: taken as reflectance times %g.", name, high, scale)
            values = values / scale
        if (values.amax(1) <= 0).any():
            raise ValueError(f"`{name}` holds a spectrum without positive values.")
        return values.to(prepared.pixels.device)


def _say_what_is_used(
    cube: Cube, valid: np.ndarray, bands: np.ndarray, pixels: torch.Tensor, noise_std: torch.Tensor
) -> None:
    left_out = np.ones(cube.num_bands, bool)
    left_out[bands] = False
    masked = describe_bands(left_out, cube.wavelengths) or "none"
    counts = (valid.sum(), valid.size, len(bands), cube.num_bands)
    logger.info("%d of %d pixels and %d of %d bands are used; masked: %s", *counts, masked)
    snr = 10 * torch.log10(pixels.square().mean() / noise_std.square().mean())
    logger.info("noise: standard deviation %.2g in the median band, SNR %.0f dB", noise_std.median(), snr)


def warn_of_axes(data: np.ndarray, shape: tuple[int, ...]) -> None:
    """Say so where another axis of (H, W, B) data looks like that of the bands.

    Args:
        data: (H, W, B) numbers of a cube, or of a sample of its pixels.
        shape: of the cube.
    """
    axis = spectral_axis(data)
    if axis != 2:
        logger.warning("`cube` is taken as %d x %d pixels with %d bands; %s", *shape, advice(axis))


def _guessed_scale(high: float) -> float | None:
    """What stands for reflectance 1 where numbers reach `high`, more than 2.5: percent or ten thousandths."""
    guess = 100.0 if high <= 150 else 10_000.0
    return guess if high <= 3 * guess else None


def stack(items: Sequence[torch.Tensor | None], output_type: str, dtype: torch.dtype) -> Any:
    """Arrays of equal shape become one with a batch axis; others a list. NumPy float32, or tensors of `dtype`."""
    present = [item for item in items if item is not None]
    if not present:
        return None
    same = len({tuple(item.shape) for item in present}) == 1
    if output_type == "np":
        arrays = [item.float().cpu().numpy() for item in present]
        return np.stack(arrays) if same else arrays
    tensors = [item.to(dtype) for item in present]
    return torch.stack(tensors) if same else tensors
