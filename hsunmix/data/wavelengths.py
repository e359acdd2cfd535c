"""Wavelengths of any file in nanometres, whatever unit it says or does not say."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

__all__ = ["span", "to_nanometers"]

# Imaging spectrometers measure between 20 nm and 20 micrometres: the number alone tells the two units apart.
_MICROMETER_LIMIT = 20.0

_UNITS = {
    "nm": 1.0,
    "nanometer": 1.0,
    "nanometre": 1.0,
    "um": 1e3,
    "µm": 1e3,
    "μm": 1e3,
    "micrometer": 1e3,
    "micrometre": 1e3,
    "micron": 1e3,
    "mm": 1e6,
    "millimeter": 1e6,
    "m": 1e9,
    "meter": 1e9,
    "angstrom": 0.1,
}
_UNSAID = {"", "none", "unknown", "<unspecified>", "unspecified", "wavelength"}
_WAVENUMBER = {"wavenumber", "cm-1", "cm^-1", "1/cm"}


def to_nanometers(wavelengths: Any, unit: str | None = None, fwhm: Any = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Wavelengths (and band widths) as float64 in nm, in the order in which they were given.

    Values below 20 are micrometres when no unit is said. Where the stated unit is impossible (0.4 "nanometres",
    2500 "micrometres") the values decide, with a warning: exported headers often carry a wrong unit.

    Args:
        wavelengths: (B,) band centres.
        unit: as a file says it ("Nanometers", "um", "Wavenumber", ...), or None.
        fwhm: (B,) full widths at half maximum in the same unit, or None.

    Returns:
        (B,) wavelengths in nm, and (B,) widths in nm or None.

    Raises:
        ValueError: `wavelengths` is not a list of positive finite numbers, or `unit` is not a length.
    """
    values = _numbers(wavelengths, "wavelengths")
    widths = None if fwhm is None else _numbers(fwhm, "fwhm")
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError("wavelengths must be positive and finite (nm or micrometres)")
    name = (unit or "").strip().lower()
    if name.rstrip("s") in _WAVENUMBER or name in _WAVENUMBER:
        return 1e7 / values, None if widths is None else 1e7 * widths / values**2
    small = bool(values.max() < _MICROMETER_LIMIT)
    if name in _UNSAID:
        factor = 1e3 if small else 1.0
    elif name in _UNITS or name.rstrip("s") in _UNITS:
        factor = _UNITS.get(name, _UNITS.get(name.rstrip("s"), 1.0))
        plausible = 1e3 if small else 1.0
        if factor in (1.0, 1e3) and factor != plausible:
            said = "nanometres" if factor == 1.0 else "micrometres"
            warnings.warn(
                f"wavelengths from {values.min():g} to {values.max():g} can't be {said} as the unit {unit!r} says; "
                f"read as {'micrometres' if small else 'nanometres'}",
                stacklevel=2,
            )
            factor = plausible
    else:
        raise ValueError(f"the wavelength unit {unit!r} is unknown; use nanometers or micrometers")
    return values * factor, None if widths is None else widths * factor


def span(wavelengths: np.ndarray | None) -> str:
    """The range of wavelengths in words.

    Args:
        wavelengths: (B,) in nm, or None.

    Returns:
        Text.

    Example:
        >>> span(np.array([1000.2, 2500.0, 400.0]))
        '400 to 2500 nm'
    """
    return "no wavelengths" if wavelengths is None else f"{wavelengths.min():.0f} to {wavelengths.max():.0f} nm"


def _numbers(values: Any, name: str) -> np.ndarray:
    """(B,) float64, or a ValueError that names the argument."""
    if hasattr(values, "detach"):  # torch tensor
        values = values.detach().cpu()
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers") from error
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be one-dimensional with one value per band, got shape {array.shape}")
    return array
