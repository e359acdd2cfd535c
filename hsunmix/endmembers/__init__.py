"""Endmembers: blind extraction, their number, and selection from a spectral library."""

from .extraction import EndmemberResult, extract_endmembers
from .library import library_indices, select_from_library
from .matching import match_endmembers
from .number import estimate_num_endmembers

__all__ = [
    "EndmemberResult",
    "estimate_num_endmembers",
    "extract_endmembers",
    "library_indices",
    "match_endmembers",
    "select_from_library",
]
