"""The files and the summary that a result becomes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .common import say

if TYPE_CHECKING:
    from hsunmix.data import Cube

FILES = ("abundances.hdr", "endmembers.hdr", "results.npz", "summary.json")


def write_results(folder: Path, cube: Cube, result: dict[str, Any], names: list[str]) -> None:
    """Maps and spectra as ENVI, everything as .npz, pictures.

    Args:
        folder: where to.
        cube: what was unmixed.
        result: fields of the pipeline's output, without the batch axis.
        names: R names.
    """
    from hsunmix.data import write_envi, write_library, write_npz
    from hsunmix.visualization import save_figures

    write_envi(folder / "abundances", result["abundances"], names, cube.metadata)
    write_library(folder / "endmembers", result["endmembers"], names, cube.wavelengths)
    write_npz(
        folder / "results.npz",
        **result,
        names=names,
        wavelengths=cube.wavelengths,
        band_mask=cube.band_mask,
        nodata_mask=cube.nodata_mask,
    )
    save_figures(
        folder,
        result["abundances"],
        result["endmembers"],
        cube.wavelengths,
        names,
        residual=result["residual"],
        cube=cube.data,
        band_mask=cube.band_mask,
        abundance_uncertainty=result["abundance_uncertainty"],
        endmember_uncertainty=result["endmember_uncertainty"],
        coarse_endmembers=result["coarse_endmembers"],
        title=cube.name,
    )


def summarize(cube: Cube, result: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """What was unmixed and what came out, in a few numbers for summary.json."""
    maps, brightness = result["abundances"], result["brightness"]
    good = cube.band_mask
    return {
        "cube": {
            "path": cube.path,
            "shape": cube.shape,
            "scale": cube.scale,
            "bad_bands": int((~good).sum()),
            "nodata_pixels": int(cube.nodata_mask.sum()),
            "wavelength_range_nm": None
            if cube.wavelengths is None
            else [cube.wavelengths.min(), cube.wavelengths.max()],
        },
        "num_endmembers": len(names),
        "endmembers": [
            {"name": name, "mean_abundance": np.nanmean(maps[:, :, index]), "maximum": np.nanmax(maps[:, :, index])}
            for index, name in enumerate(names)
        ],
        "brightness_mode": result.get("brightness_mode"),
        "brightness_5_50_95_percentiles": np.nanpercentile(brightness, [5, 50, 95]),
        "residual_rms": float(np.sqrt(np.nanmean(np.square(result["residual"])))),
        "noise_std_median": float(np.nanmedian(result["noise"])),
        "snr_db": signal_to_noise(result),
    }


def signal_to_noise(result: dict[str, Any]) -> float | None:
    """Power of the reconstruction over power of the estimated noise in dB; None without noise."""
    amounts = (result["brightness"][:, :, None] * result["abundances"]).astype(np.float64)
    amounts = amounts[np.isfinite(amounts).all(axis=2)]  # (N, R)
    spectra = result["endmembers"].astype(np.float64)
    spectra = spectra[:, np.isfinite(spectra).all(axis=0)]  # (R, B)
    signal = np.einsum("nr,nq,rq->", amounts, amounts, spectra @ spectra.T, optimize=True) / amounts.shape[0]
    noise = float(np.nanmean(np.square(result["noise"], dtype=np.float64)))
    return float(10 * np.log10(signal / spectra.shape[1] / noise)) if noise > 0 else None


def report(folder: Path, summary: dict[str, Any], seconds: float) -> None:
    """The summary for a reader at the terminal."""
    height, width, bands = summary["cube"]["shape"]
    snr = "" if summary["snr_db"] is None else f", SNR {summary['snr_db']:.0f} dB"
    say(f"{height} x {width} pixels, {bands} bands{snr}: {summary['num_endmembers']} endmembers in {seconds:.1f} s")
    longest = max(len(entry["name"]) for entry in summary["endmembers"])
    say(f"  {'':{longest}}  mean abundance")
    for entry in summary["endmembers"]:
        bar = "#" * round(30 * entry["mean_abundance"])
        say(f"  {entry['name']:{longest}}  {100 * entry['mean_abundance']:5.1f} %  {bar}")
    say(f"  reconstruction error {summary['residual_rms']:.4f} (RMS, reflectance)")
    say(f"written to {folder}: abundances, endmembers, results.npz, summary.json and pictures")
