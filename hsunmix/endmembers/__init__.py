"""Endmembers: blind extraction, their number, and selection from a spectral library."""

from .extraction import EndmemberResult, extract_endmembers
from .library import distance_to_scene, library_indices, select_from_library
from .matching import match_endmembers
from .number import estimate_num_endmembers, number_probabilities

__all__ = [
    "EndmemberResult",
    "distance_to_scene",
    "estimate_num_endmembers",
    "extract_endmembers",
    "library_indices",
    "match_endmembers",
    "number_probabilities",
    "select_from_library",
]
