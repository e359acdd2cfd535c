"""The files and the summary that a result becomes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .common import say

if TYPE_CHECKING:
    from hsunmix.data import Cube, MapLayer
    from hsunmix.pipelines import SceneModel

MAPS = ("abundances", "uncertainty", "brightness", "residual", "quality")
PICTURES = ("abundances.png", "endmembers.png", "residual.png", "brightness.png", "composite.png")
# All that a run may write: a folder never holds those of two runs.
FILES = (
    *(f"{name}.{suffix}" for name in MAPS for suffix in ("hdr", "img", "tif")),
    *("endmembers.hdr", "endmembers.sli", "results.npz", "summary.json", "timing.json", "report.html"),
    *PICTURES,
)
SPECTRA = ("endmembers", "endmember_uncertainty", "coarse_endmembers", "noise")  # fields of the pipeline's output
NAMES_OF_A_LIBRARY = "a name means the nearest spectrum in the library, not that the material was identified"
_SPIKE, _AROUND = 1.25, 7  # times the median of so many bands; that at 764 nm on Samson is 1.06
_PREVIEW = 1000  # pixels of the longer side of pictures
_STATISTICS = 2_000_000  # pixels that numbers of the summary are computed from, at most


@dataclass(frozen=True)
class SceneMaps:
    """Maps of one scene (H x W pixels, R endmembers), in memory or mapped from a file.

    Attributes:
        abundances: (H, W, R); NaN = nodata.
        uncertainty: (H, W, R) standard deviations, or None.
        brightness: (H, W).
        residual: (H, W).
        quality: (H, W) uint8, index into `hsunmix.pipelines.quality.QUALITY_CLASSES`.
    """

    abundances: np.ndarray
    uncertainty: np.ndarray | None
    brightness: np.ndarray
    residual: np.ndarray
    quality: np.ndarray

    def thinned(self, step: int) -> SceneMaps:
        """Every so many rows and columns."""
        parts = {key: None if value is None else value[::step, ::step] for key, value in vars(self).items()}
        return SceneMaps(**parts)  # type: ignore[arg-type]

    def layers(self, names: Sequence[str]) -> list[MapLayer]:
        """The maps as they are written."""
        from hsunmix.data import MapLayer
        from hsunmix.pipelines.quality import QUALITY_CLASSES, QUALITY_COLORS

        spread = [f"{name} (standard deviation)" for name in names]
        layers = [MapLayer("abundances", self.abundances, names, "fraction", "fraction of each material in a pixel")]
        if self.uncertainty is not None:
            about = "standard deviation of the abundances"
            layers.append(MapLayer("uncertainty", self.uncertainty, spread, "fraction", about))
        about = "illumination of a pixel, 1 = ordinary in this scene"
        layers.append(MapLayer("brightness", self.brightness, ["brightness"], "1", about))
        about = "root mean square over the bands of image minus model"
        layers.append(MapLayer("residual", self.residual, ["residual"], "reflectance", about))
        about = "quality: " + ", ".join(f"{value} = {name}" for value, name in enumerate(QUALITY_CLASSES))
        classes, colors = QUALITY_CLASSES, QUALITY_COLORS
        layers.append(MapLayer("quality", self.quality, ["quality"], "class", about, classes, colors))
        return layers


def scene_maps(cube: Cube, result: dict[str, Any]) -> SceneMaps:
    """Maps of a cube that was unmixed at once, with the quality of each pixel.

    Args:
        cube: what was unmixed.
        result: fields of the pipeline's output for this cube.
    """
    from hsunmix.pipelines.quality import classify_quality, residual_limit, saturated_pixels

    saturated = saturated_pixels(cube.data, cube.band_mask, cube.saturation)
    limit = residual_limit(result["residual"], result["noise"])
    return SceneMaps(
        abundances=result["abundances"],
        uncertainty=result["abundance_uncertainty"],
        brightness=result["brightness"],
        residual=result["residual"],
        quality=classify_quality(result["residual"], saturated, limit),
    )


def write_results(
    staging: Path,
    cube: Cube,
    maps: SceneMaps,
    spectra: dict[str, Any],
    names: list[str],
    format: str = "envi",
    ortho: bool = False,
    arrays: dict[str, Any] | None = None,
) -> None:
    """Maps and spectra in the formats of the field, arrays as .npz, pictures.

    Args:
        staging: folder, from which `publish` moves the files to where they belong.
        cube: what was unmixed.
        maps: of the whole scene.
        spectra: `endmembers` (R, B), `coarse_endmembers`, `endmember_uncertainty`, `noise` (B,).
        names: R names.
        format: of the maps.
        ortho: lay the maps out on the map of the cube's lookup table.
        arrays: further arrays for `results.npz`.
    """
    from hsunmix.data import write_layer, write_library, write_npz
    from hsunmix.visualization import save_figures, scene_preview

    staging.mkdir(parents=True, exist_ok=True)
    for layer in maps.layers(names):
        write_layer(staging, layer, cube, format, ortho)
    write_library(staging / "endmembers", spectra["endmembers"], names, cube.wavelengths)
    known = {"names": names, "wavelengths": cube.wavelengths, "band_mask": cube.band_mask}
    write_npz(staging / "results.npz", **spectra, **(arrays or {}), **known)
    step = max(1, -(-max(cube.shape[:2]) // _PREVIEW))
    small = maps.thinned(step)
    picture, labels = scene_preview(cube, step)
    save_figures(
        staging,
        np.asarray(small.abundances),
        spectra["endmembers"],
        cube.wavelengths,
        names,
        residual=np.asarray(small.residual),
        brightness=np.asarray(small.brightness),
        band_mask=cube.band_mask,
        preview=picture,
        preview_bands=labels,
        abundance_uncertainty=None if small.uncertainty is None else np.asarray(small.uncertainty),
        endmember_uncertainty=spectra["endmember_uncertainty"],
        coarse_endmembers=spectra["coarse_endmembers"],
        title=cube.name,
    )


def publish(staging: Path, folder: Path) -> list[Path]:
    """Move complete files to their final names, the summary last: where it is, everything is there.

    Files of an earlier result that this one doesn't replace (its report, its uncertainty, another format) are removed.

    Returns:
        The files.
    """
    names = sorted((path.name for path in staging.iterdir()), key=lambda name: (name == "summary.json", name))
    for name in ("summary.json", *(name for name in FILES if name not in names)):
        (folder / name).unlink(missing_ok=True)
    for name in names:
        os.replace(staging / name, folder / name)
    staging.rmdir()
    return [folder / name for name in names]


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of a result.

    Raises:
        ValueError: it is damaged, or not of a result of `hsunmix unmix`.
    """
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not readable ({error})") from error
    if "endmembers" not in summary:
        raise ValueError(f"{folder} holds no result of `hsunmix unmix`; of a simulated scene name the file")
    return summary


def summarize(
    cube: Cube,
    maps: SceneMaps,
    spectra: dict[str, Any],
    names: list[str],
    scene: SceneModel,
) -> dict[str, Any]:
    """What was unmixed and what came out, in a few numbers for summary.json.

    Args:
        cube: the scene.
        maps: its maps.
        spectra: of the pipeline's output, by name.
        names: of the endmembers.
        scene: what was found about the scene as a whole.

    Returns:
        The summary, without the settings.
    """
    from hsunmix.pipelines.quality import QUALITY_CLASSES, residual_over_noise, unexplained

    mode = scene.brightness_model.mode
    step = max(1, int(np.ceil(np.sqrt(maps.brightness.size / _STATISTICS))))
    some = maps.thinned(step)
    counts = np.bincount(maps.quality.ravel(), minlength=len(QUALITY_CLASSES))
    return {
        "cube": {
            "path": cube.path,
            "product": cube.product or None,
            "shape": cube.shape,
            "scale": cube.scale,
            "bad_bands": int(np.isnan(spectra["noise"]).sum()),
            "nodata_pixels": int(counts[1]),
            "wavelength_range_nm": None
            if cube.wavelengths is None
            else [cube.wavelengths.min(), cube.wavelengths.max()],
        },
        "num_endmembers": len(names),
        "num_endmembers_probabilities": scene.number_probabilities,
        "endmembers": [
            {
                "name": name,
                "mean_abundance": np.nanmean(some.abundances[:, :, index]),
                "maximum": np.nanmax(some.abundances[:, :, index]),
            }
            for index, name in enumerate(names)
        ],
        "mixing_model": scene.mixing_model,
        "brightness_mode": mode,
        "brightness_5_50_95_percentiles": np.nanpercentile(some.brightness, [5, 50, 95]),
        "quality": {name: int(count) for name, count in zip(QUALITY_CLASSES, counts)},
        "residual_rms": float(np.sqrt(np.nanmean(np.square(some.residual)))),
        "residual_over_noise": residual_over_noise(some.residual, spectra["noise"]),
        "unexplained": unexplained(some.residual, spectra["noise"]),
        "noise_std_median": float(np.nanmedian(spectra["noise"])),
        "snr_db": signal_to_noise(some, spectra),
        "spikes_nm": spikes(spectra["endmembers"], cube.wavelengths) if mode == "free" else [],
    }


def spikes(endmembers: np.ndarray, wavelengths: np.ndarray | None) -> list[float]:
    """Wavelengths (nm) of single bands in which spectra have their maximum, high above the bands around them.

    With free brightness these set the scale that abundances are counted in.

    Args:
        endmembers: (R, B) reflectance; NaN in masked bands.
        wavelengths: (B,) nm, or None.

    Returns:
        Wavelengths, ascending.
    """
    from scipy.ndimage import median_filter

    if wavelengths is None:
        return []
    used = np.isfinite(endmembers).all(axis=0)
    order = np.flatnonzero(used)[np.argsort(wavelengths[used], kind="stable")]
    lines = endmembers[:, order]
    around = median_filter(lines, size=(1, _AROUND), mode="nearest")
    peaks = lines.argmax(axis=1)
    rows = np.arange(len(lines))
    high = lines[rows, peaks] > _SPIKE * around[rows, peaks]
    return sorted({float(wavelengths[order[peak]]) for peak in peaks[high]})


def signal_to_noise(maps: SceneMaps, spectra: dict[str, Any]) -> float | None:
    """Power of the reconstruction over power of the estimated noise in dB; None without noise."""
    amounts = (maps.brightness[:, :, None] * maps.abundances).astype(np.float64)
    amounts = amounts[np.isfinite(amounts).all(axis=2)]  # (N, R)
    lines = np.asarray(spectra["endmembers"], dtype=np.float64)
    lines = lines[:, np.isfinite(lines).all(axis=0)]  # (R, B)
    signal = np.einsum("nr,nq,rq->", amounts, amounts, lines @ lines.T, optimize=True) / amounts.shape[0]
    noise = float(np.nanmean(np.square(spectra["noise"], dtype=np.float64)))
    return float(10 * np.log10(signal / lines.shape[1] / noise)) if noise > 0 else None


def extent(shape: Sequence[int], bad_bands: int) -> str:
    """The size of a cube and how many of its bands are used."""
    height, width, bands = shape
    return f"{height} x {width} pixels, {bands - bad_bands} of {bands} bands used"


def number_of_materials(summary: dict[str, Any]) -> str:
    """How many there are, and whether that was known."""
    settings = summary["settings"]
    known = any(settings.get(key) is not None for key in ("num_endmembers", "endmembers", "fixed_endmembers"))
    words = f"{summary['num_endmembers']} endmembers"
    if known:
        return words
    numbers = summary.get("num_endmembers_probabilities") or {}
    likely = sorted(numbers.items(), key=lambda item: -item[1])[:3]
    found = (
        ": " + ", ".join(f"{count} with {100 * probability:.0f} %" for count, probability in likely) if likely else ""
    )
    return f"{words} (number estimated{found}; -r sets it)"


def how_well_explained(summary: dict[str, Any]) -> str:
    """The residual, beside the noise."""
    quality = summary["quality"]
    poor = quality["poorly explained"] / max(sum(quality.values()) - quality["nodata"], 1)
    return (
        f"reconstruction error {summary['residual_rms']:.4f} (RMS, reflectance); in the median pixel "
        f"{summary['residual_over_noise']:.1f} times the noise; {100 * poor:.1f} % of the pixels poorly explained"
    )


def report(folder: Path, summary: dict[str, Any], seconds: float) -> None:
    """The summary for a reader at the terminal."""
    snr = "no noise" if summary["snr_db"] is None else f"SNR {summary['snr_db']:.0f} dB"
    how = f"{summary['mixing_model']} mixing, brightness {summary['brightness_mode']}"
    say(f"{number_of_materials(summary)} in {seconds:.1f} s, {snr}, {how}")
    longest = max(len(entry["name"]) for entry in summary["endmembers"])
    say(f"  {'':{longest}}  mean abundance")
    for entry in summary["endmembers"]:
        bar = "#" * round(30 * entry["mean_abundance"])
        say(f"  {entry['name']:{longest}}  {100 * entry['mean_abundance']:5.1f} %  {bar}")
    if summary["settings"].get("library") is not None:
        say(f"  {NAMES_OF_A_LIBRARY}")
    say(f"  {how_well_explained(summary)}")
    if summary["unexplained"]:
        say("  residual.png shows where the scene is badly explained")
    if summary["cube"]["nodata_pixels"]:
        say(f"  {summary['cube']['nodata_pixels']} pixels have no data")
    if summary["spikes_nm"]:
        where = ", ".join(f"{nanometres:.0f}" for nanometres in summary["spikes_nm"])
        say(f"  the maximum of spectra, which sets their scale, is a spike at {where} nm: leave it out (--mask-bands)")
    say(f"written to {folder}: abundances, endmembers, quality, results.npz, summary.json and pictures")
