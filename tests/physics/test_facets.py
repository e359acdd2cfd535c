"""Endmembers moved to the facets of the pixels."""

import pytest
import torch

from hsunmix.physics import (
    Alternatives,
    facet_step,
    facets,
    fraction_variance,
    gather_evidence,
    relative_turn,
    spectral_angle,
    unit_rows,
)
from hsunmix.physics.facets import _fit_densities, _fraction_precision, _log_densities, _turned_by

NUM_BANDS, NOISE = 60, 0.002
OFF = 0.05


def scene(rank=4, num_pixels=3000, seed=0, brightness=1.0, noise=NOISE):
    """Pixels whose materials are often absent, their endmembers, and others in the same span that are a little off."""
    g = torch.Generator().manual_seed(seed)
    truth = 0.1 + 0.7 * torch.rand(rank, NUM_BANDS, generator=g)
    amounts = torch.rand(num_pixels, rank, generator=g).log().neg() + 0.01
    absent = torch.rand(num_pixels, rank, generator=g) < 0.4
    amounts = torch.where(absent & ~absent.all(1, keepdim=True), 0.0, amounts)
    abundances = amounts / amounts.sum(1, keepdim=True)
    mixing = torch.eye(rank) + OFF * torch.randn(rank, rank, generator=g)
    start = mixing / mixing.sum(1, keepdim=True) @ truth
    pixels = torch.as_tensor(brightness) * (abundances @ truth)
    return pixels + noise * torch.randn(pixels.shape, generator=g), start, truth


def alternatives(start, width=OFF):
    """Sixteen other sets in the span of the start, whose fractions differ by `width`; none for those of no width."""
    rank = len(start)
    width = torch.as_tensor(width).expand(rank)[:, None]
    mixing = torch.eye(rank) + width * torch.randn(16, rank, rank, generator=torch.Generator().manual_seed(2))
    spectra = mixing / mixing.sum(2, keepdim=True) @ start
    return Alternatives(spectra, (width[:, 0] > 0).double().expand(16, -1) / 16)


def moved(pixels, start, width=2 * OFF, noise=NOISE, noise_share=1.0, corrected=False, alike=False):
    evidence = gather_evidence(pixels, start, torch.full((NUM_BANDS,), noise))
    return facet_step(evidence, start, alternatives(start, width), noise_share, corrected, alike=alike)


def off(endmembers, truth):
    return float(spectral_angle(endmembers, truth).mean())


@pytest.mark.parametrize("rank", [2, 3, 5, 8])
@pytest.mark.parametrize("brightness", ["constant", "varying"])
def test_endmembers_move_to_the_facets(rank, brightness):
    shade = torch.linspace(0.2, 1.5, 3000)[:, None] if brightness == "varying" else 1.0
    pixels, start, truth = scene(rank, brightness=shade)
    assert off(moved(pixels, start), truth) < 0.4 * off(start, truth)


def test_right_endmembers_stay():
    pixels, start, truth = scene()
    assert off(moved(pixels, truth), truth) < 0.05 * off(start, truth)


@pytest.mark.parametrize("rank", [3, 4])
def test_right_endmembers_stay_where_materials_are_never_quite_absent(rank):
    _, start, truth = scene(rank)
    g = torch.Generator().manual_seed(3)
    abundances = torch.softmax(4 * torch.randn(3000, rank, generator=g), 1)
    pixels = abundances @ truth + NOISE * torch.randn(3000, NUM_BANDS, generator=g)
    assert off(moved(pixels, truth), truth) < 0.0125 * off(start, truth)


def test_a_few_far_alternatives_loosen_an_endmember_less_than_their_mean_square():
    """As others that differ as much in the root mean square, but all alike."""
    _, start, _ = scene()
    near, far = alternatives(start, 0.01), alternatives(start, 0.3)
    both = Alternatives(torch.cat([near.spectra, far.spectra]), torch.cat([0.98 * near.weights, 0.02 * far.weights]))

    def mean_square(sets):
        return (sets.weights * (sets.spectra - start).square().sum(2)).sum(0)

    factor = (mean_square(both) / mean_square(near)).sqrt()[:, None]
    even = Alternatives(start + factor * (near.spectra - start), near.weights)
    tight, loose, looser = (_fraction_precision(start.double(), one).logdet() for one in (near, both, even))
    assert (tight - loose < 0.87 * (tight - looser)).all()  # .9 and more if only the mean square counted
    tailed = _fraction_precision(start.double(), both, heavy_tails=True).logdet()
    assert (tight - tailed < 0.87 * (tight - loose)).all()


def test_they_move_less_where_they_are_sure_or_the_facets_blurred():
    pixels, start, _ = scene()

    def distance(*args, **kwargs):
        return float((moved(*args, **kwargs) - start).norm())

    far = distance(pixels, start)
    assert distance(pixels, start, width=0.001) < 0.1 * far
    assert distance(pixels, start, width=0.01, alike=True) < 0.95 * distance(pixels, start, width=0.01)
    sure = [distance(pixels, start, 0.005, corrected=True, alike=alike) for alike in (True, False)]
    assert sure[0] < 0.95 * sure[1] < 0.95**2 * distance(pixels, start, 0.005)
    noisy, _, _ = scene(noise=100 * NOISE)
    blurred = distance(noisy, start, noise=100 * NOISE)
    assert distance(noisy, start, noise=100 * NOISE, noise_share=0.1) < 0.9 * blurred < 0.6 * far


@pytest.mark.parametrize("rank", [2, 4])
def test_corrected_endmembers_move_far_where_facets_are(rank):
    pixels, start, truth = scene(rank)
    assert off(moved(pixels, start, corrected=True), truth) < 0.4 * off(start, truth)


def test_two_corrected_endmembers_move_less_where_no_facets_are():
    _, _, truth = scene(2)
    g = torch.Generator().manual_seed(3)
    inner = 0.25 / 2 + 0.75 * torch.softmax(torch.randn(3000, 2, generator=g), 1)
    pixels = inner @ truth + NOISE * torch.randn(3000, NUM_BANDS, generator=g)
    misled = off(moved(pixels, truth), truth)
    assert off(moved(pixels, truth, corrected=True), truth) < 0.6 * misled


def test_an_endmember_that_is_sure_stays_while_others_move():
    pixels, start, truth = scene()
    start[0] = truth[0]
    found = moved(pixels, start, torch.tensor([0.0, 2 * OFF, 2 * OFF, 2 * OFF]))
    assert (found[0] - start[0]).norm() < 0.02 * (found[1:] - start[1:]).norm()
    assert off(found[1:], truth[1:]) < 0.4 * off(start[1:], truth[1:])


def test_endmembers_turn_no_further_than_alternatives_say(monkeypatch):
    pixels, start, _ = scene()
    monkeypatch.setattr(facets, "_FAR", 100.0)
    whole = moved(pixels, start, 0.02)
    spectra = unit_rows(alternatives(start, 0.02).spectra)
    differ = spectral_angle(spectra, spectra.mean(0)).square().mean(0).sqrt()
    for far, near in ((0.9, 0.0), (0.3, 0.01)):
        monkeypatch.setattr(facets, "_FAR", far)
        monkeypatch.setattr(facets, "_NEAR", near)
        found = moved(pixels, start, 0.02)
        less = spectral_angle(whole, start) > far * differ + near
        assert less.any() and torch.equal(found[~less], whole[~less])
        torch.testing.assert_close(spectral_angle(found, start)[less], (far * differ + near)[less], rtol=0.05, atol=0)
        assert (spectral_angle(found, start) < 1.0001 * (far * differ + near)).all()


@pytest.mark.parametrize("size", [0.3, 1.0, 5.0])
def test_dark_endmembers_turn_no_further_than_they_may(size):
    """Those that get brighter would turn most at the start of the way, those that get darker at its end."""
    start, other = torch.tensor([[0.1, 0.0]]).double(), torch.tensor([[0.06, 0.08]]).double() * size
    turn = float(spectral_angle(start, other))
    found = _turned_by(start, other, torch.tensor([0.2 * turn]).double())
    assert torch.equal(_turned_by(start, other, torch.tensor([1.001 * turn]).double()), other)
    assert 0.03 * turn < spectral_angle(found, start) < 0.2001 * turn
    assert (found - start).norm() < 0.2001 * (other - start).norm()


def test_turns_are_measured_by_the_alternatives():
    def at(*angles):
        angles = torch.tensor(angles).double()
        return torch.stack([angles.cos(), angles.sin()], -1)

    spectra = torch.stack([at(-0.1, 0.1), at(-0.02, 0.02), at(0, 0), at(-0.5, 0.5)], 1)  # [2, 4, 2]
    others = Alternatives(spectra, torch.tensor([0.5, 0.5, 0.5, 0]).expand(2, 4))
    start, turned = at(0, 0, 0, 0).float(), at(0.01, 0.006, 0, 0.2)  # the last one is known
    expected = ((0.1**2 + 0.3**2) / 3) ** 0.5
    assert relative_turn(2 * start, turned.float(), others) == pytest.approx(expected, rel=1e-4)
    assert relative_turn(start, at(0, 0, 0.0005, 0), others) == pytest.approx(0.5 / 3**0.5, rel=1e-3)  # least spread
    assert relative_turn(start, turned, Alternatives(spectra, torch.zeros(2, 4))) == 0


def test_variance_of_fractions_is_that_of_the_alternatives_by_their_weights():
    _, start, _ = scene()
    mixing = torch.eye(4).repeat(3, 1, 1)
    mixing[0, 1] = torch.tensor([0.1, 0.9, 0, 0])
    mixing[1, 1] = torch.tensor([0, 0.8, 0, 0.2])
    weights = torch.tensor([[0.25, 0.25, 0, 0.25], [0.25, 0.25, 0, 0.25], [0.5, 0.5, 0, 0.5]])
    lengths = torch.linspace(0.5, 2, 12).reshape(3, 4, 1)  # which say nothing
    variance = fraction_variance(start, Alternatives(lengths * (mixing @ start), weights))
    expected = torch.zeros(4, 4, dtype=torch.float64)
    expected[1] = torch.tensor([0.1**2 * 3 / 16, (0.01 + 0.04) / 4 - 0.075**2, 0, 0.2**2 * 3 / 16])
    torch.testing.assert_close(variance, expected, atol=1e-5, rtol=1e-3)


def test_dark_and_stray_pixels_say_little():
    pixels, start, truth = scene()
    g = torch.Generator().manual_seed(1)
    pixels[:300] = 0.01 * torch.rand(300, NUM_BANDS, generator=g)
    pixels[300:310] = 5 * torch.rand(10, NUM_BANDS, generator=g)
    assert off(moved(pixels, start), truth) < 0.5 * off(start, truth)


def test_the_span_the_sum_of_abundances_and_the_unit_are_kept():
    pixels, start, _ = scene()
    found = moved(pixels, start)
    mixing = torch.linalg.lstsq(start.double().T, found.double().T).solution.T
    torch.testing.assert_close(mixing @ start.double(), found.double(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mixing.sum(1), torch.ones(len(start), dtype=torch.float64), atol=1e-4, rtol=0)
    torch.testing.assert_close(moved(50 * pixels, 50 * start, noise=50 * NOISE), 50 * found, atol=0.01, rtol=1e-4)


def test_works_in_inference_mode():
    pixels, start, _ = scene()
    with torch.inference_mode():
        found = moved(*(x.clone() for x in (pixels, start)))
    torch.testing.assert_close(found.clone(), moved(pixels, start))


@pytest.mark.parametrize("rank", [3, 4, 8])
def test_a_background_of_one_mixture_is_no_facet(rank):
    pixels, start, truth = scene(rank)
    g = torch.Generator().manual_seed(1)
    background = torch.tensor([0.08, 0.12, *[0.8 / (rank - 2)] * (rank - 2)]) @ truth
    pixels = torch.cat([background + NOISE * torch.randn(9 * len(pixels), NUM_BANDS, generator=g), pixels])
    pixels = pixels[torch.randperm(len(pixels), generator=g)]
    assert off(moved(pixels, start), truth) < 0.4 * off(start, truth)


def test_fractions_in_which_the_alternatives_agree_are_sure():
    """Also those of a twin, which hardly turns the spectrum."""
    _, start, _ = scene()
    start[1] = start[0] + 0.01 * start[1]
    fractions = torch.zeros(16, 4)
    fractions[:, 2] = 0.1 * torch.linspace(-1, 1, 16)
    others = start.expand(16, -1, -1).clone()
    others[:, 0] += fractions @ start - fractions.sum(1, keepdim=True) * start[0]
    precision = _fraction_precision(start.double(), Alternatives(others, torch.full((16, 4), 1 / 16)))
    std = torch.linalg.inv(precision).diagonal(dim1=1, dim2=2).sqrt()  # [R, R]
    assert std[0, 2] > 0.08 and std[0, 1] < 0.07 and (std[1:] < 0.02).all()


@pytest.mark.parametrize("brightness_precision", [0.0, 2.5e5])
def test_twins_and_endmembers_without_signal_do_no_harm(brightness_precision):
    pixels, start, _ = scene(rank=8)
    noise = torch.full((NUM_BANDS,), NOISE)
    for last in (1.01 * start[-2], torch.zeros(NUM_BANDS)):
        endmembers = torch.cat([start[:-1], last[None]])
        evidence = gather_evidence(pixels, endmembers, noise, 1.0, brightness_precision)
        found = facet_step(evidence, endmembers, alternatives(endmembers))
        assert torch.isfinite(found).all() and (found >= 0).all()
        assert spectral_angle(found, endmembers)[:6].max() < 0.5


@pytest.mark.parametrize("noise_std", [0.01, 0.1, 1.0, 10.0])
def test_densities_add_up_to_one_and_are_fitted_to_what_made_the_abundances(noise_std):
    """However large the noise: a density that grew with it would pull in what nothing is known of."""
    grid = torch.linspace(-1, 1, 20001, dtype=torch.float64)[:, None] * (3 + 8 * noise_std)
    weights = torch.tensor([[0.3, 0.2, 0.2, 0.3]], dtype=torch.float64)
    parameters = weights, torch.tensor([0.1], dtype=torch.float64), torch.tensor([0.8], dtype=torch.float64)
    density = _log_densities(grid, torch.full_like(grid, noise_std), *parameters).exp()[:, 0, :4]
    mass = density.sum(0) * float(grid[1] - grid[0])
    torch.testing.assert_close(mass[:3], weights[0, :3], atol=1e-3, rtol=0)
    assert 0.95 < mass[3] / weights[0, 3] < 1.15
    g = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(density.sum(1), 100_000, replacement=True, generator=g)
    fitted, even = parameters, torch.full((len(drawn),), 1 / len(drawn), dtype=torch.float64)
    for _ in range(10):
        fitted = _fit_densities(grid[drawn], even, torch.full_like(grid[drawn], noise_std), *fitted)
    assert all(torch.isfinite(one).all() for one in fitted)
    if noise_std < 0.1:
        torch.testing.assert_close(fitted, parameters, atol=0.04, rtol=0)
