"""GeoTIFF by rasterio: any with a list of wavelengths, and EnMAP L2A, whose list is in a metadata file beside it.

EnMAP format: EnMAP Ground Segment, Product Specification (EN-PCV-ICD-2009-2), DLR.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from .bands import detector_overlap
from .cube import Cube
from .georeference import Georeference
from .optional import require
from .source import FunctionSource, largest_number
from .wavelengths import to_nanometers

__all__ = ["enmap_files", "read_enmap", "read_geotiff"]

GDAL_CACHE = 64 * 2**20  # bytes; GDAL would take 5 % of the machine's memory
_BACKGROUND = -32768


def read_geotiff(path: Path) -> Cube:
    """A GeoTIFF; wavelengths from its tags or band names where they say them.

    Wavelengths are looked for in the tags of the file (`wavelength`), of the bands (`wavelength`, `wavelength_units`,
    `CENTRAL_WAVELENGTH_UM` and `FWHM_UM` of GDAL), and in band names that hold a number with its unit ("550.3 nm").

    Args:
        path: `.tif` or `.tiff`.

    Returns:
        The cube, not yet read. Scales and offsets of the file are applied.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: rasterio is missing.
        ValueError: not a readable GeoTIFF.
    """
    image = _open(path)
    wavelengths, fwhm = _wavelengths(image)
    return _cube(image, path, wavelengths, fwhm, np.asarray(image.scales), np.asarray(image.offsets), image.nodata)


def _open(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    rasterio = require("rasterio", "geo", f"{path}: GeoTIFF")
    import warnings

    try:
        with warnings.catch_warnings():  # https://rasterio.readthedocs.io/en/stable/api/rasterio.errors.html
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            image = rasterio.open(path, driver="GTiff")  # never another kind of file, which may name others
    except rasterio.errors.RasterioIOError as error:
        raise ValueError(f"{path}: not a readable GeoTIFF ({error}); it may be damaged or truncated") from error
    if any(np.dtype(kind).kind not in "fiu" for kind in image.dtypes):
        raise ValueError(f"{path}: holds {image.dtypes[0]}; unmixing needs real numbers")
    return image


def _cube(
    image: Any,
    path: Path,
    wavelengths: Any,
    fwhm: Any,
    gains: np.ndarray,
    offsets: np.ndarray,
    nodata: float | None,
    **options: Any,
) -> Cube:
    rasterio = require("rasterio", "geo", f"{path}: GeoTIFF")
    shape = (image.height, image.width, image.count)
    plain = bool((gains == 1).all() and (offsets == 0).all())

    def read(rows: slice, columns: slice) -> np.ndarray:
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE):
            window = ((rows.start, rows.stop), (columns.start, columns.stop))
            raw = np.moveaxis(image.read(window=window), 0, 2)
        values = raw.astype(np.float32, order="C")
        if not plain:
            values = values * gains.astype(np.float32) + offsets.astype(np.float32)
        if nodata is not None and np.isfinite(nodata):
            missing = raw == raw.dtype.type(nodata)
            values[missing & missing.all(axis=2, keepdims=True) if nodata == 0 else missing] = np.nan
        return values

    place = None if image.transform.is_identity else Georeference(tuple(image.transform)[:6], _crs(image))
    header = {} if place is None else place.envi_header()
    largest = min(largest_number(np.dtype(kind)) for kind in image.dtypes)
    saturation = float((largest * gains + offsets).min())
    known = {"product": "GeoTIFF", "metadata": {**image.tags(), **header}} | options
    return Cube(
        FunctionSource(path, shape, read, saturation),
        wavelengths=wavelengths,
        fwhm=fwhm,
        scale=float(np.round(1 / gains[0], 6)) if not plain and (gains == gains[0]).all() else 1.0,
        path=path,
        name=path.stem,
        georeference=place,
        **known,
    )


def _crs(image: Any) -> str:
    if image.crs is None:
        return ""
    code = image.crs.to_epsg()
    return f"EPSG:{code}" if code else str(image.crs.to_wkt())


def _wavelengths(image: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(B,) wavelengths and widths in nm from the tags of a GeoTIFF, or None."""
    tags = {**image.tags(), **image.tags(ns="ENVI")}
    tags = {key.lower().replace(" ", "_"): value for key, value in tags.items()}
    if "wavelength" in tags:
        centers = _listed(tags["wavelength"])
        if len(centers) == image.count:
            widths = _listed(tags.get("fwhm", ""))
            return to_nanometers(
                centers, tags.get("wavelength_units"), widths if len(widths) == len(centers) else None
            )
    bands = [{key.lower(): value for key, value in image.tags(band).items()} for band in image.indexes]
    imagery = [image.tags(band, ns="IMAGERY") for band in image.indexes]
    if all("CENTRAL_WAVELENGTH_UM" in band for band in imagery):
        centers = [float(band["CENTRAL_WAVELENGTH_UM"]) for band in imagery]
        known = all("FWHM_UM" in band for band in imagery)
        return to_nanometers(centers, "um", [float(band["FWHM_UM"]) for band in imagery] if known else None)
    if all("wavelength" in band for band in bands):
        unit = bands[0].get("wavelength_units", bands[0].get("wavelength_unit"))
        return to_nanometers([float(band["wavelength"]) for band in bands], unit)
    return _from_names(image.descriptions)


def _listed(text: str) -> list[float]:
    return [float(value) for value in re.findall(r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?", text)]


def _from_names(names: Sequence[str | None]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Wavelengths in band names such as "550.3 nm" or "band 7 (0.55 micrometers)"."""
    pattern = r"(\d+(?:\.\d+)?)\s*(nm|nanometers?|um|µm|μm|micrometers?|microns?)\b"
    found = [re.search(pattern, name or "", re.IGNORECASE) for name in names]
    if not found or any(match is None for match in found):
        return None, None
    known = [match for match in found if match is not None]
    return to_nanometers([float(match.group(1)) for match in known], known[0].group(2))


def enmap_files(path: Path) -> tuple[Path, Path] | None:
    """Image and metadata of an EnMAP product, from either of them or their folder; None where it is none.

    Args:
        path: `...-SPECTRAL_IMAGE.TIF`, `...-METADATA.XML`, or the folder of both.
    """
    if path.is_dir():
        found = sorted(path.glob("ENMAP*-METADATA.XML"))
        return enmap_files(found[0]) if found else None
    match = re.fullmatch(r"(ENMAP.*-)(SPECTRAL_IMAGE|METADATA)(_COG)?\.(tiff?|xml)", path.name, re.IGNORECASE)
    if match is None:
        return None
    beside = {name.name.upper(): name for name in path.parent.glob(f"{match.group(1)}*")}
    stem = match.group(1).upper()
    metadata = beside.get(f"{stem}METADATA.XML")
    ends = ("SPECTRAL_IMAGE.TIF", "SPECTRAL_IMAGE_COG.TIFF", "SPECTRAL_IMAGE.TIFF", "SPECTRAL_IMAGE_COG.TIF")
    image = next((beside[stem + end] for end in ends if stem + end in beside), None)
    if metadata is None or image is None:
        missing = "METADATA.XML" if metadata is None else "SPECTRAL_IMAGE.TIF"
        raise FileNotFoundError(f"{path}: an EnMAP product, but {match.group(1)}{missing} is not beside it")
    return image, metadata


def read_enmap(path: Path) -> Cube:
    """EnMAP L2A: a GeoTIFF of int16, with wavelengths, widths, gains and offsets in its metadata.

    Args:
        path: image, metadata, or the folder of both.

    Returns:
        The cube, not yet read. Where both detectors see, the SWIR bands are bad ones.

    Raises:
        FileNotFoundError: one of the two files is missing.
        ImportError: rasterio is missing.
        ValueError: damaged, or image and metadata don't agree.
    """
    files = enmap_files(path)
    if files is None:
        raise ValueError(f"{path}: not an EnMAP product")
    image_path, metadata_path = files
    image = _open(image_path)
    try:
        root = ElementTree.parse(metadata_path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{metadata_path}: not readable XML ({error})") from error
    for element in root.iter():
        element.tag = element.tag.rsplit("}", 1)[-1]  # without the name space
    names = ("wavelengthCenterOfBand", "FWHMOfBand", "GainOfBand", "OffsetOfBand")
    rows = [
        [float(band.findtext(name) or "nan") for name in names]
        for band in root.findall(".//bandCharacterisation/bandID")
    ]
    table = np.array(rows).reshape(-1, 4)
    if len(table) != image.count or not np.isfinite(table[:, :2]).all():
        raise ValueError(
            f"{metadata_path}: {len(table)} bands with wavelengths, but {image_path.name} has {image.count} bands"
        )
    gains = np.where(np.isfinite(table[:, 2]), table[:, 2], 1e-4)
    background = root.findtext(".//specific/backgroundValue")
    nodata = image.nodata if image.nodata is not None else float(background or _BACKGROUND)
    about = {key: root.findtext(f".//{key}") or "" for key in ("startTime", "level", "archivedVersion")}
    place = Georeference(tuple(image.transform)[:6], _crs(image))
    return _cube(
        image,
        image_path,
        table[:, 0],
        table[:, 1],
        gains,
        np.nan_to_num(table[:, 3]),
        nodata,
        band_mask=_first_detector_wins(table[:, 0]),
        metadata={key: value for key, value in about.items() if value} | place.envi_header(),
        product="EnMAP L2A reflectance",
    )


def _first_detector_wins(wavelengths: np.ndarray) -> np.ndarray:
    """(B,) bool: rising wavelengths fall once, where SWIR follows VNIR; bands that VNIR has seen are left out."""
    falls = np.flatnonzero(np.diff(wavelengths) < 0)
    good = np.ones(len(wavelengths), bool)
    if len(falls):
        join = falls[0] + 1
        good[join:] = ~detector_overlap(wavelengths[:join], wavelengths[join:])
    return good
