"""How much memory unmixing takes, so that a tile is as large as `--memory` allows."""

from __future__ import annotations

import re

__all__ = ["fits_at_once", "parse_size", "peak_memory", "sample_pixels", "tile_size", "unmixing_memory"]

# Upper bounds of what was measured on a CPU with networks of the size of the bundled ones: 556 MiB for 64 x 64 pixels,
# 754 for 128 x 128, 824 for 192 x 192 (285 bands, 6 endmembers), 702 for 128 x 128 with 100 bands.
_PROCESS = 500 * 2**20  # interpreter, torch, networks
_PER_VALUE = 12  # bytes per pixel and band: the cube and its products
_PER_PIXEL = 12_000  # bytes per pixel: feature maps of the encoder
_PER_MAP = 500  # bytes per pixel and endmember
_SAMPLES = (320, 224, 160, 112)  # rows and columns
_SIZES = (256, 192, 128, 96, 64, 48, 32)
_TILES_EACH = 2  # at least, of each of several processes
_LARGEST_ALONE = 512 * 512  # pixels; larger scenes are tiled even where they would fit


def parse_size(text: str) -> int:
    """Bytes from an amount of memory as people write it.

    Args:
        text: "4G", "500M", "4 GiB" or a plain number; 1K is 1024.

    Returns:
        Bytes.

    Raises:
        ValueError: not a size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", text, re.IGNORECASE)
    if match is None or float(match.group(1)) == 0:
        raise ValueError(f"{text!r} is no amount of memory; write 4G or 500M")
    return int(float(match.group(1)) * 1024 ** " kmgt".index(match.group(2).lower() or " "))


def unmixing_memory(num_pixels: int, num_bands: int, num_endmembers: int) -> int:
    """Memory that a process needs to unmix so many pixels at once.

    Args:
        num_pixels: H * W.
        num_bands: B.
        num_endmembers: R.

    Returns:
        Bytes, an upper bound of what was measured.
    """
    return _PROCESS + num_pixels * (_PER_VALUE * num_bands + _PER_PIXEL + _PER_MAP * num_endmembers)


def tile_size(memory: int, shape: tuple[int, int, int], num_endmembers: int, processes: int = 1) -> int:
    """Rows and columns of the largest tile that fits, and leaves each process some tiles to do.

    Args:
        memory: bytes, for all processes together.
        shape: of the scene (H, W, B).
        num_endmembers: R.
        processes: that run at a time on this machine.

    Returns:
        Rows, as many as columns.

    Raises:
        ValueError: not even the smallest fits.
    """
    height, width, num_bands = shape
    fitting = [n for n in _SIZES if processes * unmixing_memory(n * n, num_bands, num_endmembers) <= memory]
    if fitting:
        enough = [n for n in fitting if height * width >= _TILES_EACH * processes * n * n]
        return fitting[0] if processes == 1 else [*enough, fitting[-1]][0]
    needed = processes * unmixing_memory(_SIZES[-1] ** 2, num_bands, num_endmembers)
    of = f" of {processes} processes" if processes > 1 else ""
    raise ValueError(f"`memory` is {memory / 2**30:.1f} GiB; the smallest tiles{of} need {needed / 2**30:.1f} GiB")


def sample_pixels(memory: int, num_bands: int, num_endmembers: int) -> int:
    """Size of the sample that a scene is estimated from.

    Args:
        memory: bytes.
        num_bands: B.
        num_endmembers: R.

    Returns:
        Pixels: 320 x 320, or fewer where the memory is small.
    """
    fitting = [n * n for n in _SAMPLES if unmixing_memory(n * n, num_bands, num_endmembers) <= memory]
    return [*fitting, _SAMPLES[-1] ** 2][0]


def fits_at_once(memory: int, shape: tuple[int, int, int], num_endmembers: int) -> bool:
    """Whether a scene is small enough to be unmixed without tiles.

    Args:
        memory: bytes.
        shape: of the scene (H, W, B).
        num_endmembers: R.

    Returns:
        True where it is.
    """
    height, width, bands = shape
    pixels = height * width
    return pixels <= _LARGEST_ALONE and unmixing_memory(pixels, bands, num_endmembers) <= memory


def peak_memory() -> int | None:
    """The most memory that this process has held.

    Returns:
        Bytes, or None where the system doesn't tell.
    """
    try:
        import resource
        import sys
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
