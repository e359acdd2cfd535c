"""Blind extraction: properties first, then scenes whose simplex is known, then bad input."""

import math
from dataclasses import replace

import pytest
import torch

from hsunmix.endmembers import candidates, extract_endmembers, extraction
from hsunmix.endmembers.archetypes import archetypal_analysis, polish_archetypes
from hsunmix.endmembers.candidates import propose
from hsunmix.endmembers.geometric import minimum_volume, successive_projections, vertex_components
from hsunmix.endmembers.scene import ScenePoints, prepare_scene
from hsunmix.endmembers.selection import (
    _OTHER_FAMILY,
    combined_scores,
    measure_candidates,
    rank_candidates,
    rule_scores,
)
from hsunmix.endmembers.subspace import SignalSubspace, box_mean, fit_subspace, wiener_smooth
from hsunmix.physics import estimate_noise, spectral_angle

METHODS = ["auto", "archetypes", "vca", "spa", "minimum_volume"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_spectra(count: int, bands: int, seed: int = 0) -> torch.Tensor:
    """Smooth random spectra in (0.05, 0.95), (R, B)."""
    x = torch.linspace(0, 1, bands, dtype=torch.float64)
    knots = torch.linspace(0, 1, 12, dtype=torch.float64)
    basis = torch.exp(-0.5 * ((x - knots[:, None]) / 0.07) ** 2)
    curves = torch.randn(count, len(knots), generator=seeded(seed), dtype=torch.float64) @ basis
    return (0.05 + 0.9 * torch.sigmoid(1.5 * curves)).float()


def make_cube(
    spectra: torch.Tensor,
    size: int = 32,
    purity: float = 1.0,
    snr_db: float | None = None,
    brightness: float = 0.0,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cube (H, W, B) and abundances (H, W, R): Dirichlet pixels that fill the simplex up to `purity`."""
    generator, count = seeded(seed), len(spectra)
    exponential = -(torch.rand(size, size, count, generator=generator).clamp_min(1e-12).log() ** 1.0)
    abundances = (exponential**2.0) / (exponential**2.0).sum(-1, keepdim=True)
    abundances.view(-1, count)[:count] = torch.eye(count)  # pure pixels, unless the purity is capped
    peak = abundances.amax(-1, keepdim=True)
    shrink = torch.where(peak > purity, (purity - 1 / count) / (peak - 1 / count), torch.ones_like(peak))
    abundances = 1 / count + shrink * (abundances - 1 / count)
    cube = abundances @ spectra
    if brightness:
        cube = cube * torch.exp(brightness * torch.randn(size, size, 1, generator=generator))
    if snr_db is not None:
        std = cube.square().mean().sqrt() * 10 ** (-snr_db / 20)
        cube = cube + std * torch.randn(cube.shape, generator=generator)
    return cube, abundances


def bent(cube: torch.Tensor, amplitude: float) -> torch.Tensor:
    """The cube (H, W, 60), every pixel times a wave of its own: no mixture of a few spectra."""
    phase = 6 * torch.rand(*cube.shape[:2], 1, generator=seeded())
    return cube * (1 + amplitude * torch.sin(phase * torch.linspace(1, 4, 60)))


def worst_angle(found: torch.Tensor, truth: torch.Tensor) -> float:
    """Largest angle between a true spectrum and the nearest one found; infinity if one is found for two."""
    angles = spectral_angle(truth[:, None].double(), found[None].double())
    nearest = angles.argmin(1)
    return float(angles.min(1).values.max()) if len(nearest.unique()) == len(truth) else math.inf


def test_the_shape_of_very_dark_pixels_is_not_trusted():
    cube, _ = make_cube(make_spectra(3, 60), snr_db=60.0)
    cube[:, :4] *= 0.02  # deep water: what is left of it is error of the calibration
    cube[:, 4:8] *= 0.2  # shade
    scene = prepare_scene(cube, 3, torch.full((60,), 1e-4), torch.ones(cube.shape[:2], dtype=torch.bool))
    variance = scene.noise_var.reshape(32, 32)
    assert variance[:, :4].min() > 0.01 and variance[:, 4:].max() < 0.003
    assert scene.weight.reshape(32, 32)[:, :4].max() < 0.1 * scene.weight.reshape(32, 32)[:, 8:].min()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("brightness", [0.0, 0.2])
def test_exact_simplex_is_recovered_where_pixels_are_pure(method, brightness):
    spectra = make_spectra(4, 80)
    cube, _ = make_cube(spectra, brightness=brightness)
    found = extract_endmembers(cube, 4, generator=seeded(), method=method)
    # archetypes are means of pixels, never quite extreme
    assert worst_angle(found.endmembers, spectra) < (0.08 if method == "archetypes" else 0.01)


@pytest.mark.parametrize("brightness", [0.0, 0.2])
def test_without_pure_pixels_minimum_volume_is_chosen_and_right(brightness):
    spectra = make_spectra(4, 80)
    cube, _ = make_cube(spectra, purity=0.8, brightness=brightness)
    found = extract_endmembers(cube, 4, generator=seeded())
    assert found.method == "minimum_volume"
    assert worst_angle(found.endmembers, spectra) < 0.01
    inside = extract_endmembers(cube, 4, generator=seeded(), method="vca")
    assert worst_angle(inside.endmembers, spectra) > 0.03


@pytest.mark.parametrize("snr_db, limit", [(30, 0.03), (15, 0.08), (10, 0.12)])
def test_noise(snr_db, limit):
    spectra = make_spectra(3, 100, seed=1)
    blocks = make_cube(spectra, size=8, purity=0.9)[1].repeat_interleave(6, 0).repeat_interleave(6, 1)
    clean = blocks @ spectra
    std = clean.square().mean().sqrt() * 10 ** (-snr_db / 20)
    found = extract_endmembers(clean + std * torch.randn(clean.shape, generator=seeded(1)), 3, generator=seeded())
    assert worst_angle(found.endmembers, spectra) < limit


def test_constant_brightness_gives_the_natural_scale():
    spectra = make_spectra(4, 80)
    cube, abundances = make_cube(spectra, purity=0.8, snr_db=40)
    found = extract_endmembers(cube, 4, generator=seeded())
    assert found.natural_scale and found.brightness_variation < 0.02
    fitted = torch.linalg.lstsq(found.endmembers.T, cube.reshape(-1, 80).T).solution
    torch.testing.assert_close(fitted.sum(0).mean(), torch.tensor(1.0), atol=0.01, rtol=0)
    order = spectral_angle(spectra[:, None], found.endmembers[None]).argmin(1)
    torch.testing.assert_close(found.endmembers[order], spectra, atol=0.03, rtol=0)


def test_varying_brightness_gives_a_common_maximum():
    cube, _ = make_cube(make_spectra(3, 60), brightness=0.3, snr_db=40)
    found = extract_endmembers(cube, 3, generator=seeded())
    assert not found.natural_scale
    assert 0.2 < found.brightness_variation < 0.4
    torch.testing.assert_close(found.endmembers.amax(1), found.endmembers.amax().expand(3))


@pytest.mark.parametrize("method", METHODS)
def test_deterministic(method):
    cube, _ = make_cube(make_spectra(3, 40), size=16, snr_db=25)
    first, second = (extract_endmembers(cube, 3, generator=seeded(5), method=method) for _ in range(2))
    assert torch.equal(first.endmembers, second.endmembers)
    state = torch.get_rng_state()
    extract_endmembers(cube, 3, method=method)
    assert torch.equal(state, torch.get_rng_state()), "the global generator was used"


def test_last_bits_do_not_depend_on_where_the_numbers_lie_in_memory():
    cube, _ = make_cube(make_spectra(3, 24), size=8, snr_db=30.0)
    gaps, found = [], []
    for index in range(60):
        gaps.append(torch.empty(1 + 37 * index % 3000))
        scene = prepare_scene(cube.clone(), 3, torch.full((24,), 0.01), torch.ones(8, 8, dtype=torch.bool))
        found.append([one.points for one in propose(scene, ("vca", "minimum_volume"), seeded())])
    assert all(all(map(torch.equal, one, found[0])) for one in found)


def test_units_of_the_cube_only_scale_the_endmembers():
    cube, _ = make_cube(make_spectra(3, 40), size=24, purity=0.85, snr_db=30)
    small = extract_endmembers(cube, 3, generator=seeded())
    large = extract_endmembers(cube * 1024, 3, generator=seeded())
    assert small.method == large.method
    torch.testing.assert_close(large.endmembers / 1024, small.endmembers, atol=1e-3, rtol=1e-3)


def test_order_of_bands_is_irrelevant():
    cube, _ = make_cube(make_spectra(3, 40), size=24, purity=0.85, snr_db=30)
    permutation = torch.randperm(40, generator=seeded())
    plain = extract_endmembers(cube, 3, generator=seeded())
    shuffled = extract_endmembers(cube[..., permutation], 3, generator=seeded())
    assert worst_angle(shuffled.endmembers, plain.endmembers[:, permutation]) < 0.01


def test_masked_and_nan_pixels_play_no_role():
    cube, _ = make_cube(make_spectra(3, 40), size=20, snr_db=30)
    valid = torch.ones(20, 20, dtype=torch.bool)
    valid[:5, :7] = False
    dirty = cube.clone()
    dirty[:5, :7] = 17.0
    dirty[10, 10, 3] = torch.nan
    clean_mask = valid.clone()
    clean_mask[10, 10] = False
    first = extract_endmembers(dirty, 3, valid=valid, generator=seeded())
    second = extract_endmembers(cube, 3, valid=clean_mask, generator=seeded())
    torch.testing.assert_close(first.endmembers, second.endmembers)


def test_result_is_consistent():
    cube, _ = make_cube(make_spectra(3, 40), size=24, snr_db=30)
    found = extract_endmembers(cube.double(), 3, generator=seeded())
    assert found.endmembers.dtype == torch.float64 and found.endmembers.shape == (3, 40)
    assert found.method in METHODS
    mean = (found.alternatives.weights[..., None] * found.alternatives.spectra).sum(0)
    assert found.spread.all() and spectral_angle(mean, found.endmembers).max() < 1e-3
    one = extract_endmembers(cube.double(), 3, generator=seeded(), method="vca")
    assert one.method == "vca" and not one.spread.any() and one.alternatives is None
    assert all((x >= 0).all() and torch.isfinite(x).all() for x in (found.endmembers, one.endmembers))


def test_pixels_that_are_a_cloud_about_archetypes_have_no_facets():
    spectra = make_spectra(3, 60)
    cube = bent(make_cube(spectra, snr_db=30)[0], 0.2)
    found = extract_endmembers(cube, 3, generator=seeded(), approximate=spectra.roll(1, 1))
    assert found.method == "archetypes" and found.spread.all() and found.alternatives is None
    found = extract_endmembers(cube, 3, generator=seeded(), archetypes=False)
    assert found.method != "archetypes" and found.alternatives is not None


@pytest.mark.parametrize("known", range(3))
def test_a_given_spectrum_takes_no_other_ones_place_where_the_pixels_show_too_few_materials(known):
    spectra = make_spectra(3, 60, seed=1)
    cube, _ = make_cube(spectra)
    found = extract_endmembers(cube, 5, generator=seeded(), approximate=spectra[known : known + 1])
    angles = spectral_angle(spectra[:, None].double(), found.endmembers[None].double())
    assert (angles.amin(1) < 0.01).all() and angles[known].argmin() == 0


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("snr_db, purity, limit", [(10, 0.8, 0.125), (15, 1.0, 0.045)])  # archetypes: 0.14 and 0.05
def test_noise_makes_no_cloud_of_a_simplex(seed, snr_db, purity, limit):
    spectra = make_spectra(3, 60, seed)
    cube, _ = make_cube(spectra, 40, purity, snr_db, seed=seed)
    found = extract_endmembers(cube, 3, generator=seeded())
    assert worst_angle(found.endmembers, spectra) < limit and found.alternatives is not None


@pytest.mark.parametrize("count, bands, size", [(2, 30, 20), (12, 120, 40), (5, 5, 20), (3, 30, (1, 40)), (2, 2, 12)])
def test_sizes(count, bands, size):
    spectra = make_spectra(count, bands, seed=3)
    shape = size if isinstance(size, tuple) else (size, size)
    cube = make_cube(spectra, size=max(shape), snr_db=40)[0][: shape[0], : shape[1]]
    found = extract_endmembers(cube, count, generator=seeded())
    assert found.endmembers.shape == (count, bands) and torch.isfinite(found.endmembers).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("num_pixels", [3, 4, 5, 9])
def test_few_pixels(method, num_pixels):
    pixels = make_cube(make_spectra(3, 30), size=4, snr_db=30)[0].reshape(-1, 30)[:num_pixels]
    for cube in (pixels, pixels[None]):
        found = extract_endmembers(cube, 3, generator=seeded(), method=method)
        assert found.endmembers.shape == (3, 30) and torch.isfinite(found.endmembers).all()


@pytest.mark.parametrize("count", [2, 3])
def test_given_spectra_survive_pixels_that_say_nothing(count):
    pixels = torch.eye(30)[torch.arange(100) % count % 2].reshape(10, 10, 30)  # one material or two, three asked for
    given = make_spectra(2, 30)
    found = extract_endmembers(pixels, 3, generator=seeded(), approximate=given)
    assert torch.isfinite(found.endmembers).all() and (found.endmembers >= 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_constant_and_duplicated_pixels_do_not_crash(method):
    spectra = make_spectra(3, 30)
    constant = spectra[:1].expand(100, 30).reshape(10, 10, 30).clone()
    duplicated = spectra[torch.arange(100) % 2].reshape(10, 10, 30)  # two materials, three asked for
    for cube in (constant, duplicated):
        found = extract_endmembers(cube, 3, generator=seeded(), method=method)
        assert torch.isfinite(found.endmembers).all() and (found.endmembers >= 0).all()


def test_without_noise_estimate_and_with_a_given_one_agree():
    cube, _ = make_cube(make_spectra(3, 60), purity=0.85, snr_db=30)
    std = (cube.square().mean().sqrt() * 10**-1.5).expand(60)
    given = extract_endmembers(cube, 3, noise_std=std, generator=seeded())
    estimated = extract_endmembers(cube, 3, generator=seeded())
    assert worst_angle(given.endmembers, estimated.endmembers) < 0.02


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(cube=torch.rand(2, 5, 5, 8)), "`cube` must be"),
        (dict(num_endmembers=1), "at least 2"),
        (dict(num_endmembers=9), "only 8 bands"),
        (dict(cube=torch.rand(2, 2, 30), num_endmembers=5), "only 4 usable pixels"),
        (dict(cube=torch.zeros(5, 5, 8)), "0 usable pixels"),
        (dict(cube=torch.full((5, 5, 8), torch.nan)), "0 usable pixels"),
        (dict(valid=torch.ones(4, 5, dtype=torch.bool)), "`valid` has shape"),
        (dict(noise_std=torch.ones(7)), "`noise_std` has shape"),
        (dict(method="nfindr"), "`method` is 'nfindr'"),
    ],
)
def test_bad_input(change, message):
    arguments = dict(cube=torch.rand(5, 5, 8, generator=seeded()), num_endmembers=3) | change
    with pytest.raises(ValueError, match=message):
        extract_endmembers(**arguments)


def test_archetypes_lie_inside_the_hull_and_explain_it():
    points = torch.rand(300, 2, generator=seeded())
    points = torch.cat([points, torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).repeat(20, 1)])
    corners = archetypal_analysis(points + 0.5, 4, 8, seeded()) - 0.5
    assert (corners > -1e-5).all() and (corners < 1 + 1e-5).all()
    nearest = torch.cdist(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), corners).amin(2)
    assert nearest.amax(1).min() < 0.15  # the best start


def cloud(outliers):
    """Corners (3, 3) and 900 noisy mixtures of them, hardly any of them pure, some points of something else."""
    corners = torch.tensor([[1.0, 0.1, 0.2], [0.2, 1.0, 0.1], [0.1, 0.3, 1.0]])
    weights = torch.rand(900, 3, generator=seeded()).log().neg()
    points = weights / weights.sum(1, keepdim=True) @ corners + 0.02 * torch.randn(900, 3, generator=seeded(1))
    strange = torch.tensor([0.2, 1.6, 0.1]) + 0.05 * torch.randn(30, 3, generator=seeded(2))
    return corners, torch.cat([points, strange]) if outliers else points


def off(corners, found):
    return float(torch.cdist(corners, found).amin(1).square().mean().sqrt())


@pytest.mark.parametrize("outliers", [False, True])
def test_polished_archetypes_are_nearer_to_the_corners(outliers):
    corners, points = cloud(outliers)
    started = archetypal_analysis(points, 3, 1, seeded(), outer=15)[0]
    polished = polish_archetypes(points, started)
    assert off(corners, polished) < 0.8 * off(corners, started)
    assert polished.dtype == points.dtype and polished.shape == started.shape
    if outliers:  # which more of the same alternations would go to
        assert off(corners, polished) < 0.8 * off(corners, archetypal_analysis(points, 3, 1, seeded(), outer=135)[0])


@pytest.mark.parametrize(
    ("wins", "method", "polished"), [("archetypes", "auto", 1), ("vca", "auto", 0), ("archetypes", "archetypes", 0)]
)
def test_archetypes_that_rank_first_are_polished(monkeypatch, wins, method, polished):
    """Each method alone proposes what it is known for."""
    asked = []

    def first_of_these(scene, pool, generator):
        ranking = rank_candidates(scene, pool, generator)
        return replace(ranking, order=sorted(ranking.order, key=lambda index: pool[index].method != wins))

    def spy(scene, candidate, generator):
        asked.append(candidate.method)
        return candidates.polished(scene, candidate, generator)

    monkeypatch.setattr(extraction, "rank_candidates", first_of_these)
    monkeypatch.setattr(extraction, "polished", spy)
    cube, _ = make_cube(make_spectra(3, 40), snr_db=30.0)
    found = extract_endmembers(cube, 3, method=method, generator=seeded())
    assert asked == polished * ["archetypes"]
    assert (found.polished is None) == (not polished)
    if polished:
        assert 1e-4 < spectral_angle(found.endmembers, found.polished).mean() < 0.2


def test_vertices_are_found_whatever_the_basis():
    vertices = torch.randn(4, 4, generator=seeded(2), dtype=torch.float64).abs() + torch.eye(4)
    weights = torch.rand(200, 4, generator=seeded(), dtype=torch.float64)
    points = torch.cat([weights / weights.sum(1, keepdim=True) @ vertices, vertices])
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=seeded(1), dtype=torch.float64))[0]
    assert set(successive_projections(points, 4)[0].tolist()) <= set(range(204))
    assert set(successive_projections(points @ rotation, 4)[0].tolist()) == set(
        successive_projections(points, 4)[0].tolist()
    )
    assert all(set(one.tolist()) == {200, 201, 202, 203} for one in vertex_components(points, 4, 5, seeded()))


def test_minimum_volume_is_affine_equivariant():
    truth = torch.tensor([[1.0, 0.1, 0.0], [0.0, 1.0, 0.2], [0.1, 0.0, 1.0]], dtype=torch.float64)
    weights = -torch.rand(3000, 3, generator=seeded(), dtype=torch.float64).log()
    weights = weights / weights.sum(1, keepdim=True)
    weights = weights[weights.amax(1) < 0.8]
    change = torch.tensor([[1.0, 0.3, 0.0], [0.0, 2.0, 0.1], [0.2, 0.0, 0.5]], dtype=torch.float64)
    for matrix in (torch.eye(3, dtype=torch.float64), change):
        vertices = truth @ matrix
        points = weights @ vertices
        plane = torch.linalg.solve(vertices, torch.ones(3, dtype=torch.float64))
        start = 0.7 * vertices + 0.1 * vertices.sum(0)
        found = minimum_volume(points, start[None], plane, 1e-4)[0]
        torch.testing.assert_close(found, vertices, atol=0.02, rtol=0)
        torch.testing.assert_close(found @ plane, torch.ones(3, dtype=torch.float64))


def test_subspace_is_exact_on_data_that_lie_in_it():
    spectra = make_spectra(3, 40).double()
    pixels = torch.rand(50, 3, generator=seeded(), dtype=torch.float64) @ spectra
    std = torch.rand(40, generator=seeded(), dtype=torch.float64) + 0.1
    subspace = fit_subspace(pixels, std, 3)
    torch.testing.assert_close(subspace.lift(subspace.project(pixels)), pixels)
    torch.testing.assert_close(subspace.basis @ subspace.basis.T, torch.eye(3, dtype=torch.float64))


def test_smoothing_knows_how_much_noise_it_leaves():
    valid = torch.ones(64, 64, dtype=torch.bool)
    noise = torch.randn(64, 64, 2, generator=seeded(), dtype=torch.float64)
    smooth, left = wiener_smooth(noise + 50, valid)
    assert left.mean() < 0.3
    torch.testing.assert_close((smooth - 50).var(), left.mean(), rtol=0.35, atol=0)
    edges = 100 * torch.randn(64, 64, 2, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(wiener_smooth(edges, valid)[0], edges, atol=0.5, rtol=0)


def make_points(points: torch.Tensor) -> ScenePoints:
    """A noise-free scene of given coordinates (N, R)."""
    subspace = SignalSubspace(torch.eye(points.shape[1], dtype=points.dtype), torch.ones(points.shape[1]).double())
    norm = points.norm(dim=1)
    return ScenePoints(subspace, points, points, norm, torch.zeros_like(norm), 0.0, points.shape[1])


def test_projection_removes_brightness_and_keeps_simplices_flat():
    endmembers = torch.rand(3, 3, generator=seeded(), dtype=torch.float64) + 0.3 * torch.eye(3)
    weights = torch.rand(200, 3, generator=seeded(1), dtype=torch.float64)
    brightness = torch.rand(203, 1, generator=seeded(2), dtype=torch.float64) + 0.1
    points = torch.cat([endmembers, weights @ endmembers])
    projected = make_points(points).projected
    torch.testing.assert_close(make_points(points * brightness).projected, projected)
    coefficients = torch.linalg.solve(projected[:3].T, projected.T)
    assert (coefficients > -1e-9).all()
    torch.testing.assert_close(coefficients.sum(0), torch.ones(203, dtype=torch.float64))


def test_projection_keeps_pixels_off_the_axis_from_exploding():
    points = torch.rand(200, 3, generator=seeded(), dtype=torch.float64) + 0.5
    points[:3] = torch.tensor([[1.0, -1.0, 1e-3], [-1.0, -1.0, -1.0], [1.0, 0.0, -1.0]])
    scene = make_points(points)
    assert scene.projected.norm(dim=1).max() < 2
    torch.testing.assert_close(scene.projected @ scene.axis, torch.ones(200, dtype=torch.float64))


def test_box_mean_leaves_masked_pixels_out():
    maps = torch.arange(9.0).reshape(3, 3, 1)
    valid = torch.ones(3, 3, dtype=torch.bool)
    valid[0, 0] = False
    torch.testing.assert_close(box_mean(maps, valid, 3)[1, 1], maps[valid].mean(0))


def test_good_candidates_rank_before_a_wrong_one():
    spectra = make_spectra(4, 60)
    cube, _ = make_cube(spectra, snr_db=35)
    valid = torch.ones(cube.shape[:2], dtype=torch.bool)
    scene = prepare_scene(cube, 4, torch.full((60,), 0.01), valid)
    pool = propose(scene, ("archetypes", "vca", "spa"), seeded(), num_starts=4)
    wrong = type(pool[0])(pool[0].points[[0, 0, 1, 2]] + 1e-3 * torch.eye(4, pool[0].points.shape[1]), "vca")
    ranking = rank_candidates(scene, [wrong, *pool], seeded())
    assert sorted(ranking.order) == list(range(len(pool) + 1)) and len(ranking.scores) == len(ranking.order)
    assert ranking.order[0] != 0


def test_the_rule_wants_archetypes_only_if_the_network_does():
    # of two sets of archetypes and two others
    rule = torch.tensor([[0.0, 0.5, 3.0, 3.2], [3.0, 3.5, 0.0, 0.2]], dtype=torch.float64)
    for opinion, best in (([-1.0, 1.0, 0.9, 1.0], 0), ([0.9, -1.0, 1.0, 0.8], 1), ([0.9, 1.0, 0.8, -1.0], 3)):
        scores = combined_scores(torch.tensor(opinion), rule, lambda opinion: opinion[None])
        assert int(scores.argmin()) == best


@pytest.mark.parametrize(
    "count, snr_db, bend, network_counts", [(3, 10, 0.0, True), (2, 10, 0.0, False), (3, 30, 0.1, False)]
)
def test_the_network_has_a_say_where_what_is_left_may_be_noise(count, snr_db, bend, network_counts):
    cube = bent(make_cube(make_spectra(count, 60), snr_db=snr_db)[0], bend)
    scene = prepare_scene(
        cube, count, estimate_noise(cube.flatten(0, 1)), torch.ones(cube.shape[:2], dtype=torch.bool)
    )
    pool = propose(scene, tuple(METHODS[1:]), seeded(), num_starts=4)
    suspected, simplex = rule_scores(scene, pool, measure_candidates(scene, pool, seeded()))
    archetypes = torch.tensor([one.method == "archetypes" for one in pool])
    assert (suspected[archetypes] < _OTHER_FAMILY).all() and (suspected[~archetypes] >= _OTHER_FAMILY).all()
    assert torch.equal(suspected, simplex) != network_counts


def test_order_of_equal_simplices_does_not_hang_on_the_last_bits():
    from hsunmix.endmembers.candidates import _largest_simplex

    for seed in range(20):
        simplex = torch.rand(3, 3, generator=seeded(seed)).double() + torch.eye(3)
        plane = torch.linalg.solve(simplex, torch.ones(3).double())
        starts = torch.stack([simplex, simplex[[2, 0, 1]] * (1 + 1e-13), simplex * 0.5])
        torch.testing.assert_close(_largest_simplex(starts, plane), simplex)
