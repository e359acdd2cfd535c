"""Other methods under the protocol of the benchmark, and the table in which they stand beside the pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from .baselines import BLIND, SPARSE, most_abundant
from .benchmark import ReferenceScene, Score, closed_form, noise_name, scene_group
from .memory import forget_peak, peak_memory
from .metrics import add_noise, evaluate

METHODS = (*BLIND, *SPARSE)
OURS = "hsunmix"
_BRIGHTNESS = ("free", "fixed")


@dataclass
class MethodScore:
    """One run of another method: errors of its result with each way to treat the brightness.

    Attributes:
        scene: name.
        track: "blind" or "library".
        snr_db: of the noise; `None` is the clean cube.
        seed: of the method.
        method: of `METHODS`.
        rmse: abundance RMSE by brightness, "free" (endmembers of equal maximum) and "fixed" (fully constrained);
            sparse methods have "free" alone.
        sad: mean spectral angle, radians.
        sre_db: signal over error of the abundances in dB (Iordache et al., IEEE TGRS 2012), by brightness.
        seconds: of the method, without the inversion.
        peak_mb: largest memory of the process during the run, MB; `None` where the system does not say.
    """

    scene: str
    track: str
    snr_db: float | None
    seed: int
    method: str
    rmse: dict[str, float]
    sad: float
    sre_db: dict[str, float]
    seconds: float
    peak_mb: float | None = None


def compare(
    scenes: Iterable[ReferenceScene],
    methods: Sequence[str],
    tracks: Sequence[str],
    snr_db: Sequence[float | None],
    seeds: Sequence[int],
    report: Callable[[MethodScore], None] = lambda score: None,
    known: Iterable[MethodScore] = (),
) -> list[MethodScore]:
    """Run other methods over scenes, noise levels and seeds, with the noise that `benchmark.run` adds.

    Args:
        scenes: what to unmix; those without a library are left out by sparse methods.
        methods: of `METHODS`.
        tracks: of the benchmark; methods that know the number of endmembers run on "blind", sparse ones on "library".
        snr_db: noise levels in dB; `None` is the clean cube.
        seeds: of the methods that draw random numbers; the others run once.
        report: called with each score as soon as it is there.
        known: scores of an earlier run, which are not measured again.

    Returns:
        The scores, in the order of the runs.
    """
    done = {_key(score): score for score in known}
    scores = []
    for scene, method, level, seed in runs(scenes, methods, tracks, snr_db, seeds):
        (track,) = tracks_of(method)
        score = done.get((scene.name, track, level, seed, method)) or _score(scene, method, track, level, seed)
        report(score)
        scores.append(score)
    return scores


def tracks_of(method: str) -> set[str]:
    """The track of the benchmark on which a method runs."""
    return {"blind"} if method in BLIND else {"library"}


def runs(
    scenes: Iterable[ReferenceScene],
    methods: Sequence[str],
    tracks: Sequence[str],
    snr_db: Sequence[float | None],
    seeds: Sequence[int],
) -> list[tuple[ReferenceScene, str, float | None, int]]:
    """What `compare` runs: scene, method, noise level and seed."""
    found = []
    for scene in scenes:
        for method in methods:
            if method in BLIND:
                wanted = list(seeds)[:1] if method == "spa" else list(seeds)
                possible = "blind" in tracks
            else:
                wanted, possible = list(seeds)[:1], "library" in tracks and scene.library is not None
            if possible:
                found += [(scene, method, level, seed) for level in snr_db for seed in wanted]
    return found


def _key(score: MethodScore) -> tuple[Any, ...]:
    return score.scene, score.track, score.snr_db, score.seed, score.method


def _score(scene: ReferenceScene, method: str, track: str, level: float | None, seed: int) -> MethodScore:
    observed = add_noise(scene.cube, level)
    cube, count = torch.from_numpy(np.asarray(observed, dtype=np.float64)), len(scene.endmembers)
    forget_peak()
    began = time.perf_counter()
    if method in BLIND:
        spectra = BLIND[method](cube, count, torch.Generator().manual_seed(seed)).numpy()
        seconds, peak_mb = time.perf_counter() - began, peak_memory()
        maximum = spectra.max(axis=1, keepdims=True).clip(1e-9)
        starts = {"free": spectra / maximum, "fixed": spectra}
        results = {mode: (one, closed_form(observed, one, mode)) for mode, one in starts.items()}
    else:
        library = _library(scene)
        found = SPARSE[method](cube, torch.from_numpy(library)).numpy()
        chosen, maps = most_abundant(found, count)
        seconds, peak_mb = time.perf_counter() - began, peak_memory()
        results = {"free": (library[chosen], maps)}
    truth = {"cube": scene.cube, "endmembers": scene.endmembers, "abundances": scene.abundances}
    errors = {mode: evaluate(*result, truth) for mode, result in results.items()}
    power = float(np.square(scene.abundances).mean())
    return MethodScore(
        scene=scene.name,
        track=track,
        snr_db=level,
        seed=seed,
        method=method,
        rmse={mode: one["abundance_rmse"] for mode, one in errors.items()},
        sad=errors["free"]["sad"],
        sre_db={mode: 10 * np.log10(power / max(one["abundance_rmse"] ** 2, 1e-30)) for mode, one in errors.items()},
        seconds=seconds,
        peak_mb=peak_mb,
    )


def _library(scene: ReferenceScene) -> np.ndarray:
    """Spectra (L, B) of the scene's library at its bands, of maximum 1; those that miss a band are left out."""
    assert scene.library is not None
    library = scene.library
    if library.wavelengths is not None and scene.wavelengths is not None:
        library = library.resample(scene.wavelengths)
    spectra = np.asarray(library.spectra, dtype=np.float64)
    if spectra.shape[1] != scene.cube.shape[2]:
        raise ValueError(f"The library has {spectra.shape[1]} bands, but {scene.name} has {scene.cube.shape[2]}.")
    spectra = spectra[np.isfinite(spectra).all(axis=1)]
    return spectra / np.abs(spectra).max()


@dataclass
class Row:
    """A method in one cell of the benchmark: medians over the runs.

    Attributes:
        scene: name, without the seed of simulated ones.
        track: of the benchmark.
        snr_db: of the noise.
        method: of `METHODS`, or "hsunmix".
        brightness: the setting with the smaller error, "free" or "fixed"; "auto" for hsunmix.
        rmse: abundance RMSE.
        sad: mean spectral angle, radians.
        seconds: of a run.
        peak_mb: memory of a run, `None` where it is not known.
    """

    scene: str
    track: str
    snr_db: float | None
    method: str
    brightness: str
    rmse: float
    sad: float
    seconds: float
    peak_mb: float | None = None


def rows(ours: Iterable[Score], others: Iterable[MethodScore]) -> list[Row]:
    """Medians by scene, track, noise level and method; each method with its better brightness setting.

    Args:
        ours: scores of the pipeline, of which the cells count that others have too.
        others: scores of other methods.

    Returns:
        The rows, cell by cell, the smallest error first.
    """
    cells: dict[tuple[str, str, float | None], dict[str, list[Any]]] = {}
    for other in others:
        cell = cells.setdefault((scene_group(other.scene), other.track, other.snr_db), {})
        cell.setdefault(other.method, []).append(other)
    for score in ours:
        key = (scene_group(score.scene), score.track, score.snr_db)
        if key in cells:
            cells[key].setdefault(OURS, []).append(score)
    found = []
    for key, methods in cells.items():
        found += sorted((_row(key, name, runs) for name, runs in methods.items()), key=lambda row: row.rmse)
    return found


def _row(key: tuple[str, str, float | None], method: str, runs: Sequence[Any]) -> Row:
    if method == OURS:
        errors = {"auto": [run.refined_rmse for run in runs]}
        angles = [run.refined_sad for run in runs]
    else:
        errors = {mode: [run.rmse[mode] for run in runs] for mode in _BRIGHTNESS if mode in runs[0].rmse}
        angles = [run.sad for run in runs]
    medians = {mode: float(np.median(values)) for mode, values in errors.items()}
    best = min(medians, key=lambda mode: medians[mode])
    seconds = float(np.median([run.seconds for run in runs]))
    peaks = [run.peak_mb for run in runs if run.peak_mb is not None]
    peak_mb = float(np.median(peaks)) if peaks else None
    return Row(*key, method, best, medians[best], float(np.median(angles)), seconds, peak_mb)


def as_markdown(table: Sequence[Row]) -> str:
    """The rows as tables in Markdown, one for each track, a column for each method, the smallest RMSE in bold."""
    tracks = []
    for track in dict.fromkeys(row.track for row in table):
        chosen = [row for row in table if row.track == track]
        methods = [name for name in (OURS, *METHODS) if any(row.method == name for row in chosen)]
        lines = [f"| {track}: RMSE / SAD, brightness | SNR | " + " | ".join(methods) + " |"]
        lines.append("|---" * (2 + len(methods)) + "|")
        for scene, level in dict.fromkeys((row.scene, row.snr_db) for row in chosen):
            cell = {row.method: row for row in chosen if (row.scene, row.snr_db) == (scene, level)}
            best = min(row.rmse for row in cell.values())
            entries = [_entry(cell[name], best) if name in cell else "" for name in methods]
            lines.append("| " + " | ".join([scene, noise_name(level), *entries]) + " |")
        tracks.append("\n".join(lines))
    return "\n\n".join(tracks)


def cost_table(table: Sequence[Row]) -> str:
    """Time and memory of every method in Markdown, medians over the noise levels, a line for each scene and track."""
    methods = [name for name in (OURS, *METHODS) if any(row.method == name for row in table)]
    lines = ["| seconds / MB | track | " + " | ".join(methods) + " |", "|---" * (2 + len(methods)) + "|"]
    for scene, track in dict.fromkeys((row.scene, row.track) for row in table):
        entries = []
        for name in methods:
            chosen = [row for row in table if (row.scene, row.track, row.method) == (scene, track, name)]
            peaks = [row.peak_mb for row in chosen if row.peak_mb is not None]
            memory = f" / {np.median(peaks):.0f}" if peaks else ""
            entries.append(f"{np.median([row.seconds for row in chosen]):.1f}{memory}" if chosen else "")
        lines.append("| " + " | ".join([scene, track, *entries]) + " |")
    return "\n".join(lines)


def _entry(row: Row, best: float) -> str:
    error = f"**{row.rmse:.3f}**" if row.rmse == best else f"{row.rmse:.3f}"
    return f"{error} / {row.sad:.3f} {row.brightness}"


def as_records(scores: Iterable[MethodScore]) -> list[dict[str, Any]]:
    """The scores as plain dictionaries, for JSON."""
    return [asdict(score) for score in scores]
