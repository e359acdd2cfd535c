"""What a whole scene says of the predicted maps and of the errors in the result: without the truth, checked by it."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from hsunmix.pipelines import SceneModel
from hsunmix.pipelines.chain import Chain
from hsunmix.simulation import benchmark_scene, parametric_spectra

from .tiny import tiny_pipeline

NOISE = 0.05


def scene(bend=0.0, size=24):
    """Cube (H, W, B), wavelengths, endmembers (R, B), truth (H, W, R); `bend` adds what no linear mixture explains."""
    rng = np.random.default_rng(0)
    wavelengths = np.linspace(450, 2350, 60)
    endmembers = 0.15 + 0.6 * np.exp(-0.5 * ((wavelengths - np.array([[600], [1400], [2200]])) / 350) ** 2)
    truth = rng.dirichlet([2.0, 2.0, 2.0], (size, size))
    clean = truth @ endmembers
    curve = np.sin(np.linspace(0, 9, 60))
    clean = clean + bend * truth.prod(-1, keepdims=True) * curve
    noisy = clean + NOISE * rng.standard_normal(clean.shape)
    return noisy.astype(np.float32), wavelengths, endmembers.astype(np.float32), truth


def predicting(maps, std=0.3):
    """A pipeline whose abundance network says the same (H, W, R), whatever it sees."""
    pipe = tiny_pipeline()
    target = torch.from_numpy(maps).float().permute(2, 0, 1)[None]
    calls = []

    def forward(sample, *args, **kwargs):
        calls.append(0)  # upright, then turned by half a circle
        clean = 2 * (target if len(calls) % 2 else target.flip(-2, -1)) - 1
        return clean, torch.full_like(clean, 2 * std).log()

    pipe.unet.forward = forward
    return pipe


def unmix(pipe, cube, wavelengths, endmembers, **options):
    options = {"generator": torch.Generator().manual_seed(0), "brightness": "fixed"} | options
    return pipe(cube, wavelengths, fixed_endmembers=endmembers, num_inference_steps=1, **options)


@contextmanager
def kept_chains():
    """The chains whose uncertainty is asked for meanwhile."""
    chains, own = [], Chain.abundance_std

    def kept(chain):
        chains.append(chain)
        return own(chain)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chain, "abundance_std", kept)
        yield chains


def rmse(maps, truth):
    return float(np.sqrt(np.square(maps - truth).mean()))


def test_a_right_prediction_is_followed_and_a_wrong_one_is_not():
    cube, wavelengths, endmembers, truth = scene()
    right = unmix(predicting(truth), cube, wavelengths, endmembers, output_uncertainty=True)
    assert right.scene[0].predicted_shares[0] > 0.9 and rmse(right.abundances[0], truth) < 0.01
    wrong = unmix(predicting(np.full_like(truth, 1 / 3)), cube, wavelengths, endmembers, output_uncertainty=True)
    assert wrong.scene[0].predicted_shares[0] < 0.1
    assert right.abundance_uncertainty.mean() < 0.8 * wrong.abundance_uncertainty.mean()


@pytest.mark.parametrize("error", [0.03, 0.06, 0.12])
def test_the_share_is_the_best_one(error):
    """Against the share that the truth would choose, for predictions of small and of large errors."""
    cube, wavelengths, endmembers, truth = scene()
    off = truth + error * np.random.default_rng(1).standard_normal(truth.shape)
    off = np.clip(off, 0, None) / np.clip(off, 0, None).sum(-1, keepdims=True)
    out = unmix(predicting(off), cube, wavelengths, endmembers)
    share = out.scene[0].predicted_shares[0]
    refined = (out.abundances[0] - share * off) / (1 - share)
    step = off - refined
    best = float(np.clip(((truth - refined) * step).mean() / np.square(step).mean(), 0, 1))
    assert share == pytest.approx(best, abs=0.12)


def left_and_expected(off, std, seen, **options):
    """Share of the posterior's errors that are left by a network that says `off`, by the truth and by the estimate."""
    cube, wavelengths, endmembers, truth = seen
    with kept_chains() as chains:
        out = unmix(predicting(off, std), cube, wavelengths, endmembers, output_uncertainty=True, **options)
    (chain,) = chains
    expected = float(chain.posterior_std().square().mean().sqrt())
    return rmse(out.abundances[0], truth) / expected, chain.posterior_share


def disturbed(truth, error):
    off = np.clip(truth + error * np.random.default_rng(1).standard_normal(truth.shape), 0, None)
    return off / off.sum(-1, keepdims=True)


@pytest.mark.parametrize("brightness", ["fixed", "free"])
@pytest.mark.parametrize("std", [0.3, 0.05], ids=["humble", "bold"])
@pytest.mark.parametrize("error", [0.03, 0.06, 0.12])
def test_the_errors_that_are_left_are_known_without_the_truth(error, std, brightness):
    """Whatever a network expects of itself; told are a standard error more, so that they are hardly ever fewer."""
    seen = scene(size=48)
    left, told = left_and_expected(disturbed(seen[3], error), std, seen, brightness=brightness)
    assert min(left, 1) <= told < min(left + 0.08, 1.001)


def test_the_errors_that_are_left_have_a_floor():
    seen = scene(size=48)
    left, told = left_and_expected(seen[3], 0.3, seen)
    assert left < 0.2 and told == pytest.approx(0.4)


@pytest.mark.parametrize("mixing_model", ["bilinear", "postnonlinear", "variable"])
def test_only_linear_scenes_tell_the_errors_that_are_left(mixing_model):
    seen = scene()
    assert left_and_expected(seen[3], 0.3, seen, mixing_model=mixing_model)[1] == 1


def test_where_the_model_is_wrong_the_prediction_is_not_followed():
    """Bent spectra bias least squares by an unknown amount in an unknown direction."""
    cube, wavelengths, endmembers, truth = scene(bend=6.0)
    out = unmix(predicting(truth), cube, wavelengths, endmembers)
    assert out.scene[0].predicted_shares[0] < unmix(predicting(truth), *scene()[:3]).scene[0].predicted_shares[0] - 0.3


def test_where_endmembers_vary_what_is_left_of_that_is_no_reason_not_to_follow():
    """The right maps are followed though the model leaves more than noise; other maps are not."""
    wavelengths = torch.linspace(400, 2400, 60)
    spectra = parametric_spectra(200, wavelengths, torch.Generator().manual_seed(0))
    one = benchmark_scene(spectra, wavelengths, 3, "variable", 30.0, num_endmembers=3, height=32, width=32)
    seen = one.cube.numpy(), wavelengths.numpy(), one.endmembers.numpy()
    truth = one.abundances.numpy()
    shares = []
    for said in (truth, np.roll(truth, 1, -1)):
        out = unmix(predicting(said), *seen, mixing_model="variable")
        shares += out.scene[0].predicted_shares
    assert shares[0] > 0.2 and shares[1] < 0.05, shares


def test_parts_of_a_scene_take_the_shares_of_the_whole(tmp_path):
    cube, wavelengths, endmembers, truth = scene()
    pipe = predicting(truth)
    whole = unmix(pipe, cube, wavelengths, endmembers, output_uncertainty=True)
    whole.scene[0].save(tmp_path / "scene.npz")
    model = SceneModel.load(tmp_path / "scene.npz")
    assert model.predicted_shares == whole.scene[0].predicted_shares
    assert model.posterior_shares == whole.scene[0].posterior_shares
    again = pipe(cube, num_inference_steps=1, scene=model, output_uncertainty=True)
    np.testing.assert_allclose(again.abundance_uncertainty, whole.abundance_uncertainty, atol=1e-5)
    np.testing.assert_allclose(again.abundances, whole.abundances, atol=1e-5)


def test_without_denoising_nothing_is_weighed():
    cube, wavelengths, endmembers, truth = scene()
    out = tiny_pipeline()(cube, wavelengths, fixed_endmembers=endmembers, num_inference_steps=0)
    assert out.scene[0].predicted_shares == [0.0] and out.scene[0].posterior_shares == [1.0]
    np.testing.assert_array_equal(out.abundances, out.coarse_abundances)
