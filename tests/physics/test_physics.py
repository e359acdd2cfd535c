"""Mixing, simplex, noise, brightness and evidence: properties."""

import pytest
import torch

from hsunmix.physics import (
    brightness_fit,
    brightness_model,
    estimate_noise,
    gather_evidence,
    mix_bilinear,
    mix_linear,
    mix_postnonlinear,
    project_simplex,
    spectral_angle,
    split_brightness,
)


def scene(snr_db=30.0, rank=4, bands=80, num_pixels=3000, seed=0, brightness=None):
    g = torch.Generator().manual_seed(seed)
    knots = torch.rand(rank, 1, 9, generator=g)
    endmembers = torch.nn.functional.interpolate(knots, size=bands, mode="linear")[:, 0] + 0.05
    abundances = torch.rand(num_pixels, rank, generator=g).log().neg()
    abundances = abundances / abundances.sum(1, keepdim=True)
    clean = mix_linear(abundances, endmembers, brightness)
    std = (clean.square().mean() / 10 ** (snr_db / 10)).sqrt()
    return clean + std * torch.randn(clean.shape, generator=g), endmembers, abundances, std


def test_spectral_angle_ignores_scale_and_is_accurate_when_small():
    a = torch.rand(5, 100)
    torch.testing.assert_close(spectral_angle(a, 3 * a), torch.zeros(5), atol=1e-6, rtol=0)
    u, v = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1e-4])
    torch.testing.assert_close(spectral_angle(u, v), torch.tensor(1e-4), rtol=1e-3, atol=0)
    torch.testing.assert_close(spectral_angle(u, -u), torch.tensor(torch.pi))


def test_spectral_angle_has_a_finite_gradient_at_equality():
    a = torch.rand(3, 10, requires_grad=True)
    spectral_angle(a, a.detach() * 2).sum().backward()
    assert torch.isfinite(a.grad).all()


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_projection_lands_on_the_simplex_and_is_idempotent(dim):
    x = torch.randn(6, 7, dtype=torch.float64)
    p = project_simplex(x, dim)
    assert (p >= 0).all()
    torch.testing.assert_close(p.sum(dim), torch.ones_like(p.sum(dim)))
    torch.testing.assert_close(project_simplex(p, dim), p)


def test_projection_is_the_nearest_point():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(50, 4, generator=g, dtype=torch.float64)
    others = torch.rand(200, 4, generator=g, dtype=torch.float64)
    others = others / others.sum(1, keepdim=True)
    best = (x - project_simplex(x)).norm(dim=1)
    assert (best[:, None] <= (x[:, None] - others).norm(dim=-1) + 1e-12).all()


def test_split_brightness_round_trip_and_black_pixels():
    b = torch.rand(10, 3)
    b[0] = 0
    a, s = split_brightness(b)
    torch.testing.assert_close(a.sum(1), torch.ones(10))
    torch.testing.assert_close(a * s[:, None], b)
    torch.testing.assert_close(a[0], torch.full((3,), 1 / 3))


def test_mixing_models_reduce_to_the_linear_one():
    _, endmembers, a, _ = scene()
    linear = mix_linear(a, endmembers)
    torch.testing.assert_close(mix_bilinear(a, endmembers, torch.zeros(len(a), 6)), linear)
    torch.testing.assert_close(mix_postnonlinear(a, endmembers, torch.zeros(len(a))), linear)
    torch.testing.assert_close(mix_linear(a, endmembers, torch.full((len(a),), 2.0)), 2 * linear)


def test_linear_mixing_and_its_adjoint():
    g = torch.Generator().manual_seed(0)
    endmembers = torch.rand(3, 20, generator=g, dtype=torch.float64)
    a, y = torch.rand(5, 3, generator=g, dtype=torch.float64), torch.rand(5, 20, generator=g, dtype=torch.float64)
    torch.testing.assert_close((mix_linear(a, endmembers) * y).sum(), (a * (y @ endmembers.T)).sum())


@pytest.mark.parametrize("num_pixels", [3000, 100])
@pytest.mark.parametrize("snr_db", [10.0, 30.0])
def test_noise_estimate_finds_the_noise(num_pixels, snr_db):
    pixels, _, _, std = scene(snr_db, num_pixels=num_pixels)
    estimate = estimate_noise(pixels).median()
    assert 0.85 < estimate / std < (1.15 if num_pixels > 1000 else 1.6)


def test_noise_estimate_sees_the_bands():
    pixels, *_ = scene(60.0)
    std = torch.linspace(0.001, 0.05, pixels.shape[1])
    g = torch.Generator().manual_seed(3)
    estimate = estimate_noise(pixels + std * torch.randn(pixels.shape, generator=g))
    torch.testing.assert_close(estimate[20:], std[20:], rtol=0.15, atol=0)


@pytest.mark.parametrize("num_pixels", [1, 2, 20])
def test_noise_of_a_handful_of_pixels(num_pixels):
    pixels, *_ = scene(25.0, num_pixels=num_pixels)
    estimate = estimate_noise(pixels)
    assert torch.isfinite(estimate).all() and (estimate > 0).all()


def test_noise_refuses_nan():
    pixels, *_ = scene()
    pixels[0, 0] = torch.nan
    with pytest.raises(ValueError, match="`pixels`"):
        estimate_noise(pixels)


@pytest.mark.parametrize("snr_db", [40.0, 20.0, 10.0])
def test_brightness_is_found_fixed_or_free(snr_db):
    pixels, endmembers, _, _ = scene(snr_db)
    noise = estimate_noise(pixels)
    assert brightness_model(pixels, endmembers, noise).mode == "fixed"
    g = torch.Generator().manual_seed(9)
    pixels, endmembers, _, _ = scene(snr_db, brightness=(0.25 * torch.randn(3000, generator=g)).exp())
    model = brightness_model(pixels, endmembers, estimate_noise(pixels))
    assert model.mode == "free" and model.precision == 0
    assert 0.15 < model.variation < 0.4


def test_brightness_variation_ignores_the_scale_of_the_endmembers():
    pixels, endmembers, _, _ = scene()
    noise = estimate_noise(pixels)
    scaled = endmembers * torch.tensor([[0.3], [1.0], [2.0], [5.0]])
    (u, variation), (u_scaled, variation_scaled) = (brightness_fit(pixels, e, noise) for e in (endmembers, scaled))
    assert abs(variation - variation_scaled) < 1e-3
    torch.testing.assert_close(scaled / u_scaled[:, None], endmembers / u[:, None], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(u, torch.ones_like(u), rtol=0.05, atol=0)


@pytest.mark.parametrize("snr_db", [40.0, 20.0, 10.0])
def test_level_of_a_cube_in_another_unit_than_its_exact_endmembers(snr_db):
    pixels, endmembers, _, _ = scene(snr_db)
    model = brightness_model(pixels, endmembers / 3, estimate_noise(pixels), exact=True)
    assert model.mode == "fixed" and abs(model.level - 3) < 0.03


@pytest.mark.parametrize("snr_db", [40.0, 20.0, 10.0])
def test_level_of_a_cube_in_another_unit_than_approximate_endmembers(snr_db):
    pixels, endmembers, _, _ = scene(snr_db)
    noise = estimate_noise(pixels)
    model = brightness_model(pixels, endmembers / 1.3, noise)
    assert model.mode == "fixed" and abs(model.level - 1.3) < 0.02
    bent = endmembers * (1 + 0.1 * torch.sin(torch.linspace(0, 6, 80) + torch.arange(4.0)[:, None]))
    assert abs(brightness_model(pixels, bent, noise).level - 1) < 0.02, "errors of endmembers are no level"


def test_level_survives_a_noise_level_that_is_assumed_too_high():
    pixels, endmembers, _, std = scene(10.0)
    level = brightness_model(pixels, endmembers, 6 * std.expand(80), exact=True).level
    assert abs(level - 1) < 0.05


@pytest.mark.parametrize("mode", ["fixed", "auto"])
def test_constant_brightness_is_held_tighter_where_the_scale_of_endmembers_is_right(mode):
    pixels, endmembers, _, std = scene(30.0)
    wrong = endmembers * torch.tensor([[1.0], [1.1], [1.0], [0.9]])
    exact, right, loose = (
        brightness_model(pixels, spectra, std.expand(80), mode, exact)
        for spectra, exact in ((endmembers, True), (endmembers, False), (wrong, False))
    )
    assert exact.precision > 10 * loose.precision and right.precision > 10 * loose.precision
    shifted = brightness_model(pixels, 1.03 * endmembers, std.expand(80), "fixed")
    assert right.precision > 10 * shifted.precision, "all alike in another scale than asked for"
    noisy, _, _, much = scene(10.0)
    assert right.precision > 10 * brightness_model(noisy, endmembers, much.expand(80), mode).precision


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("snr_db", [40.0, 10.0])
def test_endmembers_each_in_a_scale_of_its_own_free_the_brightness(snr_db, exact):
    pixels, endmembers, _, _ = scene(snr_db)
    scaled = endmembers / torch.tensor([[0.1], [0.9], [0.2], [0.5]])
    assert brightness_model(pixels, scaled, estimate_noise(pixels), exact=exact).mode == "free"


def test_unknown_brightness_mode_is_refused():
    pixels, endmembers, _, std = scene()
    with pytest.raises(ValueError, match="`brightness`"):
        brightness_model(pixels, endmembers, std.expand(80), "sometimes")


def test_evidence_knows_its_error():
    pixels, endmembers, abundances, _ = scene(25.0)
    evidence = gather_evidence(pixels, endmembers, estimate_noise(pixels))
    inside = (evidence.abundances > 0).all(1)
    ratio = ((evidence.abundances - abundances) / evidence.std)[inside]
    assert 0.7 < ratio.square().mean().sqrt() < 1.3
    assert evidence.misfit.mean() < 0.2


def test_evidence_sees_model_error_but_its_std_is_that_of_the_noise():
    pixels, endmembers, _, _ = scene(40.0)
    noise = estimate_noise(pixels)
    wrong = endmembers * (1 + 0.2 * torch.sin(torch.linspace(0, 9, endmembers.shape[1])))
    right, bent = gather_evidence(pixels, endmembers, noise), gather_evidence(pixels, wrong, noise)
    assert 0.5 < bent.std.mean() / right.std.mean() < 2
    assert bent.noise_std.mean() > 5 * right.noise_std.mean()
    assert bent.misfit.mean() > right.misfit.mean() + 0.5


def test_evidence_counts_more_or_less_of_the_uncertainty_of_the_endmembers():
    pixels, endmembers, _, _ = scene()
    noise, std = estimate_noise(pixels), 0.05 * endmembers
    whole = gather_evidence(pixels, endmembers, noise, endmember_std=std)
    for share in (0.0, 0.25, 3.0):
        expected = gather_evidence(pixels, endmembers, noise, endmember_std=share * std)
        counted = whole.counting(share)
        for name in ("confidence", "leakage", "std", "gram", "scaled_abundances"):
            torch.testing.assert_close(getattr(counted, name), getattr(expected, name), msg=name)


def test_evidence_follows_a_permutation_of_the_endmembers():
    pixels, endmembers, _, _ = scene()
    noise, order = estimate_noise(pixels), torch.tensor([2, 0, 3, 1])
    valid = torch.ones(50, 60, dtype=torch.bool)
    maps = gather_evidence(pixels, endmembers, noise).maps(valid)
    permuted = gather_evidence(pixels, endmembers[order], noise).maps(valid)
    torch.testing.assert_close(maps[order], permuted, atol=1e-4, rtol=1e-4)
