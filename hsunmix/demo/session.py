"""What belongs to one visitor: a folder that nobody else knows, a scene, a result; all gone when the visitor is."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    import numpy as np

    from hsunmix.cli.results import SceneMaps
    from hsunmix.data import Cube, SpectralLibrary

logger = logging.getLogger(__name__)

UPLOAD_SECONDS = 60.0  # that a received file waits for its visitor, who takes it at once


class SessionEnded(Exception):
    """The visitor has left while something was computed for them."""


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask for.

    Attributes:
        pixels: of a scene.
        values: pixels times bands of a scene.
        upload: bytes of the files of one scene or library.
        minutes: without a click, after which everything of a visitor is removed.
        visitors: with data at a time.
    """

    pixels: int = 256 * 256
    values: int = 20_000_000
    upload: int = 200 * 2**20
    minutes: float = 30.0
    visitors: int = 20


@dataclass(frozen=True)
class Scene:
    """A scene that a visitor looks at.

    Attributes:
        name: of the file, for titles.
        cube: in memory, in reflectance.
        truth: of a simulated scene, as `hsunmix.cli.demo.scene_arrays` has it; else None.
        note: for the visitor.
        file_scale: what the file says that its numbers are to be divided by.
        given_scale: what the visitor said instead, or None.
    """

    name: str
    cube: Cube
    truth: dict[str, Any] | None = None
    note: str = ""
    file_scale: float = 1.0
    given_scale: float | None = None

    @property
    def other_scale(self) -> float | None:
        """What the numbers were divided by instead, given or guessed; None = as the file says."""
        if self.given_scale is not None:
            return self.given_scale
        return None if self.cube.scale == self.file_scale else self.cube.scale


@dataclass(frozen=True)
class Result:
    """What came out for a scene of H x W pixels, B bands and R materials.

    Attributes:
        scene: what was unmixed.
        maps: abundances and what is known about each pixel.
        lower: (H, W, R) below which an abundance lies with 5 % probability.
        upper: (H, W, R) above which it lies with 5 % probability.
        spectra: `endmembers` (R, B), `coarse_endmembers`, `endmember_uncertainty`, `noise` (B,).
        names: R names.
        nearest: R lists of library spectra and angles in radians; None without a library.
        library_name: of the file that `nearest` is from.
        library_note: why the library could not be used.
        command: arguments of `hsunmix` that give the same result.
        summary: numbers, as in `summary.json`.
        scores: of a simulated scene against its truth; None where there is none, or too few materials were found.
        files: to download: "envi", "geotiff" and "report".
    """

    scene: Scene
    maps: SceneMaps
    lower: np.ndarray
    upper: np.ndarray
    spectra: dict[str, Any]
    names: list[str]
    nearest: list[list[tuple[str, float]]] | None
    library_name: str
    library_note: str
    command: list[str]
    summary: dict[str, Any]
    scores: dict[str, Any] | None
    files: dict[str, Path]


class Session:
    """One visitor.

    Args:
        root: folder in which the visitor's own is made, under a name that can't be guessed.

    Attributes:
        folder: of the visitor.
        scene: that was loaded last, or None.
        result: of `scene`, or None.
        library: that was loaded last, or None.
        library_name: of its file.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / uuid4().hex
        self.folder.mkdir(parents=True, mode=0o700)
        self.scene: Scene | None = None
        self.result: Result | None = None
        self.library: SpectralLibrary | None = None
        self.library_name = ""
        self.used = time.monotonic()
        self.ended = False
        self._working = 0

    @contextmanager
    def working(self) -> Iterator[None]:
        """While something is computed: counts as use, and files written after the end are removed too."""
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1
            self.used = time.monotonic()
            if self.ended:
                shutil.rmtree(self.folder, ignore_errors=True)

    def idle_since(self, moment: float) -> bool:
        """Whether nothing has happened since then (`time.monotonic`)."""
        return not self._working and self.used < moment

    def new_folder(self, kind: str) -> Path:
        """An empty folder; the one of this kind that was there is removed.

        Raises:
            SessionEnded: the visitor has left.
        """
        if self.ended:
            raise SessionEnded
        for old in self.folder.glob(f"{kind}-*"):
            shutil.rmtree(old, ignore_errors=True)
        folder = self.folder / f"{kind}-{uuid4().hex[:8]}"
        folder.mkdir(mode=0o700)
        return folder

    def end(self) -> None:
        """Forget everything."""
        self.ended = True
        self.scene = self.result = self.library = None
        shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """All visitors.

    Args:
        root: folder for everything that visitors leave; gradio puts received files here too.
        limits: how long and how many.

    Attributes:
        folder: the folders of the visitors.
    """

    def __init__(self, root: Path, limits: Limits) -> None:
        self.root = root
        self.limits = limits
        self.folder = root / "visitors"
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def find(self, key: str) -> Session | None:
        """The visitor's session, or None where nothing has been loaded, or all of it has been removed."""
        with self._lock:
            session = self._sessions.get(key)
            if session is not None:
                session.used = time.monotonic()
            return session

    def get(self, key: str) -> Session:
        """The visitor's session, begun where there is none.

        Raises:
            ValueError: too many visitors.
        """
        with self._lock:
            if key not in self._sessions:
                if len(self._sessions) >= self.limits.visitors:
                    raise ValueError(
                        f"The page is full: {self.limits.visitors} visitors have a scene open. "
                        "Try again in a few minutes."
                    )
                self._sessions[key] = Session(self.folder)
            session = self._sessions[key]
            session.used = time.monotonic()
            return session

    def end(self, key: str) -> None:
        """The visitor has closed the page."""
        with self._lock:
            session = self._sessions.pop(key, None)
        if session is not None:
            session.end()

    def sweep(self) -> None:
        """Remove what has not been used for too long: sessions, and received files that nobody took."""
        moment = time.monotonic() - 60 * self.limits.minutes
        with self._lock:
            stale = [key for key, session in self._sessions.items() if session.idle_since(moment)]
        for key in stale:
            self.end(key)
        if not self.root.is_dir():
            return
        for entry in self.root.iterdir():
            if entry != self.folder:
                _remove_old(entry, time.time() - UPLOAD_SECONDS)

    def end_all(self) -> None:
        """The server stops."""
        for key in list(self._sessions):
            self.end(key)
        shutil.rmtree(self.root, ignore_errors=True)


def _remove_old(entry: Path, moment: float) -> None:
    """Files older than `moment` (`time.time`), and folders that have been empty since then."""
    try:
        if entry.is_dir() and not entry.is_symlink():
            for inner in entry.iterdir():
                _remove_old(inner, moment)
            if entry.stat().st_mtime < moment and not any(entry.iterdir()):
                entry.rmdir()
        elif entry.lstat().st_mtime < moment:
            entry.unlink()
    except OSError as error:  # gradio has just moved it
        logger.debug("%s: %s", entry, error)
