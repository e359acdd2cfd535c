"""Cubes and spectral libraries: reading, writing, and what a file's header says about its numbers."""

from .cube import Cube
from .library import SpectralLibrary, read_library, write_library
from .readers import as_cube, read_cube
from .wavelengths import to_nanometers
from .writers import atomic_path, write_cube, write_envi, write_json, write_npz

__all__ = [
    "Cube",
    "SpectralLibrary",
    "as_cube",
    "atomic_path",
    "read_cube",
    "read_library",
    "to_nanometers",
    "write_cube",
    "write_envi",
    "write_json",
    "write_library",
    "write_npz",
]
