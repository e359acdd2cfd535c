"""Scenes larger than memory: tiles, what holds for all of them, and what survives a crash."""

from .engine import SceneResult, TiledUnmixing, UnmixingOptions
from .memory import fits_at_once, parse_size, peak_memory, sample_pixels, tile_size, unmixing_memory
from .plan import Tile, TilePlan, plan_tiles
from .quality import (
    QUALITY_CLASSES,
    QUALITY_COLORS,
    classify_quality,
    residual_limit,
    residual_over_noise,
    saturated_pixels,
    unexplained,
)
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
    "classify_quality",
    "fits_at_once",
    "parse_size",
    "peak_memory",
    "plan_tiles",
    "residual_limit",
    "residual_over_noise",
    "sample_pixels",
    "sample_scene",
    "saturated_pixels",
    "tile_size",
    "unexplained",
    "unmixing_memory",
]
