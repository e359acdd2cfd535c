"""The closed-form steps, held against scipy, float64 and their own optimality conditions."""

import numpy as np
import pytest
import scipy.optimize
import torch

from hsunmix.physics import (
    abundance_std,
    abundance_step,
    anchor_brightness,
    endmember_step,
    explained_share,
    fcls,
    final_endmember_step,
    nnls,
    normal_equations,
    robust_endmember_step,
    solve_nonnegative,
    spectral_angle,
)


def problem(num_pixels=200, rank=5, bands=60, noise=0.05, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    endmembers = torch.rand(rank, bands, generator=g, dtype=dtype)
    weights = torch.rand(num_pixels, rank, generator=g, dtype=dtype)
    weights = weights * (torch.rand(num_pixels, rank, generator=g) > 0.5)
    pixels = weights @ endmembers + noise * torch.randn(num_pixels, bands, generator=g, dtype=dtype)
    return pixels, endmembers


@pytest.mark.parametrize("rank", [2, 3, 7, 12])
def test_nnls_is_scipys(rank):
    pixels, endmembers = problem(rank=rank)
    expected = np.stack([scipy.optimize.nnls(endmembers.numpy().T, y)[0] for y in pixels.numpy()])
    np.testing.assert_allclose(nnls(pixels, endmembers).numpy(), expected, atol=1e-9)


def test_nnls_with_noise_weights_is_scipys():
    pixels, endmembers = problem()
    std = torch.linspace(0.01, 0.2, pixels.shape[1], dtype=torch.float64)
    expected = np.stack([scipy.optimize.nnls((endmembers / std).numpy().T, y)[0] for y in (pixels / std).numpy()])
    np.testing.assert_allclose(nnls(pixels, endmembers, std).numpy(), expected, atol=1e-9)


def test_nnls_in_float32_keeps_its_digits_with_nearly_collinear_endmembers():
    pixels, endmembers = problem(rank=3, noise=0.01)
    endmembers[1] = endmembers[0] + 0.02 * endmembers[1]  # about one degree apart
    exact = nnls(pixels, endmembers)
    single = nnls(pixels.float(), endmembers.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, atol=2e-3, rtol=0)


def test_nnls_survives_duplicate_and_zero_endmembers():
    pixels, endmembers = problem(rank=4)
    endmembers[2] = endmembers[1]
    endmembers[3] = 0
    b = nnls(pixels, endmembers)
    assert torch.isfinite(b).all() and (b >= 0).all()
    best = nnls(pixels, endmembers[:2])
    fit = (pixels - b @ endmembers).square().sum(1)
    torch.testing.assert_close(fit, (pixels - best @ endmembers[:2]).square().sum(1), atol=1e-6, rtol=1e-6)


def test_solution_satisfies_the_optimality_conditions():
    gram, rhs = normal_equations(*problem(num_pixels=1000, rank=10, noise=0.5))
    x = solve_nonnegative(gram, rhs)
    gradient = x @ gram - rhs
    scale = rhs.abs().max()
    assert (x >= 0).all()
    assert (gradient > -1e-8 * scale).all()
    assert (gradient * x).abs().max() < 1e-7 * scale


def test_scenes_of_a_batch_are_solved_in_one_go():
    scenes = [normal_equations(*problem(rank=6, noise=0.5, seed=seed)) for seed in range(3)]
    gram, rhs = (torch.stack(parts) for parts in zip(*scenes, strict=True))
    together = torch.vmap(solve_nonnegative)(gram, rhs)
    torch.testing.assert_close(together, torch.stack([solve_nonnegative(*scene) for scene in scenes]))
    shared = torch.vmap(solve_nonnegative, in_dims=(None, 0))(gram[0], rhs)
    torch.testing.assert_close(shared[1], solve_nonnegative(gram[0], rhs[1]))


def test_more_endmembers_than_bands_are_refused():
    with pytest.raises(ValueError, match="12 spectra, more than the 8 bands"):
        nnls(*problem(rank=12, bands=8))


def test_fcls_is_on_the_simplex_and_optimal():
    pixels, endmembers = problem(rank=4)
    a = fcls(pixels, endmembers)
    torch.testing.assert_close(a.sum(1), torch.ones(len(a), dtype=a.dtype))
    assert (a >= 0).all()
    for y, found in zip(pixels[:20].numpy(), a[:20].numpy(), strict=True):

        def misfit(x, y=y):
            return np.sum((y - x @ endmembers.numpy()) ** 2)

        unit_sum = {"type": "eq", "fun": lambda x: x.sum() - 1}
        other = scipy.optimize.minimize(misfit, np.full(4, 0.25), bounds=[(0, 1)] * 4, constraints=unit_sum, tol=1e-12)
        assert misfit(found) <= misfit(other.x) + 1e-6
        np.testing.assert_allclose(found, other.x, atol=2e-3)


def test_brightness_anchor_interpolates_between_free_and_fixed():
    pixels, endmembers = problem(rank=3)
    gram, rhs = normal_equations(pixels, endmembers)
    sums = [solve_nonnegative(*anchor_brightness(gram, rhs, 1.0, p)).sum(1) for p in (0.0, 10.0, 1e9)]
    torch.testing.assert_close(sums[0], nnls(pixels, endmembers).sum(1))
    torch.testing.assert_close(sums[2], torch.ones_like(sums[2]), atol=1e-5, rtol=0)
    distance = [(s - 1).abs().mean() for s in sums]
    assert distance[0] > distance[1] > distance[2]


def test_abundance_step_without_trust_in_the_prior_is_nnls_and_with_full_trust_the_prior():
    pixels, endmembers = problem()
    gram, rhs = normal_equations(pixels, endmembers)
    prior = torch.rand(*rhs.shape, dtype=torch.float64)
    loose = abundance_step(gram, rhs, prior, torch.full_like(prior, 1e-9))
    torch.testing.assert_close(loose, nnls(pixels, endmembers), atol=1e-6, rtol=0)
    tight = abundance_step(gram, rhs, prior, torch.full_like(prior, 1e9))
    torch.testing.assert_close(tight, prior, atol=1e-5, rtol=0)


def test_abundance_step_solves_its_problem_per_pixel():
    pixels, endmembers = problem(num_pixels=30)
    gram, rhs = normal_equations(pixels, endmembers, 0.1)
    g = torch.Generator().manual_seed(1)
    prior = torch.rand(*rhs.shape, generator=g, dtype=torch.float64)
    precision = 100 * torch.rand(*rhs.shape, generator=g, dtype=torch.float64)
    found = abundance_step(gram, rhs, prior, precision)
    for n in range(len(pixels)):
        expected = solve_nonnegative(gram + torch.diag(precision[n]), (rhs[n] + precision[n] * prior[n])[None])[0]
        torch.testing.assert_close(found[n], expected, atol=1e-5, rtol=0)


def test_abundance_std_matches_the_spread_of_unconstrained_solutions():
    g = torch.Generator().manual_seed(0)
    endmembers = torch.rand(3, 40, generator=g, dtype=torch.float64)
    noise = 0.05 * torch.randn(20_000, 40, generator=g, dtype=torch.float64)
    gram, rhs = normal_equations(torch.full((1, 3), 5.0, dtype=torch.float64) @ endmembers + noise, endmembers, 0.05)
    spread = torch.linalg.solve(gram, rhs.T).std(1)
    torch.testing.assert_close(abundance_std(gram), spread, rtol=0.03, atol=0)


def test_endmember_step_recovers_the_truth_from_true_abundances_and_keeps_fixed_ones():
    pixels, endmembers = problem(num_pixels=2000, noise=0.01)
    b = nnls(pixels, endmembers)
    start = endmembers * 1.2
    std = torch.full((5, 1), 0.3, dtype=torch.float64)
    std[2] = 0
    noise = torch.full((pixels.shape[1],), 0.01, dtype=torch.float64)
    moved, deviation = endmember_step(pixels, b, noise, start, std)
    assert torch.equal(moved[2], start[2])
    assert (deviation[2] == 0).all()
    free = [0, 1, 3, 4]
    rest = pixels - b[:, 2:3] * start[2]
    expected = torch.linalg.lstsq(b[:, free], rest).solution
    torch.testing.assert_close(moved[free], expected.clamp_min(0), atol=1e-3, rtol=0)


def test_endmember_step_equals_its_ridge_problem():
    pixels, endmembers = problem(num_pixels=50, rank=3, bands=7)
    b = nnls(pixels, endmembers)
    noise = torch.linspace(0.05, 0.3, 7, dtype=torch.float64)
    std = 0.01 + 0.1 * torch.rand(3, 7, dtype=torch.float64)
    found, deviation = endmember_step(pixels, b, noise, endmembers, std)
    for band in range(7):
        system = b.T @ b / noise[band] ** 2 + torch.diag(std[:, band] ** -2)
        target = b.T @ pixels[:, band] / noise[band] ** 2 + endmembers[:, band] / std[:, band] ** 2
        torch.testing.assert_close(found[:, band], torch.linalg.solve(system, target).clamp_min(0))
        torch.testing.assert_close(deviation[:, band], torch.linalg.inv(system).diagonal().sqrt())


def foreign_scene(noise, seed=0):
    """Pixels in sun and shade, an eighth of them of another material, and endmembers that are slightly off."""
    g = torch.Generator().manual_seed(seed)
    truth = 0.2 + 0.6 * torch.rand(3, 60, generator=g, dtype=torch.float64)
    abundances = torch.distributions.Dirichlet(torch.ones(3, dtype=torch.float64)).sample((800,))
    foreign = torch.rand(60, generator=g, dtype=torch.float64)
    spectra = abundances @ truth
    spectra[:100] = 0.5 * (spectra[:100] + foreign)
    brightness = torch.linspace(0.1, 1.5, 800, dtype=torch.float64)[torch.randperm(800, generator=g)]
    pixels = brightness[:, None] * spectra + noise * torch.randn(800, 60, generator=g, dtype=torch.float64)
    start = truth * (1 + 0.1 * torch.randn(3, 60, generator=g, dtype=torch.float64))
    noise_std = torch.full((60,), noise, dtype=torch.float64)
    return pixels, nnls(pixels, start), noise_std, start, torch.full_like(start, 0.05), truth


def test_robust_endmember_step_follows_most_pixels_where_least_squares_follow_the_others():
    torch.manual_seed(0)
    *scene, truth = foreign_scene(noise=1e-4)
    start, robust, plain = scene[3], robust_endmember_step(*scene), endmember_step(*scene)[0]
    off, robust_off, plain_off = (spectral_angle(one, truth).mean() for one in (start, robust, plain))
    assert robust_off < 0.5 * off and robust_off < 0.75 * plain_off


def test_robust_endmember_step_is_the_same_in_every_unit_and_keeps_fixed_endmembers():
    torch.manual_seed(0)
    pixels, b, noise_std, start, std, _ = foreign_scene(noise=1e-3)
    moved = robust_endmember_step(pixels, b, noise_std, start, std)
    scaled = robust_endmember_step(50 * pixels, b, 50 * noise_std, 50 * start, 50 * std)
    torch.testing.assert_close(scaled, 50 * moved)
    order = torch.randperm(len(pixels))
    torch.testing.assert_close(robust_endmember_step(pixels[order], b[order], noise_std, start, std), moved)
    std[1] = 0
    kept = robust_endmember_step(pixels, b, noise_std, start, std)
    assert torch.equal(kept[1], start[1]) and (kept[[0, 2]] - start[[0, 2]]).abs().amax(1).min() > 0.01


def test_robust_endmember_step_counts_pixels_in_shade_as_those_in_the_sun():
    torch.manual_seed(0)
    pixels, b, noise_std, start, std, _ = foreign_scene(noise=1e-7)
    moved = robust_endmember_step(pixels, b, noise_std, start, std)
    size = (moved - start).norm()
    shade = torch.rand(len(pixels), 1, dtype=torch.float64) * 0.9 + 0.1
    shaded = robust_endmember_step(shade * pixels, shade * b, noise_std, start, std)
    assert (shaded - moved).norm() < 0.05 * size
    shade[:40] = 1e-3
    shade[40:] = 1.0
    night = robust_endmember_step(shade * pixels, shade * b, noise_std, start, std)
    assert (night - moved).norm() < 0.2 * size


def test_robust_endmember_step_goes_three_quarters_of_the_way_and_less_with_noise():
    torch.manual_seed(0)
    pixels, b, noise_std, start, std, _ = foreign_scene(noise=1e-7)
    mixed = b @ (start + 0.1)  # half of the pixels say that all reflectances are larger, the others the opposite
    mixed[::2] -= 0.2 * b[::2].sum(1, keepdim=True) + 0.01
    lengths = []
    for share in (0.0, 0.2, 0.5):
        noise = noise_std + (share * (mixed - b @ start).square().mean()).sqrt()
        lengths.append(float((robust_endmember_step(mixed, b, noise, start, 10 * std) - start).norm()))
    assert lengths[0] == pytest.approx(0.75 * 0.1 * start.numel() ** 0.5, rel=0.02)
    assert 0.1 < lengths[1] / lengths[0] < 0.3 and lengths[2] < 0.1 * lengths[0]


def test_robust_endmember_step_stays_where_noise_is_all_that_endmembers_leave():
    torch.manual_seed(0)
    pixels, b, noise_std, start, std, truth = foreign_scene(noise=0.3)
    assert (robust_endmember_step(pixels, b, noise_std, start, std) - start).abs().max() < 1e-3
    dark = torch.zeros_like(pixels)
    assert torch.equal(robust_endmember_step(dark, torch.zeros_like(b), noise_std, start, std), start)


def placed_scene(rank, noise=0.03, seed=0):
    """Noisy pixels, and endmembers that are off in all directions but hardly within their span."""
    g = torch.Generator().manual_seed(seed)
    truth = 0.2 + 0.6 * torch.rand(rank, 60, generator=g, dtype=torch.float64)
    torch.manual_seed(seed)
    abundances = torch.distributions.Dirichlet(torch.full((rank,), 0.5, dtype=torch.float64)).sample((1500,))
    pixels = abundances @ truth + noise * torch.randn(1500, 60, generator=g, dtype=torch.float64)
    start = truth + 0.01 * torch.randn(rank, 60, generator=g, dtype=torch.float64)
    return pixels, nnls(pixels, start), torch.full((60,), noise, dtype=torch.float64), start, truth


def parts(move, start):
    """What of a move lies within the span of the start, and outside of it."""
    basis = torch.linalg.qr(start.T)[0]
    within = move @ basis @ basis.T
    return within, move - within


@pytest.mark.parametrize("rank", [1, 2, 4, 8])
def test_final_endmember_step_follows_the_pixels_outside_of_the_span_and_within_it_the_more_endmembers_there_are(rank):
    *scene, start, truth = placed_scene(rank)
    std = torch.tensor(0.01)
    moved, plain = final_endmember_step(*scene, start, std, 1.0), endmember_step(*scene, start, std)[0]
    within, outside = parts(moved - start, start)
    plain_within, plain_outside = parts(plain - start, start)
    torch.testing.assert_close(within, max(rank - 2, 0) / rank * plain_within)
    torch.testing.assert_close(outside, plain_outside)
    assert plain_within.norm() > 1e-3 or rank == 1  # of which least squares leave nothing within the span
    assert parts(moved - truth, start)[1].norm() < 0.6 * parts(start - truth, start)[1].norm()


def test_final_endmember_step_shortens_with_model_errors_and_keeps_fixed_endmembers():
    *scene, start, _ = placed_scene(rank=4)
    pixels, b, noise_std = scene
    start[1, :5] = -0.01
    std = torch.full_like(start, 0.01)
    std[1] = 0
    whole, half, none = (final_endmember_step(*scene, start, std, share) - start for share in (1.0, 0.5, 0.0))
    assert torch.equal(whole[1], torch.zeros(60, dtype=start.dtype)) and whole[[0, 2, 3]].norm(dim=1).min() > 0.01
    torch.testing.assert_close(half, whole / 16)
    assert not none.any()
    scaled = final_endmember_step(50 * pixels, b, 50 * noise_std, 50 * start, 50 * std, 1.0)
    torch.testing.assert_close(scaled, 50 * (start + whole))
    start[[0, 2, 3], :5] = 0.0  # pixels that are brighter or darker there
    assert final_endmember_step(pixels - 0.5, b, noise_std, start, std, 1.0)[[0, 2, 3]].min() == 0


@pytest.mark.parametrize("noise", [1e-4, 0.03, 0.3])
def test_explained_share_tells_wrong_endmembers_from_a_wrong_model_under_noise(noise):
    """Also where the noise has more energy than what is wrong."""
    pixels, _, noise_std, start, truth = placed_scene(rank=3, noise=noise)
    foreign = torch.rand(60, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.5
    places = (torch.arange(len(pixels)) % 5 == 0).double()[:, None]
    wrong = truth + (start - truth) * max(10 * noise, 1.0)
    spoiled = pixels + max(5 * noise, 0.1) * places * foreign
    shares = []
    for scene in (pixels, spoiled):
        b = nnls(scene, wrong)
        moved, _ = endmember_step(scene, b, noise_std, wrong, torch.tensor(0.2))
        shares.append(explained_share(scene - b @ wrong, scene - b @ moved, noise_std))
    assert shares[0] > 0.9 and shares[1] < 0.6


def test_explained_share_of_noise_alone_is_one():
    noise = torch.randn(300, 60, generator=torch.Generator().manual_seed(0))
    assert explained_share(2 * noise, noise, torch.full((60,), 2.0)) == 1
    for pixels in (noise, noise[:20]):  # more bands than pixels, too
        assert explained_share(pixels, pixels + 1, torch.ones(60)) == 1
        assert explained_share(pixels + 1, pixels, torch.ones(60)) == 1
        assert explained_share(pixels + 1, pixels + 1, torch.ones(60)) == 0
        assert explained_share(pixels + 1, pixels + 2, torch.ones(60)) == 0


def test_wrong_number_of_bands_is_refused():
    pixels, endmembers = problem()
    with pytest.raises(ValueError, match="`endmembers` have 59 bands"):
        nnls(pixels, endmembers[:, 1:])
