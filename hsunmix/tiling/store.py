"""Finished tiles on disk: what a run that was interrupted at any moment continues from.

Every tile is a file of its own, written under a temporary name and renamed when it is complete; a `.npz` holds
checksums, so a file that a crash of the machine has torn is noticed and its tile is made again.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..data import write_json
from .plan import Tile

__all__ = ["TileStore"]


class TileStore:
    """The folder of a run that is not finished yet.

    Args:
        folder: made when the run begins, removed when its results are complete.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._settings = folder / "settings.json"

    @property
    def scene_path(self) -> Path:
        """Where the model of the scene lies."""
        return self.folder / "scene.npz"

    def exists(self) -> bool:
        """Whether there is an unfinished run.

        Returns:
            True where there is one.
        """
        return self._settings.is_file()

    def settings(self) -> dict[str, Any] | None:
        """What the unfinished run was begun with.

        Returns:
            Its settings, or None where there is no such run.
        """
        return json.loads(self._settings.read_text(encoding="utf-8")) if self.exists() else None

    def begin(self, settings: Mapping[str, Any], resume: bool) -> None:
        """Open the folder for a run with these settings.

        Args:
            settings: everything that the result depends on.
            resume: continue the run that is there, if there is one; else it is thrown away.

        Raises:
            ValueError: the run that is there had other settings.
        """
        plain = json.loads(json.dumps(settings, default=str))
        known = self.settings()
        if resume and known is not None:
            differing = [key for key in {**known, **plain} if known.get(key) != plain.get(key)]
            if differing:
                raise ValueError(
                    f"{self.folder.parent}: the interrupted run had other settings ("
                    + "; ".join(f"{key}: {known.get(key)!r}, now {plain.get(key)!r}" for key in differing)
                    + "): repeat them, or start again with --overwrite"
                )
            return
        self.discard()
        self.folder.mkdir(parents=True)
        write_json(self._settings, plain)

    def path(self, tile: Tile) -> Path:
        """The file of a tile.

        Args:
            tile: of the plan.

        Returns:
            Its path, whether it is there or not.
        """
        return self.folder / f"tile_{tile.index:06d}.npz"

    def save(self, tile: Tile, arrays: Mapping[str, np.ndarray]) -> None:
        """Write a finished tile.

        Args:
            tile: of the plan.
            arrays: (...) each, by name.

        Raises:
            OSError: the tile can't be written; the message names it and says that nothing done is lost.
        """
        path = self.path(tile)
        temporary = path.with_name(f".{path.stem}.{os.getpid()}.part")
        try:
            with open(temporary, "wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            why = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
            message = f"{tile} can't be written to {self.folder}: {why}; finished tiles are kept, --resume continues"
            raise OSError(error.errno, message) from error

    def load(self, tile: Tile) -> dict[str, np.ndarray] | None:
        """The arrays of a finished tile.

        Args:
            tile: of the plan.

        Returns:
            What was saved, (...) each, by name; None where it is not there or torn.
        """
        try:
            with np.load(self.path(tile), allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError):
            return None

    def finished(self, tiles: tuple[Tile, ...]) -> set[int]:
        """Which tiles are there and whole.

        Args:
            tiles: to look for.

        Returns:
            Their indices.
        """
        return {tile.index for tile in tiles if self.path(tile).is_file() and self.load(tile) is not None}

    def discard(self) -> None:
        """Remove the folder and what is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
