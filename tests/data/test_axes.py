"""Cubes whose bands are not along the last axis are noticed, and those whose bands are, are left alone."""

import re

import numpy as np
import pytest
import torch

from hsunmix.data import Cube
from hsunmix.data.axes import spectral_axis, why_bands_differ
from hsunmix.simulation import SceneSimulator, preset_sensor


@pytest.mark.parametrize("shape", [(7, 5, 7), (5, 7, 7), (7, 7, 7)])
def test_the_last_axis_fits_whatever_the_others_are(shape):
    assert Cube(np.ones(shape), wavelengths=np.linspace(400, 1000, 7)).num_bands == 7


def test_where_two_axes_fit_neither_is_blamed():
    with pytest.raises(ValueError, match="9 bands, but there are 7 wavelengths; one per band") as error:
        Cube(np.ones((7, 7, 9)), wavelengths=np.linspace(400, 1000, 7))
    assert "transpose" not in str(error.value)


@pytest.mark.parametrize("snr", [None, 40.0, 25.0, 10.0])
@pytest.mark.parametrize("seed", range(4))
def test_axis_of_simulated_scenes(seed, snr):
    """The right way round is never doubted; the wrong one is noticed unless noise hides it."""
    scene = SceneSimulator(height=40, width=48)(
        torch.Generator().manual_seed(seed),
        num_endmembers=3 + seed,
        snr_db=snr,
        noise="white",
        dead_pixels=False,
        sensor=preset_sensor("enmap"),
    )
    data = scene.cube.numpy()
    assert spectral_axis(data) == 2
    if snr is None or snr >= 40:
        assert spectral_axis(data.transpose(2, 0, 1)) == 0 and spectral_axis(data.transpose(0, 2, 1)) == 1


def test_small_and_empty_cubes_are_not_judged():
    assert spectral_axis(np.random.default_rng(0).random((4, 5, 7))) == 2
    assert spectral_axis(np.zeros((20, 20, 20))) == 2
    assert spectral_axis(np.full((20, 20, 20), np.nan)) == 2


@pytest.mark.parametrize(
    ("spectra", "known", "cube", "advice"),
    [
        ((7, 3), (False, False), (4, 5, 7), "one spectrum in each row"),
        ((3, 7), (False, False), (7, 4, 5), r"transpose\(1, 2, 0\)"),
        ((3, 7), (True, False), (4, 7, 5), r"transpose\(0, 2, 1\)"),
        ((3, 9), (True, False), (4, 5, 7), "which wavelengths the cube has"),
        ((3, 9), (False, True), (4, 9, 7), "with their wavelengths"),
    ],
)
def test_what_to_do_about_other_bands(spectra, known, cube, advice):
    assert re.search(advice, why_bands_differ(spectra, known[0], cube, known[1]))
