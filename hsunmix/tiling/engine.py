"""Scenes larger than memory: estimate once from a sample, then unmix tile by tile with all of that held fixed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data import Cube, write_npz
from ..data.cube import measured
from ..pipelines.quality import residual_limit, saturated_pixels
from .merge import merge_tiles
from .plan import Tile, TilePlan
from .sample import sample_scene
from .store import TileStore

if TYPE_CHECKING:
    from ..pipelines import SceneModel, SemiBlindUnmixingPipeline

__all__ = ["SceneResult", "TiledUnmixing", "UnmixingOptions", "channels_of"]

logger = logging.getLogger(__name__)
_SCENE_FIELDS = ("endmembers", "endmember_uncertainty", "coarse_endmembers", "noise")


@dataclass(frozen=True)
class UnmixingOptions:
    """Arguments of the pipeline.

    Attributes:
        scene: those with which the scene as a whole is estimated: `num_endmembers`, `endmembers`, `fixed_endmembers`,
            `library`, `brightness`, `correct_endmembers`, `facets`.
        sampler: those of every call: `num_inference_steps`, `strength`, `mixing_model`, `ensemble_size`,
            `output_uncertainty`.
        seed: of all randomness.
        batch_tiles: tiles per call of the pipeline.
        sample: pixels that the scene as a whole is estimated from, at most.
    """

    scene: Mapping[str, Any] = field(default_factory=dict)
    sampler: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    batch_tiles: int = 1
    sample: int = 160 * 160


@dataclass(frozen=True)
class SceneResult:
    """What belongs to a scene as a whole (R endmembers, B bands).

    Attributes:
        endmembers: (R, B); NaN in bad bands.
        endmember_uncertainty: (R, B), or None.
        coarse_endmembers: (R, B).
        noise: (B,).
        residual_limit: residual above which a pixel counts as poorly explained.
    """

    endmembers: np.ndarray
    endmember_uncertainty: np.ndarray | None
    coarse_endmembers: np.ndarray
    noise: np.ndarray
    residual_limit: float


def channels_of(num_endmembers: int, with_uncertainty: bool) -> dict[str, slice]:
    """Where each quantity lies in the last axis of a tile's maps (h, w, C)."""
    parts = {"abundances": num_endmembers}
    if with_uncertainty:
        parts["abundance_uncertainty"] = num_endmembers
    parts |= {"brightness": 1, "residual": 1, "saturated": 1}
    ends = np.cumsum(list(parts.values())).tolist()
    return {name: slice(end - size, end) for (name, size), end in zip(parts.items(), ends)}


class TiledUnmixing:
    """One scene, unmixed tile by tile; can be interrupted at any moment and continued.

    Args:
        pipe: the pipeline.
        cube: the scene, best with its pixels still in the file.
        plan: its tiles.
        store: where finished tiles are kept.
        options: arguments of the pipeline.
    """

    def __init__(
        self,
        pipe: SemiBlindUnmixingPipeline,
        cube: Cube,
        plan: TilePlan,
        store: TileStore,
        options: UnmixingOptions,
    ) -> None:
        self.pipe, self.cube, self.plan, self.store, self.options = pipe, cube, plan, store, options
        self.seconds: dict[str, float] = {}

    def estimate_scene(self) -> None:
        """Endmembers, noise and brightness from a sample of the scene; nothing where an earlier run has done it."""
        if self.store.scene_path.is_file():
            return
        with self._timed("sample"):
            sample = sample_scene(self.cube, self.options.sample)
        with self._timed("scene"):
            options = dict(self.options.scene) | dict(self.options.sampler)
            output: Any = self.pipe(sample, **options, generator=self._generator())
            found = {name: getattr(output, name) for name in _SCENE_FIELDS}
            first = {name: None if value is None else value[0] for name, value in found.items()}
            limit = residual_limit(output.residual[0], output.noise[0])
            write_npz(self.store.folder / "result.npz", **first, residual_limit=limit)
            output.scene[0].save(self.store.scene_path)  # last: where it is, all of it is there

    def scene_result(self) -> SceneResult:
        """What `estimate_scene` has found.

        Returns:
            Endmembers, noise and brightness of the scene as a whole.
        """
        with np.load(self.store.folder / "result.npz", allow_pickle=False) as archive:
            known: dict[str, Any] = {key: archive[key] for key in archive.files}
        known["residual_limit"] = known["residual_limit"].item()
        return SceneResult(**{one.name: known.get(one.name) for one in fields(SceneResult)})  # type: ignore[arg-type]

    def run_tiles(self, tiles: list[Tile], progress: Callable[[int], None] = lambda _: None) -> None:
        """Unmix tiles and store each.

        Args:
            tiles: of the plan.
            progress: is told after each batch how many tiles it held.

        Raises:
            OSError: a tile can't be read or written; the message names it.
            RuntimeError: a tile can't be unmixed; the message names it.
        """
        from ..pipelines import SceneModel

        scene = SceneModel.load(self.store.scene_path)
        cube = self.cube.with_good_bands(_mask(scene, self.cube))
        batch = max(1, self.options.batch_tiles)
        for start in range(0, len(tiles), batch):
            some = tiles[start : start + batch]
            self._run_batch(some, cube, scene)
            progress(len(some))

    def _run_batch(self, tiles: list[Tile], cube: Cube, scene: SceneModel) -> None:
        windows = {}
        for tile in tiles:
            with self._timed("read"), _naming(tile):
                window = cube.window(slice(*tile.rows), slice(*tile.columns))
            if _has_data(window):
                windows[tile] = window
            else:
                self.store.save(tile, {"maps": np.empty(0, np.float32)})
        if not windows:
            return
        with self._timed("unmix"), _naming(*windows):
            output: Any = self.pipe(
                list(windows.values()),
                **self.options.sampler,
                scene=scene,
                generator=[self._generator(tile) for tile in windows],
            )
        with self._timed("store"):
            for index, (tile, window) in enumerate(windows.items()):
                self.store.save(tile, {"maps": self._maps(output, index, window)})

    def _maps(self, output: Any, index: int, window: Cube) -> np.ndarray:
        """(h, w, C) float32, in the order of `channels_of`."""
        uncertainty = output.abundance_uncertainty
        saturated = saturated_pixels(window.data, window.band_mask, window.saturation, output.scene[index].scale)
        maps = [output.abundances[index]]
        maps += [] if uncertainty is None else [uncertainty[index]]
        maps += [plane[:, :, None] for plane in (output.brightness[index], output.residual[index], saturated)]
        return np.concatenate(maps, axis=2, dtype=np.float32)

    def merge(self) -> tuple[np.ndarray, dict[str, slice]]:
        """All tiles as maps of the scene.

        Returns:
            (H, W, C) float32, mapped from a file in the store, and where each quantity lies in the last axis.
        """
        channels = channels_of(len(self.scene_result().endmembers), bool(self.options.sampler["output_uncertainty"]))
        with self._timed("merge"):
            size = max(part.stop for part in channels.values())
            return merge_tiles(self.plan, self.store, size, self.store.folder / "maps.npy"), channels

    def _generator(self, tile: Tile | None = None) -> Any:
        """Randomness of the sample, or of a tile: the same whatever has been done before."""
        import torch

        sequence = np.random.SeedSequence([self.options.seed, 0 if tile is None else tile.index + 1])
        return torch.Generator("cpu").manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def _mask(scene: SceneModel, cube: Cube) -> np.ndarray:
    good = np.zeros(cube.num_bands, bool)
    good[scene.bands.numpy()] = True
    return good


def _has_data(window: Cube) -> bool:
    return bool(measured(window.data[:, :, window.band_mask], window.nodata_mask).any())


@contextmanager
def _naming(*tiles: Tile) -> Iterator[None]:
    """Name the tiles in any error raised inside."""
    try:
        yield
    except Exception as error:
        names = ", ".join(map(str, tiles))
        message = f"{names}: {error}; finished tiles are kept, --resume continues"
        raise (OSError if isinstance(error, OSError) else RuntimeError)(message) from error
