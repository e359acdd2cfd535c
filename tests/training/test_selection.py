"""The networks that rank and weigh candidate endmember sets: their data, their training, their files."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from hsunmix.endmembers.blending import NUM_PROPOSAL_FEATURES, Proposals, bundled_blender, is_clear
from hsunmix.endmembers.candidates import Candidate
from hsunmix.endmembers.networks import SmallNetworks
from hsunmix.endmembers.scene import prepare_scene
from hsunmix.endmembers.selection import (
    NUM_FEATURES,
    bundled_scorer,
    describe_candidates,
    measure_candidates,
)
from hsunmix.physics import spectral_angle, unit_rows
from hsunmix.training import selection

from ..endmembers.test_extraction import make_cube, make_spectra


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pools")
    selection.simulated_pools([], 4, folder, size=16)
    return folder


@pytest.fixture(scope="module")
def pools(folder):
    return selection.simulated_pools([], 4, folder, size=16)


def test_interrupted_simulation_goes_on_with_the_same_scenes(folder, pools, tmp_path):
    shutil.copy(folder / "0000001.npz", tmp_path)
    kept = (tmp_path / "0000001.npz").stat().st_mtime_ns
    others = selection.simulated_pools([], 4, tmp_path, size=16)
    assert (tmp_path / "0000001.npz").stat().st_mtime_ns == kept
    for one, other in zip(pools, others, strict=True):
        assert one.descriptions.shape == (len(one.points), NUM_FEATURES)
        torch.testing.assert_close(one.endmembers, other.endmembers)
        # the last bits of sums depend on where memory lies
        torch.testing.assert_close(one.angles, other.angles, rtol=1e-3, atol=1e-4)


def test_one_scene_in_ten_has_little_noise(tmp_path):
    noise = [selection.simulated_pools([], 1, tmp_path, seed, size=16)[0].kind[2] for seed in (8, 9)]
    assert noise[1] < noise[0] - 1


def test_training_lowers_the_regret(pools):
    before = selection.regret(selection.fit_scorer(pools, epochs=0), pools)
    after = selection.regret(selection.fit_scorer(pools, epochs=20), pools)
    assert 1.0 <= after < before


def test_training_lowers_the_errors_of_the_weighted_mean(pools):
    tasks = selection.blending_tasks(pools, bundled_scorer())
    before, after = (
        selection.blending_gain(selection.fit_blender(tasks, epochs, members=1), tasks) for epochs in (0, 20)
    )
    assert set(before) == {"blind", "some given", "all given"}
    for kind in before:
        assert after[kind][0] == before[kind][0]
        assert all(trained < untrained for trained, untrained in zip(after[kind][1], before[kind][1], strict=True))


def test_an_error_towards_another_endmember_counts_as_abundance():
    vectors = torch.eye(6)
    truth, elsewhere = vectors[:3], vectors[3:]
    abundances = torch.distributions.Dirichlet(torch.ones(3)).sample((50,))
    errors = []
    for spectra in (truth, unit_rows(truth + 0.1 * elsewhere), unit_rows(truth + 0.1 * truth.roll(1, 0))):
        proposals = Proposals(spectra[None].double(), torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 3, 1), [])
        task = selection.BlendingTask(proposals, truth, abundances, 0, 0)
        errors.append(selection._errors(torch.ones(1, 1, 3), task)[:, 0])
    exact, across, along = torch.stack(errors).tolist()
    assert exact[0] < 1e-3 and exact[1] < 1e-4
    assert across[0] == pytest.approx(along[0], rel=0.01)
    assert across[1] < 0.01 < along[1]


def test_tasks_hold_the_truth_in_the_order_of_the_proposals(pools):
    for task in selection.blending_tasks(pools, bundled_scorer()):
        rank, angles = len(task.truth), spectral_angle(task.truth[:, None], task.proposals.spectra[1].float()[None])
        assert task.corrected == (task.given > 0 and is_clear(pools[task.scene].kind))
        assert task.proposals.spectra.shape[1] == rank and task.proposals.allowed[:2].sum() == 2 * task.given
        assert angles.diagonal().mean() <= angles.mean()
        given = task.proposals.spectra[0, : task.given].float()
        assert (spectral_angle(given, task.truth[: task.given]) < 0.5).all()


def test_misjudged_spectra_are_off_by_a_few_degrees():
    endmembers = unit_rows(make_spectra(5, 60).double())
    generator = torch.Generator().manual_seed(0)
    angles = torch.stack([spectral_angle(endmembers, selection.misjudged(endmembers, generator)) for _ in range(60)])
    assert angles.max() < 0.4 and angles.mean() > 0.05  # up to 9 degrees, times a factor
    assert (angles.amax(1) < 0.04).any()  # nearly exact ones


def test_kept_descriptions_of_another_kind_are_refused(folder, monkeypatch):
    monkeypatch.setattr(selection, "NUM_FEATURES", NUM_FEATURES + 1)
    with pytest.raises(ValueError, match="remove it"):
        selection.simulated_pools([], 4, folder, size=16)


def test_kept_scores_of_an_earlier_rule_are_refused(pools, tmp_path):
    replace(pools[0], rule=pools[0].rule[0]).save(tmp_path / "0000000.npz")
    with pytest.raises(ValueError, match="remove it"):
        selection.SimulatedPool.load(tmp_path / "0000000.npz")


def test_kept_pools_without_abundances_are_refused(folder, tmp_path):
    with np.load(folder / "0000001.npz") as archive:
        np.savez(tmp_path / "0000000.npz", **{key: archive[key] for key in archive if key != "abundances"})
    with pytest.raises(ValueError, match="lacks abundances: remove it"):
        selection.SimulatedPool.load(tmp_path / "0000000.npz")


@pytest.mark.parametrize("hidden", [(8,), (8, 6)])
def test_file_of_networks(tmp_path, hidden):
    torch.manual_seed(0)
    networks = SmallNetworks(NUM_FEATURES, members=3, hidden=hidden).eval()
    networks.mean.uniform_()
    networks.save(tmp_path / "networks.safetensors")
    x = torch.randn(5, NUM_FEATURES)
    loaded = SmallNetworks.load(tmp_path / "networks.safetensors")
    assert len(loaded.members) == 3
    torch.testing.assert_close(loaded(x), networks(x))


def test_bundled_networks_fit_the_descriptions_of_this_version():
    assert len(bundled_scorer().mean) == NUM_FEATURES
    assert all(len(bundled_blender(correcting).mean) == NUM_PROPOSAL_FEATURES for correcting in (False, True))


def test_scores_belong_to_the_sets_whatever_their_order():
    cube, _ = make_cube(make_spectra(3, 40), snr_db=30.0)
    scene = prepare_scene(cube, 3, torch.full((40,), 0.01), torch.ones(cube.shape[:2], dtype=torch.bool))
    pool = [Candidate(scene.unit[torch.tensor([k, 10 * k + 5, 50 * k + 7])], "vca") for k in range(1, 9)]
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))

    def scores(pool):
        measures = measure_candidates(scene, pool, torch.Generator().manual_seed(0))
        return bundled_scorer()(describe_candidates(scene, pool, measures)).mean(0)

    torch.testing.assert_close(scores([pool[k] for k in order]), scores(pool)[order])
