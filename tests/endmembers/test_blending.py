"""Endmembers as weighted means of candidates and of approximate spectra."""

import numpy as np
import pytest
import torch

from hsunmix.endmembers import blending, extract_endmembers, match_endmembers
from hsunmix.endmembers.approximate import Corrected, correct_smooth_errors
from hsunmix.endmembers.blending import blend, bundled_blender, gather_proposals, is_clear, proposal_weights
from hsunmix.endmembers.candidates import METHODS, Candidate, propose
from hsunmix.endmembers.scene import prepare_scene
from hsunmix.endmembers.selection import rank_candidates
from hsunmix.evaluation.metrics import perturb_endmembers
from hsunmix.physics import Alternatives, spectral_angle, unit_rows
from hsunmix.physics.facets import _fraction_precision

from .test_extraction import make_cube, make_spectra, seeded


@pytest.fixture(scope="module")
def mixed():
    """Points, pool and ranking of a scene without pure pixels, and its endmembers."""
    spectra = make_spectra(4, 60)
    cube, _ = make_cube(spectra, purity=0.8, snr_db=30)
    scene = prepare_scene(cube, 4, torch.full((60,), 0.01), torch.ones(cube.shape[:2], dtype=torch.bool))
    pool = propose(scene, METHODS, seeded(), num_starts=8)
    return scene, pool, rank_candidates(scene, pool, seeded()), spectra.double()


def turned(spectra: torch.Tensor, degrees: float, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(perturb_endmembers(spectra.numpy(), degrees, seed))


def test_weights_are_shares_of_what_is_there(mixed):
    scene, pool, ranking, spectra = mixed
    proposals = gather_proposals(scene.subspace, scene.kind, pool, ranking, spectra[:2])
    weights = proposal_weights(proposals, bundled_blender())
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights), 4, dtype=torch.float64))
    assert (weights[:, ~proposals.allowed] == 0).all() and (weights[:, :2, :2] > 0).all()
    assert torch.isfinite(proposals.features).all()


def test_smooth_errors_are_corrected_where_pixels_are_clear(mixed):
    scene, pool, ranking, spectra = mixed
    given = turned(spectra, 5)[:3]
    clear, vague = scene.kind.clone(), scene.kind.clone()
    clear[0], vague[0] = np.log(0.001), np.log(0.02)
    assert is_clear(clear) and not is_clear(vague)
    corrected = correct_smooth_errors(scene.subspace, given, 0.001)
    projected = unit_rows(scene.subspace.lift(scene.subspace.project(given)).clamp_min(0))
    assert spectral_angle(corrected.spectra, projected).min() > 0.01
    for kind, moved in ((clear, corrected.spectra), (vague, projected)):
        proposals = gather_proposals(scene.subspace, kind, pool, ranking, given)
        torch.testing.assert_close(proposals.spectra[1, :3], moved)
        assert proposals.allowed[:2, :3].all() and not proposals.allowed[:2, 3:].any()


def test_corrected_spectra_that_went_far_do_not_count(mixed, monkeypatch):
    scene, pool, ranking, spectra = mixed
    assert is_clear(scene.kind)
    given = turned(spectra, 3)
    elsewhere = unit_rows(torch.cat([spectra[1:2], given[1:]]))  # the first of them became the second
    monkeypatch.setattr(
        blending,
        "correct_smooth_errors",
        lambda *_: Corrected(elsewhere, torch.full((4,), 0.001).double(), torch.zeros(4, 1, 60).double()),
    )
    found = blend(scene, pool, ranking, given)
    weights = found.alternatives.weights[-2:].sum(0)  # to both sides of it
    assert weights[0] < 1e-3 and weights[1:].min() > 0.01
    assert spectral_angle(found.spectra[0], spectra[0]) < np.deg2rad(5)


def test_alternatives_lie_as_far_off_as_corrected_spectra_may_be(mixed):
    scene, pool, ranking, spectra = mixed
    given = turned(spectra, 5)[:3]
    corrected = correct_smooth_errors(scene.subspace, given, float(scene.kind[0].exp()))
    found = blend(scene, pool, ranking, given)
    sides = 2 * corrected.directions.shape[1]
    off, weights = found.alternatives.spectra[-sides:] - found.alternatives.spectra[1], found.alternatives.weights
    torch.testing.assert_close(weights.sum(0), torch.ones(4).double())
    assert (weights[-sides:, :3] > 0).all() and (weights[-sides:, 3] == 0).all() and (weights[1] == 0).all()
    shares = weights[-sides:, :3] / weights[-sides:, :3].sum(0)
    torch.testing.assert_close((shares[..., None] * off[:, :3]).sum(0), torch.zeros(3, 60).double())
    errors = (shares * off[:, :3].square().sum(-1)).sum(0).sqrt()
    torch.testing.assert_close(errors, 2 * corrected.error)
    plain = Alternatives(found.alternatives.spectra[:-sides], weights[:-sides].clone())
    plain.weights[1] = weights[-sides:].sum(0)
    freedom = [torch.linalg.inv(_fraction_precision(found.spectra, one)) for one in (plain, found.alternatives)]
    assert (freedom[1].diagonal(dim1=1, dim2=2).sum(1) > freedom[0].diagonal(dim1=1, dim2=2).sum(1))[:3].all()


def test_approximate_spectra_move_toward_the_truth(mixed):
    scene, pool, ranking, spectra = mixed
    for seed in range(3):
        given = turned(spectra, 5, seed)
        found = blend(scene, pool, ranking, given).spectra
        assert (spectral_angle(found, spectra) < 0.6 * spectral_angle(given, spectra)).all()


def test_candidates_far_from_a_given_spectrum_do_not_replace_it(mixed):
    scene, pool, ranking, spectra = mixed
    foreign = make_spectra(8, 60, seed=7).double()[-1]  # a material that the scene lacks
    given = torch.cat([spectra[:3], foreign[None]])
    nearest = min(float(spectral_angle(scene.subspace.lift(one.points), foreign).min()) for one in pool)
    assert nearest > np.deg2rad(14)
    found = blend(scene, pool, ranking, given).spectra
    assert spectral_angle(found[3], foreign) < np.deg2rad(3)


def test_a_set_of_other_materials_replaces_nothing(mixed):
    scene, pool, ranking, _ = mixed
    foreign = make_spectra(8, 60, seed=7).double()[-4:]
    angles = spectral_angle(blend(scene, pool, ranking, foreign).spectra, foreign)
    assert (angles < spectral_angle(scene.subspace.lift(scene.subspace.project(foreign)), foreign) + 1e-6).all()


def test_spread_tells_how_far_off_the_mean_is(mixed):
    scene, pool, ranking, spectra = mixed
    found = [blend(scene, pool, ranking, turned(spectra, degrees)) for degrees in (1.0, 9.0)]
    errors = [spectral_angle(one.spectra, spectra).square().mean().sqrt() for one in found]
    spreads = [one.spread.square().mean().sqrt() for one in found]
    assert all(0.3 < spread / error < 5 for spread, error in zip(spreads, errors, strict=True))


def test_exact_spectra_stay(mixed):
    scene, pool, ranking, spectra = mixed
    found = blend(scene, pool, ranking, spectra).spectra
    assert spectral_angle(found, spectra).max() < 0.02


def test_foreign_spectra_do_not_drag_the_others_along(mixed):
    scene, pool, ranking, spectra = mixed
    given = torch.cat([make_spectra(1, 60, seed=9).double(), turned(spectra[1:], 2)])
    found = blend(scene, pool, ranking, given).spectra
    assert spectral_angle(found[1:], spectra[1:]).max() < 0.06


def test_given_spectra_lead_and_their_order_is_kept(mixed):
    scene, pool, ranking, spectra = mixed
    order = torch.tensor([2, 0, 3, 1])
    given = turned(spectra, 3)
    plain = blend(scene, pool, ranking, given).spectra
    permuted = blend(scene, pool, ranking, given[order]).spectra
    torch.testing.assert_close(permuted, plain[order])
    some = blend(scene, pool, ranking, given[order[:2]]).spectra
    assert spectral_angle(some[:2], spectra[order[:2]]).max() < 0.06
    assert sorted(match_endmembers(spectra, some).tolist()) == [0, 1, 2, 3]


def test_order_within_candidates_does_not_matter(mixed):
    scene, pool, ranking, _ = mixed
    flipped = [Candidate(one.points.flip(0) if k else one.points, one.method) for k, one in enumerate(pool)]
    torch.testing.assert_close(
        _sorted(blend(scene, pool, ranking).spectra),
        _sorted(blend(scene, flipped, ranking).spectra),
        atol=1e-6,
        rtol=1e-6,
    )


def _sorted(spectra: torch.Tensor) -> torch.Tensor:
    return spectra[spectra[:, 0].argsort()]


def test_where_archetypes_rank_first_the_first_stands_alone():
    spectra = make_spectra(3, 60)
    cube, _ = make_cube(spectra, snr_db=20, brightness=0.2)
    scene = prepare_scene(cube, 3, torch.full((60,), 0.05), torch.ones(cube.shape[:2], dtype=torch.bool))
    pool = propose(scene, ("archetypes",), seeded(), num_starts=6)
    ranking = rank_candidates(scene, pool, seeded())
    found = blend(scene, pool, ranking)
    assert found.method == "archetypes" and (found.spread < 1e-6).all()
    best = scene.subspace.lift(pool[ranking.order[0]].points).clamp_min(0)
    torch.testing.assert_close(
        spectral_angle(found.spectra, best), torch.zeros(3, dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_corrected_spectra_keep_their_scale_and_lead():
    spectra = make_spectra(4, 60)
    cube, _ = make_cube(spectra, purity=0.8, snr_db=35)
    given = 3.0 * turned(spectra[:2].double(), 4).float()
    found = extract_endmembers(cube, 4, generator=seeded(), approximate=given)
    torch.testing.assert_close(found.endmembers[:2].norm(dim=1), given.norm(dim=1))
    assert spectral_angle(found.endmembers[:2], spectra[:2]).max() < 0.04
    assert found.endmembers.shape == (4, 60) and (found.endmembers >= 0).all()


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(method="vca"), "leave `method`"),
        (dict(approximate=torch.rand(4, 8)), "`approximate` has shape"),
        (dict(approximate=torch.rand(2, 7)), "`approximate` has shape"),
    ],
)
def test_bad_input(change, message):
    arguments = dict(cube=torch.rand(6, 6, 8, generator=seeded()), num_endmembers=3, approximate=torch.rand(3, 8))
    with pytest.raises(ValueError, match=message):
        extract_endmembers(**(arguments | change))
