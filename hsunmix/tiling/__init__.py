"""Scenes larger than memory: tiles, what holds for all of them, and what survives a crash."""

from .engine import SceneResult, TiledUnmixing, UnmixingOptions
from .memory import fits_at_once, parse_size, peak_memory, sample_pixels, tile_size, unmixing_memory
from .plan import Tile, TilePlan, plan_tiles
from .sample import sample_scene
from .store import TileStore

__all__ = [
    "SceneResult",
    "Tile",
    "TilePlan",
    "TileStore",
    "TiledUnmixing",
    "UnmixingOptions",
    "fits_at_once",
    "parse_size",
    "peak_memory",
    "plan_tiles",
    "sample_pixels",
    "sample_scene",
    "tile_size",
    "unmixing_memory",
]
