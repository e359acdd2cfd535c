"""One class per pixel: may its abundances be used?"""

from __future__ import annotations

import numpy as np

__all__ = ["QUALITY_CLASSES", "QUALITY_COLORS", "classify_quality", "residual_limit", "saturated_pixels"]

QUALITY_CLASSES = ("good", "nodata", "saturated", "poorly explained")
"""What the numbers of a quality map mean, from 0."""
QUALITY_COLORS = ((46, 125, 50), (0, 0, 0), (255, 193, 7), (198, 40, 40))
"""Red, green and blue (0 to 255) of each class."""
_POOR = 4.0  # times the median residual of the scene
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
    return float(_POOR * max(np.nanmedian(residual), np.sqrt(np.nanmean(np.square(noise, dtype=np.float64)))))


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
