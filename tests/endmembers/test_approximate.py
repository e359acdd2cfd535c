"""Approximate spectra, moved onto the signal subspace of a scene, smooth errors leaving their sharp features."""

import math

import numpy as np
import pytest
import torch

from hsunmix.endmembers.approximate import correct_smooth_errors
from hsunmix.endmembers.scene import prepare_scene
from hsunmix.endmembers.subspace import SignalSubspace
from hsunmix.evaluation import perturb_endmembers
from hsunmix.physics import spectral_angle, unit_rows

from .test_extraction import make_cube


def banded(count: int, bands: int, seed: int = 3) -> torch.Tensor:
    """Smooth spectra with narrow absorption bands."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.linspace(0, 1, bands)
    slope = (
        0.3 + 0.4 * torch.rand(count, 1, generator=generator) + 0.3 * torch.randn(count, 1, generator=generator) * x
    )
    centres = torch.rand(count, 6, 1, generator=generator)
    depths = 0.1 + 0.3 * torch.rand(count, 6, 1, generator=generator)
    lines = depths * torch.exp(-0.5 * ((x - centres) / 0.02).square())
    return (slope.clamp_min(0.1) * (1 - lines).prod(1)).float()


@pytest.fixture(scope="module", params=[4, 6])
def scene(request):
    spectra = banded(request.param, 90)
    cube, _ = make_cube(spectra, purity=0.8, snr_db=40)
    noise_std = torch.full((90,), float(cube.square().mean().sqrt()) * 1e-2)
    points = prepare_scene(cube, len(spectra), noise_std, torch.ones(cube.shape[:2], dtype=torch.bool))
    return points.subspace, spectra.double(), float(points.kind[0].exp())


def turned(spectra: torch.Tensor, degrees: float, seed: int) -> torch.Tensor:
    return torch.from_numpy(perturb_endmembers(spectra.numpy(), degrees, seed))


def test_smooth_errors_are_taken_for_what_they_are(scene):
    subspace, spectra, error = scene
    for seed in range(3):
        given = turned(spectra, 5, seed)
        nearest = subspace.lift(subspace.project(given))
        found = correct_smooth_errors(subspace, given, error)
        off = spectral_angle(found.spectra, spectra)
        assert off.mean() < 0.3 * spectral_angle(nearest, spectra).mean()
        assert found.error.shape == off.shape and (0.3 < off.mean() / found.error.mean() < 4)
        torch.testing.assert_close(found.spectra, unit_rows(found.spectra))


def test_errors_lie_along_their_directions(scene):
    subspace, spectra, error = scene
    along = []
    for seed in range(12):
        given = unit_rows(turned(spectra, 5, seed))
        found = correct_smooth_errors(subspace, given, error)
        directions = found.directions
        torch.testing.assert_close(directions.square().sum((1, 2)).sqrt(), found.error)
        assert (directions @ given[..., None]).abs().max() < 1e-8  # they are turns
        assert (directions - subspace.lift(subspace.project(directions))).abs().max() < 1e-8
        truth, close = (one / (one * given).sum(1, keepdim=True) for one in (spectra, found.spectra))
        ordered = unit_rows(directions).gather(1, directions.norm(dim=2).argsort(1)[..., None].expand(-1, -1, 90))
        along.append(torch.einsum("kb,kdb->kd", truth - close, ordered))
    sizes = torch.cat(along).square().mean(0).sqrt()
    assert sizes[-1] > 2 * sizes[:-1].max()


def test_rough_errors_leave_about_the_nearest_spectra_of_the_subspace(scene):
    subspace, spectra, error = scene
    generator = torch.Generator().manual_seed(0)
    given = spectra + 0.03 * torch.randn(spectra.shape, generator=generator, dtype=torch.float64)
    nearest = subspace.lift(subspace.project(given))
    found = correct_smooth_errors(subspace, given, error)
    assert spectral_angle(found.spectra, spectra).mean() < 1.5 * spectral_angle(nearest, spectra).mean()


def test_exact_spectra_stay_and_are_known_well(scene):
    subspace, spectra, error = scene
    exact = correct_smooth_errors(subspace, spectra, error)
    off = correct_smooth_errors(subspace, turned(spectra, 5, 1), error)
    assert spectral_angle(exact.spectra, spectra).max() < 0.01
    assert exact.error.mean() < 0.5 * off.error.mean()


def test_scale_and_order_do_not_matter(scene):
    subspace, spectra, error = scene
    given = turned(spectra, 5, 2)
    plain = correct_smooth_errors(subspace, given, error)
    scaled = correct_smooth_errors(subspace, given.flip(0) * 7.0, error)
    torch.testing.assert_close(scaled.spectra.flip(0), plain.spectra, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(scaled.error.flip(0), plain.error, rtol=1e-6, atol=1e-8)


def test_few_bands_and_a_single_spectrum():
    spectra = banded(3, 6)
    cube, _ = make_cube(spectra, purity=0.8, snr_db=40)
    noise_std = torch.full((6,), 0.01)
    points = prepare_scene(cube, 3, noise_std, torch.ones(cube.shape[:2], dtype=torch.bool))
    found = correct_smooth_errors(points.subspace, turned(spectra.double(), 3, 0)[:1], float(points.kind[0].exp()))
    assert found.spectra.shape == (1, 6) and torch.isfinite(found.spectra).all()
    assert 0 < float(found.error) < math.pi / 2


def test_spectra_of_nothing_are_not_known_at_all(scene):
    subspace, spectra, error = scene
    found = correct_smooth_errors(subspace, torch.stack([spectra[0], 0 * spectra[1]]), error)
    assert found.error[0] < 0.1 and found.error[1] == math.pi / 2
    assert torch.isfinite(found.spectra).all() and (found.spectra >= 0).all()


def test_as_many_coordinates_as_bands_or_a_single_one():
    spectra = banded(2, 12).double()
    for count in (1, 12):
        subspace = SignalSubspace(torch.eye(12, dtype=torch.float64)[:count], torch.ones(12, dtype=torch.float64))
        found = correct_smooth_errors(subspace, spectra, 0.01)
        expected = spectra if count == 12 else torch.eye(12, dtype=torch.float64)[:1].expand(2, -1)
        torch.testing.assert_close(found.spectra, unit_rows(expected), rtol=1e-4, atol=1e-4)


def test_spectrum_off_the_scene_is_expected_to_be_far(scene):
    subspace, spectra, error = scene
    foreign = banded(1, spectra.shape[1], seed=11).double()
    found = correct_smooth_errors(subspace, torch.cat([turned(spectra[:1], 2, 0), foreign]), error)
    assert found.error[1] > 2 * found.error[0]
    assert np.isfinite(found.error.numpy()).all()
