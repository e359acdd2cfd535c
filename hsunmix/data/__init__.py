"""Cubes and spectral libraries: reading, writing, and what a file's header says about its numbers."""

from .bands import WATER_VAPOUR, outside_intervals, parse_intervals
from .cube import Cube
from .georeference import Georeference, OrthoGrid
from .library import SpectralLibrary, read_library, write_library
from .maps import MAP_FORMATS, MapLayer, write_layer
from .readers import as_cube, open_cube, read_cube
from .source import FunctionSource, PixelSource
from .wavelengths import to_nanometers
from .writers import atomic_path, write_cube, write_envi, write_json, write_npz

__all__ = [
    "WATER_VAPOUR",
    "Cube",
    "FunctionSource",
    "MAP_FORMATS",
    "Georeference",
    "MapLayer",
    "OrthoGrid",
    "PixelSource",
    "SpectralLibrary",
    "as_cube",
    "atomic_path",
    "open_cube",
    "outside_intervals",
    "parse_intervals",
    "read_cube",
    "read_library",
    "to_nanometers",
    "write_cube",
    "write_envi",
    "write_json",
    "write_layer",
    "write_library",
    "write_npz",
]
