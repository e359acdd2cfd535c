"""Endmembers that vary over the scene: what is taken out, and what is left alone."""

import pytest
import torch

from hsunmix.physics import (
    brightness_of_linear_part,
    choose_mixing_model,
    gather_evidence,
    linear_part,
    mean_endmembers,
    nnls,
    nonlinear,
    spectral_angle,
    split_brightness,
    variability,
    variation_left,
)
from hsunmix.physics.consistency import mostly_outside
from hsunmix.physics.evidence import Reading
from hsunmix.simulation import benchmark_scene, parametric_spectra

ALL = torch.ones(64, 64, dtype=torch.bool)


def scene(mixing, snr_db=30.0, seed=0, rank=4):
    """Pixels (N, B), endmembers, abundances (N, R), noise level (B,) of 64 x 64 pixels."""
    g = torch.Generator().manual_seed(seed)
    wavelengths = torch.linspace(400, 2400, 120)
    one = benchmark_scene(parametric_spectra(400, wavelengths, g), wavelengths, g, mixing, snr_db, num_endmembers=rank)
    pixels, abundances = one.cube.flatten(0, 1), one.abundances.flatten(0, 1)
    return pixels, one.endmembers, abundances, one.noise_std.clamp_min(1e-4)


def solve(pixels, endmembers, noise, valid=ALL):
    return linear_part(pixels, endmembers, noise, "variable", valid)


def rmse(pixels, endmembers, abundances):
    return float((split_brightness(nnls(pixels, endmembers))[0] - abundances).square().mean().sqrt())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_much_of_the_error_that_variation_makes_goes(seed):
    pixels, endmembers, abundances, noise = scene("variable", seed=seed)
    found = solve(pixels, endmembers, noise)
    assert rmse(found.pixels, endmembers, abundances) < 0.85 * rmse(pixels, endmembers, abundances)
    assert found.error > 1.2, "what shows in fine features only is known less well"


def test_scales_of_the_endmembers_are_found_from_sums_that_are_not_one():
    pixels, endmembers, abundances, noise = scene("linear", snr_db=None)
    x, y = torch.meshgrid(torch.linspace(0, 3, 64), torch.linspace(0, 3, 64), indexing="ij")
    scales = torch.stack([1 + 0.25 * (x + k).sin() * (y - k).cos() for k in range(4)], -1).flatten(0, 1)
    scaled = (abundances * scales) @ endmembers
    before = rmse(scaled, endmembers, abundances)
    assert rmse(solve(scaled, endmembers, noise).pixels, endmembers, abundances) < 0.5 * before


@pytest.mark.parametrize("roughness", [0.0, 0.3])
def test_linear_scenes_are_left_alone_whatever_their_light(roughness):
    clean, endmembers, abundances, _ = scene("linear", snr_db=None)
    g = torch.Generator().manual_seed(1)
    light = torch.exp(roughness * torch.randn(len(clean), 1, generator=g))
    pixels = clean * light + 0.01 * torch.randn(clean.shape, generator=g)
    found = solve(pixels, endmembers, torch.full_like(endmembers[0], 0.01))
    assert rmse(found.pixels, endmembers, abundances) < 1.1 * rmse(pixels, endmembers, abundances)
    assert found.error < 1.05


@pytest.mark.parametrize("mixing", ["variable", "linear"])
@pytest.mark.parametrize("seed", [0, 1])
def test_wrong_endmembers_leave_more_variation(mixing, seed):
    pixels, endmembers, _, noise = scene(mixing, seed=seed)
    wrong = torch.lerp(endmembers, endmembers.roll(1, 0), 0.4)  # each holds much of another one
    exact, off = (variation_left(pixels, one, noise, ALL) for one in (endmembers, wrong))
    assert 1.2 * exact < off and exact < 0.05


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_abundances_are_read_with_the_errors_that_variation_makes(seed):
    """In each direction in which they are independent; those of least squares are all taken for equally far off."""
    pixels, endmembers, abundances, noise = scene("variable", seed=seed)
    found = solve(pixels, endmembers, noise)
    spectra = endmembers.double()

    def ratios(gram):
        variance, directions = torch.linalg.eigh(torch.linalg.inv(gram))
        return ((found.reading.coefficients - abundances) @ directions).square().mean(0) / variance

    read = ratios(found.reading.weights @ spectra.T)
    assert 0.2 < read.min() and read.max() < 5
    plain = ratios(spectra / noise.square() @ spectra.T / found.error**2)
    assert plain.max() / plain.min() > 3 * read.max() / read.min()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_where_a_material_is_absent_its_scale_makes_no_error(seed):
    pixels, endmembers, abundances, noise = scene("variable", snr_db=40.0, seed=seed)
    anywhere, at_facets = (
        linear_part(pixels, endmembers, noise, "variable", ALL, at_facets=sharp).reading for sharp in (False, True)
    )
    torch.testing.assert_close(anywhere.coefficients, at_facets.coefficients)
    absent = abundances < 1e-3
    errors = torch.where(absent, (at_facets.coefficients - abundances).square(), 0).sum(0) / absent.sum(0)

    def expected(reading):
        return torch.linalg.inv(reading.weights @ endmembers.double().T).trace()

    assert 0.3 < expected(at_facets) / errors.sum() < 1.5
    assert expected(anywhere) / errors.sum() > 1.7


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_changes_of_shape_that_neighbours_share_are_taken_out(seed, monkeypatch):
    """Far more is known then; nothing is lost where they share none."""
    pixels, endmembers, abundances, noise = scene("variable", seed=seed)
    shuffled = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))

    def errors():
        return [misread(pixels[rows], endmembers, abundances[rows], noise) for rows in (slice(None), shuffled)]

    together = errors()
    monkeypatch.setattr(variability, "_shared_changes", no_shared_changes)
    alone = errors()
    assert together[0] < 0.85 * alone[0] and together[1] < 1.02 * alone[1]


def misread(pixels, endmembers, abundances, noise):
    """Error of the abundances as they are read."""
    return float((solve(pixels, endmembers, noise).reading.coefficients - abundances).square().mean().sqrt())


def no_shared_changes(pixels, *others):
    return torch.zeros_like(pixels), torch.zeros_like(pixels), 0.0


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_what_is_wrong_with_an_endmember_everywhere_stays_in_the_pixels(seed):
    """So that endmembers that are extracted or chosen from them once more can be right."""
    pixels, endmembers, _, noise = scene("variable", 40.0, seed)
    wrong = endmembers.clone()
    wrong[0] *= 1 + 0.1 * torch.linspace(-1, 1, 120).square()
    residual = []
    for spectra in (endmembers, wrong):
        left = solve(pixels, wrong, noise).pixels
        residual.append((left - nnls(left, spectra) @ spectra).square().mean().sqrt())
    assert residual[0] < 0.9 * residual[1]


@pytest.mark.parametrize("seed", [0, 1])
def test_fine_changes_that_neighbours_share_are_not_taken_for_smooth_ones(seed, monkeypatch):
    """They are an error that no window averages out; with hardly any noise it was carried into the abundances."""
    pixels, endmembers, abundances, noise = scene("variable", 50.0, seed)
    bands = torch.linspace(0, 1, 120)
    x, y = torch.meshgrid(torch.linspace(0, 5, 64), torch.linspace(0, 5, 64), indexing="ij")
    for k in range(3):
        fine = (-0.5 * ((bands - 0.2 - 0.3 * k) / 0.03).square()).exp() * endmembers[k]
        pixels = pixels + 0.03 * abundances[:, k : k + 1] * (x + k).sin().mul((y - k).cos()).reshape(-1, 1) * fine
    together, alone = [], []
    for found in (together, alone):
        found.append(misread(pixels, endmembers, abundances, noise))
        monkeypatch.setattr(variability, "_shared_changes", no_shared_changes)
    assert together[0] < 1.1 * alone[0]


def averaged(pixels, endmembers, noise, abundances, valid=ALL, std=0.05):
    variation = solve(pixels, endmembers, noise, valid).variation
    return mean_endmembers(pixels, abundances, noise, endmembers, torch.as_tensor(std), valid, variation)


@pytest.mark.parametrize(("rank", "most"), [(3, 0.8), (5, 0.7), (8, 0.9)])
def test_endmembers_are_averaged_over_the_scene_not_over_the_pixels_that_hold_most_of_them(rank, most):
    off = []
    for seed in range(3):
        pixels, endmembers, abundances, noise = scene("variable", 40.0, seed, rank)
        lit = solve(pixels, endmembers, noise).variation.scales * abundances
        move = torch.linalg.lstsq(lit, pixels.double()).solution - endmembers
        pooled = endmembers + mostly_outside(move, endmembers.double(), 3)
        average = averaged(pixels, endmembers, noise, abundances)
        off.append([spectral_angle(one.double(), endmembers.double()).mean() for one in (average, pooled)])
    average, pooled = torch.tensor(off).mean(0)
    assert average < most * pooled


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_wrong_endmembers_come_nearer_to_what_they_are_on_average(seed):
    """All of the way outside of their span."""
    pixels, endmembers, abundances, noise = scene("variable", 40.0, seed)
    wrong = endmembers.clone()
    wrong[0] *= 1 + 0.1 * torch.linspace(-1, 1, 120).square()
    found = averaged(pixels, wrong, noise, abundances)
    before, after = (variability._without((endmembers - one)[:1], wrong).norm() for one in (wrong, found))
    assert after < 0.6 * before


def test_endmembers_that_do_not_vary_are_averaged_as_least_squares_has_them():
    pixels, endmembers, abundances, noise = scene("linear", 30.0)
    wrong = endmembers * (1 + 0.05 * torch.linspace(-1, 1, 120))
    variation = variability.Variation(0.0, torch.ones_like(abundances))
    found = mean_endmembers(pixels, abundances, noise, wrong, torch.tensor(1e3), ALL, variation)
    move = (torch.linalg.lstsq(abundances, pixels).solution - wrong).double()
    expected = wrong + mostly_outside(move, wrong.double(), 3)
    assert (found - expected).norm() < 0.2 * mostly_outside(move, wrong.double(), 3).norm(), (
        "windows end at the border"
    )


def test_order_of_the_endmembers_does_not_matter_to_their_average():
    pixels, endmembers, abundances, noise = scene("variable")
    order = [2, 0, 3, 1]
    turned = averaged(pixels, endmembers[order], noise, abundances[:, order])
    expected = averaged(pixels, endmembers, noise, abundances)[order]
    torch.testing.assert_close(turned, expected, atol=1e-4, rtol=1e-3)


def test_known_endmembers_are_not_averaged():
    pixels, endmembers, abundances, noise = scene("variable")
    std = torch.tensor([0.05, 0.0, 0.05, 0.05])[:, None]
    held = averaged(pixels, endmembers, noise, abundances, std=std)
    assert torch.equal(held[1], endmembers[1]) and not torch.equal(held[0], endmembers[0])


def test_masked_pixels_play_no_role_in_the_average():
    pixels, endmembers, abundances, noise = scene("variable")
    valid = ALL.clone()
    valid[:, 40:] = False
    kept = valid.flatten()
    part, padded = (
        averaged(pixels[kept], endmembers, noise, abundances[kept], where) for where in (valid, valid[:, :40])
    )
    assert spectral_angle(part, padded).max() < 0.1 * spectral_angle(part, endmembers).max()


@pytest.mark.parametrize("count", [1, 3])
def test_a_handful_of_pixels_moves_the_average_within_the_prior(count):
    pixels, endmembers, abundances, noise = scene("variable")
    found = averaged(pixels[:count], endmembers, noise, abundances[:count], torch.ones(1, count, dtype=torch.bool))
    assert (found - endmembers).abs().max() < 0.05


@pytest.mark.parametrize(("kind", "most"), [("white", 1.2), ("uneven", 1.2), ("half", 1.25), ("sparse", 1.7)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_how_large_the_changes_are_that_are_left_is_known(seed, kind, most):
    """Outside of the span of the endmembers; the noise to which shared changes were fitted counts, in holes, too."""
    clean, endmembers, _, _ = scene("variable", None, seed)
    valid = ALL.clone()
    if kind == "half":
        valid[:, 30:] = False
    if kind == "sparse":
        valid = torch.rand(64, 64, generator=torch.Generator().manual_seed(3)) < 0.3
    noise = torch.full((120,), 0.0316 * float(clean.square().mean().sqrt())).double()
    if kind == "uneven":
        noise = noise * torch.where(torch.arange(120) % 5 == 0, 3.0, 1.0)
    spectra, variance, clean = endmembers.double(), noise.square(), clean[valid.flatten()].double()
    pixels = clean + noise * torch.randn(len(clean), 120, generator=torch.Generator().manual_seed(1)).double()
    shape, change = variability._shape_covariance(pixels, spectra, variance)
    _, _, amounts = variability._generalised(pixels, spectra, shape, variance)
    shared, _, fitted = variability._shared_changes(pixels, spectra, variance, shape, change, amounts, valid)

    def size(fitted_noise):
        found, _ = variability._shape_covariance(pixels - shared, spectra, variance, fitted_noise)
        return float(variability._without(variability._without(found, spectra).T, spectra).trace())

    left = float(variability._without(clean - shared, spectra).square().sum(1).mean())
    assert 0.9 * left < size(fitted) < most * left and size(0.0) < 0.8 * size(fitted)


@pytest.mark.parametrize("shape", [(64, 64), (63, 65), (62, 40), (2, 5), (1, 1)])
def test_what_is_known_at_places_is_interpolated_between_them(shape):
    """Places are every third pixel; what is linear between them comes back as it was."""
    rows, columns = (torch.arange(length, dtype=torch.float64) for length in shape)
    below, right = variability._margins(*shape)
    assert (shape[0] + below - 1) % 3 == 0 == (shape[1] + right - 1) % 3 and below < 3 > right
    maps = torch.stack([rows[:, None] // 3 * 3 + 0 * columns, 2 - columns // 3 * 3 + 0 * rows[:, None]])
    everywhere = torch.ones(shape, dtype=torch.bool)
    found = variability._between_places(variability._at_places(maps), everywhere).T.unflatten(1, shape)
    places = maps[:, ::3, ::3]
    torch.testing.assert_close(found[:, ::3, ::3], places)
    if min(shape) > 10:
        middle = (places[:, :-1, :-1] + 2 * places[:, 1:, :-1]) / 3  # two thirds of the way to the next row of places
        last = [size - 1 for size in middle.shape[1:]]
        torch.testing.assert_close(found[:, 2::3, ::3][:, : last[0], : last[1]], middle[:, : last[0], : last[1]])


@pytest.mark.parametrize("factor", [1.0, 0.9])
def test_twins_do_no_harm(factor):
    """Nobody knows how much of each there is, but their sum is as well known as before."""
    pixels, endmembers, abundances, noise = scene("variable", seed=2)

    def read(spectra):
        found = solve(pixels, spectra, noise)
        known = gather_evidence(found.pixels, spectra, found.error * noise, 1.0, 400.0, reading=found.reading)
        assert known.unbounded.abs().max() < 5
        return known.scaled_abundances

    alone, twins = read(endmembers), read(torch.cat([endmembers, factor * endmembers[:1]]))
    together = torch.cat([twins[:, :1] + factor * twins[:, 4:], twins[:, 1:4]], 1)
    before, after = (float((one - abundances).square().mean().sqrt()) for one in (alone, together))
    assert after < 1.2 * before


def test_brightness_is_held_loosely_only_where_scales_were_fitted_to_it():
    widths = {}
    for mixing in ("variable", "linear"):
        pixels, endmembers, _, noise = scene(mixing)
        reading = solve(pixels, endmembers, noise).reading
        widths[mixing] = reading.width
        loose, tight = (
            gather_evidence(pixels, endmembers, noise, 1.0, 1e8, reading=one)
            for one in (reading, reading._replace(width=0.0))
        )
        freedom = (loose.brightness - 1).std() / (tight.brightness - 1).std().clamp_min(1e-9)
        assert freedom > 10 if mixing == "variable" else freedom >= 1
    assert widths["variable"] > 0.03 > 0.005 > widths["linear"]


@pytest.mark.parametrize(("rank", "seed"), [(2, 10), (2, 23), (3, 23)])
def test_what_variation_leaves_is_no_brightness_that_varies(rank, seed):
    """But what uneven light leaves is; also in scenes where some variation is left if pixels stand alone."""
    pixels, endmembers, _, noise = scene("variable", 20.0, seed, rank)
    light = torch.exp(0.2 * torch.randn(len(pixels), 1, generator=torch.Generator().manual_seed(1)))
    for cube, model, mode in ((light * pixels, "linear", "free"), (pixels, "variable", "fixed")):
        assert choose_mixing_model(cube, endmembers, noise, ALL, known=True) == model
        part = solve(cube, endmembers, noise)
        assert brightness_of_linear_part(part, endmembers, noise, exact=True).mode == mode
    assert brightness_of_linear_part(part, endmembers, noise, "free", exact=True).mode == "free", "the user's word"


def test_evidence_is_the_same_if_the_errors_that_a_reading_tells_of_are_those_of_the_noise():
    pixels, endmembers, _, noise = scene("linear", snr_db=20.0)
    noise = 1.2 * noise  # no model error is seen
    spectra = endmembers.double()
    weights = spectra / noise.double().square()
    coefficients = torch.linalg.solve(weights @ spectra.T, (pixels.double() @ weights.T).T).T
    shared = {"brightness_precision": 1e3, "endmember_std": 0.01 * endmembers}
    plain = gather_evidence(pixels, endmembers, noise, **shared)
    read = gather_evidence(pixels, endmembers, noise, reading=Reading(coefficients, weights), **shared)
    for name in ("scaled_abundances", "unbounded", "std", "brightness", "misfit"):
        torch.testing.assert_close(getattr(read, name), getattr(plain, name), rtol=1e-4, atol=1e-5)


def test_order_of_the_endmembers_does_not_matter():
    pixels, endmembers, _, noise = scene("variable")
    first, second = solve(pixels, endmembers, noise), solve(pixels, endmembers[[2, 0, 3, 1]], noise)
    torch.testing.assert_close(first.pixels, second.pixels, atol=1e-5, rtol=1e-4)
    assert first.error == pytest.approx(second.error, rel=1e-3)
    torch.testing.assert_close(
        first.reading.coefficients[:, [2, 0, 3, 1]], second.reading.coefficients, atol=1e-4, rtol=1e-3
    )


def test_masked_pixels_play_no_role():
    pixels, endmembers, abundances, noise = scene("variable")
    valid = ALL.clone()
    valid[:, 40:] = False
    kept = valid.flatten()
    found = solve(pixels[kept], endmembers, noise, valid)
    far = torch.zeros_like(ALL)
    far[:, :24] = True  # further from the mask than the windows reach: only what all pixels share differs
    whole = solve(pixels, endmembers, noise).pixels
    torch.testing.assert_close(found.pixels[far[valid]], whole[far.flatten()], atol=0.02, rtol=0.05)
    assert rmse(found.pixels, endmembers, abundances[kept]) < 0.75 * rmse(pixels[kept], endmembers, abundances[kept])


@pytest.mark.parametrize("count", [1, 3])
def test_a_handful_of_pixels(count):
    pixels, endmembers, _, noise = scene("variable")
    found = solve(pixels[:count], endmembers, noise, torch.ones(1, count, dtype=torch.bool))
    assert found.pixels.shape == (count, 120) and torch.isfinite(found.pixels).all()


@pytest.mark.parametrize("snr_db", [40.0, 20.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_endmembers_that_vary_are_noticed(snr_db, seed):
    pixels, endmembers, _, noise = scene("variable", snr_db, seed)
    assert choose_mixing_model(pixels, endmembers, noise, ALL) == "variable"


def test_whether_endmembers_vary_is_told_in_the_scale_that_they_have_in_the_scene_too(monkeypatch):
    """Nominal spectra, as those that are given, may be brighter or darker than all that the scene shows of them."""
    seen, constant_part, level = [], nonlinear.constant_part, nonlinear.brightness_level
    pixels, endmembers, _, noise = scene("variable")
    monkeypatch.setattr(nonlinear, "constant_part", lambda *a: seen.append(a[1]) or constant_part(*a))
    known = [choose_mixing_model(pixels, endmembers, noise, ALL), len(seen)]
    assert known == ["variable", 1]
    hidden = [float("inf")] * 3
    monkeypatch.setattr(nonlinear, "brightness_level", lambda *a: hidden if len(seen) % 2 else level(*a))
    seen.clear()
    for own_scale in ([[1.0], [1.0], [1.0], [1.0]], [[0.6], [1.6], [1.3], [0.7]]):
        assert choose_mixing_model(pixels, endmembers * torch.tensor(own_scale), noise, ALL) == "variable"
    torch.testing.assert_close(seen[1], seen[3], rtol=1e-2, atol=0)
    assert len(seen) == 4 and not torch.allclose(seen[2], seen[3], rtol=0.1)


def lights():
    """Constant, smooth and rough illumination (N, 1)."""
    x, y = torch.meshgrid(torch.linspace(0, 6, 64), torch.linspace(0, 6, 64), indexing="ij")
    smooth = (1 + 0.3 * x.sin() * y.cos()).reshape(-1, 1)
    rough = torch.exp(0.2 * torch.randn(64 * 64, 1, generator=torch.Generator().manual_seed(1)))
    return {"constant": torch.ones_like(smooth), "smooth": smooth, "rough": rough}


@pytest.mark.parametrize("light", ["constant", "smooth", "rough"])
@pytest.mark.parametrize("mixing", ["linear", "bilinear"])
@pytest.mark.parametrize("noise", [0.002, 0.02])
def test_other_scenes_do_not_vary(light, mixing, noise):
    """Whether light was scattered is told under constant light, mostly in the scale in which abundances sum to one."""
    clean, endmembers, _, _ = scene(mixing, snr_db=None)
    pixels = clean * lights()[light] + noise * torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    std = torch.full_like(endmembers[0], noise)
    own_scale = torch.tensor([[0.3], [1.0], [2.0], [1.5]])
    scattered = mixing == "bilinear" and light == "constant"
    assert choose_mixing_model(pixels, endmembers, std, ALL) == ("bilinear" if scattered else "linear")
    hidden = noise < 0.01  # what a wrong scale bends is more than that
    other = "bilinear" if scattered and not hidden else "linear"
    assert choose_mixing_model(pixels, endmembers * own_scale, std, ALL) == other
