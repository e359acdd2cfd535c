"""Where a cube lies on the ground, in the terms of ENVI (map info) and of GDAL (affine transform, WKT)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = ["Georeference", "OrthoGrid"]

_DATUMS = {"wgs84": "WGS-84", "wgs1984": "WGS-84"}


@dataclass(frozen=True)
class Georeference:
    """From pixels to map coordinates.

    Attributes:
        transform: (a, b, c, d, e, f) with `x = a column + b row + c` and `y = d column + e row + f`; row and column
            count from the outer corner of the first pixel (the order of `affine.Affine`).
        crs: coordinate reference system as WKT or "EPSG:32633"; empty where the file doesn't say.
    """

    transform: tuple[float, float, float, float, float, float]
    crs: str = ""

    def window(self, first_row: int, first_column: int) -> Georeference:
        """The georeference of a part that begins at this pixel.

        Args:
            first_row: counted from 0.
            first_column: counted from 0.

        Returns:
            The same transform with another origin.
        """
        a, b, c, d, e, f = self.transform
        x, y = a * first_column + b * first_row + c, d * first_column + e * first_row + f
        return replace(self, transform=(a, b, x, d, e, y))

    def envi_header(self) -> dict[str, Any]:
        """`map info` and `coordinate system string` of an ENVI header.

        Returns:
            Values by key, as `hsunmix.data.write_envi` takes them.
        """
        a, b, x, d, e, y = self.transform
        width, height = math.hypot(a, b), math.hypot(d, e)
        rotation = math.degrees(math.atan2(b, a))
        system = self.crs
        zone = re.search(r"UTM[ _]zone[ _](\d+)([NS])", system, re.IGNORECASE)
        code = re.fullmatch(r"EPSG:(\d+)", system.strip(), re.IGNORECASE)
        if code and code.group(1)[:3] in ("326", "327"):
            zone = re.fullmatch(r"(\d+)([NS])", code.group(1)[3:] + ("N" if code.group(1)[2] == "6" else "S"))
        geographic = system.startswith(("GEOGCS", "GEOGCRS")) or bool(code and code.group(1) == "4326")
        numbers = [_number(value) for value in (1.0, 1.0, x, y, width, height)]
        if zone:
            south = zone.group(2).upper() == "S"
            info = ["UTM", *numbers, zone.group(1), "South" if south else "North", "WGS-84", "units=Meters"]
        elif geographic:
            info = ["Geographic Lat/Lon", *numbers, "WGS-84", "units=Degrees"]
        else:
            info = ["Arbitrary", *numbers]
        if abs(rotation) > 1e-9:
            info.append(f"rotation={_number(rotation)}")
        header: dict[str, Any] = {"map info": info}
        if system and not code:
            header["coordinate system string"] = [system]
        return header

    @classmethod
    def from_envi(cls, header: Mapping[str, Any]) -> Georeference | None:
        """What an ENVI header says; None where it has no `map info`, or one that is not understood.

        Args:
            header: as `spectral` reads it: lists are split at their commas.

        Returns:
            The georeference, or None.
        """
        info = header.get("map info")
        if not isinstance(info, (list, tuple)) or len(info) < 7:
            return None
        try:
            column, row, x, y, width, height = (float(value) for value in info[1:7])
        except ValueError:
            return None
        angle = 0.0
        for item in info[7:]:
            if str(item).strip().lower().startswith("rotation"):
                angle = math.radians(float(str(item).split("=", 1)[1]))
        a, b = math.cos(angle) * width, math.sin(angle) * width
        d, e = math.sin(angle) * height, -math.cos(angle) * height
        c, f = x - a * (column - 1) - b * (row - 1), y - d * (column - 1) - e * (row - 1)
        return cls((a, b, c, d, e, f), _crs_of_header(header, [str(item).strip() for item in info]))


def _crs_of_header(header: Mapping[str, Any], info: list[str]) -> str:
    system = header.get("coordinate system string")
    if system:
        return ",".join(map(str, system)) if isinstance(system, (list, tuple)) else str(system).strip("{} ")
    datum = next((_DATUMS[key] for item in info if (key := re.sub(r"[^a-z0-9]", "", item.lower())) in _DATUMS), "")
    if datum != "WGS-84":
        return ""
    if info[0].lower().startswith("geographic"):
        return "EPSG:4326"
    if info[0].upper() == "UTM" and len(info) > 8 and info[7].isdigit():
        return f"EPSG:{'327' if info[8].lower().startswith('s') else '326'}{int(info[7]):02d}"
    return ""


def _number(value: float) -> str:
    return repr(round(value, 12)) if math.isfinite(value) else "0.0"


@dataclass(frozen=True)
class OrthoGrid:
    """A geometry lookup table (GLT): which pixel of the sensor's grid lies at each point of a map.

    Attributes:
        rows: (H', W') integers, row of the sensor's grid counted from 1; 0 = none.
        columns: (H', W') likewise.
        georeference: of the map.
    """

    rows: np.ndarray
    columns: np.ndarray
    georeference: Georeference

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the map."""
        height, width = self.rows.shape
        return height, width

    def apply(self, maps: np.ndarray, fill: float, rows: slice = slice(None)) -> np.ndarray:
        """Lay maps of the sensor's grid out on the map, nearest neighbour.

        Args:
            maps: (H, W, C).
            fill: value where no pixel lies.
            rows: part of the map's rows.

        Returns:
            (h', W', C), dtype of `maps`.
        """
        lines, samples = np.abs(self.rows[rows]), np.abs(self.columns[rows])  # negative: filled by interpolation
        known = (lines > 0) & (samples > 0) & (lines <= maps.shape[0]) & (samples <= maps.shape[1])
        out = np.full((*known.shape, maps.shape[2]), fill, dtype=maps.dtype)
        out[known] = maps[lines[known].astype(np.intp) - 1, samples[known].astype(np.intp) - 1]
        return out
