"""The network that chooses among candidate endmember sets: its data, its training, its file."""

import pytest
import torch

from hsunmix.endmembers.candidates import Candidate
from hsunmix.endmembers.scene import prepare_scene
from hsunmix.endmembers.selection import (
    NUM_FEATURES,
    CandidateScorer,
    bundled_scorer,
    describe_candidates,
    measure_candidates,
)
from hsunmix.training import selection

from ..endmembers.test_extraction import make_cube, make_spectra


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    path = tmp_path_factory.mktemp("pools") / "pools.npz"
    selection.simulated_pools([], 2, path, size=16)
    return *selection.simulated_pools([], 4, path, size=16), path  # goes on from the two


def test_interrupted_simulation_goes_on_with_the_same_scenes(pools, tmp_path):
    features, angles, _ = pools
    whole, other = selection.simulated_pools([], 4, tmp_path / "whole.npz", size=16)
    assert [f.shape for f in features] == [f.shape for f in whole] == [(len(a), NUM_FEATURES) for a in angles]
    for a, b in zip(angles, other, strict=True):  # the last bits of sums depend on where memory lies
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_training_lowers_the_regret(pools):
    features, angles, _ = pools
    before = selection.regret(selection.fit_scorer(features, angles, epochs=0), features, angles)
    after = selection.regret(selection.fit_scorer(features, angles, epochs=20), features, angles)
    assert 1.0 <= after < before


def test_kept_descriptions_of_another_kind_are_refused(pools, monkeypatch):
    monkeypatch.setattr(selection, "NUM_FEATURES", NUM_FEATURES + 1)
    with pytest.raises(ValueError, match="remove it"):
        selection.simulated_pools([], 4, pools[2], size=16)


def test_file_of_a_scorer(tmp_path):
    torch.manual_seed(0)
    scorer = CandidateScorer(members=3, width=8).eval()
    scorer.mean.uniform_()
    scorer.save(tmp_path / "scorer.safetensors")
    x = torch.randn(5, NUM_FEATURES)
    torch.testing.assert_close(CandidateScorer.load(tmp_path / "scorer.safetensors")(x), scorer(x))


def test_scores_belong_to_the_sets_whatever_their_order():
    cube, _ = make_cube(make_spectra(3, 40), snr_db=30.0)
    scene = prepare_scene(cube, 3, torch.full((40,), 0.01), torch.ones(cube.shape[:2], dtype=torch.bool))
    pool = [Candidate(scene.unit[torch.tensor([k, 10 * k + 5, 50 * k + 7])], "vca") for k in range(1, 9)]
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))

    def scores(pool):
        measures = measure_candidates(scene, pool, torch.Generator().manual_seed(0))
        return bundled_scorer()(describe_candidates(scene, pool, measures)).mean(0)

    torch.testing.assert_close(scores([pool[k] for k in order]), scores(pool)[order])
