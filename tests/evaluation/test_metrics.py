import importlib.util

import numpy as np
import pytest

from hsunmix.evaluation import (
    abundance_rmse,
    add_noise,
    evaluate,
    interval_coverage,
    match_endmembers,
    mse,
    perturb_endmembers,
    psnr,
    rmse,
    sparsification,
    spectral_angle,
    spectral_angles,
)

from ..shared_data import SHARED

REFERENCE = SHARED.parent / "benchmark" / "evaluate.py"


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("reference_evaluate", REFERENCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_scene(seed=0, height=6, width=5, endmembers=4, bands=30):
    rng = np.random.default_rng(seed)
    spectra = rng.uniform(0.05, 0.9, (endmembers, bands))
    maps = rng.dirichlet(np.ones(endmembers), (height, width))
    return {"cube": maps @ spectra, "endmembers": spectra, "abundances": maps}


def test_the_truth_in_any_order_is_perfect():
    scene = make_scene()
    order = [2, 0, 3, 1]
    result = evaluate(scene["endmembers"][order], scene["abundances"][..., order], scene)
    assert np.asarray(order)[result["order"]].tolist() == [0, 1, 2, 3]
    assert result["abundance_rmse"] == 0 and result["sad"] < 1e-7 and result["psnr"] > 250


def test_scores_do_not_depend_on_the_order_of_the_estimate():
    scene, rng = make_scene(), np.random.default_rng(1)
    spectra = scene["endmembers"] * np.exp(0.1 * rng.standard_normal(scene["endmembers"].shape))
    maps = rng.dirichlet(np.ones(4), (6, 5))
    first = evaluate(spectra, maps, scene)
    second = evaluate(spectra[::-1], maps[..., ::-1], scene)
    for key in ("sad", "abundance_rmse", "abundance_rmse_oracle", "psnr", "reconstruction_rmse"):
        assert first[key] == pytest.approx(second[key], rel=1e-12)


def test_angle_ignores_scale_and_psnr_knows_its_peak():
    scene = make_scene()
    assert spectral_angle(3 * scene["endmembers"], scene["endmembers"]) == pytest.approx(0, abs=1e-7)
    truth = np.full((2, 2, 3), 2.0)
    assert psnr(truth + 0.2, truth) == pytest.approx(20)
    assert psnr(truth + 0.2, truth, peak=1.0) == pytest.approx(10 * np.log10(25))
    assert psnr(truth, truth) == np.inf
    assert rmse(truth + 0.2, truth) == pytest.approx(0.2) and mse(truth + 0.2, truth) == pytest.approx(0.04)


def test_brightness_enters_the_reconstruction_only():
    scene = make_scene()
    shade = np.full((6, 5), 0.5)
    shaded = scene | {"cube": scene["cube"] * 0.5}
    result = evaluate(scene["endmembers"], scene["abundances"], shaded, shade)
    assert result["psnr"] > 250 and result["abundance_rmse"] == 0


def test_wrong_shapes():
    scene = make_scene()
    with pytest.raises(ValueError, match="`abundances`"):
        evaluate(scene["endmembers"], scene["abundances"][..., :3], scene)
    with pytest.raises(ValueError, match="fewer"):
        match_endmembers(scene["endmembers"][:2], scene["endmembers"])
    with pytest.raises(ValueError, match="same bands"):
        match_endmembers(scene["endmembers"][:, :5], scene["endmembers"])
    with pytest.raises(ValueError, match="one shape"):
        abundance_rmse(scene["abundances"], scene["abundances"][:3])


@pytest.mark.parametrize("snr", [10.0, 30.0])
def test_noise_has_the_power_it_says(snr):
    cube = np.random.default_rng(0).uniform(0, 1, (40, 40, 50))
    noise = add_noise(cube, snr) - cube
    assert 10 * np.log10(np.mean(cube**2) / np.mean(noise**2)) == pytest.approx(snr, abs=0.1)
    np.testing.assert_array_equal(add_noise(cube, None), cube)


def test_perturbed_spectra_are_turned_by_exactly_the_angle():
    spectra = make_scene(bands=100)["endmembers"]
    turned = perturb_endmembers(spectra, 5.0)
    np.testing.assert_allclose(np.degrees(np.diagonal(spectral_angles(spectra, turned))), 5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(spectra, axis=1))


@pytest.mark.skipif(not REFERENCE.is_file(), reason="reference definition not there")
class TestAgainstTheReferenceDefinition:
    names = {
        "sad": "sad",
        "sad_per_endmember": "sad_per",
        "abundance_rmse": "armse",
        "abundance_rmse_per_endmember": "armse_per",
        "abundance_rmse_oracle": "armse_oracle",
        "reconstruction_rmse": "rrmse_obs",
        "reconstruction_rmse_clean": "rrmse_clean",
        "sum_to_one_error": "asc_dev",
        "negative_fraction": "neg_frac",
        "order": "order",
        "finite": "finite",
    }

    @pytest.mark.parametrize("case", ["plain", "more endmembers", "observed", "negative", "not finite", "zero"])
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_scores(self, reference, case, seed):
        scene, rng = make_scene(seed), np.random.default_rng(seed + 100)
        count = 6 if case == "more endmembers" else 4
        spectra = rng.uniform(0, 1, (count, 30))
        maps = rng.dirichlet(np.ones(count), (6, 5))
        if case == "observed":
            scene["observed"] = reference.add_noise(scene["cube"], 15, seed)
        elif case == "negative":
            maps = maps - 0.1
        elif case == "not finite":
            maps[0, 0], spectra[0, 0] = np.nan, np.inf
            spectra[0, 0] = np.nan
        elif case == "zero":
            spectra[1] = 0
        mine, theirs = evaluate(spectra, maps, scene), reference.evaluate(spectra, maps, scene)
        for key, other in self.names.items():
            np.testing.assert_allclose(mine[key], theirs[other], atol=1e-9, err_msg=key)

    def test_noise_and_perturbation_are_the_same_numbers(self, reference):
        scene = make_scene(bands=80)
        np.testing.assert_array_equal(add_noise(scene["cube"], 20, 3), reference.add_noise(scene["cube"], 20, 3))
        np.testing.assert_allclose(
            perturb_endmembers(scene["endmembers"], 5, 7),
            reference.perturb_endmembers(scene["endmembers"], 5, 7),
            atol=1e-12,
        )


def test_interval_coverage():
    reference = np.array([0.0, 0.2, 0.5, 1.0]).reshape(2, 2, 1)
    lower = np.array([0.0, 0.3, 0.4, 0.9]).reshape(2, 2, 1)
    found = interval_coverage(lower, lower + 0.2, reference)
    assert found == {"coverage": 0.75, "interval": pytest.approx(0.2)}
    lower[0, 0] = np.nan  # no data: not in its interval
    assert interval_coverage(lower, lower + 0.2, reference) == {"coverage": 0.5, "interval": pytest.approx(0.2)}
    with pytest.raises(ValueError):
        interval_coverage(lower[:1], lower, reference)


def test_sparsification_of_a_perfect_a_useless_and_a_wrong_ranking():
    random = np.random.default_rng(0)
    reference = random.dirichlet(np.ones(3), (30, 40))
    error = random.normal(size=(30, 40, 1)) * np.array([1.0, 0.5, -1.5]) * 0.1
    right, wrong, blind = (
        sparsification(reference + error, reference, doubt)
        for doubt in (np.abs(error), 1 / (1 + np.abs(error)), np.ones_like(reference))
    )
    np.testing.assert_allclose(right["sparsification"], right["sparsification_oracle"])
    assert right["sparsification"][0] == pytest.approx(np.sqrt(np.square(error).mean()))
    assert right["rank_correlation"] == pytest.approx(1) and wrong["rank_correlation"] == pytest.approx(-1)
    assert np.all(np.diff(right["sparsification"]) < 0) and np.all(np.diff(wrong["sparsification"]) > 0)
    assert blind["rank_correlation"] == 0 and len(blind["sparsification"]) == 10
    with pytest.raises(ValueError):
        sparsification(reference, reference, reference[:10])
