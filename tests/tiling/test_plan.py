"""Tiles cover a scene, and their weights blend without a trace."""

import itertools

import numpy as np
import pytest

from hsunmix.tiling import plan_tiles

SCENES = [(307, 307, 128, 32), (40, 300, 64, 16), (33, 34, 32, 16), (5, 7, 32, 8), (1, 1, 32, 0), (100, 64, 32, 0)]


@pytest.mark.parametrize(("height", "width", "size", "overlap"), SCENES)
def test_every_pixel_is_covered_by_a_positive_weight(height, width, size, overlap):
    plan = plan_tiles(height, width, size, overlap)
    weight = np.zeros((height, width))
    for tile in plan.tiles:
        (top, bottom), (left, right) = tile.rows, tile.columns
        assert 0 <= top < bottom <= height and 0 <= left < right <= width
        assert tile.shape == (min(size, height), min(size, width))
        own = plan.weights(tile)
        assert own.shape == tile.shape and own.min() >= 0 and own.max() <= 1
        weight[top:bottom, left:right] += own
    assert weight.min() > 0
    assert [tile.index for tile in plan.tiles] == list(range(len(plan.tiles)))


def test_neighbours_share_their_overlap_smoothly():
    plan = plan_tiles(64 + 48, 64, 64, 16)  # the tiles fit without a remainder
    first, second = plan.tiles
    total = np.zeros((112, 64))
    for tile in plan.tiles:
        total[tile.rows[0] : tile.rows[1]] += plan.weights(tile)
    np.testing.assert_allclose(total, 1, atol=1e-6)
    weight = plan.weights(first)[:, 0]
    assert (weight[-4:] == 0).all() and (weight[:48] == 1).all()  # a quarter of the overlap is left out
    assert (np.diff(weight[48:]) <= 0).all() and np.abs(np.diff(weight)).max() < 0.25
    assert second.rows == (48, 112)


def test_blending_a_smooth_map_returns_it():
    rows, columns = np.mgrid[0:90, 0:110]
    truth = np.sin(rows / 20) + np.cos(columns / 15)
    plan = plan_tiles(90, 110, 48, 16)
    total, weight = np.zeros_like(truth), np.zeros_like(truth)
    for tile in plan.tiles:
        window = (slice(*tile.rows), slice(*tile.columns))
        total[window] += plan.weights(tile) * truth[window]
        weight[window] += plan.weights(tile)
    np.testing.assert_allclose(total / weight, truth, atol=1e-6)


def test_tiles_of_some_rows():
    plan = plan_tiles(200, 100, 64, 16)
    for first, last in itertools.pairwise(range(0, 201, 25)):
        found = {tile.index for tile in plan.covering(first, last)}
        assert found == {t.index for t in plan.tiles if set(range(*t.rows)) & set(range(first, last))}


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (32, 17), (32, -1)])
def test_sizes_that_make_no_sense(size, overlap):
    with pytest.raises(ValueError, match="`size`|`overlap`"):
        plan_tiles(100, 100, size, overlap)


def test_a_tile_says_where_it_is():
    assert str(plan_tiles(100, 100, 64, 0).tiles[1]) == "tile 1 (rows 1-64, columns 37-100)"
