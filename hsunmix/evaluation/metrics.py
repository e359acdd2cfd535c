"""How far an unmixing is from the truth: alignment, abundance error, spectral angle, reconstruction; and test inputs.

The definitions are those of the benchmark protocol. Estimated and reference endmembers are matched one to one
by the Hungarian method (Kuhn, Naval Research Logistics 1955) on the spectral angle (Kruse et al., Remote Sensing of
Environment 1993); no abundance information enters the matching.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr

__all__ = [
    "abundance_rmse",
    "add_noise",
    "evaluate",
    "match_endmembers",
    "mse",
    "perturb_endmembers",
    "psnr",
    "rmse",
    "spectral_angle",
    "spectral_angles",
]


def spectral_angles(reference: Any, estimate: Any) -> np.ndarray:
    """Angle between each reference spectrum and each estimated one.

    Args:
        reference: (R, B).
        estimate: (Q, B).

    Returns:
        (R, Q) radians in [0, pi].
    """
    first, second = _unit_rows(reference), _unit_rows(estimate)
    angles = np.arccos(np.clip(first @ second.T, -1.0, 1.0))
    return np.where(np.isfinite(angles), angles, np.pi)


def _unit_rows(spectra: Any) -> np.ndarray:
    spectra = np.asarray(spectra, dtype=np.float64)
    return spectra / np.maximum(np.linalg.norm(spectra, axis=1, keepdims=True), 1e-12)


def match_endmembers(estimate: Any, reference: Any) -> np.ndarray:
    """Which estimated endmember belongs to each reference endmember, by least total spectral angle.

    Args:
        estimate: (Q, B), Q >= R.
        reference: (R, B).

    Returns:
        (R,) indices into `estimate`: `estimate[order]` and `abundances[..., order]` line up with the reference.

    Raises:
        ValueError: different numbers of bands, or fewer estimated than reference endmembers.

    Example:
        >>> match_endmembers([[0.0, 1.0], [1.0, 0.0]], [[1.0, 0.1], [0.1, 1.0]]).tolist()
        [1, 0]
    """
    estimate, reference = np.asarray(estimate, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if estimate.ndim != 2 or reference.ndim != 2 or estimate.shape[1] != reference.shape[1]:
        raise ValueError(
            f"`estimate` {estimate.shape} and `reference` {reference.shape} must be (R, B) with the same bands"
        )
    if len(estimate) < len(reference):
        raise ValueError(f"`estimate` has {len(estimate)} endmembers, fewer than the {len(reference)} of `reference`")
    return linear_sum_assignment(spectral_angles(reference, estimate))[1]


def spectral_angle(estimate: Any, reference: Any) -> float:
    """Mean spectral angle (SAD) in radians over matched pairs.

    Args:
        estimate: (R, B), in the order of `reference`.
        reference: (R, B).

    Returns:
        Radians.
    """
    _same_shape(estimate, reference)
    return float(np.diagonal(spectral_angles(reference, estimate)).mean())


def mse(estimate: Any, reference: Any) -> float:
    """Mean squared error over all values of two arrays of one shape.

    Args:
        estimate: (...) array.
        reference: (...) array of the same shape.

    Returns:
        The error, in the square of their unit.

    Raises:
        ValueError: different shapes.
    """
    _same_shape(estimate, reference)
    return float(np.mean(np.square(np.asarray(estimate, dtype=np.float64) - np.asarray(reference, dtype=np.float64))))


def rmse(estimate: Any, reference: Any) -> float:
    """Root of `mse`.

    Args:
        estimate: (...) array.
        reference: (...) array of the same shape.

    Returns:
        The error, in their unit.

    Raises:
        ValueError: different shapes.
    """
    return float(np.sqrt(mse(estimate, reference)))


def abundance_rmse(estimate: Any, reference: Any) -> float:
    """RMSE over all pixels and endmembers of aligned abundances.

    Args:
        estimate: (H, W, R), in the order of `reference`.
        reference: (H, W, R).

    Returns:
        The error, in fractions of a pixel.
    """
    return rmse(estimate, reference)


def psnr(estimate: Any, reference: Any, peak: float | None = None) -> float:
    """Peak signal-to-noise ratio of a whole cube in dB.

    Args:
        estimate: (H, W, B).
        reference: (H, W, B).
        peak: largest possible value; None = the largest value of `reference`.

    Returns:
        dB; infinite for equal cubes.
    """
    error = mse(estimate, reference)
    peak = float(np.max(reference)) if peak is None else peak
    return float(10 * np.log10(peak**2 / error)) if error > 0 else float("inf")


def evaluate(endmembers: Any, abundances: Any, scene: Mapping[str, Any], brightness: Any = None) -> dict[str, Any]:
    """All scores of one result against a scene whose truth is known.

    Args:
        endmembers: (Q, B) estimated, Q >= R, in the units of the cube.
        abundances: (H, W, Q) estimated.
        scene: `endmembers` (R, B), `abundances` (H, W, R), `cube` (H, W, B); if there, `observed` (H, W, B), the noisy
            cube that the method saw.
        brightness: (H, W) estimated, multiplied into the reconstruction; None = 1.

    Returns:
        `sad` (radians, mean), `sad_per_endmember`, `abundance_rmse`, `abundance_rmse_per_endmember`,
        `abundance_rmse_oracle` (matched by abundance error: a diagnostic of swapped endmembers, never a score),
        `reconstruction_rmse` (against what the method saw), `reconstruction_rmse_clean`, `psnr` (against the clean
        cube, dB), `sum_to_one_error`, `negative_fraction`, `order` (R,), `finite`. What is not finite counts as 0.

    Raises:
        ValueError: shapes that don't agree.
    """
    reference = np.asarray(scene["endmembers"], dtype=np.float64)
    truth = np.asarray(scene["abundances"], dtype=np.float64)
    clean = np.asarray(scene["cube"], dtype=np.float64)
    observed = np.asarray(scene.get("observed", clean), dtype=np.float64)
    estimate, maps = np.asarray(endmembers, dtype=np.float64), np.asarray(abundances, dtype=np.float64)
    finite = bool(np.isfinite(estimate).all() and np.isfinite(maps).all())
    estimate, maps = np.nan_to_num(estimate), np.nan_to_num(maps)
    if maps.shape != (*truth.shape[:2], len(estimate)):
        raise ValueError(f"`abundances` has the shape {maps.shape}, expected {(*truth.shape[:2], len(estimate))}")
    order = match_endmembers(estimate, reference)
    angles = spectral_angles(reference, estimate)[np.arange(len(reference)), order]
    squared = np.square(maps[:, :, order] - truth)
    cost = np.stack([np.square(maps - truth[:, :, [row]]).mean(axis=(0, 1)) for row in range(len(reference))])
    rebuilt = maps @ estimate
    if brightness is not None:
        rebuilt *= np.nan_to_num(np.asarray(brightness, dtype=np.float64))[:, :, None]
    return {
        "sad": float(angles.mean()),
        "sad_per_endmember": angles.tolist(),
        "abundance_rmse": float(np.sqrt(squared.mean())),
        "abundance_rmse_per_endmember": np.sqrt(squared.mean(axis=(0, 1))).tolist(),
        "abundance_rmse_oracle": float(np.sqrt(cost[linear_sum_assignment(cost)].mean())),
        "reconstruction_rmse": rmse(rebuilt, observed),
        "reconstruction_rmse_clean": rmse(rebuilt, clean),
        "psnr": psnr(rebuilt, clean),
        "sum_to_one_error": float(np.abs(maps.sum(axis=2) - 1).mean()),
        "negative_fraction": float((maps < -1e-6).mean()),
        "order": order.tolist(),
        "finite": finite,
    }


def sparsification(estimate: Any, reference: Any, uncertainty: Any, steps: int = 10) -> dict[str, Any]:
    """How well the uncertainty ranks the pixels by their error (sparsification curves: Ilg et al., ECCV 2018).

    Args:
        estimate: (H, W, R) abundances.
        reference: (H, W, R).
        uncertainty: (H, W, R) standard deviations.
        steps: of the curves.

    Returns:
        `sparsification`: (steps,) RMSE of the pixels that are left when the share 0, 1/steps, ... of them is left out,
        the most uncertain first; `sparsification_oracle`: the largest errors first, the best that any ranking can do;
        `rank_correlation` of error and uncertainty over the pixels (Spearman; 0 where one of them is constant).

    Raises:
        ValueError: shapes that don't agree.
    """
    _same_shape(estimate, reference)
    _same_shape(uncertainty, reference)
    values = (np.asarray(estimate, dtype=np.float64) - np.asarray(reference, dtype=np.float64), uncertainty)
    error, doubt = (np.square(np.nan_to_num(x)).mean(axis=-1).ravel() for x in values)  # mean squares per pixel
    kept = [len(error) - len(error) * step // steps for step in range(steps)]
    curves = [
        [float(np.sqrt(error[order[:count]].mean())) for count in kept]
        for order in (np.argsort(doubt), error.argsort())
    ]
    constant = np.ptp(error) == 0 or np.ptp(doubt) == 0
    correlation = 0.0 if constant else float(spearmanr(error, doubt).statistic)
    return {"sparsification": curves[0], "sparsification_oracle": curves[1], "rank_correlation": correlation}


def interval_coverage(lower: Any, upper: Any, reference: Any) -> dict[str, Any]:
    """How often intervals hold the truth, and how wide they are for it (Gneiting et al., JRSS B 2007).

    Args:
        lower: (H, W, R) lower ends; NaN where there are no data.
        upper: (H, W, R) upper ends.
        reference: (H, W, R) abundances.

    Returns:
        `coverage`: share of the abundances that lie in their intervals; `interval`: mean width.

    Raises:
        ValueError: shapes that don't agree.
    """
    _same_shape(lower, reference)
    _same_shape(upper, reference)
    inside = (lower <= reference + 1e-6) & (reference - 1e-6 <= upper)
    return {"coverage": float(inside.mean()), "interval": float(np.nanmean(upper - lower))}


def add_noise(cube: Any, snr_db: float | None, seed: int = 0) -> np.ndarray:
    """White Gaussian noise at a signal-to-noise ratio defined on the mean power of the whole cube.

    Args:
        cube: (H, W, B).
        snr_db: dB; None = no noise.
        seed: of `numpy.random.default_rng`.

    Returns:
        (H, W, B) float64 copy.
    """
    cube = np.array(cube, dtype=np.float64)
    if snr_db is None:
        return cube
    sigma = np.sqrt(np.mean(np.square(cube)) / 10 ** (snr_db / 10))
    return cube + sigma * np.random.default_rng(seed).standard_normal(cube.shape)


def perturb_endmembers(endmembers: Any, degrees: float = 5.0, seed: int = 1) -> np.ndarray:
    """Spectra turned by an exact spectral angle through a smooth random curve over the bands.

    Each spectrum is multiplied by `exp(a g)`, g a Gaussian process over the bands (correlation length 0.12 of their
    range), and a is bisected until the angle is met; the norm stays.

    Args:
        endmembers: (R, B).
        degrees: the angle.
        seed: of `numpy.random.default_rng`.

    Returns:
        (R, B) float64.
    """
    endmembers = np.asarray(endmembers, dtype=np.float64)
    num_bands = endmembers.shape[1]
    rng = np.random.default_rng(seed)
    position = np.linspace(0, 1, num_bands)
    kernel = np.exp(-0.5 * ((position[:, None] - position) / 0.12) ** 2) + 1e-8 * np.eye(num_bands)
    factor = np.linalg.cholesky(kernel)
    return np.stack([_turned(spectrum, factor @ rng.standard_normal(num_bands), degrees) for spectrum in endmembers])


def _turned(spectrum: np.ndarray, curve: np.ndarray, degrees: float) -> np.ndarray:
    low, high = 0.0, 3.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        turned = spectrum * np.exp(middle * curve)
        if np.degrees(spectral_angles(turned[None], spectrum[None])[0, 0]) < degrees:
            low = middle
        else:
            high = middle
    turned = spectrum * np.exp(low * curve)
    return turned * (np.linalg.norm(spectrum) / np.linalg.norm(turned))


def _same_shape(estimate: Any, reference: Any) -> None:
    if np.shape(estimate) != np.shape(reference):
        raise ValueError(f"`estimate` {np.shape(estimate)} and `reference` {np.shape(reference)} must have one shape")
