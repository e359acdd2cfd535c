"""Examples and losses: what the networks are shown is what the pipeline shows them."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from hsunmix.models import HybridSTU, ResUNet1D, ResUNet2D
from hsunmix.physics import abundance_step, estimate_noise, gather_evidence, spectral_angle
from hsunmix.pipelines.chain import EXTRACTED_SHARE, LEAST_PRIOR_STD
from hsunmix.simulation import SceneSimulator
from hsunmix.training import ExampleConfig, JointModel, RealMaps, SimulatedExamples, joint_loss
from hsunmix.training.examples import turned
from hsunmix.training.joint import gather_batch
from hsunmix.training.labelled import LabelledScenes
from hsunmix.training.losses import (
    abundance_loss,
    coarse_loss,
    consistent_maps,
    endmember_loss,
    noised_sample,
    training_scheduler,
)


def examples(**options):
    config = ExampleConfig(batch_size=2, size=12, num_endmembers=(3, 3), no_wavelengths_fraction=0.0)
    return SimulatedExamples(SceneSimulator(None, num_bands=(40, 60)), config, 3, 20, **options)


@pytest.fixture(scope="module")
def batch():
    return examples()[0]


def test_examples_are_reproducible_and_finite():
    one, other = examples()[4], examples()[4]
    assert set(one) == set(other)
    for name, value in one.items():
        assert torch.equal(value, other[name]) and torch.isfinite(value.float()).all(), name
    assert not torch.equal(one["abundances"], examples()[5]["abundances"])


def test_consistency_is_the_samplers_own():
    bounded, stream = 0, examples()
    for batch, n in ((stream[i], n) for i in range(4) for n in range(2)):
        clean = batch["abundances"]
        pulled = consistent_maps(clean, torch.full_like(clean, 0.02), batch, guidance_scale=0.7)
        u = batch["brightness"][n][:, None].clamp_min(1e-6)
        precision = 1 / (u * (0.02**2 + LEAST_PRIOR_STD**2) ** 0.5) ** 2 / 0.7 / batch["confidence"][n][:, None]
        prior = u * clean[n].flatten(1).T / clean[n].flatten(1).T.sum(1, keepdim=True)
        exact = abundance_step(batch["gram"][n], batch["rhs"][n], prior, precision.expand_as(prior))
        bounded += int((exact == 0).any(1).sum())
        expected = (exact / exact.sum(1, keepdim=True)).float()
        torch.testing.assert_close(pulled[n].flatten(1).T, expected, atol=1e-4, rtol=1e-3)
    assert bounded > 100


def test_gradient_of_the_consistency_holds_where_bounds_are_active(batch):
    clean = (0.6 * batch["abundances"] + 0.4 * batch["abundances"].roll(1, -1)).double().requires_grad_()
    std, target = torch.full_like(clean, 0.3), batch["abundances"].double()

    def error(maps):
        return (consistent_maps(maps, std, batch).double() - target).square().sum()

    assert (consistent_maps(clean, std, batch) == 0).any()
    (gradient,) = torch.autograd.grad(error(clean), clean)
    direction = gradient.detach() / gradient.norm()
    change = error(clean + 0.005 * direction) - error(clean - 0.005 * direction)
    assert float(change.detach()) == pytest.approx(0.01 * float(gradient.norm()), rel=0.1)


def test_quiet_scenes_with_misfit():
    sizes = {"batch_size": 2, "size": 16, "num_endmembers": (3, 3), "given_fraction": 0.0, "extracted_fraction": 1.0}
    config = ExampleConfig(**sizes, corrected_fraction=1.0, misfit_fraction=1.0)
    stream = SimulatedExamples(SceneSimulator(None, num_bands=(40, 60)), config, 3, 20)
    batches = [stream[i] for i in range(6)]
    angles = torch.cat(
        [spectral_angle(one["coarse_endmembers"], one["endmembers"]).mean(1) for one in batches]
    )  # [scenes]
    assert (angles < 0.13).all() and angles.min() < 0.03
    misfit = torch.stack([one["evidence"][:, :, 3].mean() for one in batches])
    usual = SimulatedExamples(SceneSimulator(None, num_bands=(40, 60)), replace(config, misfit_fraction=0.0), 3, 20)
    assert misfit.mean() > torch.stack([usual[i]["evidence"][:, :, 3].mean() for i in range(6)]).mean() + 0.1


@pytest.mark.parametrize("turn", range(1, 8))
def test_turned_batch_is_the_same_scene_with_its_pixels_elsewhere(batch, turn):
    def turned_maps(maps):
        return turned(batch | {"abundances": maps}, turn)["abundances"]

    other, clean = turned(batch, turn), batch["abundances"].roll(1, -1)
    std = torch.full_like(clean, 0.05)
    torch.testing.assert_close(
        consistent_maps(turned_maps(clean), std, other), turned_maps(consistent_maps(clean, std, batch))
    )
    for earlier in range(turn):
        assert not torch.equal(turned(batch, earlier)["cube"], other["cube"])


def test_evidence_of_refined_endmembers_is_left_out_where_nobody_asks_for_it():
    config = ExampleConfig(batch_size=2, size=12, given_fraction=0.0, refined=False)
    batch = SimulatedExamples(SceneSimulator(None, num_bands=(40, 60)), config, 3, 20)[0]
    assert torch.equal(batch["refined_evidence"], batch["evidence"])
    assert not torch.equal(examples()[0]["refined_evidence"], examples()[0]["evidence"])


def test_sampler_states_are_shown_in_the_stated_share():
    torch.manual_seed(0)
    scheduler, target = training_scheduler(1000), torch.ones(2, 3, 4)
    starts = estimates = 0
    for _ in range(300):
        asked = []
        sample, timestep = noised_sample(scheduler, target, 0.6, lambda t: asked.append(t) or 2 * target)  # noqa: B023
        estimates += len(asked)
        if (timestep == 999).all() and not sample.any():
            starts += 1
        if asked:
            assert asked == [999] and (sample.std(dim=(1, 2)) < 1e-6).all() and (timestep < 999).all()
    assert 60 < starts < 120 and 60 < estimates < 120


STAGES = {
    "hybrid_stu": (HybridSTU, coarse_loss),
    "endmember_diffusion": (
        lambda: ResUNet1D((16, 24)),
        partial(endmember_loss, scheduler=training_scheduler(1000), on_policy_fraction=0.6),
    ),
    "abundance_diffusion": (
        lambda: ResUNet2D((8, 16)),
        partial(
            abundance_loss,
            encoder=HybridSTU().requires_grad_(False).eval(),
            scheduler=training_scheduler(1000),
            on_policy_fraction=0.6,
        ),
    ),
}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_lowers_its_loss(batch, stage):
    torch.manual_seed(0)
    make, loss = STAGES[stage]
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), 5e-4)

    def mean_loss():
        torch.manual_seed(1)  # the same draws of noise levels
        with torch.no_grad():
            return sum(loss(model, batch)["loss"].item() for _ in range(8)) / 8

    before = mean_loss()
    for _ in range(40):
        optimizer.zero_grad()
        loss(model, batch)["loss"].backward()
        optimizer.step()
    assert mean_loss() < before


def test_gradient_of_the_joint_loss_reaches_all_networks_and_falls(batch):
    torch.manual_seed(0)
    model = JointModel(HybridSTU(), ResUNet2D((8, 16)), ResUNet1D((16, 24)))
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    values = []
    for _ in range(12):
        losses = joint_loss(model, batch, num_steps=2)
        optimizer.zero_grad()
        losses["loss"].backward()
        for network in (model.encoder, model.unet, model.endmember_unet):
            assert sum(float(p.grad.abs().sum()) for p in network.parameters() if p.grad is not None) > 0
        optimizer.step()
        values.append(losses["loss"].item())
    assert values[-1] < values[0]


def test_evidence_of_a_batch_is_that_of_its_scenes_whatever_the_precision_of_the_networks():
    config = ExampleConfig(batch_size=2, size=12, num_endmembers=(3, 3), given_fraction=0.4, extracted_fraction=0.4)
    stream = SimulatedExamples(SceneSimulator(None, num_bands=(40, 60)), config, 3, 20)
    kinds = set()
    for batch in (stream[i] for i in range(4)):
        std = 0.01 * batch["coarse_endmembers"]
        with torch.autocast("cpu", torch.bfloat16):
            found = gather_batch(batch, batch["coarse_endmembers"], std)
        for n in range(2):
            pixels, fixed, extracted = (
                batch["cube"][n].flatten(1).T,
                bool(batch["fixed"][n]),
                bool(batch["extracted"][n]),
            )
            evidence = gather_evidence(
                pixels,
                batch["coarse_endmembers"][n],
                estimate_noise(pixels),
                1.0,
                batch["brightness_precision"][n],
                None if fixed else std[n] * (EXTRACTED_SHARE if extracted else 1.0),
            )
            kinds.add((fixed, extracted))
            expected = evidence.maps(torch.ones(12, 12, dtype=torch.bool))
            torch.testing.assert_close(found["maps"][n], expected, atol=1e-4, rtol=1e-3)
            for name in ("gram", "rhs", "confidence", "brightness"):
                torch.testing.assert_close(found[name][n], getattr(evidence, name), atol=1e-4, rtol=1e-4)
    assert kinds == {(True, False), (False, True), (False, False)}


def test_corrected_endmembers_are_nearer_and_how_near_is_roughly_known():
    angles = {}
    for fraction in (0.0, 1.0):
        config = ExampleConfig(
            batch_size=2,
            size=12,
            num_endmembers=(3, 3),
            given_fraction=0,
            extracted_fraction=1,
            corrected_fraction=fraction,
        )
        stream = SimulatedExamples(SceneSimulator(None, num_bands=(40, 60)), config, 3, 20)
        batches = [stream[i] for i in range(6)]
        assert all(batch["extracted"].all() for batch in batches)
        off = torch.cat(
            [spectral_angle(batch["coarse_endmembers"], batch["endmembers"]).flatten() for batch in batches]
        )
        ratio = torch.cat([batch["start_error"].flatten() for batch in batches]) / off
        angles[fraction] = float(off.mean())
        assert 0.3 < ratio.min() and ratio.max() < 3.5 and (fraction == 0) == bool((ratio - 1).abs().max() < 1e-3)
    assert 0.3 < angles[1.0] / angles[0.0] < 0.9


def test_real_maps_stay_on_the_simplex_whatever_their_size(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", abundances=rng.dirichlet([0.3] * 4, (20, 9)), brightness=rng.uniform(0, 2, (20, 9)))
    maps = RealMaps([tmp_path / "a.npz"])
    generator = torch.Generator().manual_seed(0)
    drawn = maps.draw(4, 12, generator)
    assert drawn["abundances"].shape == (12, 12, 4) and drawn["brightness"].shape == (12, 12)
    torch.testing.assert_close(drawn["abundances"].sum(-1), torch.ones(12, 12))
    assert (drawn["brightness"] > 0).all() and maps.draw(5, 12, generator) == {}
    scene = SceneSimulator(None)(generator, **maps.draw(4, 12, generator))
    assert scene.cube.shape[:2] == (12, 12) and scene.endmembers.shape[0] == 4


def test_real_maps_smaller_than_half_a_patch_are_reflected_as_often_as_it_takes(tmp_path):
    abundances = np.random.default_rng(0).dirichlet([0.5] * 3, (11, 9)).astype("float32")
    np.savez(tmp_path / "maps.npz", abundances=abundances, brightness=np.ones((11, 9), "float32"))
    for seed in range(6):  # resampled by factors from one half to two
        patch = RealMaps([tmp_path / "maps.npz"]).draw(3, 32, torch.Generator().manual_seed(seed))
        assert patch["abundances"].shape == (32, 32, 3)
        torch.testing.assert_close(patch["abundances"].sum(-1), torch.ones(32, 32))


def test_labelled_patches_keep_cube_and_reference_together(tmp_path):
    rng = np.random.default_rng(0)
    abundances, endmembers = rng.dirichlet([0.5] * 3, (16, 11)), rng.uniform(0.1, 0.9, (3, 40))
    cube = abundances @ endmembers
    np.save(tmp_path / "scene.npy", cube)
    np.savez(tmp_path / "scene_reference.npz", abundances=abundances, endmembers=endmembers)
    for scene in LabelledScenes([tmp_path / "scene.npy"]).draw(4, 14, torch.Generator().manual_seed(0)):
        assert scene.abundances.shape == (11, 11, 3)
        rebuilt = scene.abundances @ scene.endmembers
        torch.testing.assert_close(scene.clean * float(cube.max()), rebuilt, atol=1e-5, rtol=1e-4)


def test_labelled_examples_keep_the_references_own_count(tmp_path):
    rng = np.random.default_rng(0)
    abundances, endmembers = rng.dirichlet([0.5] * 3, (16, 16)), rng.uniform(0.1, 0.9, (3, 40))
    np.save(tmp_path / "scene.npy", abundances @ endmembers)
    np.savez(tmp_path / "scene_reference.npz", abundances=abundances, endmembers=endmembers)
    stream = examples(labelled=LabelledScenes([tmp_path / "scene.npy"]))
    stream.config.labelled_fraction = 1.0
    found = stream[0]["abundances"][0].flatten(1).T.double()  # [P, R]
    reference = torch.from_numpy(abundances).flatten(0, 1)
    assert torch.cdist(found, reference).amin(1).max() < 1e-6
