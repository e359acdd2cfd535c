"""The bundled weights at work: any sensor, number of endmembers and size; symmetries; input that must be refused."""

import itertools
import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import hsunmix
from hsunmix import SemiBlindUnmixingPipeline
from hsunmix.data import Cube, SpectralLibrary
from hsunmix.endmembers import extract_endmembers
from hsunmix.evaluation import add_noise, evaluate, match_endmembers, perturb_endmembers
from hsunmix.evaluation.benchmark import closed_form, simulated_reference_scene
from hsunmix.physics import (
    MIXING_MODELS,
    Alternatives,
    brightness_model,
    facets,
    fcls,
    final_endmember_step,
    spectral_angle,
    unit_rows,
)
from hsunmix.pipelines import chain as chain_module
from hsunmix.pipelines import starts
from hsunmix.pipelines.chain import Chain, network_share
from hsunmix.simulation import SceneSimulator, benchmark_scene, even_sensor, parametric_spectra

from ..shared_data import SHARED, needs_data
from .tiny import tiny_inputs, tiny_pipeline


@pytest.fixture(scope="module")
def pipe():
    pipeline = SemiBlindUnmixingPipeline.from_pretrained(hsunmix.bundled_checkpoint("base"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def simulate(bands=60, rank=3, height=24, width=24, snr_db=20.0, seed=0, **kwargs):
    """A parametric scene without wavelength surprises."""
    simulator = SceneSimulator(min_angle_degrees=8.0 if rank < 6 else 3.0, dead_pixel_probability=0.0)
    return simulator(
        torch.Generator().manual_seed(seed),
        num_endmembers=rank,
        height=height,
        width=width,
        sensor=even_sensor(420.0, 2400.0, bands),
        snr_db=snr_db,
        mixing="linear",
        noise="white",
        brightness="fixed",
        **kwargs,
    )


def scored(scene, endmembers, abundances):
    truth = {"cube": scene.clean, "endmembers": scene.endmembers, "abundances": scene.abundances}
    return evaluate(endmembers, abundances, {k: v.numpy() for k, v in truth.items()})


@pytest.mark.parametrize(
    ("bands", "rank", "height", "width", "known_wavelengths"),
    [
        (31, 2, 1, 1, True),
        (64, 3, 7, 5, False),
        (156, 7, 20, 30, True),
        (285, 12, 16, 16, False),
        (430, 3, 9, 33, True),
    ],
)
def test_one_checkpoint_serves_every_shape(pipe, bands, rank, height, width, known_wavelengths):
    scene = simulate(bands, rank, height, width)
    out = pipe(
        scene.cube,
        wavelengths=scene.wavelengths if known_wavelengths else None,
        endmembers=scene.endmembers,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
    )
    assert out.abundances.shape == (1, height, width, rank)
    assert out.endmembers.shape == (1, rank, bands)
    assert np.isfinite(out.abundances).all() and np.isfinite(out.endmembers).all()
    assert (out.abundances >= 0).all() and (out.endmembers >= 0).all()
    np.testing.assert_allclose(out.abundances.sum(-1), 1, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width", "rank"), [(95, 95, 3), (307, 120, 12)])
def test_large_scenes(pipe, height, width, rank):
    scene = simulate(156, rank, height, width)
    out = pipe(scene.cube, num_endmembers=rank, num_inference_steps=2, generator=torch.Generator().manual_seed(0))
    assert out.abundances.shape == (1, height, width, rank)


@pytest.mark.parametrize("snr_db", [10.0, 20.0])
def test_refined_beats_coarse_and_least_squares(pipe, snr_db):
    gains = []
    for seed in range(3):
        scene = simulate(rank=4, height=48, width=48, snr_db=snr_db, seed=seed)
        out = pipe(scene.cube, wavelengths=scene.wavelengths, fixed_endmembers=scene.endmembers)
        refined = scored(scene, out.endmembers[0], out.abundances[0])["abundance_rmse"]
        coarse = scored(scene, out.coarse_endmembers[0], out.coarse_abundances[0])["abundance_rmse"]
        exact = closed_form(scene.cube.numpy(), out.endmembers[0], out.brightness_mode[0])
        gains.append((refined / coarse, refined / scored(scene, out.endmembers[0], exact)["abundance_rmse"]))
    assert np.median(gains, axis=0).max() < 0.95


@pytest.mark.parametrize("kind", ["blocks", "dead_leaves", "lines"])
@pytest.mark.parametrize("snr_db", [20.0, 30.0])
def test_sharp_scenes_of_known_materials_are_not_smoothed(pipe, kind, snr_db):
    scene = simulate(bands=100, rank=4, height=48, width=48, snr_db=snr_db, seed=5, abundance_kind=kind)
    out = pipe(scene.cube, wavelengths=scene.wavelengths, fixed_endmembers=scene.endmembers)
    refined = scored(scene, out.endmembers[0], out.abundances[0])["abundance_rmse"]
    exact = closed_form(scene.cube.numpy(), scene.endmembers.numpy(), "fixed")
    assert refined < 1.01 * scored(scene, scene.endmembers.numpy(), exact)["abundance_rmse"]


def test_a_turned_scene_has_turned_maps(pipe, monkeypatch):
    scene = simulate()

    def same_everywhere(spectra, endmembers, evidence, wavelengths):
        flat = torch.full((1, 3, 24, 24), 1 / 3)
        return SimpleNamespace(abundances=flat, log_std=flat.log())

    monkeypatch.setattr(pipe.encoder, "forward", same_everywhere)
    known = {"wavelengths": scene.wavelengths, "fixed_endmembers": scene.endmembers}
    upright, turned = (pipe(cube, **known).abundances[0] for cube in (scene.cube, scene.cube.flip(0, 1)))
    np.testing.assert_allclose(turned[::-1, ::-1], upright, atol=1e-4)


def test_permuting_the_endmembers_permutes_the_output(pipe):
    scene = simulate(rank=4)
    order = [2, 0, 3, 1]
    kwargs = {"wavelengths": scene.wavelengths, "num_inference_steps": 2}
    first = pipe(scene.cube, endmembers=scene.endmembers, **kwargs)
    second = pipe(scene.cube, endmembers=scene.endmembers[order], **kwargs)
    np.testing.assert_allclose(first.abundances[..., order], second.abundances, atol=2e-3)
    np.testing.assert_allclose(first.endmembers[:, order], second.endmembers, atol=2e-3)


def test_reversed_bands_give_the_same_maps_and_reversed_spectra(pipe):
    scene = simulate()
    one = pipe(scene.cube, wavelengths=scene.wavelengths, endmembers=scene.endmembers, num_inference_steps=2)
    two = pipe(
        scene.cube.flip(-1),
        wavelengths=scene.wavelengths.flip(-1),
        endmembers=scene.endmembers.flip(-1),
        num_inference_steps=2,
    )
    np.testing.assert_allclose(one.abundances, two.abundances, atol=1e-4)
    np.testing.assert_allclose(one.endmembers[..., ::-1], two.endmembers, atol=1e-4)


def test_micrometres_are_nanometres(pipe):
    scene = simulate()
    kwargs = {"endmembers": scene.endmembers, "num_inference_steps": 1}
    one = pipe(scene.cube, wavelengths=scene.wavelengths, **kwargs)
    two = pipe(scene.cube, wavelengths=scene.wavelengths / 1000, **kwargs)
    np.testing.assert_allclose(one.abundances, two.abundances, atol=1e-3)


def test_outputs_rebuild_the_cube(pipe):
    scene = simulate(snr_db=40.0)
    out = pipe(scene.cube, wavelengths=scene.wavelengths, fixed_endmembers=scene.endmembers)
    rebuilt = out.brightness[0][..., None] * (out.abundances[0] @ out.endmembers[0])
    error = np.sqrt(np.mean((rebuilt - scene.cube.numpy()) ** 2, axis=-1))
    np.testing.assert_allclose(error, out.residual[0], atol=1e-4)
    assert error.mean() < 3 * out.noise.mean()


def test_fixed_endmembers_keep_their_shape_and_zero_steps_are_the_coarse_estimate(pipe):
    scene = simulate()
    out = pipe(scene.cube, fixed_endmembers=scene.endmembers, num_inference_steps=3)
    assert scored(scene, out.endmembers[0], out.abundances[0])["sad"] < 1e-5
    out = pipe(scene.cube, endmembers=scene.endmembers, num_inference_steps=0)
    np.testing.assert_array_equal(out.abundances, out.coarse_abundances)
    np.testing.assert_array_equal(out.endmembers, out.coarse_endmembers)


def test_known_and_unknown_endmembers_together(pipe):
    scene = simulate(rank=4, snr_db=35.0)
    out = pipe(scene.cube, fixed_endmembers=scene.endmembers[:2], num_endmembers=4, num_inference_steps=1)
    truth = scene.endmembers[:2].numpy()
    cosine = (out.endmembers[0, :2] * truth).sum(1)
    cosine = cosine / np.linalg.norm(truth, axis=1) / np.linalg.norm(out.endmembers[0, :2], axis=1)
    np.testing.assert_allclose(cosine, 1, atol=1e-5)


def turned(scene, degrees=5.0):
    return perturb_endmembers(scene.endmembers.numpy(), degrees)


def test_approximate_spectra_are_corrected_by_what_the_scene_shows(pipe, caplog):
    scene = simulate(rank=4, snr_db=35.0, height=40, width=40)
    with caplog.at_level(logging.INFO, "hsunmix"):
        out = pipe(scene.cube, endmembers=turned(scene))
    angles = spectral_angle(*(torch.as_tensor(one) for one in (out.coarse_endmembers[0], turned(scene)))).rad2deg()
    assert "corrected by " + ", ".join(f"{angle:.1f}" for angle in angles.tolist()) + " degrees" in caplog.text
    start = scored(scene, out.coarse_endmembers[0], out.coarse_abundances[0])
    assert list(start["order"]) == [0, 1, 2, 3]
    assert start["sad"] < 0.5 * np.deg2rad(5.0)
    assert scored(scene, out.endmembers[0], out.abundances[0])["sad"] < 0.5 * np.deg2rad(5.0)
    np.testing.assert_allclose(
        np.linalg.norm(out.coarse_endmembers[0], axis=1), scene.endmembers.norm(dim=1), rtol=1e-4
    )


def test_too_few_pixels_leave_approximate_spectra_alone(pipe, caplog):
    scene = simulate(rank=3, snr_db=35.0, height=7, width=8)
    given = turned(scene)
    with caplog.at_level(logging.INFO, logger="hsunmix"):
        out = pipe(scene.cube, endmembers=given, num_inference_steps=0)
    assert "not corrected" in caplog.text
    np.testing.assert_allclose(out.coarse_endmembers[0], given, rtol=1e-5)
    same = np.broadcast_to(given[0], (30, 30, given.shape[1]))
    out = pipe(np.ascontiguousarray(same), endmembers=given, num_inference_steps=0)
    np.testing.assert_allclose(out.coarse_endmembers[0], given, rtol=1e-5)


def test_spectra_of_this_very_scene_are_taken_as_they_are(pipe, caplog):
    scene = simulate(rank=3, snr_db=35.0, height=40, width=40)
    given = turned(scene, 1.0)
    with caplog.at_level(logging.INFO, logger="hsunmix"):
        out = pipe(scene.cube, endmembers=given, correct_endmembers=False, num_inference_steps=1)
    assert "given, of this scene" in caplog.text
    torch.testing.assert_close(
        unit_rows(torch.from_numpy(out.coarse_endmembers[0])), unit_rows(torch.tensor(given).float())
    )
    assert out.scene[0].extracted and out.scene[0].origin == "extracted"


def test_exact_spectra_stay_beside_approximate_ones(pipe):
    scene = simulate(rank=4, snr_db=35.0, height=40, width=40)
    exact = scene.endmembers[:2].numpy()
    out = pipe(scene.cube, fixed_endmembers=exact, endmembers=turned(scene)[2:], ensemble_size=2)
    np.testing.assert_allclose(out.endmembers[0][:2], exact, rtol=1e-5)
    angles = spectral_angle(scene.endmembers, torch.from_numpy(out.coarse_endmembers[0]))
    assert (angles[2:] < 0.6 * np.deg2rad(5.0)).all()


def test_library_on_other_bands(pipe):
    scene = simulate(rank=3, snr_db=35.0)
    fine = np.linspace(400, 2450, 500)
    nm = scene.wavelengths.numpy()
    spectra = np.stack([np.interp(fine, nm, one) for one in scene.endmembers.numpy()])
    g = np.random.default_rng(0)
    others = np.stack([np.interp(fine, np.linspace(400, 2450, 12), g.uniform(0.05, 0.9, 12)) for _ in range(20)])
    library = SpectralLibrary(np.concatenate([others, spectra]), [f"m{i}" for i in range(23)], fine)
    out = pipe(scene.cube, wavelengths=nm, library=library, num_endmembers=3, num_inference_steps=1)
    assert scored(scene, out.coarse_endmembers[0], out.coarse_abundances[0])["sad"] < 0.05
    assert not out.scene[0].extracted


def test_spectra_of_a_library_that_are_right_stay(pipe):
    scene = simulate(rank=3, snr_db=30.0)
    others = simulate(rank=8, seed=1).endmembers
    library = torch.cat([others, scene.endmembers]).numpy()
    out = pipe(scene.cube, library=library, num_endmembers=3)
    angles = spectral_angle(*(torch.from_numpy(one[0]) for one in (out.endmembers, out.coarse_endmembers)))
    assert scored(scene, out.coarse_endmembers[0], out.coarse_abundances[0])["sad"] < 1e-3  # they are found
    assert (angles < np.deg2rad(0.2)).all()


def library_of(scene, degrees):
    """Endmembers of a scene turned by so much, among eight other spectra, in percent of reflectance."""
    others = simulate(rank=8, seed=1).endmembers.numpy()
    return 100 * np.concatenate([others, turned(scene, degrees) if degrees else scene.endmembers.numpy()])


def test_spectra_of_a_library_that_are_not_those_of_the_scene_are_corrected(pipe, caplog):
    scene = simulate(rank=3, snr_db=35.0, height=40, width=40)
    with caplog.at_level(logging.WARNING, logger="hsunmix"):
        right = pipe(scene.cube, library=library_of(scene, 0.0), num_endmembers=3, num_inference_steps=0)
        too_many = pipe(scene.cube, library=library_of(scene, 0.0), num_endmembers=4, num_inference_steps=0)
        assert "explain the scene" not in caplog.text
        assert not right.scene[0].extracted and not too_many.scene[0].extracted
        out = pipe(scene.cube, library=library_of(scene, 4.0), num_endmembers=3)
    assert "the 3 spectra of the library that explain the scene best are" in caplog.text
    assert "3 spectra of the library that are like one of them count as approximate" in caplog.text
    assert scored(scene, out.endmembers[0], out.abundances[0])["sad"] < np.deg2rad(1.0)
    assert out.scene[0].extracted and out.scene[0].origin == "corrected"


def test_a_library_without_the_materials_of_the_scene_does_no_harm(pipe, caplog):
    scene = simulate(rank=3, snr_db=35.0, height=40, width=40)
    with caplog.at_level(logging.WARNING, logger="hsunmix"):
        out = pipe(scene.cube, library=library_of(scene, 0.0)[:8], num_endmembers=3, num_inference_steps=0)
    assert "0 spectra of the library that are like one of them" in caplog.text
    assert scored(scene, out.endmembers[0], out.abundances[0])["sad"] < np.deg2rad(2.0)


def test_spectra_of_a_library_stay_where_they_are_not_to_be_corrected_or_pixels_are_too_few(pipe):
    scene = simulate(rank=3, snr_db=35.0, height=40, width=40)
    library = library_of(scene, 4.0)
    small = {"cube": scene.cube[:7, :7]}
    for settings in ({"cube": scene.cube, "correct_endmembers": False}, small):
        out = pipe(**settings, library=library, num_endmembers=3, num_inference_steps=0)
        found = torch.from_numpy(out.endmembers[0])
        angles = spectral_angle(found[:, None], torch.from_numpy(library)[None]).min(1).values
        assert (angles < 1e-3).all() and not out.scene[0].extracted


def test_starts_know_where_their_endmembers_come_from(pipe):
    scene = simulate(rank=3, snr_db=35.0)
    cube, few = (pipe.processor.preprocess(one)[0] for one in (scene.cube, scene.cube[:7, :7]))
    spectra, library = scene.endmembers.numpy(), library_of(scene, 0.0) / 100

    def origin(cube, endmembers=None, fixed=None, library=None, **settings):
        generator = torch.Generator().manual_seed(0)
        return starts.start_endmembers(
            pipe.processor, cube, 3, endmembers, fixed, library, 1, generator, **settings
        ).origin

    assert origin(cube) == "extracted"
    assert origin(cube, spectra) == "corrected" == origin(cube, fixed=spectra[:1])
    assert origin(few, spectra) == "approximate" == origin(few, spectra[1:], spectra[:1])
    assert origin(cube, spectra, correct_endmembers=False) == "extracted"
    assert origin(cube, fixed=spectra) == "given" == origin(few, fixed=spectra)
    assert origin(cube, library=library) == "library"


def test_endmembers_follow_the_network_as_far_as_start_and_noise_allow(pipe):
    noisy, quiet = ([move for move, _ in moved_to_a_prediction(pipe, snr_db)] for snr_db in (20.0, 50.0))
    assert noisy[0] < 1e-6 < noisy[1] < noisy[2] < noisy[3]
    assert max(quiet[:3]) < 1e-6 and quiet[3] > 0.9 * noisy[3]  # the prediction may be further off than the noise
    varying = [move for move, _ in moved_to_a_prediction(pipe, 20.0, mixing_model="variable")]
    assert max(varying[:3]) == 0  # the network takes variation for errors


def test_endmembers_leak_as_much_as_the_nearer_of_start_and_network_may_be_off(pipe):
    """Quiet: the start stays, whatever its error; noisy: it counts as far as it is the better of the two."""
    network = 0.01 * 60**0.5  # expected error, in the units of the spectra
    quiet, noisy = ([chain for _, chain in moved_to_a_prediction(pipe, snr_db)] for snr_db in (50.0, 20.0))
    start = (0.02 * quiet[1].coarse_endmembers.norm(dim=1) / network).square().clamp_max(1)
    known, near, far, unknown = (chain.error_share for chain in quiet)
    torch.testing.assert_close(near, start, rtol=1e-2, atol=0)
    assert (known < 1e-6).all() and start.min() < 0.5
    assert (far == 1).all() and (unknown == 1).all()  # no more than the network says
    assert (noisy[0].error_share < 1e-6).all() and (noisy[1].error_share < start).any()
    varying = [chain for _, chain in moved_to_a_prediction(pipe, 20.0, mixing_model="variable")]
    for own, other in zip(varying, quiet, strict=True):  # there the start stays in any noise
        torch.testing.assert_close(own.error_share, other.error_share, rtol=1e-2, atol=1e-6)
    leaking = quiet[3].abundance_std()
    quiet[3].error_share = torch.zeros(3)
    assert (quiet[3].abundance_std() < leaking).all()


def placed_by_pixels(error):
    """Origin of a start that all pixels have placed; its error is known if it comes from spectra that were given."""
    return "extracted" if error is None else "corrected"


def as_it_is(error):
    """Origin of one that they have not placed."""
    return "approximate" if error is None else "library"


def moved_to_a_prediction(pipe, snr_db, **settings):
    """Distance moved, and chain, of endmembers whose start is off by nothing, a little, much and an unknown angle."""
    scene = simulate(rank=3, snr_db=snr_db)
    off, moves = turned(scene), []
    for error in (0.0, 0.02, 0.2, None):
        cube = pipe.processor.preprocess(scene.cube)[0]
        start = torch.from_numpy(off).float()
        model = brightness_model(cube.pixels, start, cube.noise_std, "fixed")
        known = None if error is None else torch.full((3,), error)
        chain = Chain(cube, start, torch.ones(3, dtype=torch.bool), model, as_it_is(error), known, **settings)
        chain.move_endmembers(1.1 * start, torch.full_like(start, 0.01), trust=0.1)
        moves.append((float((chain.endmembers - start).norm()), chain))
    return moves


def test_predicted_spectra_count_as_far_as_noise_is_larger_or_the_data_confirm_them():
    start = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    moved = start + torch.tensor([[0.0, 0.0, 0.01, 0.0]])
    along, across, against = (
        start + 0.1 * torch.tensor([one]) for one in ([0, 0, 1.0, 0], [0, 0, 0, 1.0], [0, 0, -1.0, 0])
    )

    def share(predicted, error, residual_noise=1.0):
        known = torch.tensor([0.1]), torch.full((4,), 0.1), predicted, torch.full_like(start, error), moved
        return float(network_share(start, *known, residual_noise))

    for error in (0.02, 0.05, 0.0999):
        assert (
            share(across, error)
            == share(against, error)
            == pytest.approx(share(along, error) * (1 - (error / 0.1) ** 2), abs=1e-6)
        )
    assert 0 < share(along, 0.0999) < share(along, 0.02)
    assert share(across, 0.2) == 0 < share(along, 0.2) < 0.5 * share(along, 0.0999)
    assert share(along, 0.2, residual_noise=0.1) == pytest.approx(0.01 * share(along, 0.2))


def test_extracted_endmembers_follow_the_network_outside_of_their_span_and_below_the_noise(pipe):
    scene = simulate(rank=3, snr_db=15.0)
    cube = pipe.processor.preprocess(scene.cube)[0]
    start = scene.endmembers.float()
    model = brightness_model(cube.pixels, start, cube.noise_std, "fixed")
    left = cube.noise_std.square().mean().sqrt() * (3 / start.shape[1]) ** 0.5  # by noise, in an extracted spectrum
    bump = 0.01 * torch.linspace(0, 3, start.shape[1]).cos().expand_as(start)
    moves = {}
    for share in (0.1, 0.5, 2.0):
        chain = Chain(cube, start, torch.ones(3, dtype=torch.bool), model, "extracted")
        placed = chain.fitted_endmembers
        chain.move_endmembers(placed + bump + 0.1 * placed.roll(1, 0), (share * left).expand_as(start), trust=0.0)
        moves[share] = chain.endmembers - placed
    basis = torch.linalg.qr(placed.T)[0]
    outside = bump - bump @ basis @ basis.T
    torch.testing.assert_close(moves[0.1], outside, atol=1e-3, rtol=0)
    assert moves[2.0].norm() < 0.02 * moves[0.1].norm() < moves[0.5].norm() < 0.8 * moves[0.1].norm()


@pytest.mark.parametrize(("snr_db", "extracted"), [(80.0, True), (80.0, False), (10.0, True)])
def test_misfit_moves_endmembers_that_all_pixels_have_placed(pipe, snr_db, extracted):
    """Not those that the user has given, and not where what looks like misfit is noise."""
    scene = simulate(rank=3, snr_db=snr_db)
    bent = scene.endmembers * (1 + 0.1 * torch.linspace(0, 20, scene.endmembers.shape[1]).sin())
    cube = pipe.processor.preprocess(scene.cube)[0]
    model = brightness_model(cube.pixels, bent, cube.noise_std, "fixed")
    origin, known = ("extracted", None) if extracted else ("library", torch.full((3,), 0.1))
    chain = Chain(cube, bent, torch.tensor([True, True, False]), model, origin, known)
    chain.move_endmembers(bent, torch.full_like(bent, 0.1), trust=0.0)
    before, after = (spectral_angle(one, scene.endmembers) for one in (bent, chain.endmembers))
    torch.testing.assert_close(after[2], before[2])
    if snr_db > 50 and extracted:
        assert (after[:2] < 0.6 * before[:2]).all()
    else:
        torch.testing.assert_close(after, before, atol=2e-3, rtol=0)


def others_in_the_span(endmembers, width=0.05):
    """Alternatives that hold about `width` of each other."""
    rank = len(endmembers)
    mixing = torch.eye(rank) + width * torch.randn(16, rank, rank, generator=torch.Generator().manual_seed(0))
    return Alternatives(mixing / mixing.sum(2, keepdim=True) @ endmembers, torch.full((16, rank), 1 / 16).double())


def mean_of(others):
    return (others.weights[..., None] * others.spectra).sum(0).float()


@pytest.mark.parametrize("mixing_model", ["linear", "bilinear"])
def test_alternatives_are_in_the_order_of_their_endmembers(pipe, mixing_model, monkeypatch):
    scene = simulate(rank=4, snr_db=35.0, height=24, width=24)
    cube = pipe.processor.preprocess(scene.cube)[0]
    orders = itertools.cycle([torch.tensor([2, 0, 3, 1]), torch.tensor([1, 2, 3, 0])])

    def shuffled(*args, **kwargs):
        found, order = extract_endmembers(*args, **kwargs), next(orders)
        return replace(found, endmembers=found.endmembers[order], alternatives=found.alternatives.reorder(order))

    monkeypatch.setattr(starts, "extract_endmembers", shuffled)
    generator, known = torch.Generator().manual_seed(0), (None, None, None)
    found = starts.start_endmembers(pipe.processor, cube, 4, *known, 2, generator, mixing_model)
    for endmembers, others in zip(found.endmembers, found.alternatives, strict=True):
        assert spectral_angle(mean_of(others), endmembers).max() < 0.01


def test_extracted_endmembers_move_to_the_facets_but_for_fixed_ones(pipe):
    scene = simulate(rank=3, snr_db=45.0, height=48, width=48)
    cube = pipe.processor.preprocess(scene.cube)[0]
    mixing = torch.tensor([[0.95, 0.05, 0.0], [0.0, 0.95, 0.05], [0.05, 0.0, 0.95]])
    start = mixing @ scene.endmembers
    model = brightness_model(cube.pixels, start, cube.noise_std, "fixed")
    movable = torch.tensor([True, True, False])

    def chain(alternatives, origin="extracted"):
        return Chain(cube, start, movable, model, origin, alternatives=alternatives)

    def off(endmembers):
        return spectral_angle(endmembers, scene.endmembers)

    others = others_in_the_span(start)
    stay, loose = chain(None), chain(others)
    assert (off(loose.fitted_endmembers)[:2] < 0.7 * off(stay.fitted_endmembers)[:2]).all()
    assert torch.equal(loose.fitted_endmembers[2], start[2])
    assert torch.equal(chain(others, "approximate").fitted_endmembers, start)
    loose.move_endmembers(start, torch.full_like(start, 0.1), trust=0.0)
    assert (off(loose.endmembers)[:2] < 0.7 * off(stay.fitted_endmembers)[:2]).all()


@pytest.mark.parametrize("brightness", ["fixed", "free"])
@pytest.mark.parametrize("error", [None, torch.full((3,), 0.02)], ids=["extracted", "given"])
def test_archetypes_go_on_to_where_more_alternations_put_them_but_for_fixed_ones(pipe, brightness, error):
    scene = simulate(rank=3, snr_db=25.0, height=48, width=48)
    cube = pipe.processor.preprocess(scene.cube)[0]
    mixing = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.9, 0.1], [0.1, 0.0, 0.9]])
    start, movable = mixing @ scene.endmembers, torch.tensor([True, True, False])
    model = brightness_model(cube.pixels, start, cube.noise_std, brightness)

    by_pixels = placed_by_pixels(error)

    def chain(polished, origin=by_pixels):
        return Chain(cube, start, movable, model, origin, error, polished=polished)

    def off(endmembers):
        return spectral_angle(endmembers, scene.endmembers)

    polished, plain = chain(scene.endmembers), chain(None)
    assert (off(polished.fitted_endmembers)[:2] < 0.5 * off(plain.fitted_endmembers)[:2]).all()
    assert torch.equal(polished.fitted_endmembers[2], polished.coarse_endmembers[2])
    # the networks still see the start
    assert torch.equal(polished.endmembers, plain.endmembers)
    assert torch.equal(polished.evidence.rhs, plain.evidence.rhs)
    level = polished.scale[:, 0] if brightness == "free" else scene.endmembers.amax(1)
    assert ((polished.fitted_endmembers.amax(1) / level - 1)[:2].abs() < 0.05).all()
    # what they predict near the start is moved with it
    for one in (polished, plain):
        one.move_endmembers(one.coarse_endmembers, torch.full_like(start, 0.1), trust=0.0)
    assert (off(polished.endmembers)[:2] < 0.5 * off(plain.endmembers)[:2]).all()
    assert torch.equal(chain(scene.endmembers, as_it_is(error)).fitted_endmembers, plain.coarse_endmembers)


def test_with_brightness_held_fixed_extracted_endmembers_have_the_scale_of_the_pixels(pipe):
    """Where light is uneven they would have a common maximum, and a dark material none of its pixels."""
    scene = simulate(rank=3, snr_db=30.0, height=48, width=48)
    albedo = torch.tensor([1.0, 0.5, 0.2])
    light = torch.exp(0.15 * torch.randn(48, 48, 1, generator=torch.Generator().manual_seed(1)))
    dim = replace(scene, endmembers=albedo[:, None] * scene.endmembers)
    cube = light * (scene.abundances @ dim.endmembers) + (scene.cube - scene.clean)
    inputs = dict(wavelengths=scene.wavelengths, num_endmembers=3, reflectance_scale=1.0)
    held, free = (
        pipe(cube, brightness=mode, generator=torch.Generator().manual_seed(0), **inputs) for mode in ("fixed", "free")
    )
    assert np.ptp(free.endmembers[0].max(1)) < 1e-3 < 0.1 < np.ptp(held.endmembers[0].max(1))
    result = scored(dim, held.endmembers[0], held.abundances[0])
    ratio = held.endmembers[0][result["order"]].max(1) / dim.endmembers.amax(1).numpy()
    assert (np.abs(ratio / ratio.mean() - 1) < 0.15).all() and abs(ratio.mean() - 1) < 0.15
    equally_bright = torch.from_numpy(free.endmembers[0])
    other = scored(dim, equally_bright, fcls(cube.flatten(0, 1), equally_bright).unflatten(0, cube.shape[:2]))
    assert result["abundance_rmse"] < 0.6 * other["abundance_rmse"]


def test_spectra_are_not_bent_to_make_up_for_light_that_the_user_holds_fixed(pipe):
    scene = simulate(rank=3, snr_db=40.0, height=48, width=48)
    light = torch.exp(0.2 * torch.randn(48, 48, 1, generator=torch.Generator().manual_seed(1)))
    cube = pipe.processor.preprocess(scene.cube * light)[0]
    start = 0.95 * scene.endmembers + 0.05 * scene.endmembers.roll(1, 0)
    models = [brightness_model(cube.pixels, start, cube.noise_std, mode) for mode in ("fixed", "auto")]
    chains = [Chain(cube, start, torch.ones(3, dtype=torch.bool), model, "extracted") for model in models]
    assert [one.brightness_model.uneven for one in chains] == [True, False]
    assert torch.equal(chains[0].fitted_endmembers, start)
    assert not torch.equal(chains[1].fitted_endmembers, chains[1].coarse_endmembers)


def stay(*data):
    """`final_endmember_step` of no length."""
    return data[3]


@pytest.mark.parametrize("looked_for", [True, False])
@pytest.mark.parametrize("error", [None, torch.full((3,), 0.02)], ids=["extracted", "given"])
def test_spectra_go_on_to_where_all_pixels_would_have_them_but_for_fixed_ones(pipe, looked_for, error, monkeypatch):
    scene = simulate(rank=3, snr_db=25.0, height=48, width=48)
    cube = pipe.processor.preprocess(scene.cube)[0]
    wrong = torch.randn(scene.endmembers.shape, generator=torch.Generator().manual_seed(0))
    wrong[2] = 0
    start = (scene.endmembers * (1 + 0.02 * wrong)).clamp_min(0)
    model = brightness_model(cube.pixels, start, cube.noise_std, "fixed")
    movable = torch.tensor([True, True, False])
    others = others_in_the_span(start) if looked_for else None

    by_pixels = placed_by_pixels(error)

    def chain(origin=by_pixels, mixing_model="linear"):
        return Chain(cube, start, movable, model, origin, error, mixing_model, alternatives=others)

    for rounds in ("_ROUNDS", "_WITHOUT_FACETS"):  # each step by itself, not what it changes for the next one
        monkeypatch.setattr(chain_module, rounds, 1)
    moved, varying = chain(), chain(mixing_model="variable")  # what varies is taken out of the pixels of this one
    assert torch.equal(chain(as_it_is(error)).fitted_endmembers, start)  # not placed: of a library, or approximate
    monkeypatch.setattr(chain_module, "final_endmember_step", stay)
    placed = chain()
    without = chain(mixing_model="variable")
    for late, early, part in ((varying, without, 0.97), (moved, placed, 0.7)):
        before, after = (spectral_angle(one.fitted_endmembers, scene.endmembers) for one in (early, late))
        assert (after[:2] < part * before[:2]).all()
    assert torch.equal(moved.fitted_endmembers[2], start[2])
    torch.testing.assert_close(moved.facet_move, placed.facet_move)
    assert torch.equal(moved.endmembers, start) and torch.equal(moved.evidence.rhs, placed.evidence.rhs)
    moved.move_endmembers(start, torch.full_like(start, 0.1), trust=0.0)
    assert (spectral_angle(moved.endmembers, scene.endmembers)[:2] < 0.7 * before[:2]).all()


def placed(pipe, rank, width, held=0.05, error=None):
    """A chain whose start holds that much of others, with alternatives that differ by `width` (or none); the truth.

    Of extracted endmembers, or of corrected ones where their `error` is known.
    """
    scene = simulate(rank=rank, snr_db=45.0, height=48, width=48)
    cube = pipe.processor.preprocess(scene.cube)[0]
    eye = torch.eye(rank)
    start = ((1 - held) * eye + held * eye.roll(1, 1)) @ scene.endmembers
    alternatives = None if width is None else others_in_the_span(start, width)
    model = brightness_model(cube.pixels, start, cube.noise_std, "fixed")
    known, origin = None if error is None else torch.full((rank,), error), placed_by_pixels(error)
    return Chain(
        cube, start, torch.ones(rank, dtype=torch.bool), model, origin, known, alternatives=alternatives
    ), scene


def counting(monkeypatch, name):
    """Calls of a step that chains take; it is still taken."""
    calls, step = [], getattr(chain_module, name)

    def counted(*args):
        calls.append(name)
        return step(*args)

    monkeypatch.setattr(chain_module, name, counted)
    return calls


def test_endmembers_are_placed_again_where_facets_turned_them_far(pipe, monkeypatch):
    calls = counting(monkeypatch, "facet_step")

    def off(width):
        calls.clear()
        chain, scene = placed(pipe, 4, width, held=0.04)
        angles = (spectral_angle(one, scene.endmembers) for one in (chain.fitted_endmembers, chain.coarse_endmembers))
        return *(float(x.mean()) for x in angles), len(calls)

    again, coarse, count = off(width=0.02)
    assert count > 1
    assert off(width=0.5)[2] == 1  # which hold nothing back
    monkeypatch.setattr(chain_module, "_ROUNDS", 1)
    once, _, _ = off(width=0.02)
    assert again < 0.6 * once < 0.1 * coarse


def test_rounds_without_facets_of_two_endmembers_and_of_a_few_corrected_ones(pipe, monkeypatch):
    facets, last = (counting(monkeypatch, name) for name in ("facet_step", "final_endmember_step"))
    once = {"held": 0.04, "error": 0.05}  # far enough for more of extracted ones, see above
    for rank, width, start, expected in (
        (3, None, {}, (0, 2)), (2, None, {}, (0, 1)), (2, 0.02, {}, (1, 1)),
        (4, 0.02, once, (1, 1)), (5, 0.02, once, (1, 1)), (6, 0.02, once, (3, 3)), (4, None, once, (0, 2)),
    ):  # fmt: skip
        facets.clear(), last.clear()
        placed(pipe, rank, width, **start)
        assert (len(facets), len(last)) == expected
    monkeypatch.setattr(chain_module, "_FEW", 2)
    facets.clear()
    placed(pipe, 5, 0.02, **once)
    assert len(facets) > 1


def test_what_facets_move_adds_up_and_is_limited_over_all_rounds(pipe, monkeypatch):
    monkeypatch.setattr(chain_module, "final_endmember_step", stay)
    start = placed(pipe, 4, None)[0].fitted_endmembers
    calls = counting(monkeypatch, "facet_step")

    def turned():
        """Over what is allowed."""
        calls.clear()
        chain, _ = placed(pipe, 4, 0.02)
        assert len(calls) > 1
        torch.testing.assert_close(chain.facet_move, chain.fitted_endmembers - start, atol=1e-6, rtol=0)
        spread = spectral_angle(chain.alternatives.spectra, mean_of(chain.alternatives)).square().mean(0).sqrt()
        return float((spectral_angle(chain.fitted_endmembers, start) / (2 * spread + 0.01)).max())

    assert 0.9 < turned() < 1.001
    monkeypatch.setattr(facets, "_FAR", 10.0)
    assert turned() > 1.1


def test_alternatives_count_where_facets_have_placed_endmembers_whatever_dark_pixels_leave_open(pipe, monkeypatch):
    chain, _ = placed(pipe, 3, 0.05)

    def misplaced():
        chain.count_alternatives()
        return chain.stages[-1].misplaced

    in_light = misplaced()
    assert in_light.any()
    light, std = chain.evidence.brightness.clone(), chain.posterior_std()
    light[:40], std[:40] = 0.01, 0.5
    chain.evidence = replace(chain.evidence, brightness=light)
    monkeypatch.setattr(chain, "posterior_std", lambda: std)
    torch.testing.assert_close(misplaced(), in_light, rtol=0.02, atol=0)
    std[40:] *= 2
    torch.testing.assert_close(misplaced(), 2 * in_light, rtol=0.02, atol=0)
    monkeypatch.setattr(chain_module, "facet_step", lambda evidence, endmembers, *others: endmembers)
    chain, _ = placed(pipe, 3, 0.05)
    assert not misplaced().any()


@pytest.mark.parametrize("error", [None, torch.full((3,), 0.02)], ids=["extracted", "given"])
def test_spectra_stay_where_other_materials_are_what_the_pixels_have_in_common(pipe, error, monkeypatch):
    scene = simulate(rank=3, snr_db=25.0, height=48, width=48)
    wrong = torch.randn(scene.endmembers.shape, generator=torch.Generator().manual_seed(0))
    start = (scene.endmembers * (1 + 0.02 * wrong)).clamp_min(0)
    spoiled = scene.cube.clone()
    spoiled[::3] += 0.1 * torch.rand(spoiled.shape[-1], generator=torch.Generator().manual_seed(1))
    chains = []
    for step in (final_endmember_step, stay):
        monkeypatch.setattr(chain_module, "final_endmember_step", step)
        for cube in (scene.cube, spoiled):
            prepared = pipe.processor.preprocess(cube)[0]
            model = brightness_model(prepared.pixels, start, prepared.noise_std, "fixed")
            chains.append(
                Chain(prepared, start, torch.ones(3, dtype=torch.bool), model, placed_by_pixels(error), error)
            )
    clean, other, *placed = (chain.fitted_endmembers for chain in chains)
    assert (other - placed[1]).norm() < 0.1 * (clean - placed[0]).norm()


@pytest.mark.parametrize("mixing_model", MIXING_MODELS)
def test_networks_see_the_start_whether_or_not_facets_have_been_looked_for(pipe, mixing_model):
    scene = simulate(rank=3, snr_db=35.0)
    cube = pipe.processor.preprocess(scene.cube)[0]
    start = (
        scene.endmembers,
        torch.ones(3).bool(),
        brightness_model(cube.pixels, scene.endmembers, cube.noise_std, "fixed"),
    )
    without, found = (
        Chain(cube, *start, "extracted", mixing_model=mixing_model, alternatives=others)
        for others in (None, others_in_the_span(scene.endmembers))
    )
    assert not torch.equal(found.fitted_endmembers, without.fitted_endmembers)
    assert torch.equal(found.endmembers, without.endmembers) and torch.equal(found.cube.pixels, without.cube.pixels)
    assert torch.equal(found.evidence.rhs, without.evidence.rhs) and found.seen_share == without.seen_share


def test_all_but_fixed_spectra_of_every_member_may_move_to_the_facets(pipe):
    scene = simulate(rank=3, snr_db=35.0, height=32, width=32)
    cube = pipe.processor.preprocess(scene.cube)[0]
    spectra = scene.endmembers.numpy()
    generator = torch.Generator().manual_seed(0)
    found = starts.start_endmembers(pipe.processor, cube, 3, turned(scene)[1:2], spectra[:1], None, 2, generator)
    for endmembers, others in zip(found.endmembers, found.alternatives, strict=True):
        assert not others.weights[:, 0].any()
        torch.testing.assert_close(others.weights[:, 1:].sum(0), torch.ones(2, dtype=torch.float64))
        assert spectral_angle(mean_of(others), endmembers)[1:].max() < 0.01
    given = starts.start_endmembers(pipe.processor, cube, None, None, spectra, None, 2, generator)
    assert given.alternatives == [None, None]
    plain, moved = (
        pipe(scene.cube, num_endmembers=3, facets=facets, generator=torch.Generator().manual_seed(0))
        for facets in (False, True)
    )
    np.testing.assert_array_equal(plain.coarse_endmembers[0], moved.coarse_endmembers[0])
    assert (spectral_angle(*(torch.as_tensor(one.endmembers[0]) for one in (plain, moved))) > 1e-5).all()


def test_nan_pixels_and_bad_bands_come_out_as_nan(pipe):
    scene = simulate()
    data = scene.cube.numpy().copy()
    data[3, 4, 10] = np.nan
    data[5, 6] = 0
    mask = np.ones(data.shape[2], bool)
    mask[20:23] = False
    out = pipe(Cube(data, wavelengths=scene.wavelengths.numpy(), band_mask=mask), num_endmembers=3)
    holes = np.isnan(out.abundances[0]).all(-1)
    assert holes[3, 4] and holes[5, 6] and holes.sum() == 2
    assert np.isnan(out.residual[0]).sum() == 2
    assert (
        np.isnan(out.endmembers[0, :, 20:23]).all()
        and np.isfinite(np.delete(out.endmembers[0], [20, 21, 22], 1)).all()
    )


def test_uncertainty_of_one_chain_and_of_an_ensemble(pipe):
    scene = simulate(snr_db=15.0)
    kwargs = {"num_endmembers": 3, "num_inference_steps": 2, "generator": torch.Generator().manual_seed(0)}
    assert pipe(scene.cube, **kwargs).abundance_uncertainty is None
    for size in (1, 2):
        out = pipe(scene.cube, ensemble_size=size, output_uncertainty=True, **kwargs)
        assert out.abundance_uncertainty.shape == out.abundances.shape
        assert (out.abundance_uncertainty > 0).all() and (out.abundance_uncertainty <= 1).all()
        assert out.endmember_uncertainty.shape == out.endmembers.shape


@pytest.mark.parametrize(("given", "seeded"), [(0, True), (0, False), (1, True), (3, True)])
def test_every_chain_of_an_ensemble_extracts_for_itself(pipe, given, seeded):
    """Endmembers of all chains are in one order, and none is a copy of another."""
    scene = simulate(snr_db=15.0)
    known = {"endmembers": scene.endmembers[:given]} if given else {}

    def starts():
        source = torch.Generator().manual_seed(3) if seeded else None
        call = {"num_endmembers": 3, "num_inference_steps": 1, "ensemble_size": 2, "generator": source}
        return [chain[0].endmembers for chain in pipe(scene.cube, **known, **call).scene[0].stages]

    first, other = starts()
    angles = spectral_angle(first[:, None], other[None])
    assert (angles.diagonal() > 1e-4).any() and angles.argmin(1).tolist() == [0, 1, 2]
    assert all(torch.equal(one, again) for one, again in zip((first, other), starts(), strict=True))


@pytest.mark.parametrize("scale", [10_000, 100])
def test_scaled_integers_are_recognised_with_a_warning(pipe, scale, caplog):
    scene = simulate()
    kwargs = {"wavelengths": scene.wavelengths, "fixed_endmembers": scene.endmembers, "num_inference_steps": 1}
    expected = pipe(scene.cube, **kwargs)
    scaled = np.round(scene.cube.numpy() * scale, 3 if scale == 100 else 0)
    with caplog.at_level(logging.WARNING, logger="hsunmix"):
        found = pipe(scaled, **kwargs)
    assert "reflectance_scale" in caplog.text
    np.testing.assert_allclose(found.abundances, expected.abundances, atol=0.01)
    told = pipe(scaled, reflectance_scale=scale, **kwargs)
    np.testing.assert_allclose(told.abundances, expected.abundances, atol=0.01)


def bad(**kwargs):
    return kwargs


CUBE = np.random.default_rng(0).uniform(0.1, 0.9, (6, 7, 40)).astype(np.float32)
NM = np.linspace(400, 2400, 40)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (bad(cube=CUBE[0]), "dimension|\\(H, W, B\\)"),
        (bad(cube=CUBE.astype(np.complex64)), "complex"),
        (bad(cube=np.zeros_like(CUBE)), "`cube`.*zero"),
        (bad(cube=np.full_like(CUBE, np.nan)), "cube"),
        (bad(cube=-CUBE), "negative"),
        (bad(cube=CUBE * 1e7), "reflectance_scale"),
        (bad(cube=[]), "`cube`"),
        (bad(wavelengths=NM[1:]), "wavelengths"),
        (bad(cube=CUBE.transpose(2, 0, 1), wavelengths=NM), "transpose|moveaxis|\\(B, H, W\\)"),
        (bad(num_endmembers=1), "`num_endmembers`"),
        (bad(num_endmembers=41), "`num_endmembers`.*bands"),
        (bad(cube=CUBE[:1, :2], num_endmembers=3), "`num_endmembers`.*pixels"),
        (bad(num_endmembers=2.5), "`num_endmembers`"),
        (bad(endmembers=np.ones((3, 39))), "`endmembers`.*39 bands.*40"),
        (bad(endmembers=np.ones((40, 3))), "one spectrum in each row"),
        (bad(endmembers=np.ones((50, 40))), "50 spectra.*40 usable bands.*`library`"),
        (bad(library=SpectralLibrary(np.ones((9, 20)), wavelengths=NM[::2])), "has \\(`wavelengths`\\)"),
        (bad(fixed_endmembers=np.ones((3, 41))), "`fixed_endmembers`.*41 bands"),
        (bad(endmembers=np.full((3, 40), np.nan)), "`endmembers`.*NaN"),
        (bad(endmembers=np.ones((3, 40)), num_endmembers=2), "`num_endmembers` is 2, but 3"),
        (bad(library=np.ones((2, 40)), num_endmembers=3), "`library`"),
        (bad(library=np.ones((9, 40)), endmembers=np.ones((3, 40))), "`library`"),
        (
            bad(correct_endmembers=False),
            "`correct_endmembers`: only `endmembers` or a `library` can stay as they are",
        ),
        (bad(endmembers=np.eye(3, 40), num_endmembers=4, correct_endmembers=False), "only 3 of the 4 endmembers"),
        (bad(brightness="dark"), "`brightness`"),
        (bad(strength=0.0), "`strength`"),
        (bad(strength="all"), "`strength`"),
        (bad(callback_on_step_end="print"), "`callback_on_step_end`"),
        (bad(guidance_scale=0.0), "`guidance_scale`"),
        (bad(latents=torch.zeros(1, 2, 3, 3)), "`latents`"),
    ],
)
def test_bad_input_is_refused_by_name(pipe, kwargs, message):
    call = {"cube": CUBE, "num_endmembers": 3} | kwargs
    if "endmembers" in kwargs or "fixed_endmembers" in kwargs:
        call["num_endmembers"] = kwargs.get("num_endmembers")
    with pytest.raises(ValueError, match=message):
        pipe(**call)


def test_a_small_library_given_as_endmembers_is_doubted(pipe, caplog):
    spectra = np.random.default_rng(0).uniform(0.1, 0.9, (25, 40))
    pipe(CUBE, endmembers=spectra[:4], num_inference_steps=0)
    assert "`library`" not in caplog.text
    pipe(CUBE, endmembers=spectra, num_inference_steps=0)
    assert "all of the 25 spectra" in caplog.text and "`library`" in caplog.text


def test_bands_that_come_first_are_doubted(pipe, caplog):
    cube = simulate(rank=3, snr_db=35.0).cube.numpy()
    pipe(cube, num_endmembers=3, num_inference_steps=0)
    assert "transpose" not in caplog.text
    pipe(cube.transpose(2, 0, 1), num_endmembers=3, num_inference_steps=0)
    assert "if the bands of `cube` come first" in caplog.text and "transpose(1, 2, 0)" in caplog.text


def test_unknown_bundled_checkpoint():
    with pytest.raises(ValueError, match="not a bundled checkpoint"):
        hsunmix.bundled_checkpoint("nothing")


def test_intervals_cover_what_they_say(pipe):
    inside = []
    for seed in range(6):
        scene = simulate(seed=seed, height=32, width=32, snr_db=15.0)
        known = scene.endmembers.numpy()
        out = pipe(scene.cube.numpy(), fixed_endmembers=known, reflectance_scale=1.0, output_uncertainty=True)
        low, high = out.abundance_interval(0.9)
        truth = scene.abundances.numpy()
        inside.append(((low <= truth) & (truth <= high)).mean())
        narrow_low, narrow_high = out.abundance_interval(0.5)
        assert ((low <= narrow_low) & (narrow_low <= out.abundances)).all()
        assert ((out.abundances <= narrow_high) & (narrow_high <= high)).all()
    assert 0.83 < np.median(inside) < 0.98


def test_intervals_need_an_uncertainty_and_a_probability(pipe):
    scene = simulate()
    out = pipe(scene.cube.numpy(), num_endmembers=3, reflectance_scale=1.0)
    with pytest.raises(ValueError, match="output_uncertainty"):
        out.abundance_interval()
    with pytest.raises(ValueError, match="`level`"):
        out.abundance_interval(90)


def test_a_cube_without_noise_counts_as_60_db(pipe):
    scene = simulate(snr_db=None)
    out = pipe(scene.cube.numpy(), num_endmembers=3, reflectance_scale=1.0)
    rms = scene.cube.square().mean((0, 1)).max().sqrt()
    assert np.nanmin(out.noise) >= 0.99e-3 * float(rms)


def test_cube_and_exact_endmembers_in_different_units(pipe):
    scene = simulate()
    scene_cube, known = scene.cube.numpy() / float(scene.brightness.mean()), scene.endmembers.numpy()
    same = pipe(scene_cube, fixed_endmembers=known, reflectance_scale=1.0).abundances
    other = pipe(scene_cube * 0.4, fixed_endmembers=known, reflectance_scale=1.0).abundances
    np.testing.assert_allclose(other, same, atol=0.01)


def test_fill_values_that_nothing_declares_are_no_data():
    """Pixels of one and the same negative number: so many sensors fill their edges."""
    inputs = tiny_inputs()
    inputs["cube"][2, 3:5] = -9999.0
    out = tiny_pipeline()(**inputs)
    assert np.isnan(out.abundances[0, 2, 3:5]).all() and np.isfinite(out.abundances[0, 3]).all()


def test_spectra_in_percent_are_taken_as_such(caplog):
    inputs = tiny_inputs(brightness="fixed")
    plain = tiny_pipeline()(**inputs)
    inputs |= {"endmembers": 100 * inputs["endmembers"], "generator": torch.Generator().manual_seed(0)}
    with caplog.at_level("WARNING"):
        percent = tiny_pipeline()(**inputs)
    np.testing.assert_allclose(percent.abundances, plain.abundances, atol=1e-4)
    assert "reflectance times 100" in caplog.text


def test_spectra_given_twice_are_named(caplog):
    inputs = tiny_inputs()
    inputs["endmembers"] = inputs["endmembers"][[0, 1, 2, 1]] * np.array([[1], [1], [1], [0.5]], np.float32)
    with caplog.at_level("WARNING"):
        tiny_pipeline()(**inputs)
    assert "spectra 2 and 4 of those that are given differ in brightness only" in caplog.text
    caplog.clear()
    with caplog.at_level("WARNING"):
        tiny_pipeline()(**tiny_inputs())
    assert "differ in brightness only" not in caplog.text


def test_library_spectra_that_miss_a_band_or_are_empty_are_left_out():
    inputs = tiny_inputs(num_endmembers=2)
    library = inputs.pop("endmembers")
    gap = np.vstack([library, library[:1], np.zeros_like(library[:1])])
    gap[3, 5] = np.nan
    out = tiny_pipeline()(**inputs, library=gap)
    assert np.isfinite(out.abundances).all()
    with pytest.raises(ValueError, match="`library` holds NaN"):
        tiny_pipeline()(**inputs, library=np.full_like(library, np.nan))


def test_scene_without_contrast_is_refused():
    inputs = tiny_inputs(blind=True)
    inputs["cube"][:] = inputs["cube"][0, 0]
    with pytest.raises(ValueError, match="the same spectrum in every pixel"):
        tiny_pipeline()(**inputs)


def test_scale_that_leaves_impossible_reflectance_is_doubted(caplog):
    inputs = tiny_inputs()
    inputs["cube"] = 5000 * inputs["cube"]
    with caplog.at_level("WARNING"):
        tiny_pipeline()(**inputs, reflectance_scale=1.0)
    assert "`reflectance_scale` leaves values of" in caplog.text
    caplog.clear()
    with caplog.at_level("WARNING"):
        tiny_pipeline()(**inputs, reflectance_scale=5000.0)
    assert "leaves values" not in caplog.text


@pytest.mark.parametrize("mixing", ["bilinear", "variable"])
@pytest.mark.parametrize("blind", [False, True])
def test_other_than_linear_scenes_are_unmixed_better_with_their_own_model(pipe, blind, mixing):
    errors = {"linear": [], mixing: []}
    spectra = {}
    for seed in range(2):
        simulator = SceneSimulator(min_angle_degrees=12.0, dead_pixel_probability=0.0)
        scene = simulator(
            torch.Generator().manual_seed(seed), num_endmembers=4, height=32, width=32, snr_db=40.0, mixing=mixing,
            sensor=even_sensor(420.0, 2400.0, 80), noise="white", brightness="fixed", abundance_kind="gaussian",
        )  # fmt: skip
        known = {"num_endmembers": 4} if blind else {"fixed_endmembers": scene.endmembers}
        for model, found in errors.items():
            out = pipe(
                scene.cube, wavelengths=scene.wavelengths, mixing_model=model, brightness="fixed",
                generator=torch.Generator().manual_seed(0), **known,
            )  # fmt: skip
            found.append(scored(scene, out.endmembers[0], out.abundances[0])["abundance_rmse"])
            spectra[model] = out.endmembers[0]
        order = match_endmembers(spectra[mixing], spectra["linear"])
        assert order.tolist() == [0, 1, 2, 3], "the second extraction brought another order"
    assert np.mean(errors[mixing]) < (0.95 if blind else 0.6) * np.mean(errors["linear"])


def test_spectra_of_a_bilinear_scene_are_nearer_after_more_rounds(pipe, monkeypatch):
    g, wavelengths = torch.Generator().manual_seed(7), torch.linspace(420, 2400, 100)
    spectra = parametric_spectra(400, wavelengths, g)
    scene = benchmark_scene(spectra, wavelengths, g, "bilinear", 40.0, num_endmembers=3)
    inputs = {"num_endmembers": 3, "mixing_model": "bilinear", "num_inference_steps": 0, "wavelengths": wavelengths}
    angles = {}
    for rounds in (1, 3):
        monkeypatch.setattr(starts, "_ROUNDS", rounds)
        out = pipe(scene.cube, generator=torch.Generator().manual_seed(0), **inputs)
        angles[rounds] = scored(scene, out.endmembers[0], out.abundances[0])["sad"]
    assert angles[3] < 0.95 * angles[1]


def test_endmembers_that_vary_are_no_cloud_about_archetypes(pipe, monkeypatch):
    g, wavelengths = torch.Generator().manual_seed(3), torch.linspace(420, 2400, 100)
    spectra = parametric_spectra(400, wavelengths, g)
    scene = benchmark_scene(spectra, wavelengths, g, "variable", 40.0, num_endmembers=3)
    extract, methods, angles = starts._extract, [], []

    def noted(*args, **kwargs):
        found = extract(*args, **kwargs)
        methods.append(found.method)
        return found

    monkeypatch.setattr(starts, "_extract", noted)
    for allowed in (starts._ALLOWED, 0.0):
        monkeypatch.setattr(starts, "_ALLOWED", allowed)
        g.manual_seed(0)
        out = pipe(scene.cube, num_endmembers=3, wavelengths=wavelengths, num_inference_steps=0, generator=g)
        angles.append(scored(scene, out.endmembers[0], out.abundances[0])["sad"])
    assert methods[0] == "archetypes" and methods[2:4] == ["minimum_volume", "minimum_volume"]
    assert angles[0] < 0.03 and angles[1] > 0.05


@pytest.mark.parametrize("mixing", ["variable", "linear"])
def test_archetypes_may_hide_that_endmembers_vary(pipe, mixing):
    """Others are tried where light is not even, and taken if they explain it."""
    g, wavelengths = torch.Generator().manual_seed(3), torch.linspace(420, 2400, 100)
    scene = benchmark_scene(parametric_spectra(400, wavelengths, g), wavelengths, g, mixing, 30.0, num_endmembers=3)
    rough = torch.exp(0.1 * torch.randn(*scene.cube.shape[:2], 1, generator=g))
    cube = pipe.processor.preprocess(scene.cube * rough if mixing == "linear" else scene.cube, wavelengths)[0]
    inside = torch.lerp(scene.endmembers, scene.endmembers.mean(0), 0.5)
    before = g.get_state()
    found = starts._simplex_of_varying(cube, inside, None, g)
    if mixing == "linear":
        assert found is None
        assert torch.equal(g.get_state(), before), "an attempt in vain changes nothing else"
    else:
        off, left = (spectral_angle(one, scene.endmembers).mean() for one in (inside, found))
        assert left < 0.3 * off


@needs_data
def test_a_scene_is_variable_though_archetypes_rank_first_and_hide_it(pipe, monkeypatch):
    scene = simulated_reference_scene(SHARED / "libraries/dc_dictionary240.hdr", 700, "variable", 3, 0.8)
    cube, errors = add_noise(scene.cube, 20.0, 0), {}
    for allowed in (starts._MOST_LEFT, 0.0):
        monkeypatch.setattr(starts, "_MOST_LEFT", allowed)
        g = torch.Generator().manual_seed(0)
        out = pipe(cube, num_endmembers=3, wavelengths=scene.wavelengths, num_inference_steps=0, generator=g)
        truth = {"cube": scene.cube, "endmembers": scene.endmembers, "abundances": scene.abundances}
        found = evaluate(out.endmembers[0], out.abundances[0], truth)
        errors[out.mixing_model[0]] = found["abundance_rmse"]
    assert errors["variable"] < 0.6 * errors["linear"]


@pytest.mark.parametrize("known", ["nothing", "exact", "approximate", "library"])
def test_the_mixing_model_is_found(pipe, known):
    for mixing in ("variable", "bilinear", "linear"):
        g, wavelengths = torch.Generator().manual_seed(3), torch.linspace(420, 2400, 100)
        scene = benchmark_scene(parametric_spectra(400, wavelengths, g), wavelengths, g, mixing, 30.0)
        spectra = scene.endmembers.numpy()
        start = {
            "nothing": {"num_endmembers": 5},
            "exact": {"fixed_endmembers": spectra},
            "approximate": {"endmembers": turned(scene)},
            "library": {"library": spectra, "num_endmembers": 5},
        }[known]
        inputs = {"wavelengths": wavelengths, **start}
        out, same = (
            pipe(scene.cube, mixing_model=model, generator=torch.Generator().manual_seed(0), **inputs)
            for model in ("auto", mixing)
        )
        assert out.mixing_model == [mixing]
        np.testing.assert_array_equal(out.abundances, same.abundances)
        assert pipe(scene.cube, brightness="fixed", num_inference_steps=0, **inputs).mixing_model == ["linear"]
