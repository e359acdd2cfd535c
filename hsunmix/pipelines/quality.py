"""One class per pixel: may its abundances be used?"""

from __future__ import annotations

import numpy as np

__all__ = [
    "QUALITY_CLASSES",
    "QUALITY_COLORS",
    "classify_quality",
    "residual_limit",
    "residual_over_noise",
    "saturated_pixels",
    "unexplained",
]

QUALITY_CLASSES = ("good", "nodata", "saturated", "poorly explained")
"""What the numbers of a quality map mean, from 0."""
QUALITY_COLORS = ((46, 125, 50), (0, 0, 0), (255, 193, 7), (198, 40, 40))
"""Red, green and blue (0 to 255) of each class."""
_POOR = 4.0  # times the median residual of the scene
# No scene is mixed exactly linearly: with the right materials the median residual is 1 times the noise in simulated
# scenes, 2.5 to 3.8 times on Samson, Jasper Ridge and the Salton Sea; without one of them 5.8 to 12 times on Samson.
# At most 2.2 % of their pixels are poorly explained, mostly 6 to 39 % in simulated scenes with a material left out.
_ORDINARY = 5.0
_FEW = 0.05
_BRIGHTEST = 1.5  # reflectance; more is cloud, glint or a saturated detector


def saturated_pixels(
    data: np.ndarray, band_mask: np.ndarray, saturation: float = np.inf, scale: float = 1.0
) -> np.ndarray:
    """Pixels in which a good band holds the largest number that its file can hold, or an impossible reflectance.

    Args:
        data: (H, W, B) numbers; NaN = nodata.
        band_mask: (B,) bool, True = good band.
        saturation: the largest number of the file's type, divided as `data` is.
        scale: number that stands for reflectance 1.

    Returns:
        (H, W) bool.
    """
    limit = min(saturation * (1 - 1e-6), _BRIGHTEST * scale)
    with np.errstate(invalid="ignore"):
        return np.any(data[:, :, band_mask] >= limit, axis=2)


def residual_limit(residual: np.ndarray, noise: np.ndarray) -> float:
    """The residual above which a pixel counts as poorly explained.

    Args:
        residual: (H, W) or (N,) reconstruction error of the pixels of a scene, or of a sample of it; NaN = nodata.
        noise: (B,) standard deviation of the noise; NaN in bad bands.

    Returns:
        Four times the median residual, and at least four times the noise.
    """
    return float(_POOR * max(np.nanmedian(residual), _rms(noise)))


def residual_over_noise(residual: np.ndarray, noise: np.ndarray) -> float:
    """The residual of the median pixel in units of the noise: 1 where the model explains all but the noise.

    Args:
        residual: (H, W) or (N,) reconstruction error of the pixels; NaN = nodata.
        noise: (B,) standard deviation of the noise; NaN in bad bands.

    Returns:
        The ratio; up to 5 is ordinary in real scenes, which no linear model explains to the last.
    """
    return float(np.nanmedian(residual) / max(_rms(noise), 1e-12))


def unexplained(residual: np.ndarray, noise: np.ndarray) -> str | None:
    """Whether a scene is explained so badly that a material may be missing.

    Args:
        residual: (H, W) or (N,) reconstruction error of the pixels; NaN = nodata.
        noise: (B,) standard deviation of the noise; NaN in bad bands.

    Returns:
        What is wrong and what to do, for a warning; None where the residual is ordinary.
    """
    ratio = residual_over_noise(residual, noise)
    poor = float(np.mean(residual[np.isfinite(residual)] > residual_limit(residual, noise)))
    if ratio > _ORDINARY:
        found = f"the residual is {ratio:.1f} times the noise (up to {_ORDINARY:g} times is ordinary)"
    elif poor > _FEW:
        found = f"{100 * poor:.0f} % of the pixels are poorly explained"
    else:
        return None
    return f"{found}: a material may be missing; try more endmembers, other spectra or another library"


def _rms(noise: np.ndarray) -> float:
    return float(np.sqrt(np.nanmean(np.square(noise, dtype=np.float64))))


def classify_quality(residual: np.ndarray, saturated: np.ndarray, limit: float) -> np.ndarray:
    """Quality of each pixel.

    Args:
        residual: (H, W) reconstruction error; NaN = nodata.
        saturated: (H, W) bool.
        limit: residual above which a pixel is poorly explained.

    Returns:
        (H, W) uint8, index into `QUALITY_CLASSES`.
    """
    quality = np.zeros(residual.shape, np.uint8)
    with np.errstate(invalid="ignore"):
        quality[residual > limit] = 3
    quality[saturated] = 2
    quality[np.isnan(residual)] = 1
    return quality
