"""Extraction, number of endmembers and library selection: what must hold on scenes whose answer is known."""

import pytest
import torch

from hsunmix.endmembers import estimate_num_endmembers, extract_endmembers, select_from_library
from hsunmix.evaluation import match_endmembers, spectral_angles
from hsunmix.simulation import SceneSimulator, even_sensor


def scene(rank=4, purity=None, snr_db=30.0, bands=80, size=40, seed=0, brightness="fixed"):
    simulator = SceneSimulator(min_angle_degrees=10.0 if rank < 6 else 3.0, dead_pixel_probability=0.0)
    return simulator(
        torch.Generator().manual_seed(seed),
        num_endmembers=rank,
        height=size,
        width=size,
        sensor=even_sensor(420.0, 2400.0, bands),
        abundance_kind="gaussian" if purity else None,
        max_purity=purity,
        snr_db=snr_db,
        mixing="linear",
        noise="white",
        brightness=brightness,
    )


def angle(found, truth):
    order = match_endmembers(found.numpy(), truth.numpy())
    return float(spectral_angles(truth.numpy(), found[order].numpy()).diagonal().mean())


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("brightness", ["fixed", "free"])
@pytest.mark.parametrize("snr_db", [40.0, 20.0])
def test_pure_pixels_are_found(snr_db, brightness):
    one = scene(snr_db=snr_db, brightness=brightness)
    assert one.abundances.amax((0, 1)).min() > 0.97  # the scene has pure pixels
    found = extract_endmembers(one.cube, 4, generator=generator())
    assert angle(found.endmembers, one.endmembers) < (0.03 if snr_db > 30 else 0.08)


def test_scale_is_that_of_the_pixels_where_brightness_is_constant():
    one = scene()
    found = extract_endmembers(one.cube, 4, generator=generator())
    assert found.natural_scale and found.brightness_variation < 0.07
    order = match_endmembers(found.endmembers.numpy(), one.endmembers.numpy())
    ratio = found.endmembers[order].norm(dim=1) / one.endmembers.norm(dim=1)
    torch.testing.assert_close(ratio, torch.ones(4), rtol=0.1, atol=0)


def test_brightness_variation_is_noticed():
    found = extract_endmembers(scene(brightness="free", seed=3).cube, 4, generator=generator())
    assert not found.natural_scale and found.brightness_variation > 0.07
    peaks = found.endmembers.amax(1)
    torch.testing.assert_close(peaks, peaks.mean().expand(4), rtol=1e-3, atol=0)


def test_same_generator_same_endmembers():
    one = scene(snr_db=15.0)
    first = extract_endmembers(one.cube, 4, generator=generator())
    second = extract_endmembers(one.cube, 4, generator=generator())
    assert torch.equal(first.endmembers, second.endmembers)
    assert torch.equal(first.candidates[0], first.endmembers)
    assert len(first.candidates) == len(first.scores) > 5


@pytest.mark.parametrize("method", ["archetypes", "vca", "spa", "minimum_volume"])
def test_each_method_alone(method):
    one = scene(rank=3)
    found = extract_endmembers(one.cube, 3, generator=generator(), method=method)
    assert found.method == method
    assert (found.endmembers >= 0).all()
    assert angle(found.endmembers, one.endmembers) < 0.15


@pytest.mark.parametrize(("rank", "bands", "size"), [(2, 30, 12), (12, 60, 30), (3, 40, 2)])
def test_extremes_of_rank_bands_and_pixels(rank, bands, size):
    one = scene(rank=rank, bands=bands, size=size)
    found = extract_endmembers(one.cube, rank, generator=generator())
    assert found.endmembers.shape == (rank, bands)
    assert torch.isfinite(found.endmembers).all() and (found.endmembers >= 0).all()


def test_duplicated_and_constant_pixels_do_not_crash():
    cube = torch.rand(4, 20, generator=generator())[torch.randint(0, 4, (10, 10), generator=generator())]
    assert torch.isfinite(extract_endmembers(cube, 3, generator=generator()).endmembers).all()
    flat = torch.full((8, 8, 20), 0.3) + 1e-4 * torch.rand(8, 8, 20, generator=generator())
    assert torch.isfinite(extract_endmembers(flat, 2, generator=generator()).endmembers).all()


def test_masked_pixels_have_no_say():
    one = scene()
    cube, valid = one.cube.clone(), torch.ones(40, 40, dtype=torch.bool)
    valid[:5] = False
    cube[:5] = 50.0
    found = extract_endmembers(cube, 4, valid=valid, generator=generator())
    assert found.endmembers.max() < 2


@pytest.mark.parametrize(
    ("shape", "rank", "message"),
    [((4,), 2, "`cube`"), ((5, 5, 20), 1, "`num_endmembers`"), ((5, 5, 3), 4, "bands"), ((1, 2, 20), 3, "pixels")],
)
def test_bad_input_is_refused(shape, rank, message):
    with pytest.raises(ValueError, match=message):
        extract_endmembers(torch.rand(shape), rank)


def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match="`method`"):
        extract_endmembers(torch.rand(5, 5, 20), 2, method="guess")


@pytest.mark.parametrize("rank", [3, 5])
def test_number_of_endmembers_of_a_clean_linear_scene(rank):
    pixels = scene(rank=rank, snr_db=35.0, size=50).cube.flatten(0, 1)
    assert abs(estimate_num_endmembers(pixels) - rank) <= 1


def test_library_selection_finds_the_members():
    one = scene(rank=4, snr_db=35.0)
    g = torch.Generator().manual_seed(5)
    knots = torch.rand(60, 1, 14, generator=g)
    others = torch.nn.functional.interpolate(knots, size=one.endmembers.shape[1], mode="linear")[:, 0] + 0.02
    chosen = select_from_library(one.cube.flatten(0, 1), torch.cat([others, one.endmembers]), 4)
    assert angle(chosen, one.endmembers) < 0.02
