"""The linear part of nonlinearly mixed pixels."""

import math

import pytest
import torch

from hsunmix.physics import (
    MIXING_MODELS,
    choose_mixing_model,
    fcls,
    interaction_evidence,
    left_open,
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


@pytest.mark.parametrize("mixing", ["bilinear", "postnonlinear"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_how_large_errors_are_since_the_nonlinear_part_is_not_known_exactly(mixing, seed):
    pixels, linear, endmembers, abundances = scene(mixing, num_pixels=2000, seed=seed)
    noise_std = torch.full((60,), NOISE)
    variance = NOISE**2 * torch.linalg.inv(endmembers.double() @ endmembers.double().T).trace()

    def errors(spectra):
        found = torch.linalg.lstsq(endmembers.double().T, spectra.double().T).solution.T
        return (found - abundances).square().sum(1).mean()

    ratio = left_open(pixels, endmembers, noise_std, mixing, abundances, ordinary=1.0)
    assert 0.8 < errors(noisy(linear)) / variance < 1.2
    assert 0.4 < errors(solve(pixels, endmembers, mixing)) / (ratio.mean() * variance) < 1.6
    assert ratio.mean() > 1.3


def test_nothing_is_left_open_where_nothing_is_nonlinear():
    pixels, _, endmembers, abundances = scene("bilinear")
    known = pixels, endmembers, torch.full((60,), NOISE)
    pure = torch.eye(4).repeat(150, 1)
    for mixing, scaled in (("linear", abundances), ("variable", abundances), ("bilinear", pure)):
        ratio = left_open(*known, mixing, scaled)
        torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=1e-3, atol=0)


def test_linear_pixels_are_left_alone():
    pixels, _, endmembers, _ = scene("bilinear")
    assert solve(pixels, endmembers, "linear") is pixels
    assert MIXING_MODELS[0] == "linear"


def test_an_unknown_model_is_refused():
    pixels, _, endmembers, _ = scene("bilinear")
    with pytest.raises(ValueError, match="`mixing_model` must be one of linear, bilinear"):
        solve(pixels, endmembers, "cubic")


def chosen(pixels, endmembers, noise=NOISE, known=False):
    valid = torch.ones(1, len(pixels), dtype=torch.bool)
    return choose_mixing_model(pixels, endmembers, torch.full((pixels.shape[1],), noise), valid, known)


def refitted(pixels, endmembers):
    """The endmembers that explain pixels best as linear mixtures with the abundances that these have."""
    return torch.linalg.lstsq(fcls(pixels, endmembers), pixels).solution


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("mixing", ["linear", "bilinear", "postnonlinear"])
def test_scattering_is_noticed(mixing, seed):
    """With the right spectra, and with those that take up as much of it as a linear mixture can."""
    clean, linear, endmembers, _ = scene("bilinear" if mixing == "linear" else mixing, num_pixels=2000, seed=seed)
    pixels = noisy(linear) if mixing == "linear" else clean
    model = "bilinear" if mixing == "bilinear" else "linear"
    assert chosen(pixels, endmembers, known=True) == chosen(pixels, endmembers) == model
    pixels = pixels + 0.02 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(seed))
    assert chosen(pixels, refitted(pixels, endmembers), 0.02) == model


def test_wrong_spectra_are_no_scattering():
    pixels, linear, endmembers, _ = scene("bilinear", num_pixels=2000)
    bent = endmembers * (1 + 0.05 * torch.sin(torch.linspace(0, 9, 60) + torch.arange(4.0)[:, None]))
    for own in (bent, refitted(pixels, endmembers)):  # what a linear scene would not have given
        assert chosen(noisy(linear), own, known=True) == "linear"
        assert chosen(noisy(linear), own) == "linear"
    assert interaction_evidence(pixels, bent, torch.full((60,), NOISE))[0] > 100
    assert chosen(pixels, bent) == "linear", "it doesn't explain them"


@pytest.mark.parametrize(("noise", "rank"), [(0.03, 2), (0.03, 3), (0.05, 3), (0.03, 8)])
def test_scattering_shows_under_noise(noise, rank):
    """It is up to a third of a percent of its variance."""
    pixels, linear, endmembers, _ = scene("bilinear", num_pixels=4000, rank=rank, bands=120, knots=10)
    for clean, model in ((pixels, "bilinear"), (linear, "linear")):
        for seed in range(3):
            some = clean + noise * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(seed))
            assert chosen(some, refitted(some, endmembers), noise) == model


def test_evidence_is_in_standard_deviations():
    """Where nothing is scattered it is one on average, though noise has turned the spectra, and the rest is none."""
    _, linear, endmembers, _ = scene("bilinear", num_pixels=1000)
    common, rest = [], []
    for seed in range(60):
        pixels = linear + 0.03 * torch.randn(linear.shape, generator=torch.Generator().manual_seed(seed))
        one = interaction_evidence(pixels, refitted(pixels, endmembers), torch.full((60,), 0.03))
        common.append(one[0])
        rest.append(one[1])
    assert 0.8 < torch.tensor(common).square().mean().sqrt() < 1.25
    assert abs(torch.tensor(rest).mean()) < 1.3  # of five degrees of freedom: .41 from one of these to the next
    assert 0.7 * 10**0.5 < torch.tensor(rest).std() < 1.4 * 10**0.5


def test_endmembers_that_vary_are_no_scattering():
    """They bend the pixels, too, but in other directions."""
    _, _, endmembers, abundances = scene("bilinear", num_pixels=2000)
    where = torch.linspace(0, 6, 2000)[:, None, None] + torch.arange(4.0)[:, None]
    shape = 1 + 0.1 * torch.sin(where + torch.linspace(0, 5, 60))  # (N, R, B)
    pixels = noisy((abundances[:, :, None] * endmembers * shape).sum(1))
    common, rest = interaction_evidence(pixels, endmembers, torch.full((60,), NOISE))
    assert rest > max(common, 4) ** 2
    assert chosen(pixels, endmembers, known=True) != "bilinear"


def test_scattering_is_not_looked_for_where_it_could_not_be_told():
    pixels, _, endmembers, _ = scene("bilinear", num_pixels=2000)
    uneven = pixels * (0.6 + 0.8 * torch.rand(2000, 1, generator=torch.Generator().manual_seed(1)))
    assert chosen(uneven, endmembers) == "linear"


def test_scattering_is_not_looked_for_with_too_many_endmembers(monkeypatch):
    pixels, _, endmembers, _ = scene("bilinear", num_pixels=1000, rank=9, knots=12)
    assert chosen(pixels, endmembers) == "bilinear"
    monkeypatch.setattr(nonlinear, "_MOST_INTERACTING", 8)
    assert chosen(pixels, endmembers) == "linear"


def test_spectra_that_depend_on_each_other_show_no_scattering():
    pixels, linear, endmembers, _ = scene("bilinear", rank=9)  # of 7 dimensions
    for some in (pixels, noisy(linear)):
        assert chosen(some, refitted(some, endmembers)) == "linear"


def test_dark_pixels_hide_nothing():
    """Brightness is 0 in most of them, where the sky was taken off too much."""
    pixels, _, endmembers, _ = scene("bilinear", num_pixels=2000)
    pixels[:1200] = -1e-4
    assert all(map(math.isfinite, interaction_evidence(pixels, endmembers, torch.full((60,), NOISE))))


def test_one_endmember_scatters_nothing():
    _, _, endmembers, _ = scene("bilinear")
    assert chosen(noisy(endmembers[:1].expand(500, -1)), endmembers[:1]) == "linear"
