"""Training of the network that says how many endmembers a scene has."""

import numpy as np
import pytest
import torch

from hsunmix.data import write_library
from hsunmix.endmembers.networks import SmallNetworks
from hsunmix.simulation import parametric_spectra
from hsunmix.training.number import NumberScenes, describe_scenes, fit_number, within_one


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    bands = torch.linspace(400.0, 2500.0, 100)
    spectra = parametric_spectra(160, bands, torch.Generator().manual_seed(0)).numpy()
    names = [f"mineral {i}" if i < 130 else f"Calcite {i}" for i in range(160)]
    return str(write_library(tmp_path_factory.mktemp("library") / "minerals", spectra, names, bands.numpy()))


def test_a_short_training_learns_the_number(library, tmp_path):
    scenes = NumberScenes([library])
    features, counts = describe_scenes(scenes, range(1, 81, 2), tmp_path / "scenes.pt")  # odd: of the benchmark's kind
    assert features.shape[:2] == (40, 11) and counts.min() >= 2 and counts.max() <= 10
    networks = fit_number(features, counts, steps=150)
    assert within_one(networks, features, counts) > 0.8
    networks.save(tmp_path / "number.safetensors")
    again = SmallNetworks.load(tmp_path / "number.safetensors")
    torch.testing.assert_close(again(features), networks(features))


def test_scenes_are_reproducible_and_not_simulated_twice(library, tmp_path, monkeypatch):
    scenes = NumberScenes([library])
    features, counts = describe_scenes(scenes, [4, 5], tmp_path / "scenes.pt")
    fresh = NumberScenes([library]).describe(5)
    np.testing.assert_array_equal(fresh[0], features[1])
    assert fresh[1] == counts[1]
    monkeypatch.setattr(NumberScenes, "describe", None)
    known, _ = describe_scenes(scenes, [5, 4], tmp_path / "scenes.pt")
    torch.testing.assert_close(known, features.flip(0))


def test_materials_are_held_out(library):
    assert len(NumberScenes([library]).spectra[0]) == 130
    assert NumberScenes([library], held_out=True).spectra == []  # 30 are too few for scenes of ten that differ
