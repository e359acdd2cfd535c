"""Which bands to leave out: those of atmospheric water vapour, where hardly any light arrives, and a user's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["WATER_VAPOUR", "describe_bands", "detector_overlap", "outside_intervals", "parse_intervals"]

# nm; the two strong water-vapour bands, and the end of the range, where signal is low and detectors are noisy
WATER_VAPOUR: tuple[tuple[float, float], ...] = ((1310.0, 1490.0), (1770.0, 2050.0), (2440.0, np.inf))
"""Ranges in nm that `bands="water"` leaves out: the atmosphere is opaque there, or the detector hardly sees."""

Intervals = Sequence[tuple[float, float]]


def outside_intervals(wavelengths: Any, intervals: Intervals = WATER_VAPOUR) -> np.ndarray:
    """Bands whose centre lies in none of the intervals.

    Args:
        wavelengths: (B,) in nm.
        intervals: pairs of nm, ends included.

    Returns:
        (B,) bool, True = good band.

    Example:
        >>> outside_intervals([500.0, 1400.0, 2200.0, 2480.0]).tolist()
        [True, False, True, False]
    """
    centers = np.asarray(wavelengths, dtype=np.float64)
    inside = [(centers >= low) & (centers <= high) for low, high in intervals]
    return ~np.any(inside, axis=0) if inside else np.ones(centers.shape, bool)


def parse_intervals(text: str) -> list[tuple[float, float]]:
    """Intervals of wavelengths as a user writes them.

    Args:
        text: "1310-1490,1770-2050,2440-"; an open end reaches to the end of the range.

    Returns:
        Pairs of nm.

    Raises:
        ValueError: not intervals, or one that ends before it begins.
    """
    intervals = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)?\s*-\s*(\d+(?:\.\d+)?)?\s*", part)
        if match is None or match.group(1) is None and match.group(2) is None:
            raise ValueError(
                f"{part.strip()!r} is no interval of wavelengths; write nm like 1310-1490,1770-2050,2440-"
            )
        low, high = float(match.group(1) or 0), float(match.group(2) or np.inf)
        if high < low:
            raise ValueError(f"the interval {part.strip()!r} ends before it begins")
        intervals.append((low, high))
    return intervals


def describe_bands(bands: Any, wavelengths: Any = None) -> str:
    """Bands in words, neighbours as one range.

    Args:
        bands: (B,) bool, True = named.
        wavelengths: (B,) in nm, or None.

    Returns:
        Wavelengths like "1314-1483, 1775-2043 nm", or band numbers, from 1; empty for no band.

    Example:
        >>> describe_bands([True, False, True, True])
        'bands 1, 3-4'
        >>> describe_bands([True, False, True, True], [400.0, 500.0, 600.0, 700.0])
        '400, 600-700 nm'
    """
    named = np.asarray(bands, dtype=bool)
    centers = np.arange(1, len(named) + 1) if wavelengths is None else np.asarray(wavelengths).round().astype(int)
    order = np.argsort(centers, kind="stable")
    places = np.flatnonzero(named[order])
    if not len(places):
        return ""
    runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
    ends = [(centers[order[run[0]]], centers[order[run[-1]]]) for run in runs]
    text = ", ".join(f"{low}" if low == high else f"{low}-{high}" for low, high in ends)
    return f"bands {text}" if wavelengths is None else f"{text} nm"


def detector_overlap(first: Any, second: Any) -> np.ndarray:
    """Bands of a second detector that the first one sees too; two detectors differ a little, so one must be chosen.

    Args:
        first: (B1,) wavelengths of the detector that is kept.
        second: (B2,) wavelengths of the other one.

    Returns:
        (B2,) bool, True = in the range of `first`.
    """
    first, second = np.asarray(first), np.asarray(second)
    return (second >= first.min()) & (second <= first.max())
