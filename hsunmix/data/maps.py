"""Maps with their place on the ground, as ENVI or as tiled, compressed GeoTIFF, written a block of rows at a time."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .cube import Cube
from .georeference import Georeference, OrthoGrid
from .geotiff import GDAL_CACHE
from .optional import require
from .writers import GEOGRAPHIC_KEYS, atomic_path, header_lines

__all__ = ["MAP_FORMATS", "MapLayer", "write_layer"]

MAP_FORMATS = ("envi", "geotiff", "cog")
"""File formats known to `write_layer`."""
_BLOCK = 256  # rows and columns of a GeoTIFF's blocks


@dataclass(frozen=True)
class MapLayer:
    """One or more maps of the same quantity.

    Attributes:
        name: of the file.
        values: (H, W, C) or (H, W), on the grid of the cube; an array in memory or mapped from a file.
        bands: C names.
        units: of the values, as GDAL's band unit type.
        description: one line.
        classes: names of the values 0, 1, ... of a map of classes; empty for measurements.
        colors: red, green, blue (0 to 255) of the classes.
    """

    name: str
    values: np.ndarray
    bands: Sequence[str]
    units: str
    description: str
    classes: Sequence[str] = ()
    colors: Sequence[tuple[int, int, int]] = ()

    def __post_init__(self) -> None:
        count = 1 if self.values.ndim == 2 else self.values.shape[2]
        if self.values.ndim not in (2, 3) or len(self.bands) != count:
            raise ValueError(f"`{self.name}` has the shape {self.values.shape}, but {len(self.bands)} band names")

    @property
    def dtype(self) -> np.dtype:
        """Type in the file: bytes for classes, else float32."""
        return np.dtype(np.uint8 if self.classes else np.float32)

    @property
    def nodata(self) -> float:
        """Value of pixels without data: class 1 for classes, else NaN."""
        return 1.0 if self.classes else np.nan


def write_layer(
    folder: str | os.PathLike[str], layer: MapLayer, cube: Cube, format: str = "envi", ortho: bool = False
) -> list[Path]:
    """Write maps where the cube lies.

    Args:
        folder: files are named after the layer.
        layer: the maps.
        cube: what they were made from: map info, coordinate system, lookup table.
        format: "envi" (`.img` and `.hdr`), "geotiff" (`.tif`), or "cog" (`.tif`, cloud optimised, with overviews).
        ortho: lay the maps out on the map of the cube's lookup table (EMIT) instead of the sensor's grid.

    Returns:
        The files, each complete.

    Raises:
        ValueError: an unknown format, or `ortho` for a cube without lookup table.
        ImportError: a GeoTIFF without rasterio.
        OSError: no permission, disk full.
    """
    if format not in MAP_FORMATS:
        raise ValueError(f"`format` must be one of {', '.join(MAP_FORMATS)}, got {format!r}")
    if ortho and cube.ortho is None:
        raise ValueError("`ortho`: the cube has no lookup table onto a map; only EMIT files bring one")
    grid = cube.ortho if ortho else None
    height, width = layer.values.shape[:2] if grid is None else grid.shape
    blocks = _row_blocks(layer, grid, height)
    if format == "envi":
        place = cube.metadata if grid is None else grid.georeference.envi_header()
        return _write_envi(Path(folder), layer, (height, width), blocks, place)
    where = cube.georeference if grid is None else grid.georeference
    return _write_tiff(Path(folder), layer, (height, width), blocks, where, cloud_optimised=format == "cog")


def _row_blocks(layer: MapLayer, grid: OrthoGrid | None, height: int) -> Iterator[tuple[int, np.ndarray]]:
    """First row and (h, W, C) values of one block of rows after the other, laid out on the grid if there is one."""
    values = layer.values if layer.values.ndim == 3 else layer.values[:, :, None]
    for first in range(0, height, _BLOCK):
        rows = slice(first, min(first + _BLOCK, height))
        part = values[rows] if grid is None else grid.apply(values, layer.nodata, rows)
        yield first, np.asarray(part, dtype=layer.dtype)


def _write_envi(
    folder: Path,
    layer: MapLayer,
    shape: tuple[int, int],
    blocks: Iterator[tuple[int, np.ndarray]],
    place: Mapping[str, Any],
) -> list[Path]:
    height, width = shape
    header: dict[str, Any] = {
        "description": layer.description,
        "file type": "ENVI Classification" if layer.classes else "ENVI Standard",
        "samples": width,
        "lines": height,
        "bands": len(layer.bands),
        "interleave": "bsq",
        "header offset": 0,
        "data type": 1 if layer.classes else 4,
        "byte order": 0,
        "band names": list(layer.bands),
        "data units": layer.units,
    }
    if layer.classes:
        header |= {"classes": len(layer.classes), "class names": list(layer.classes)}
        header["class lookup"] = [value for color in layer.colors for value in color]
    else:
        header["data ignore value"] = "nan"
    header |= {key: value for key, value in place.items() if key in GEOGRAPHIC_KEYS}
    data_path, header_path = folder / f"{layer.name}.img", folder / f"{layer.name}.hdr"
    with atomic_path(data_path) as temporary, open(temporary, "wb") as file:
        file.truncate(height * width * len(layer.bands) * layer.dtype.itemsize)
        for first, values in blocks:
            for band in range(len(layer.bands)):
                file.seek((band * height + first) * width * layer.dtype.itemsize)
                file.write(np.ascontiguousarray(values[:, :, band]).astype(layer.dtype.newbyteorder("<")).tobytes())
    with atomic_path(header_path) as temporary:
        temporary.write_text(header_lines(header), encoding="utf-8")
    return [header_path, data_path]


def _write_tiff(
    folder: Path,
    layer: MapLayer,
    shape: tuple[int, int],
    blocks: Iterator[tuple[int, np.ndarray]],
    place: Georeference | None,
    cloud_optimised: bool,
) -> list[Path]:
    rasterio = require("rasterio", "geo", "writing GeoTIFF")
    copy = require("rasterio.shutil", "geo", "writing GeoTIFF").copy
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "height": shape[0],
        "width": shape[1],
        "count": len(layer.bands),
        "dtype": layer.dtype.name,
        "nodata": layer.nodata,
        "tiled": True,
        "blockxsize": _BLOCK,
        "blockysize": _BLOCK,
        "compress": "deflate",
        "predictor": 1 if layer.classes else 3,
        "BIGTIFF": "IF_SAFER",
    }
    if place is not None:
        profile |= {"transform": rasterio.Affine(*place.transform), "crs": place.crs or None}
    path = folder / f"{layer.name}.tif"
    with atomic_path(path) as temporary, rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE, GDAL_NUM_THREADS=1):
        draft = temporary.with_suffix(".draft.tif") if cloud_optimised else temporary
        try:
            with warnings.catch_warnings():  # https://rasterio.readthedocs.io/en/stable/api/rasterio.errors.html
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                with rasterio.open(draft, "w", **profile) as image:
                    _describe(image, layer)
                    for first, values in blocks:
                        window = ((first, first + len(values)), (0, shape[1]))
                        image.write(np.moveaxis(values, 2, 0), window=window)
                if draft != temporary:
                    resampling = "NEAREST" if layer.classes else "AVERAGE"
                    options = {"compress": "DEFLATE", "predictor": "NO" if layer.classes else "FLOATING_POINT"}
                    copy(draft, temporary, driver="COG", overview_resampling=resampling, **options)
        except rasterio.errors.RasterioError as error:
            raise OSError(f"{path} can't be written: {error}") from error
        finally:
            if draft != temporary:
                draft.unlink(missing_ok=True)
    return [path]


def _describe(image: Any, layer: MapLayer) -> None:
    """Names, units and classes, as QGIS and GDAL show them."""
    image.descriptions = tuple(layer.bands)
    image.units = (layer.units,) * len(layer.bands)
    tags = {"TIFFTAG_IMAGEDESCRIPTION": layer.description}
    if layer.classes:
        tags |= {f"CLASS_{value}": name for value, name in enumerate(layer.classes)}
        image.write_colormap(1, {value: (*color, 255) for value, color in enumerate(layer.colors)})
    image.update_tags(**tags)
