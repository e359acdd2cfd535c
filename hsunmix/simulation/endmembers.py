"""Choice of the endmembers of a simulated scene: distinct spectra from libraries and the parametric generator."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .draws import Draws
from .library import LibrarySpectra
from .sensors import Sensor
from .spectra import parametric_spectra

_ATTEMPTS = 20


def choose_endmembers(
    num_endmembers: int,
    sensor: Sensor,
    libraries: Sequence[LibrarySpectra],
    parametric_fraction: float,
    min_angle_degrees: float,
    draws: Draws,
) -> tuple[torch.Tensor, list[str]]:
    """Random spectra that are pairwise at least `min_angle_degrees` apart.

    Args:
        num_endmembers: R.
        sensor: bands of the scene.
        libraries: libraries to draw from; those that do not cover the sensor are left out.
        parametric_fraction: share of parametric spectra among the candidates (all where no library covers the sensor).
        min_angle_degrees: smallest angle between two of them.
        draws: source of randomness.

    Returns:
        Endmembers (R, B) and their names.

    Raises:
        ValueError: if so many distinct spectra cannot be found, or no source of spectra is left.
    """
    covering = [library for library in libraries if library.covers(sensor)]
    if not covering and parametric_fraction <= 0.0:
        raise ValueError(
            "`libraries` do not cover the range of the sensor; give others, or raise `parametric_fraction` above 0."
        )
    for _ in range(_ATTEMPTS):
        spectra, names = _candidates(
            max(24, 5 * num_endmembers), sensor, covering, parametric_fraction if covering else 1.0, draws
        )
        chosen = distinct_subset(spectra, num_endmembers, min_angle_degrees)
        if len(chosen) == num_endmembers:
            return spectra[chosen].to(draws.device), [names[i] for i in chosen]
    raise ValueError(
        f"`num_endmembers` = {num_endmembers} spectra at least {min_angle_degrees} degrees apart were not found; "
        "lower one of the two or give larger libraries."
    )


def distinct_subset(
    spectra: torch.Tensor, count: int, min_angle_degrees: float, max_angle_degrees: float = 90.0
) -> list[int]:
    """Indices of the first spectra of (C, B), in order, whose pairwise angles lie within the limits; at most `count`.

    Spectra that are black at these bands (mean below 0.005) are left out: they have no direction.
    """
    unit = spectra / spectra.norm(dim=1, keepdim=True).clamp_min(1e-12)
    angles = torch.rad2deg(torch.acos((unit @ unit.T).clamp(-1.0, 1.0)))
    compatible = (angles >= min_angle_degrees) & (angles <= max_angle_degrees)
    allowed = spectra.mean(1) >= 0.005
    chosen: list[int] = []
    while len(chosen) < count and bool(allowed.any()):
        chosen.append(int(allowed.to(torch.uint8).argmax()))
        allowed &= compatible[chosen[-1]]
        allowed[chosen[-1]] = False
    return chosen


def _candidates(
    count: int, sensor: Sensor, libraries: Sequence[LibrarySpectra], parametric_fraction: float, draws: Draws
) -> tuple[torch.Tensor, list[str]]:
    """Candidate spectra (count, B) on the CPU, in random order, and their names."""
    sizes = [len(library) ** 0.5 for library in libraries]  # large libraries repeat themselves
    weights = [(1.0 - parametric_fraction) * size / sum(sizes) for size in sizes] + [parametric_fraction]
    sources = draws.scalars.choices(range(len(weights)), weights=weights, k=count)  # the last one is parametric
    parts: list[torch.Tensor] = []
    names: list[str] = []
    for i, library in enumerate(libraries):
        indices = [draws.integer(0, len(library) - 1) for source in sources if source == i]
        if indices:
            parts.append(library.sample(indices, sensor))
            names += [library.names[j] for j in indices]
    num_parametric = sum(source == len(libraries) for source in sources)
    if num_parametric:
        spectra, families = parametric_spectra(
            num_parametric, sensor.wavelengths, draws.generator, device="cpu", return_families=True
        )
        parts.append(spectra)
        names += [f"parametric {family}" for family in families]
    order = draws.scalars.sample(range(count), count)
    return torch.cat(parts)[order], [names[i] for i in order]
