"""Tiled against untiled with a real (tiny) pipeline; errors that name their tile."""

import numpy as np
import pytest
import torch

from hsunmix.data import Cube, FunctionSource
from hsunmix.tiling import TiledUnmixing, TileStore, UnmixingOptions, plan_tiles

from ..pipelines.tiny import tiny_pipeline, tiny_scene

SAMPLER = {"num_inference_steps": 2, "strength": None, "ensemble_size": 1, "output_uncertainty": True}


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


def smooth_scene(height=60, width=52):
    """A scene with structure larger than a pixel, and its known endmembers."""
    _, wavelengths, endmembers = tiny_scene()
    rows, columns = np.mgrid[0:height, 0:width] / 12.0
    fields = np.stack([np.sin(rows), np.cos(columns), np.sin(rows + columns)], axis=2)
    abundances = np.exp(2 * fields) / np.exp(2 * fields).sum(axis=2, keepdims=True)
    noise = 0.005 * np.random.default_rng(0).standard_normal((height, width, endmembers.shape[1]))
    data = (abundances @ endmembers + noise).clip(1e-3).astype(np.float32)
    data[2, 3] = np.nan
    return Cube(data, wavelengths=wavelengths), endmembers


def run(pipe, cube, folder, plan, **scene):
    store = TileStore(folder)
    store.begin({}, resume=False)
    tiled = TiledUnmixing(pipe, cube, plan, store, UnmixingOptions(scene=scene, sampler=SAMPLER))
    tiled.estimate_scene()
    tiled.run_tiles(list(plan.tiles))
    merged, channels = tiled.merge()
    return tiled.scene_result(), {name: np.array(merged[:, :, part]) for name, part in channels.items()}


def generator_of_scenes():
    """As `TiledUnmixing` has it for the whole scene, with the seed 0."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([0, 0]).generate_state(1, np.uint64)[0] >> 1))


def test_tiled_agrees_with_untiled(pipe, tmp_path):
    cube, endmembers = smooth_scene()
    whole = pipe(cube, endmembers=endmembers, generator=generator_of_scenes(), **SAMPLER)
    scene, maps = run(pipe, cube, tmp_path / "work", plan_tiles(60, 52, 32, 16), endmembers=endmembers)
    np.testing.assert_allclose(scene.endmembers, whole.endmembers[0], atol=1e-5)
    assert np.isnan(maps["abundances"][2, 3]).all()
    known = ~np.isnan(whole.residual[0])
    difference = maps["abundances"][known] - whole.abundances[0][known]
    assert np.sqrt(np.square(difference).mean()) < 0.005
    np.testing.assert_allclose(maps["abundances"][known].sum(axis=1), 1, atol=1e-5)
    for name in ("brightness", "residual"):
        error = maps[name][known][:, 0] - getattr(whole, name)[0][known]
        assert np.sqrt(np.square(error).mean()) < 0.01, name


def test_the_endmembers_do_not_depend_on_the_tiles(pipe, tmp_path):
    cube, _ = smooth_scene()
    results = [
        run(pipe, cube, tmp_path / str(size), plan_tiles(60, 52, size, 8), num_endmembers=3)[0] for size in (32, 48)
    ]
    np.testing.assert_array_equal(results[0].endmembers, results[1].endmembers)
    np.testing.assert_array_equal(results[0].noise, results[1].noise)
    assert results[0].residual_limit == results[1].residual_limit


def failing(cube, row, kind):
    """The cube, unreadable where a window holds this row but is not the whole."""

    def read(rows, columns):
        if rows.start <= row < rows.stop and rows.stop - rows.start < cube.shape[0]:
            raise kind("bad sector")
        return cube.data[rows, columns]

    return Cube(FunctionSource("scene.img", cube.shape, read), wavelengths=cube.wavelengths)


def test_an_unreadable_tile_is_named_and_the_others_are_kept(pipe, tmp_path):
    cube, endmembers = smooth_scene()
    plan = plan_tiles(60, 52, 32, 8)
    store = TileStore(tmp_path / "work")
    store.begin({}, resume=False)
    options = UnmixingOptions(scene={"endmembers": endmembers}, sampler=SAMPLER)
    broken = TiledUnmixing(pipe, failing(cube, 50, OSError), plan, store, options)
    broken.estimate_scene()
    with pytest.raises(
        OSError, match=r"tile 2 \(rows 25-56, columns 1-32\): scene.img: rows 25-56.*bad sector.*--res"
    ):
        broken.run_tiles(list(plan.tiles))
    assert store.finished(plan.tiles) == {0, 1}
    healed = TiledUnmixing(pipe, cube, plan, store, options)
    healed.run_tiles([tile for tile in plan.tiles if tile.index > 1])
    maps, _ = healed.merge()
    assert np.isfinite(maps[:, :, 0]).sum() == 60 * 52 - 1


def test_tiles_without_data_are_skipped(pipe, tmp_path):
    cube, endmembers = smooth_scene()
    data = cube.data.copy()
    data[30:] = np.nan
    data[:20, 30:] = 0
    empty = Cube(data, wavelengths=cube.wavelengths)
    _, maps = run(pipe, empty, tmp_path / "work", plan_tiles(60, 52, 20, 0), endmembers=endmembers)
    assert np.isnan(maps["residual"][30:]).all() and np.isnan(maps["residual"][:20, 32:]).all()
    assert np.isfinite(maps["residual"][20:30]).all()
