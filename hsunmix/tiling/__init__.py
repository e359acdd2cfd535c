"""Scenes larger than memory: tiles, what holds for all of them, and what survives a crash."""

from .engine import SceneResult, TiledUnmixing, UnmixingOptions
from .memory import available_memory, fits_at_once, parse_size, peak_memory, tile_size, unmixing_memory
from .plan import Tile, TilePlan, plan_tiles
from .quality import QUALITY_CLASSES, QUALITY_COLORS, classify_quality, residual_limit, saturated_pixels
from .sample import sample_scene
from .store import TileStore

__all__ = [
    "QUALITY_CLASSES",
    "QUALITY_COLORS",
    "SceneResult",
    "Tile",
    "TilePlan",
    "TileStore",
    "TiledUnmixing",
    "UnmixingOptions",
    "available_memory",
    "classify_quality",
    "fits_at_once",
    "parse_size",
    "peak_memory",
    "plan_tiles",
    "residual_limit",
    "sample_scene",
    "saturated_pixels",
    "tile_size",
    "unmixing_memory",
]
