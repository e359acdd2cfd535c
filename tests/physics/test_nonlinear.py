"""The linear part of nonlinearly mixed pixels."""

import pytest
import torch

from hsunmix.physics import (
    MIXING_MODELS,
    choose_mixing_model,
    fcls,
    interactions_possible,
    interactions_remain,
    linear_part,
    mix_bilinear,
    mix_linear,
    mix_postnonlinear,
    nonlinear,
)

NOISE = 1e-3


def scene(mixing, num_pixels=600, rank=4, bands=60, seed=0, knots=7):
    """Noisy pixels, their linear part, endmembers, abundances."""
    g = torch.Generator().manual_seed(seed)
    heights = torch.rand(rank, 1, knots, generator=g)
    endmembers = torch.nn.functional.interpolate(heights, size=bands, mode="linear")[:, 0] * 0.7 + 0.1
    abundances = torch.rand(num_pixels, rank, generator=g).log().neg()
    abundances = abundances / abundances.sum(1, keepdim=True)
    linear = mix_linear(abundances, endmembers)
    if mixing == "bilinear":
        gamma = torch.rand(num_pixels, rank * (rank - 1) // 2, generator=g)
        clean = mix_bilinear(abundances, endmembers, gamma)
    else:
        clean = mix_postnonlinear(abundances, endmembers, 0.6 * torch.rand(num_pixels, generator=g) - 0.3)
    return clean + NOISE * torch.randn(clean.shape, generator=g), linear, endmembers, abundances


def noisy(linear):
    return linear + NOISE * torch.randn(linear.shape, generator=torch.Generator().manual_seed(9))


def solve(pixels, endmembers, mixing, **options):
    valid = torch.ones(1, len(pixels), dtype=torch.bool)
    return linear_part(pixels, endmembers, torch.full((pixels.shape[1],), NOISE), mixing, valid, **options).pixels


@pytest.mark.parametrize("mixing", ["bilinear", "postnonlinear"])
@pytest.mark.parametrize("precision", [1e4, 0.0])
def test_most_of_the_nonlinear_part_is_found(mixing, precision):
    pixels, linear, endmembers, abundances = scene(mixing)
    found = solve(pixels, endmembers, mixing, brightness_precision=precision)
    assert (found - linear).square().mean() < 0.02 * (pixels - linear).square().mean()
    before, after = ((fcls(x, endmembers) - abundances).square().mean().sqrt() for x in (pixels, found))
    assert after < 0.5 * before


@pytest.mark.parametrize("mixing", ["bilinear", "postnonlinear"])
def test_order_of_the_endmembers_and_of_the_pixels_does_not_matter(mixing):
    pixels, _, endmembers, _ = scene(mixing)
    found = solve(pixels, endmembers, mixing)
    torch.testing.assert_close(solve(pixels, endmembers[[2, 0, 3, 1]], mixing), found, atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(solve(pixels.flip(0), endmembers, mixing), found.flip(0), atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("mixing", ["bilinear", "postnonlinear"])
def test_the_unit_of_brightness_does_not_matter(mixing):
    """With free brightness endmembers have any scale: what counts is the brightness against the ordinary one."""
    pixels, _, endmembers, _ = scene(mixing)
    found = solve(pixels, endmembers, mixing)
    torch.testing.assert_close(solve(pixels, 2 * endmembers, mixing), found, atol=2e-4, rtol=1e-3)


def test_many_pixels_at_once_give_what_few_do():
    pixels, _, endmembers, _ = scene("bilinear", num_pixels=2500)
    some = pixels[:300]
    options = {"ordinary": 1.0, "brightness_precision": 1e4}
    whole = solve(pixels, endmembers, "bilinear", **options)[:300]
    torch.testing.assert_close(solve(some, endmembers, "bilinear", **options), whole, atol=1e-3, rtol=0)


def test_going_on_from_an_estimate_repeats_nothing():
    pixels, linear, endmembers, abundances = scene("bilinear")
    found = solve(pixels, endmembers, "bilinear", scaled_abundances=abundances, ordinary=1.0)
    assert (found - linear).square().mean() < 0.02 * (pixels - linear).square().mean()


def test_linear_pixels_are_left_alone():
    pixels, _, endmembers, _ = scene("bilinear")
    assert solve(pixels, endmembers, "linear") is pixels
    assert MIXING_MODELS[0] == "linear"


def test_an_unknown_model_is_refused():
    pixels, _, endmembers, _ = scene("bilinear")
    with pytest.raises(ValueError, match="`mixing_model` must be one of linear, bilinear"):
        solve(pixels, endmembers, "cubic")


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("mixing", ["linear", "bilinear", "postnonlinear"])
def test_scattering_is_noticed_with_known_spectra(mixing, seed):
    clean, linear, endmembers, _ = scene("bilinear" if mixing == "linear" else mixing, num_pixels=2000, seed=seed)
    pixels = noisy(linear) if mixing == "linear" else clean
    noise, valid = torch.full((60,), NOISE), torch.ones(1, 2000, dtype=torch.bool)
    chosen = choose_mixing_model(pixels, endmembers, noise, valid, known=True)
    assert chosen == ("bilinear" if mixing == "bilinear" else "linear")
    assert choose_mixing_model(pixels, endmembers, noise, valid) == "linear"


def test_wrong_spectra_are_no_scattering():
    _, linear, endmembers, _ = scene("bilinear", num_pixels=2000)
    pixels = noisy(linear)
    bent = endmembers * (1 + 0.05 * torch.sin(torch.linspace(0, 9, 60) + torch.arange(4.0)[:, None]))
    noise, valid = torch.full((60,), NOISE), torch.ones(1, 2000, dtype=torch.bool)
    assert choose_mixing_model(pixels, bent, noise, valid, known=True) == "linear"


def refitted(pixels, endmembers):
    """The endmembers that explain pixels best as linear mixtures with the abundances that these have."""
    return torch.linalg.lstsq(fcls(pixels, endmembers), pixels).solution


def test_scattering_shows_once_each_model_has_its_own_spectra():
    """Spectra fitted to bilinear mixtures take up most of the interactions; in linear scenes nothing fits better."""
    pixels, linear, endmembers, _ = scene("bilinear", num_pixels=2000)
    noise = torch.full((60,), NOISE)
    assert interactions_possible(pixels, endmembers, noise)
    assert interactions_remain(pixels, refitted(pixels, endmembers), endmembers, noise)
    steady = noisy(linear)
    for own in (endmembers, refitted(steady, endmembers), refitted(solve(steady, endmembers, "bilinear"), endmembers)):
        assert not interactions_remain(steady, endmembers, own, noise)
    # the luck of an extraction is no scattering: the linear mixture may take the other set too
    assert not interactions_remain(steady, refitted(pixels, endmembers), endmembers, noise)


def test_scattering_shows_under_noise_of_the_same_size():
    """It takes a third of a percent of its variance, twice what it takes by accident in 2000 pixels."""
    pixels, linear, endmembers, _ = scene("bilinear", num_pixels=2000, rank=3)
    errors = 0.03 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(5))
    noise = torch.full((60,), 0.03)
    for clean, scattered in ((pixels, True), (linear, False)):
        noisy_pixels = clean + errors
        own = refitted(noisy_pixels, endmembers)
        assert interactions_possible(noisy_pixels, own, noise)
        assert interactions_remain(noisy_pixels, own, endmembers, noise) == scattered


def test_scattering_is_not_looked_for_where_it_could_not_be_told():
    pixels, _, endmembers, _ = scene("bilinear", num_pixels=2000)
    noise = torch.full((60,), NOISE)
    uneven = pixels * (0.6 + 0.8 * torch.rand(2000, 1, generator=torch.Generator().manual_seed(1)))
    assert not interactions_possible(uneven, endmembers, noise)
    bent = endmembers * (1 + 0.05 * torch.sin(torch.linspace(0, 9, 60) + torch.arange(4.0)[:, None]))
    assert not interactions_possible(pixels, bent, noise)


def test_scattering_is_not_looked_for_with_too_many_endmembers(monkeypatch):
    pixels, _, endmembers, _ = scene("bilinear", num_pixels=1000, rank=9, knots=12)
    noise = torch.full((60,), 2 * NOISE)
    assert not interactions_possible(pixels, endmembers, noise)
    monkeypatch.setattr(nonlinear, "_MOST_EXTRACTED", 9)
    assert interactions_possible(pixels, endmembers, noise), "it could have been told"


def test_spectra_that_depend_on_each_other_show_no_scattering():
    pixels, _, endmembers, _ = scene("bilinear", rank=9)  # of 7 dimensions
    own = refitted(pixels, endmembers)
    assert not interactions_remain(pixels, own, endmembers, torch.full((60,), NOISE))


@pytest.mark.parametrize("rank", [4, 8])
def test_of_many_endmembers_only_those_are_extracted_again_that_scattering_helps(rank):
    pixels, linear, endmembers, _ = scene("bilinear", num_pixels=2000, rank=rank, bands=240, knots=10)
    errors = 15 * NOISE * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(5))
    pixels, steady, noise = pixels + errors, noisy(linear) + errors, torch.full((240,), 226**0.5 * NOISE)
    assert interactions_possible(pixels, endmembers, noise)
    if rank == 8:
        assert interactions_remain(pixels, refitted(pixels, endmembers), endmembers, noise)
    assert interactions_possible(steady, refitted(steady, endmembers), noise) == (rank == 4)
