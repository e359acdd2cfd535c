"""The benchmark protocol: what the pipeline gets, what it is compared with, and the table that comes out.

Tracks: *given* (exact endmembers), *perturbed* (turned by exactly 5 degrees, seed 1), *blind* (only their number),
*library* (their number, and spectra to choose from). The same settings for every scene; references are touched only
for scoring; the median over the seeds is reported.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import SpectralLibrary, read_cube, read_library
from ..physics import fcls, nnls, split_brightness
from ..simulation import benchmark_scene
from .memory import forget_peak, peak_memory
from .metrics import add_noise, evaluate, interval_coverage, perturb_endmembers, sparsification

TRACKS = ("given", "perturbed", "blind")


@dataclass
class ReferenceScene:
    """A scene with its reference.

    Attributes:
        name: for the table.
        cube: (H, W, B), divided by its maximum.
        endmembers: (R, B).
        abundances: (H, W, R).
        wavelengths: (B,) nm, or `None`.
        library: for the library track, or `None`.
    """

    name: str
    cube: np.ndarray
    endmembers: np.ndarray
    abundances: np.ndarray
    wavelengths: np.ndarray | None
    library: SpectralLibrary | None = None


@dataclass
class Score:
    """One run: abundance RMSE of the three estimates, spectral angles (radians) of the two, seconds.

    Attributes:
        nnls_rmse: of exactly solved least squares, from the endmembers as they were perturbed, before any correction;
            on other tracks from those of the coarse estimate.
        coverage: share of the abundances that lie in their 90 % intervals.
        interval: mean width of those.
        peak_mb: largest memory of the process during the run, MB; `None` where the system does not say.
        rank_correlation: of error and uncertainty over the pixels.
        sparsification: RMSE of the pixels that are left when 0, 10, ... 90 % of them are left out, the most uncertain
            first.
        sparsification_oracle: the same, the largest errors first.
    """

    scene: str
    track: str
    snr_db: float | None
    seed: int
    nnls_rmse: float
    coarse_rmse: float
    refined_rmse: float
    coarse_sad: float
    refined_sad: float
    coverage: float
    interval: float
    seconds: float
    brightness: str
    peak_mb: float | None = None
    rank_correlation: float | None = None
    sparsification: list[float] = field(default_factory=list)
    sparsification_oracle: list[float] = field(default_factory=list)


def load_reference_scene(path: Path | str) -> ReferenceScene:
    """Read `NAME.hdr` (or another cube) and `NAME_reference.npz` beside it.

    Raises:
        FileNotFoundError: if there is no reference.
    """
    path = Path(path)
    reference = path.with_name(path.stem + "_reference.npz")
    if not reference.exists():
        raise FileNotFoundError(
            f"{path} has no reference: expected {reference.name} with `endmembers` and `abundances`."
        )
    cube = read_cube(path)
    with np.load(reference, allow_pickle=False) as arrays:
        endmembers, abundances = arrays["endmembers"], arrays["abundances"]
    return ReferenceScene(path.stem, cube.data / cube.data.max(), endmembers, abundances, cube.wavelengths)


def simulated_reference_scene(
    library: Path | str, seed: int, mixing: str = "linear", num_endmembers: int = 5, max_purity: float = 0.8
) -> ReferenceScene:
    """The simulated scene of the protocol, noise-free, from a spectral library, which it keeps.

    Args:
        library: file of the spectra.
        seed: of the scene.
        mixing: "linear", "bilinear" or "variable".
        num_endmembers: R.
        max_purity: largest abundance.
    """
    spectra = read_library(library)
    nanometres = None if spectra.wavelengths is None else torch.as_tensor(spectra.wavelengths)
    scene = benchmark_scene(
        torch.as_tensor(spectra.spectra),
        nanometres,
        seed,
        mixing,
        snr_db=None,
        num_endmembers=num_endmembers,
        max_purity=max_purity,
    )
    peak = float(scene.clean.max())
    kind = [mixing, Path(library).stem]
    if num_endmembers != 5 or max_purity != 0.8:  # what the protocol has
        kind += [f"R={num_endmembers}", f"purity {max_purity:g}"]
    return ReferenceScene(
        f"simulated {' '.join(kind)} {seed}",
        scene.clean.double().numpy() / peak,
        scene.endmembers.double().numpy() / peak,
        scene.abundances.double().numpy(),
        spectra.wavelengths,
        spectra,
    )


def run(
    pipe: Any,
    scenes: Iterable[ReferenceScene],
    tracks: Sequence[str] = TRACKS,
    snr_db: Sequence[float | None] = (None, 30.0, 20.0, 10.0),
    seeds: Sequence[int] = range(5),
    report: Callable[[Score], None] = lambda score: None,
    known: Iterable[Score] = (),
    **settings: Any,
) -> list[Score]:
    """Run the pipeline over scenes, tracks, noise levels and seeds.

    Args:
        pipe: a `SemiBlindUnmixingPipeline`.
        scenes: what to unmix.
        tracks: of `TRACKS`, or "library", which needs scenes with one, or "unmoved": perturbed endmembers that stay
            where they are, so that only maps are refined.
        snr_db: white noise levels in dB; `None` is the clean cube.
        seeds: of the pipeline's generator. The noise is that of `numpy.random.default_rng(0)` for all.
        report: called with each score as soon as it is there.
        known: scores of an earlier run with the same settings, which are not measured again.
        **settings: further arguments of the pipeline, the same for all.

    Returns:
        The scores.
    """
    scores = []
    done = {(one.scene, one.track, one.snr_db, one.seed): one for one in known}
    for scene in scenes:
        for track in tracks:
            for level in snr_db:
                observed = add_noise(scene.cube, level)
                for seed in seeds:
                    score = done.get((scene.name, track, level, seed))
                    if score is None:
                        score = _score(pipe, scene, track, level, observed, seed, settings)
                    report(score)
                    scores.append(score)
    return scores


def _score(
    pipe: Any,
    scene: ReferenceScene,
    track: str,
    level: float | None,
    observed: np.ndarray,
    seed: int,
    settings: dict[str, Any],
) -> Score:
    starts: dict[str, dict[str, Any]] = {
        "given": {"fixed_endmembers": scene.endmembers},
        "perturbed": {"endmembers": perturb_endmembers(scene.endmembers)},
        "unmoved": {"fixed_endmembers": perturb_endmembers(scene.endmembers)},
        "blind": {"num_endmembers": len(scene.endmembers)},
        "library": {"num_endmembers": len(scene.endmembers), "library": scene.library},
    }
    start = starts[track]
    if track == "library" and scene.library is None:
        raise ValueError(f'the track "library" needs a spectral library, and {scene.name} has none.')
    facts = {"wavelengths": scene.wavelengths, "reflectance_scale": 1.0}
    if track == "unmoved":  # wrong spectra that count as exact would say nothing about the brightness
        probe = pipe(observed, **facts, **starts["perturbed"], **settings | {"num_inference_steps": 0})
        start["brightness"] = probe.brightness_mode[0]
        settings = settings | {"mixing_model": probe.mixing_model[0]}
    forget_peak()
    began = time.perf_counter()
    out = pipe(
        observed,
        output_uncertainty=True,
        generator=torch.Generator().manual_seed(seed),
        **facts,
        **start,
        **settings,
    )
    seconds, peak_mb = time.perf_counter() - began, peak_memory()
    truth = {"cube": scene.cube, "endmembers": scene.endmembers, "abundances": scene.abundances}
    coarse_endmembers = out.coarse_endmembers[0]
    solved = coarse_endmembers
    if track == "perturbed":  # as they were given, before any correction
        solved = start["endmembers"]
        if out.brightness_mode[0] == "free":  # abundances are counted so
            solved = solved / solved.max(axis=1, keepdims=True)
    exact = closed_form(observed, out.scene[0].brightness_model.level * solved, out.brightness_mode[0])
    refined = evaluate(out.endmembers[0], out.abundances[0], truth)
    coarse = evaluate(coarse_endmembers, out.coarse_abundances[0], truth)
    lower, upper = (bound[0][:, :, refined["order"]] for bound in out.abundance_interval(0.9))
    return Score(
        scene=scene.name,
        track=track,
        snr_db=level,
        seed=seed,
        nnls_rmse=evaluate(solved, exact, truth)["abundance_rmse"],
        coarse_rmse=coarse["abundance_rmse"],
        refined_rmse=refined["abundance_rmse"],
        coarse_sad=coarse["sad"],
        refined_sad=refined["sad"],
        seconds=seconds,
        brightness=out.brightness_mode[0],
        peak_mb=peak_mb,
        **interval_coverage(lower, upper, scene.abundances),
        **sparsification(
            out.abundances[0][:, :, refined["order"]],
            scene.abundances,
            out.abundance_uncertainty[0][:, :, refined["order"]],
        ),
    )


def closed_form(cube: np.ndarray, endmembers: np.ndarray, brightness_mode: str) -> np.ndarray:
    """Exactly solved least squares on the same start: non-negative with free brightness, else fully constrained.

    Args:
        cube: (H, W, B).
        endmembers: (R, B).
        brightness_mode: "free" or "fixed".

    Returns:
        (H, W, R) abundances.
    """
    pixels = torch.from_numpy(np.asarray(cube, dtype=np.float64)).flatten(0, 1)
    spectra = torch.from_numpy(np.asarray(endmembers, dtype=np.float64))
    if brightness_mode == "free":
        abundances = split_brightness(nnls(pixels, spectra))[0]
    else:
        abundances = fcls(pixels, spectra)
    return abundances.unflatten(0, cube.shape[:2]).numpy()


Cell = tuple[str, str, float | None]


def cells(scores: Iterable[Score]) -> dict[Cell, list[Score]]:
    """Runs that differ only in their seeds (of the sampler, of a simulated scene), by scene, track and SNR."""
    grouped: dict[Cell, list[Score]] = {}
    for score in scores:
        grouped.setdefault((scene_group(score.scene), score.track, score.snr_db), []).append(score)
    return grouped


def scene_group(name: str) -> str:
    """The name of a scene without the seed of simulated ones, which are one cell together."""
    return re.sub(r" \d+$", "", name)


def scene_kind(group: str) -> str:
    """That name without number and purity of the endmembers of simulated scenes."""
    return re.sub(r" R=\d+ purity [\d.]+$", "", group)


def median(scores: Sequence[Score], name: str) -> float:
    """Median of one attribute over runs."""
    return float(np.median([getattr(score, name) for score in scores]))


def noise_name(snr_db: float | None) -> str:
    """The level as tables write it: clean, 20 dB."""
    return "clean" if snr_db is None else f"{snr_db:g} dB"


def as_markdown(scores: Sequence[Score]) -> str:
    """Table of medians over the seeds, with the range of the refined result."""
    lines = [
        "| scene | track | SNR | NNLS | coarse | refined | range | SAD coarse | SAD refined | in 90 % interval | s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (scene, track, level), cell in cells(scores).items():
        refined = [score.refined_rmse for score in cell]
        entries = [scene, track, noise_name(level)]
        entries += [f"{median(cell, name):.4f}" for name in ("nnls_rmse", "coarse_rmse", "refined_rmse")]
        entries.append(f"{min(refined):.3f}-{max(refined):.3f}" if len(cell) > 1 else "")
        for name in ("coarse_sad", "refined_sad"):
            entries.append("" if track == "given" else f"{median(cell, name):.3f}")
        entries += [f"{median(cell, 'coverage'):.0%}", f"{median(cell, 'seconds'):.1f}"]
        lines.append("| " + " | ".join(entries) + " |")
    return "\n".join(lines)


def as_records(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """The scores as plain dictionaries, for JSON."""
    return [asdict(score) for score in scores]
