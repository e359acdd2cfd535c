"""Spectral libraries as a source of endmembers: cleaned once, resampled to any sensor on demand."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

from .sensors import Sensor

HELD_OUT_MATERIALS = (
    "Alunite", "Kaolin", "Muscovite", "Jarosite", "Calcite", "Maple", "Aspen", "Asphalt", "Brick", "Oxide",
)  # fmt: skip
"""Materials that never enter training; validation is on scenes made of nothing else, so that it stays zero-shot."""


def is_held_out(name: str) -> bool:
    """Whether the name of a spectrum contains one of `HELD_OUT_MATERIALS` (upper or lower case).

    Args:
        name: of a spectrum.

    Returns:
        True where it does.
    """
    return any(material.lower() in name.lower() for material in HELD_OUT_MATERIALS)


class LibrarySpectra:
    """One cleaned spectral library that gives its spectra at the bands of any sensor.

    Values that are not finite, negative or above `max_reflectance` count as missing (this covers the -1.23e34 of the
    USGS files). Spectra with too few valid values are dropped, gaps of the others are filled by linear interpolation
    (at the ends by the nearest valid value).

    Args:
        spectra: (L, B0) reflectance in [0, 1.x], array or tensor.
        wavelengths: (B0,) band centres in nm, in any order.
        names: L names; "library 0", ... when None.
        min_valid: smallest share of valid values of a spectrum that is kept.
        max_reflectance: larger values are invalid.
        exclude_held_out: drop spectra of `HELD_OUT_MATERIALS` (for training data).

    Attributes:
        spectra: (L', B0') cleaned, float32.
        wavelengths: (B0',) increasing, float32.
        names: L' names.

    Raises:
        ValueError: if shapes disagree, wavelengths are missing or not in nm, or no valid spectrum is left.
    """

    def __init__(
        self,
        spectra: torch.Tensor,
        wavelengths: torch.Tensor,
        names: Sequence[str] | None = None,
        min_valid: float = 0.8,
        max_reflectance: float = 1.5,
        exclude_held_out: bool = False,
    ):
        values = torch.as_tensor(spectra).detach().to("cpu", torch.float32)
        if wavelengths is None:
            raise ValueError("`wavelengths` of a library are needed to resample it to a sensor, got None.")
        centres = torch.as_tensor(wavelengths).detach().to("cpu", torch.float32)
        if values.ndim != 2 or centres.shape != values.shape[1:]:
            raise ValueError(
                f"`spectra` must be (L, B) and `wavelengths` (B,), got {tuple(values.shape)}, {tuple(centres.shape)}."
            )
        if not torch.isfinite(centres).all() or centres.max() < 100:
            raise ValueError("`wavelengths` must be finite and in nm; multiply micrometres by 1000.")
        labels = [f"library {i}" for i in range(len(values))] if names is None else [str(n).strip() for n in names]
        if len(labels) != len(values):
            raise ValueError(f"`names` must have one entry per spectrum, got {len(labels)} for {len(values)}.")

        order = centres.argsort()
        centres, values = centres[order], values[:, order]
        distinct = torch.cat([centres.new_ones(1, dtype=torch.bool), centres.diff() > 1e-3])
        centres, values = centres[distinct], values[:, distinct]
        valid = torch.isfinite(values) & (values >= 0.0) & (values <= max_reflectance)
        keep = valid.float().mean(1) >= min_valid
        if exclude_held_out:
            keep &= torch.tensor([not is_held_out(label) for label in labels], dtype=torch.bool)
        if not keep.any():
            raise ValueError("`spectra` has no usable spectrum: check its missing values, scale and names.")
        self.spectra = _fill_gaps(values[keep], valid[keep], centres)
        self.wavelengths = centres
        self.names = [label for label, kept in zip(labels, keep.tolist()) if kept]
        self._weights: OrderedDict[bytes, torch.Tensor] = OrderedDict()

    def __len__(self) -> int:
        return self.spectra.shape[0]

    @classmethod
    def from_any(cls, library: Any, exclude_held_out: bool = False) -> LibrarySpectra:
        """A `LibrarySpectra` of whatever holds spectra and wavelengths.

        Args:
            library: a `LibrarySpectra`, a tuple of spectra (L, B), wavelengths (B,) in nm and, if known, L names, or
                an object with those attributes.
            exclude_held_out: leave `HELD_OUT_MATERIALS` out.

        Returns:
            The library.

        Raises:
            ValueError: for anything else, or no usable spectrum.
        """
        if isinstance(library, cls):
            return library
        if isinstance(library, (tuple, list)) and len(library) in (2, 3):
            labels = library[2] if len(library) == 3 else None
            return cls(library[0], library[1], labels, exclude_held_out=exclude_held_out)
        if hasattr(library, "spectra") and hasattr(library, "wavelengths"):
            labels = getattr(library, "names", None)
            return cls(library.spectra, library.wavelengths, labels, exclude_held_out=exclude_held_out)
        raise ValueError(
            "`libraries` must hold LibrarySpectra, (spectra, wavelengths) tuples or spectral libraries, "
            f"got {type(library).__name__}."
        )

    def covers(self, sensor: Sensor, tolerance: float = 0.03) -> bool:
        """Whether the library spans the range of a sensor.

        Args:
            sensor: the bands.
            tolerance: share of the range that may be missing at either end.

        Returns:
            True where it does.
        """
        low, high = float(sensor.wavelengths.min()), float(sensor.wavelengths.max())
        slack = tolerance * (high - low)
        return float(self.wavelengths[0]) <= low + slack and float(self.wavelengths[-1]) >= high - slack

    def sample(self, indices: torch.Tensor | Sequence[int], sensor: Sensor) -> torch.Tensor:
        """Some of the spectra at the bands of a sensor.

        Bands wider than the library's sampling are Gaussian averages, others linear interpolation. The weights of the
        latest sensors are kept, so that a fixed sensor costs one small matrix product per call.

        Args:
            indices: (n,) positions in the library.
            sensor: B bands.

        Returns:
            (n, B) reflectance, on the CPU.
        """
        key = sensor.wavelengths.cpu().numpy().tobytes() + sensor.fwhm.cpu().numpy().tobytes()
        weights = self._weights.pop(key, None)
        if weights is None:
            weights = resampling_weights(self.wavelengths, sensor)
        self._weights[key] = weights  # most recent last
        if len(self._weights) > 8:
            self._weights.popitem(last=False)
        return self.spectra[torch.as_tensor(indices)] @ weights


def resampling_weights(wavelengths: torch.Tensor, sensor: Sensor) -> torch.Tensor:
    """Weights (B0, B) that resample spectra given at `wavelengths` (B0,), increasing, to the bands of a sensor."""
    target = sensor.wavelengths.to(wavelengths).clamp(wavelengths[0], wavelengths[-1])
    spacing = torch.gradient(wavelengths)[0]
    right = torch.searchsorted(wavelengths, target).clamp(1, len(wavelengths) - 1)
    left_wavelength, right_wavelength = wavelengths[right - 1], wavelengths[right]
    share = (target - left_wavelength) / (right_wavelength - left_wavelength)
    columns = torch.arange(len(target))
    linear = torch.zeros(len(wavelengths), len(target))
    linear[right - 1, columns] = 1.0 - share
    linear[right, columns] = share
    sigma = sensor.fwhm.to(wavelengths) / 2.3548
    response = torch.exp(-0.5 * ((wavelengths[:, None] - target) / sigma) ** 2) * spacing[:, None]
    gaussian = response / response.sum(0).clamp_min(1e-12)
    return torch.where(sensor.fwhm.to(wavelengths) > 1.5 * spacing[right], gaussian, linear)


def _fill_gaps(values: torch.Tensor, valid: torch.Tensor, wavelengths: torch.Tensor) -> torch.Tensor:
    """Linear interpolation over invalid values of (L, B), all spectra at once."""
    bands = torch.arange(values.shape[1]).expand_as(values)
    last = values.shape[1] - 1
    left = torch.where(valid, bands, -1).cummax(1).values
    right = torch.where(valid, bands, last + 1).flip(1).cummin(1).values.flip(1)
    left, right = torch.where(left < 0, right, left), torch.where(right > last, left, right)
    low, high = wavelengths[left], wavelengths[right]
    share = torch.where(right > left, (wavelengths - low) / (high - low).clamp_min(1e-6), torch.zeros_like(low))
    clean = torch.where(valid, values, torch.zeros_like(values))
    return torch.lerp(clean.gather(1, left), clean.gather(1, right), share)
