"""Classical methods: each finds what it is made to find where that is easy, and its table is fair."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hsunmix.data import SpectralLibrary
from hsunmix.endmembers.geometric import successive_projections
from hsunmix.evaluation import comparison, match_endmembers, spectral_angles
from hsunmix.evaluation.baselines import BLIND, _backward, _forward, most_abundant, sunsal, sunsal_tv
from hsunmix.evaluation.benchmark import ReferenceScene, Score
from hsunmix.evaluation.memory import forget_peak, peak_memory
from hsunmix.evaluation.metrics import add_noise
from hsunmix.physics import nnls, unit_rows
from hsunmix.simulation import parametric_spectra

BANDS = torch.linspace(420.0, 2400.0, 60, dtype=torch.float64)


def make_scene(count=3, size=16, seed=0):
    """A linear scene of square fields, some of them pure, from a library of 20 spectra."""
    generator = torch.Generator().manual_seed(seed)
    spectra = parametric_spectra(20, BANDS, generator).double()
    distinct = successive_projections(unit_rows(spectra), 20)[0]  # the first ones differ most
    library = spectra[distinct].numpy()
    rng = np.random.default_rng(seed)
    fields = rng.dirichlet(np.full(count, 0.7), (size // 4, size // 4))
    fields[0, :count] = np.eye(count)
    abundances = fields.repeat(4, axis=0).repeat(4, axis=1)
    cube = abundances @ library[:count]
    return ReferenceScene("scene", cube / cube.max(), library[:count], abundances, BANDS.numpy()), library


@pytest.mark.parametrize("method", BLIND)
def test_pure_pixels_are_found(method):
    scene, _ = make_scene(size=32)
    found = BLIND[method](torch.from_numpy(scene.cube), 3, torch.Generator().manual_seed(0)).numpy()
    order = match_endmembers(found, scene.endmembers)
    angles = spectral_angles(scene.endmembers, found)[np.arange(3), order]
    assert angles.max() < (1e-5 if method in ("vca", "spa") else 0.1)  # the others are fits to all pixels


def test_vca_takes_principal_axes_under_strong_noise():
    scene, _ = make_scene(size=24)
    noisy = torch.from_numpy(add_noise(scene.cube, 8.0))
    found = BLIND["vca"](noisy, 3, torch.Generator().manual_seed(0))
    centred = found - noisy.flatten(0, 1).mean(0)
    assert torch.linalg.matrix_rank(centred, rtol=1e-9) == 2  # R - 1 axes about the mean


def test_sunsal_without_sparsity_is_least_squares_and_sparsity_leaves_the_members():
    scene, library = make_scene()
    spectra = torch.from_numpy(library[:6] / np.abs(library[:6]).max())
    cube = torch.from_numpy(scene.cube)
    exact = nnls(cube.flatten(0, 1), spectra).unflatten(0, cube.shape[:2])
    plain = sunsal(cube, spectra, sparsity=0.0)
    residual = [(cube - maps @ spectra).square().mean().sqrt() for maps in (plain, exact)]
    assert residual[0] < residual[1] + 2e-3
    sparse = sunsal(cube, spectra)
    assert (sparse >= 0).all() and sparse.sum() < plain.sum()
    assert set(most_abundant(sparse.numpy(), 3)[0]) == {0, 1, 2}


def test_total_variation_smooths_and_none_changes_nothing():
    scene, library = make_scene()
    spectra = torch.from_numpy(library[:6] / np.abs(library[:6]).max())
    cube = torch.from_numpy(add_noise(np.broadcast_to(scene.cube[:1, :1], scene.cube.shape).copy(), 15.0))
    plain, none, smooth = (sunsal(cube, spectra), *(sunsal_tv(cube, spectra, smoothness=w) for w in (0.0, 0.1)))
    assert (none - plain).square().mean().sqrt() < 0.02
    assert _forward(smooth).abs().mean() < 0.3 * _forward(plain).abs().mean()


def test_differences_and_their_adjoint():
    generator = torch.Generator().manual_seed(0)
    maps, edges = (torch.randn(*shape, generator=generator) for shape in ((5, 7, 2), (2, 5, 7, 2)))
    torch.testing.assert_close((_forward(maps) * edges).sum(), (maps * _backward(edges)).sum())


def test_most_abundant_maps_add_up_to_one_where_nothing_is_found_too():
    maps = np.zeros((2, 2, 5))
    maps[0, 0, [4, 1]] = 0.3, 0.1
    chosen, shares = most_abundant(maps, 2)
    assert chosen.tolist() == [1, 4]
    np.testing.assert_allclose(shares[0, 0], [0.25, 0.75])
    np.testing.assert_allclose(shares.sum(-1), 1)


def test_methods_run_on_their_track_and_known_runs_are_not_repeated():
    scene, _ = make_scene()
    seen = []
    first = comparison.compare([scene], ["vca", "spa", "sunsal"], ["blind", "library"], [None], [0, 1], seen.append)
    assert [(one.method, one.seed) for one in first] == [("vca", 0), ("vca", 1), ("spa", 0)] and seen == first
    marked = [replace(one, sad=9.0) for one in first]
    again = comparison.compare([scene], ["vca", "spa"], ["blind"], [None], [0, 1], known=marked)
    assert [one.sad for one in again] == [9.0] * 3
    assert comparison.compare([scene], ["vca"], ["given"], [None], [0]) == []


def test_the_table_has_the_better_setting_of_each_method_and_ours_beside():
    def other(seed, free, fixed):
        return comparison.MethodScore(
            "simulated 3", "blind", 20.0, seed, "vca", {"free": free, "fixed": fixed}, 0.1, {}, 1.0
        )

    numbers = dict.fromkeys(("nnls_rmse", "coarse_rmse", "coarse_sad", "coverage", "interval"), 0.5)
    ours = Score(
        scene="simulated 4", track="blind", snr_db=20.0, seed=0, refined_rmse=0.05, refined_sad=0.02, seconds=2.0,
        brightness="free", **numbers,
    )  # fmt: skip
    runs = [other(0, 0.2, 0.3), other(1, 0.4, 0.1), other(2, 0.5, 0.2)]
    table = comparison.rows([ours, replace(ours, track="given")], runs)
    assert [(row.method, row.brightness, row.rmse) for row in table] == [
        ("hsunmix", "auto", 0.05),
        ("vca", "fixed", 0.2),
    ]
    lines = comparison.as_markdown(table).splitlines()
    assert lines[0].endswith("| SNR | hsunmix | vca |") and lines[0].startswith("| blind")
    assert lines[2] == "| simulated | 20 dB | **0.050** / 0.020 auto | 0.200 / 0.100 fixed |"


def test_time_and_memory_of_every_method():
    rows = [
        comparison.Row("a", "blind", level, method, "free", 0.1, 0.1, seconds, memory)
        for level, method, seconds, memory in [
            (None, "vca", 0.1, 300.0), (20.0, "vca", 0.3, 500.0), (None, "hsunmix", 2.0, 700.0),
            (20.0, "hsunmix", 4.0, None),
        ]
    ]  # fmt: skip
    lines = comparison.cost_table(
        [*rows, comparison.Row("b", "blind", None, "spa", "free", 0.1, 0.1, 1.0)]
    ).splitlines()
    assert lines[0] == "| seconds / MB | track | hsunmix | vca | spa |"
    assert lines[2:] == ["| a | blind | 3.0 / 700 | 0.2 / 400 |  |", "| b | blind |  |  | 1.0 |"]


@pytest.mark.skipif(peak_memory() is None, reason="this system does not say")
def test_peak_memory_is_that_of_what_ran_since():
    forget_peak()
    before = peak_memory()
    block = np.ones(40 * 2**20, np.float64)  # 320 MB
    del block
    during = peak_memory()
    forget_peak()
    assert during > before + 250 and peak_memory() < during - 250


def test_a_library_on_other_bands_is_brought_to_those_of_the_scene():
    scene, library = make_scene()
    fine = np.linspace(400.0, 2450.0, 160)
    spectra = np.stack([np.interp(fine, BANDS.numpy(), one) for one in library[:6]])
    spectra[5, 80] = np.nan
    there = replace(scene, library=SpectralLibrary(spectra, list("abcdef"), fine))
    (score,) = comparison.compare([there], ["sunsal"], ["library"], [None], [0])
    assert score.sad < 0.05
    with pytest.raises(ValueError, match="160 bands"):
        comparison.compare([replace(there, wavelengths=None)], ["sunsal"], ["library"], [None], [0])
