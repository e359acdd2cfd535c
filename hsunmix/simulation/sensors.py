"""Sensors: band centres and widths of real and of random imaging spectrometers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .draws import Draws

WATER_VAPOUR_NM = ((1340.0, 1460.0), (1790.0, 1970.0))
"""Ranges in which the atmosphere is opaque; their bands are usually removed."""

# (first centre, last centre, number of bands, full width at half maximum) of each spectrometer of the instrument, nm.
_PRESETS: dict[str, tuple[tuple[float, float, int, float], ...]] = {
    "emit": ((381.0, 2493.0, 285, 8.5),),
    "aviris": ((366.0, 2497.0, 224, 9.8),),
    "enmap": ((418.4, 993.3, 88, 7.5), (1002.0, 2445.5, 130, 10.0)),
    "prisma": ((402.5, 972.7, 63, 11.5), (979.0, 2497.0, 171, 11.0)),
    "vnir": ((400.9, 899.1, 156, 3.3),),
}
SENSOR_PRESETS = tuple(_PRESETS)
"""Names known to `preset_sensor`."""


@dataclass(frozen=True)
class Sensor:
    """Band centres and widths.

    Attributes:
        wavelengths: (B,) band centres in nm, increasing.
        fwhm: (B,) full widths at half maximum in nm.
        name: preset name, or "random".
    """

    wavelengths: torch.Tensor
    fwhm: torch.Tensor
    name: str = "random"

    def __post_init__(self) -> None:
        if self.wavelengths.ndim != 1 or self.wavelengths.shape != self.fwhm.shape:
            raise ValueError(
                f"`wavelengths` and `fwhm` must both be (B,), got {tuple(self.wavelengths.shape)} and "
                f"{tuple(self.fwhm.shape)}."
            )

    @property
    def num_bands(self) -> int:
        """Number of bands B."""
        return self.wavelengths.shape[0]

    def select(self, keep: torch.Tensor) -> Sensor:
        """The sensor with some of its bands.

        Args:
            keep: (B,) bool, or (n,) positions.

        Returns:
            The sensor with the bands that are kept.
        """
        return Sensor(self.wavelengths[keep], self.fwhm[keep], self.name)

    def without_water_vapour(self) -> Sensor:
        """The sensor without the bands that atmospheric water vapour makes useless (1340-1460, 1790-1970 nm).

        Returns:
            The sensor with the other bands.
        """
        w = self.wavelengths
        blocked = torch.zeros_like(w, dtype=torch.bool)
        for low, high in WATER_VAPOUR_NM:
            blocked |= (w >= low) & (w <= high)
        return self.select(~blocked)


def preset_sensor(name: str) -> Sensor:
    """A sensor with the range, sampling and band width of a known instrument (nominal values, evenly spaced).

    Args:
        name: one of "emit" (285 bands), "aviris" (224), "enmap" (218), "prisma" (234), "vnir" (156, 401 to 899 nm).

    Returns:
        The sensor.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in _PRESETS:
        raise ValueError(f"`name` must be one of {', '.join(SENSOR_PRESETS)}, got {name!r}.")
    parts = _PRESETS[name]
    wavelengths = torch.cat([torch.linspace(first, last, count) for first, last, count, _ in parts])
    fwhm = torch.cat([torch.full((count,), width) for _, _, count, width in parts])
    return Sensor(wavelengths, fwhm, name)


def random_sensor(
    generator: torch.Generator,
    min_bands: int = 30,
    max_bands: int = 450,
    preset_probability: float = 0.35,
) -> Sensor:
    """A preset or a made-up sensor: random range, sampling, band width and missing bands.

    Args:
        generator: source of randomness.
        min_bands: fewest bands.
        max_bands: most bands.
        preset_probability: share of presets among the sensors (those within the band limits).

    Returns:
        Sensor with `min_bands` <= B <= `max_bands`, on the CPU (it holds two short vectors).

    Raises:
        ValueError: if the limits are not 2 <= min_bands <= max_bands.
    """
    if not 2 <= min_bands <= max_bands:
        raise ValueError(f"`min_bands`, `max_bands` must satisfy 2 <= min <= max, got {min_bands}, {max_bands}.")
    draws = Draws(generator, "cpu")
    presets = [s for s in map(preset_sensor, SENSOR_PRESETS) if min_bands <= s.num_bands <= max_bands]
    if presets and draws.chance(preset_probability):
        sensor = draws.choice(presets)
    else:
        sensor = _made_up_sensor(draws, min_bands, max_bands)
    if draws.chance(0.6):
        sensor = _if_enough(sensor.without_water_vapour(), sensor, min_bands)
    if draws.chance(0.2):  # a few bad bands
        bad = draws.uniform(0.0, 1.0, sensor.num_bands) < draws.number(0.0, 0.1)
        sensor = _if_enough(sensor.select(~bad), sensor, min_bands)
    return sensor


def _made_up_sensor(draws: Draws, min_bands: int, max_bands: int) -> Sensor:
    """VNIR, VSWIR or SWIR range with even or slowly drifting sampling."""
    kind = draws.choice(("vnir", "vswir", "swir"), (0.35, 0.5, 0.15))
    if kind == "vnir":
        low, high = draws.number(380.0, 480.0), draws.number(820.0, 1050.0)
    elif kind == "vswir":
        low, high = draws.number(370.0, 480.0), draws.number(2300.0, 2510.0)
    else:
        low, high = draws.number(900.0, 1150.0), draws.number(2300.0, 2510.0)
    most = max(min_bands, min(max_bands, int((high - low) / 1.5)))  # no finer than 1.5 nm
    count = round(draws.log_number(min_bands, most))
    position = torch.linspace(0.0, 1.0, count)
    drift = draws.number(-0.3, 0.3) if draws.chance(0.5) else 0.0
    wavelengths = low + (high - low) * (position + drift * position * (1.0 - position))
    fwhm = torch.gradient(wavelengths)[0] * draws.number(0.8, 1.8)
    return Sensor(wavelengths, fwhm)


def _if_enough(candidate: Sensor, sensor: Sensor, min_bands: int) -> Sensor:
    return candidate if candidate.num_bands >= min_bands else sensor


def even_sensor(low: float, high: float, num_bands: int) -> Sensor:
    """Evenly spaced bands, each as wide as the spacing.

    Args:
        low: first band centre, nm.
        high: last band centre, nm.
        num_bands: B.

    Returns:
        The sensor.

    Raises:
        ValueError: for a range that is none, or fewer than two bands.
    """
    if not (0.0 < low < high and math.isfinite(high)) or num_bands < 2:
        raise ValueError(f"`low` < `high` in nm and `num_bands` >= 2 are needed, got {low}, {high}, {num_bands}.")
    return Sensor(
        torch.linspace(low, high, num_bands), torch.full((num_bands,), (high - low) / (num_bands - 1)), "even"
    )
