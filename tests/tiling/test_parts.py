"""The sample of a scene, the store of tiles, the memory, the quality classes."""

import errno

import numpy as np
import pytest

from hsunmix.data import Cube, FunctionSource
from hsunmix.pipelines.quality import (
    classify_quality,
    residual_limit,
    residual_over_noise,
    saturated_pixels,
    unexplained,
)
from hsunmix.tiling import (
    TileStore,
    fits_at_once,
    parse_size,
    plan_tiles,
    sample_pixels,
    sample_scene,
    tile_size,
    unmixing_memory,
)
from hsunmix.tiling.merge import merge_tiles

GIB = 2**30


def large_cube(height=300, width=200, bands=5):
    """Values say where they are; reads are counted."""
    rows, columns = np.mgrid[0:height, 0:width]
    values = np.stack([rows, columns, rows + columns, rows - columns, np.ones_like(rows)], axis=2)[:, :, :bands]
    reads = []

    def read(some_rows, some_columns):
        reads.append((some_rows.stop - some_rows.start) * (some_columns.stop - some_columns.start))
        return values[some_rows, some_columns].astype(np.float32)

    return Cube(FunctionSource("scene", (height, width, bands), read)), reads


def test_the_sample_is_spread_over_the_scene():
    cube, reads = large_cube()
    sample = sample_scene(cube, max_pixels=16 * 16 * 24)
    assert sum(reads) <= 16 * 16 * 24 and not cube.in_memory
    pixels = sample.data[~sample.nodata_mask]
    assert len(pixels) == 16 * 16 * 24
    for axis, length, patches in ((0, 300, 6), (1, 200, 4)):  # one patch in each share of both axes
        counts = np.histogram(pixels[:, axis], bins=patches, range=(0, length))[0]
        assert (counts == counts[0]).all()


def test_patches_do_not_touch():
    sample = sample_scene(large_cube()[0], max_pixels=16 * 16 * 24)
    along = np.abs(np.diff(sample.data[:, :, 1], axis=1))
    assert np.nanmax(along) == 1  # neighbours in the sample are neighbours in the scene


def test_a_small_scene_is_its_own_sample():
    cube, _ = large_cube(20, 30)
    np.testing.assert_array_equal(sample_scene(cube).data, cube.data)


def test_the_sample_of_a_narrow_scene():
    sample = sample_scene(large_cube(5, 4000)[0], max_pixels=2000)
    assert (~sample.nodata_mask).sum() >= 1000


def test_a_scene_without_data():
    def read(rows, columns):
        return np.full((rows.stop - rows.start, columns.stop - columns.start, 4), np.nan, np.float32)

    empty = FunctionSource("scene", (300, 300, 4), read)
    with pytest.raises(ValueError, match="all nodata"):
        sample_scene(Cube(empty))


@pytest.fixture
def store(tmp_path):
    store = TileStore(tmp_path / "out" / "work")
    store.begin({"seed": 1, "path": tmp_path}, resume=False)
    return store


TILES = plan_tiles(60, 50, 32, 8).tiles


def test_finished_tiles_survive(store, tmp_path):
    store.save(TILES[2], {"maps": np.ones((32, 32, 3), np.float32)})
    again = TileStore(store.folder)
    again.begin({"seed": 1, "path": tmp_path}, resume=True)
    assert again.finished(TILES) == {2}
    np.testing.assert_array_equal(again.load(TILES[2])["maps"], 1)
    assert [path.name for path in store.folder.iterdir() if "part" in path.name] == []


def test_torn_tiles_are_made_again(store):
    for index in (0, 1):
        store.save(TILES[index], {"maps": np.ones((32, 32, 3), np.float32)})
    path = store.path(TILES[0])
    content = bytearray(path.read_bytes())
    content[2000] ^= 1  # one bit
    path.write_bytes(content)
    store.path(TILES[1]).write_bytes(content[:500])
    assert store.finished(TILES) == set()


def test_other_settings_are_refused(store, tmp_path):
    with pytest.raises(ValueError, match="seed: 1, now 2"):
        store.begin({"seed": 2, "path": tmp_path}, resume=True)
    store.save(TILES[0], {"maps": np.ones(3)})
    store.begin({"seed": 2, "path": tmp_path}, resume=False)
    assert store.finished(TILES) == set()


def test_a_full_disk_names_the_tile(store, monkeypatch):
    store.save(TILES[0], {"maps": np.ones(3)})

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match=r"tile 1 \(rows 1-32, columns 19-50\).*the disk is full.*--resume"):
        store.save(TILES[1], {"maps": np.ones(3)})
    assert store.finished(TILES) == {0} and len(list(store.folder.glob("*.part"))) == 0


def test_merged_tiles_are_their_weighted_mean(store, tmp_path):
    plan = plan_tiles(60, 50, 32, 8)
    rng = np.random.default_rng(0)
    truth = rng.random((60, 50, 2)).astype(np.float32)
    truth[3, 4] = np.nan
    for tile in plan.tiles:
        store.save(tile, {"maps": truth[slice(*tile.rows), slice(*tile.columns)]})
    merged = merge_tiles(plan, store, 2, tmp_path / "maps.npy")
    np.testing.assert_allclose(merged, truth, rtol=1e-6)
    first = (tmp_path / "maps.npy").read_bytes()
    merge_tiles(plan, store, 2, tmp_path / "maps.npy")
    assert (tmp_path / "maps.npy").read_bytes() == first


def test_missing_and_empty_tiles(store, tmp_path):
    plan = plan_tiles(60, 50, 32, 8)
    for tile in plan.tiles:
        store.save(tile, {"maps": np.ones((*tile.shape, 1), np.float32) if tile.index else np.empty(0, np.float32)})
    merged = merge_tiles(plan, store, 1, tmp_path / "maps.npy")
    assert np.isnan(merged[:20, :14]).all() and (merged[30:, 30:] == 1).all()
    store.path(plan.tiles[1]).unlink()
    with pytest.raises(OSError, match="tile 1 .* missing or damaged"):
        merge_tiles(plan, store, 1, tmp_path / "maps.npy")


@pytest.mark.parametrize(("text", "size"), [("4G", 4 * GIB), ("500M", 500 * 2**20), ("1.5 GiB", 1.5 * GIB), ("9", 9)])
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "many", "4X", "-1G", "0"])
def test_bad_sizes(text):
    with pytest.raises(ValueError, match="no amount of memory"):
        parse_size(text)


GRANULE = (1280, 1242, 285)


def test_tiles_fit_in_memory():
    memories = (0.6, 0.9, 2, 16)
    sizes = [tile_size(int(memory * GIB), GRANULE, 6) for memory in memories]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]
    assert all(unmixing_memory(size**2, 285, 6) <= memory * GIB for size, memory in zip(sizes, memories))
    assert tile_size(2 * GIB, GRANULE, 6, processes=2) <= sizes[2]
    with pytest.raises(ValueError, match="smallest tiles of 2 processes need"):
        tile_size(GIB, GRANULE, 6, processes=2)
    assert sample_pixels(4 * GIB, 285, 6) == 320 * 320 and sample_pixels(GIB, 285, 6) < 320 * 320
    assert fits_at_once(4 * GIB, (95, 95, 156), 3) and not fits_at_once(4 * GIB, GRANULE, 6)


def test_every_process_gets_tiles():
    size = tile_size(64 * GIB, (300, 300, 100), 4, processes=4)
    assert len(plan_tiles(300, 300, size, 16).tiles) >= 8


def test_quality():
    residual = np.array([[0.01, 0.2, np.nan, 0.01]])
    saturated = np.array([[False, False, False, True]])
    assert classify_quality(residual, saturated, 0.05).tolist() == [[0, 3, 1, 2]]
    assert residual_limit(residual, np.array([0.001, np.nan])) == pytest.approx(0.04)
    assert residual_limit(residual * 0, np.array([0.002, np.nan])) == pytest.approx(0.008)


def test_a_scene_that_is_badly_explained_as_a_whole_does_not_pass():
    """Relative to its own median nothing sticks out; relative to the noise everything does."""
    noise = np.array([0.001, 0.001, np.nan])
    residual = np.append(np.full(99, 0.004), np.nan)
    assert residual_over_noise(residual, noise) == pytest.approx(4)
    assert unexplained(residual, noise) is None  # ordinary in a real scene
    assert "8.0 times the noise" in unexplained(2 * residual, noise)
    assert "8.0 times" in unexplained(200 * residual, 100 * noise)  # whatever the unit
    residual[:10] = 0.1  # a material that few pixels hold
    assert "10 % of the pixels" in unexplained(residual, noise)


def test_saturated_pixels():
    data = np.full((1, 4, 3), 0.4, np.float32)
    data[0, 1, 2], data[0, 2, 0], data[0, 3, 1] = 3.2767, 1.6, 3.2767
    data[0, 0] = np.nan
    good, expected = np.array([True, False, True]), [[False, True, True, False]]
    assert saturated_pixels(data, good, 3.2767).tolist() == expected
    assert saturated_pixels(10000 * data, good, 32767, scale=10000).tolist() == expected
