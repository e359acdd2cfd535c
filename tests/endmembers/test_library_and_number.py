"""Selection from a library, and the number of endmembers."""

import numpy as np
import pytest
import torch

from hsunmix.data import read_library
from hsunmix.endmembers import (
    distance_to_scene,
    estimate_num_endmembers,
    extract_endmembers,
    library_indices,
    number_probabilities,
    select_from_library,
)
from hsunmix.evaluation.metrics import perturb_endmembers
from hsunmix.simulation import benchmark_scene

from ..shared_data import SHARED
from .test_extraction import make_cube, make_spectra, seeded, worst_angle

needs_data = pytest.mark.skipif(not (SHARED / "scenes").is_dir(), reason="shared data are not here")


@pytest.mark.parametrize("brightness", [0.0, 0.3])
@pytest.mark.parametrize("snr_db", [None, 30, 20])
def test_members_of_a_library_are_found(brightness, snr_db):
    library = make_spectra(150, 60, seed=4)
    members = [3, 77, 20, 149]
    cube, _ = make_cube(library[members], purity=0.8, brightness=brightness, snr_db=snr_db)
    found = library_indices(cube.reshape(-1, 60), library, 4)
    assert sorted(found.tolist()) == sorted(members)


def test_scale_and_order_of_the_library_are_irrelevant():
    library = make_spectra(60, 40, seed=5)
    pixels = make_cube(library[[5, 9, 33]], snr_db=35)[0].reshape(-1, 40)
    shuffle = torch.randperm(60, generator=seeded())
    factors = torch.rand(60, 1, generator=seeded()) + 0.5
    plain = set(library_indices(pixels, library, 3).tolist())
    moved = {int(shuffle[k]) for k in library_indices(pixels, (library * factors)[shuffle], 3)}
    assert plain == moved == {5, 9, 33}
    chosen = select_from_library(pixels, library, 3)
    assert worst_angle(chosen, library[[5, 9, 33]]) == 0


@needs_data
@pytest.mark.parametrize(
    ("library", "seed", "snr_db"),
    [("usgs1995", 701, 30), ("usgs1995", 703, 15), ("dc_dictionary240", 702, 30), ("dc_dictionary240", 702, 15)],
)
def test_search_does_not_halt_one_spectrum_away_from_the_best(library, seed, snr_db):
    spectra = torch.as_tensor(read_library(SHARED / "libraries" / f"{library}.hdr").spectra).float()
    scene = benchmark_scene(spectra, None, seed, "linear", snr_db=snr_db)
    found = spectra[library_indices(scene.cube.flatten(0, 1).float(), spectra, 5)]
    assert worst_angle(found, scene.endmembers.float()) < 1e-3


def test_invalid_library_spectra_are_never_chosen():
    library = make_spectra(30, 40, seed=6)
    pixels = make_cube(library[[1, 2]], snr_db=35)[0].reshape(-1, 40)
    library[7, 3] = torch.nan
    library[8] = 0
    assert sorted(library_indices(pixels, library, 2).tolist()) == [1, 2]
    with pytest.raises(ValueError, match="28 usable spectra"):
        library_indices(pixels, library, 29)
    with pytest.raises(ValueError, match="same bands"):
        library_indices(pixels, library[:, :30], 2)


def test_distance_to_the_scene_is_about_the_error_of_spectra():
    spectra = make_spectra(4, 80, seed=3)
    pixels = make_cube(spectra, purity=0.8, snr_db=40)[0].reshape(-1, 80)
    distances = []
    for degrees in (0.0, 2.0, 6.0):
        turned = torch.from_numpy(perturb_endmembers(spectra.numpy(), degrees)).float() if degrees else spectra
        distances.append(distance_to_scene(pixels, turned, torch.full((80,), 0.005)).rad2deg())
    assert (distances[0] < 0.5).all()
    assert (distances[1] < 2.0).all() and (distances[1] > distances[0]).all()
    assert (distances[2] < 6.0).all() and (distances[2] > distances[1]).all() and distances[2].mean() > 3.0


def test_noise_does_not_count_as_distance_to_the_scene():
    spectra = make_spectra(4, 80, seed=3)
    clean, noisy = (make_cube(spectra, purity=0.8, snr_db=level)[0].reshape(-1, 80) for level in (None, 15))
    noise = (noisy - clean).std(0)
    assert distance_to_scene(noisy, spectra, noise).rad2deg().max() < 0.1
    turned = torch.from_numpy(perturb_endmembers(spectra.numpy(), 6.0)).float()
    without, despite = distance_to_scene(clean, turned, 1e-3 * noise), distance_to_scene(noisy, turned, noise)
    torch.testing.assert_close(despite, without, rtol=0.1, atol=0)


def test_spectra_that_no_pixel_shows_stay_far_from_the_scene():
    spectra = make_spectra(5, 80, seed=3)
    pixels = make_cube(spectra[:3], purity=0.8, snr_db=None)[0].reshape(-1, 80)
    distances = distance_to_scene(pixels, spectra, torch.full((80,), 1e-5)).rad2deg()
    assert distances[:3].max() < 0.1 and distances[3:].min() > 3
    assert torch.isfinite(distance_to_scene(torch.zeros(100, 80), spectra, torch.full((80,), 1e-5))).all()


@pytest.mark.parametrize("count", [2, 3, 5, 8])
@pytest.mark.parametrize("snr_db", [None, 40, 30])
def test_number_is_exact_for_a_linear_scene(count, snr_db):
    spectra = make_spectra(count, 80, seed=8)
    pixels = make_cube(spectra, size=48, snr_db=snr_db)[0].reshape(-1, 80)
    assert abs(estimate_num_endmembers(pixels) - count) <= (0 if count < 8 else 1)


def test_number_is_bounded():
    pixels = torch.rand(400, 30, generator=seeded())
    assert 2 <= estimate_num_endmembers(pixels) <= 12
    assert 2 <= estimate_num_endmembers(pixels[:3]) <= 3
    assert list(number_probabilities(pixels[:3])) == [2, 3]
    assert list(number_probabilities(pixels, maximum=5)) == [2, 3, 4, 5]
    assert list(number_probabilities(pixels[:, :4])) == [2, 3]
    assert list(number_probabilities(pixels[:, :2])) == [2]
    with pytest.raises(ValueError, match="`pixels` must be"):
        estimate_num_endmembers(pixels[0])


def test_number_is_a_distribution_that_is_sure_where_the_scene_is_clear_only():
    spectra = make_spectra(4, 80, seed=8)
    clear, noisy = (
        number_probabilities(make_cube(spectra, size=48, snr_db=level)[0].reshape(-1, 80)) for level in (40, 0)
    )
    for found in (clear, noisy):
        assert list(found) == list(range(2, 13)) and sum(found.values()) == pytest.approx(1)
        assert min(found.values()) > 0
    assert clear[4] > 0.6 and max(noisy.values()) < clear[4]


def test_number_depends_on_neither_the_unit_nor_the_order_of_the_pixels():
    pixels = make_cube(make_spectra(5, 80, seed=8), size=48, snr_db=30)[0].reshape(-1, 80)
    expected = number_probabilities(pixels)
    for same in (10 * pixels, pixels.flip(0)):
        assert number_probabilities(same) == pytest.approx(expected, abs=0.02)


@needs_data
@pytest.mark.parametrize(("mixing", "least"), [("linear", 0.9), ("bilinear", 0.9), ("variable", 0.6)])
def test_number_on_the_scenes_of_the_benchmark(mixing, least):
    library = read_library(SHARED / "libraries" / "dc_dictionary240.hdr")  # wholly held out of training
    hits = []
    for seed in range(12):
        count = (3, 5, 8)[seed % 3]
        scene = benchmark_scene(
            torch.as_tensor(library.spectra),
            None,
            seed,
            mixing,
            (20.0, 30.0, 40.0, 25.0)[seed % 4],
            num_endmembers=count,
        )
        hits.append(abs(estimate_num_endmembers(scene.cube.flatten(0, 1).float()) - count) <= 1)
    assert np.mean(hits) >= least


def open_scene(name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    import spectral

    cube = np.asarray(spectral.open_image(str(SHARED / "scenes" / f"{name}.hdr")).load(), np.float32)
    with np.load(SHARED / "scenes" / f"{name}_reference.npz") as reference:
        endmembers = torch.from_numpy(np.asarray(reference["endmembers"], np.float32))
    cube = torch.from_numpy(cube)
    return cube / cube.max(), endmembers, torch.from_numpy(np.asarray(cube.shape))


@needs_data
def test_minimum_volume_that_overshoots_into_negative_spectra_is_not_taken():
    cube, truth, _ = open_scene("jasper_ridge")
    water = slice(99, 112)  # without these bands of water vapour its pixels lie near a plane, but in no simplex
    found = extract_endmembers(
        torch.cat([cube[..., : water.start], cube[..., water.stop :]], -1), 4, generator=seeded()
    )
    assert worst_angle(found.endmembers, torch.cat([truth[:, : water.start], truth[:, water.stop :]], -1)) < 0.10


@needs_data
@pytest.mark.parametrize("name, limit", [("samson", 0.06), ("jasper_ridge", 0.10)])
def test_real_scenes(name, limit):
    cube, truth, _ = open_scene(name)
    found = extract_endmembers(cube, len(truth), generator=seeded())
    assert worst_angle(found.endmembers, truth) < limit
    assert not found.natural_scale
    assert abs(estimate_num_endmembers(cube.reshape(-1, cube.shape[-1])) - len(truth)) <= 1


@needs_data
def test_library_of_the_sparse_unmixing_benchmark():
    import spectral

    library = torch.from_numpy(
        np.asarray(spectral.open_image(str(SHARED / "libraries" / "dc_dictionary240.hdr")).spectra, np.float32)
    )
    cube, truth, _ = open_scene("dc1")
    noisy = cube + cube.square().mean().sqrt() * 10**-1.5 * torch.randn(cube.shape, generator=seeded())
    chosen = select_from_library(noisy.reshape(-1, cube.shape[-1]), library, len(truth))
    assert worst_angle(chosen, truth) < 1e-3
