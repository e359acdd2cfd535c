"""Adaptation to an unlabelled scene: what the network is shown, what its losses measure, what is left behind."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hsunmix import SemiBlindUnmixingPipeline
from hsunmix.cli.main import main
from hsunmix.data import read_library
from hsunmix.endmembers import extract_endmembers, match_endmembers
from hsunmix.physics import spectral_angle
from hsunmix.training.adaptation import (
    SceneExamples,
    adapt_to_scene,
    adaptation_loss,
    consensus_endmembers,
    hidden_bands_loss,
    sample_endmembers,
)
from hsunmix.training.losses import training_scheduler

from ..pipelines.tiny import tiny_pipeline, tiny_scene


@pytest.fixture(autouse=True)
def few_extractions(monkeypatch):
    monkeypatch.setattr("hsunmix.training.adaptation._EXTRACTIONS", 3)


def unmixed(pipe, cube, wavelengths, **known):
    output = pipe(cube, wavelengths, **known, output_uncertainty=True, generator=torch.Generator().manual_seed(0))
    return pipe.processor.preprocess(cube, wavelengths)[0], output


def scene_examples(length=8, seed=0, **options):
    cube, wavelengths, endmembers = tiny_scene(height=12, width=10)
    known = options.pop("known", {"endmembers": endmembers})
    return SceneExamples(*unmixed(tiny_pipeline(), cube, wavelengths, **known), seed, length, **options)


def test_batches_are_reproducible_and_every_band_is_either_seen_or_hidden():
    cube, wavelengths, endmembers = tiny_scene(height=12, width=10)
    scene = unmixed(tiny_pipeline(), cube, wavelengths, endmembers=endmembers)
    one, other = (SceneExamples(*scene, 0, 8)[3] for _ in range(2))
    for name, value in one.items():
        assert torch.equal(value, other[name]) and (name == "level" or torch.isfinite(value.float()).all()), name
    assert not torch.equal(one["cube"], scene_examples()[4]["cube"])
    assert one["seen_cube"].shape[1] == one["hidden_cube"].shape[-1] == 12
    torch.testing.assert_close(one["abundances"].sum(1), torch.ones(2, 10, 10))


def test_pixels_without_data_are_filled_and_not_scored():
    cube, wavelengths, endmembers = tiny_scene(height=12, width=12)
    cube[:6] = np.nan
    batch = SceneExamples(*unmixed(tiny_pipeline(), cube, wavelengths, endmembers=endmembers), 0, 4)[0]
    assert all(torch.isfinite(value.float()).all() for name, value in batch.items() if name != "level")
    assert batch["valid"].float().mean() == 0.5


def test_maps_are_varied_by_their_own_error_not_by_what_endmembers_leak(monkeypatch):
    examples = []
    for share in (0.01, 1.0):
        monkeypatch.setattr("hsunmix.pipelines.chain.left_by_facets", lambda *known, share=share: share)
        cube, wavelengths, endmembers = tiny_scene(height=12, width=10)
        examples.append(unmixed(tiny_pipeline(), cube, wavelengths, endmembers=endmembers))
    sure, unsure = (float(output.abundance_uncertainty.mean()) for _, output in examples)
    assert unsure > 1.2 * sure
    maps, others = (SceneExamples(*one, 0, 8).std for one in examples)
    torch.testing.assert_close(maps, others, atol=1e-4, rtol=1e-2)
    assert maps.mean() > 0.001


def test_exact_endmembers_are_not_varied():
    endmembers = tiny_scene()[2]
    examples = scene_examples(known={"fixed_endmembers": endmembers})
    sampled = sample_endmembers(examples.endmembers, examples.endmember_std, torch.Generator().manual_seed(0))
    torch.testing.assert_close(sampled, examples.endmembers)


def test_sampled_endmembers_are_off_by_about_their_error():
    endmembers = torch.rand(5, 60, generator=torch.Generator().manual_seed(0)) + 0.2
    std = 0.02 * endmembers
    angles, generator = [], torch.Generator().manual_seed(1)
    for _ in range(400):
        sampled = sample_endmembers(endmembers, std, generator)
        torch.testing.assert_close(sampled.amax(1), endmembers.amax(1))
        angles.append(spectral_angle(sampled, endmembers).square().mean())
    assert torch.stack(angles).mean().sqrt() == pytest.approx(0.02, rel=0.1)


class Oracle(torch.nn.Module):
    """Says the same mixture everywhere."""

    def __init__(self, mixture):
        super().__init__()
        self.mixture = torch.as_tensor(mixture)

    def forward(self, sample, timestep, *conditions, return_dict=False):
        clean = (2 * self.mixture - 1)[None, :, None, None].expand_as(sample).float()
        return clean, torch.zeros_like(clean)


def test_hidden_bands_are_explained_down_to_the_noise_by_the_true_mixture_only():
    """The noise of the hidden bands is independent of the seen ones: their mean square is 1, and larger elsewhere."""
    _, wavelengths, endmembers = tiny_scene()
    truth, noise = np.array([0.5, 0.3, 0.2]), 0.005
    rng = np.random.default_rng(0)
    cube = (truth @ endmembers + noise * rng.standard_normal((24, 24, 24))).astype(np.float32)
    pipe = tiny_pipeline()
    prepared, output = unmixed(pipe, cube, wavelengths, fixed_endmembers=endmembers, brightness="fixed")
    prepared.noise_std = torch.full((24,), noise)
    batch = SceneExamples(prepared, output, 0, 1)[0]

    def mse(mixture):
        return hidden_bands_loss(Oracle(mixture), batch, pipe.encoder, training_scheduler(1000))[0].item()

    assert mse(truth) == pytest.approx(1.0, abs=0.05)
    assert mse(truth + [0.05, -0.05, 0]) > 1.2 * mse(truth)


def test_adaptation_lowers_its_loss_and_leaves_only_a_pipeline(tmp_path, monkeypatch):
    monkeypatch.setattr("hsunmix.training.adaptation._ADAPTED_SHARE", 1.0)  # of random weights no mean makes sense
    cube, wavelengths, endmembers = tiny_scene(height=12, width=10)
    pipe = tiny_pipeline()
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    held_out = scene_examples(seed=9)

    def mean_loss(unet):
        torch.manual_seed(0)
        with torch.no_grad():
            losses = [adaptation_loss(unet, held_out[k], pipe.encoder, training_scheduler(1000)) for k in range(8)]
        return sum(one["loss"].item() for one in losses) / 8

    settings = {"max_train_steps": 40, "learning_rate": 2e-3, "quiet": True, "seed": 3}
    start = mean_loss(pipe.unet)
    errors = adapt_to_scene(pipe, cube, tmp_path, **settings, wavelengths=wavelengths, endmembers=endmembers)
    assert errors["after"] < errors["before"]
    adapted = SemiBlindUnmixingPipeline.from_pretrained(tmp_path)
    assert mean_loss(adapted.unet) < start
    assert all(torch.equal(value, before[name]) for name, value in pipe.unet.state_dict().items())
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "endmembers"))]
    assert str(tmp_path) not in (tmp_path / "unet" / "config.json").read_text()


def test_weights_are_a_mean_of_old_and_new(tmp_path, monkeypatch):
    cube, wavelengths, endmembers = tiny_scene(height=12, width=10)
    pipe, found = tiny_pipeline(), {}
    for share in (0.0, 0.5, 1.0):
        monkeypatch.setattr("hsunmix.training.adaptation._ADAPTED_SHARE", share)
        adapt_to_scene(pipe, cube, tmp_path, 3, 1e-2, quiet=True, wavelengths=wavelengths, endmembers=endmembers)
        found[share] = SemiBlindUnmixingPipeline.from_pretrained(tmp_path).unet.state_dict()
    for name, own in pipe.unet.state_dict().items():
        assert torch.equal(found[0.0][name], own), name
        torch.testing.assert_close(found[0.5][name], (own + found[1.0][name]) / 2)
    assert any(not torch.equal(found[1.0][name], own) for name, own in pipe.unet.state_dict().items())


def test_weights_stay_where_there_is_hardly_any_noise(tmp_path):
    """Training would change them, and nothing but the misfit of the scene could be learned."""
    cube, wavelengths, endmembers = tiny_scene(height=12, width=10)
    bent = endmembers * (1 + 0.3 * np.sin(np.linspace(0, 20, endmembers.shape[1])))
    pipe = tiny_pipeline()
    known = {"wavelengths": wavelengths, "fixed_endmembers": bent}
    errors = adapt_to_scene(pipe, cube, tmp_path, 3, 1e-2, quiet=True, **known)
    assert errors["noise_share"] < 0.2 and errors["after"] == errors["before"]
    adapted = SemiBlindUnmixingPipeline.from_pretrained(tmp_path)
    assert all(torch.equal(value, adapted.unet.state_dict()[name]) for name, value in pipe.unet.state_dict().items())
    assert not (tmp_path / ".training").exists()


@pytest.mark.parametrize("polished", [False, True])
@pytest.mark.parametrize("size", [0.0, 0.3])
def test_endmembers_that_leave_misfit_go_half_of_a_robust_step(monkeypatch, size, polished):
    cube, wavelengths, endmembers = tiny_scene(height=16, width=16)
    prepared = tiny_pipeline().processor.preprocess(cube, wavelengths)[0]
    truth = torch.as_tensor(endmembers, dtype=torch.float32)
    wrong = truth * (1 + size * torch.linspace(0, 20, endmembers.shape[1]).sin())
    extracted = SimpleNamespace(endmembers=wrong, polished=None)
    if polished:  # archetypes that have gone on
        extracted = SimpleNamespace(endmembers=wrong.flip(1), polished=wrong)
    monkeypatch.setattr("hsunmix.training.adaptation.extract_endmembers", lambda *args, **kwargs: extracted)
    found = consensus_endmembers(prepared, 3, quiet=True)
    before, after = (spectral_angle(one, truth).mean() for one in (wrong, found))
    if size:
        assert 0.4 < after / before < 0.9
    else:
        assert after < 0.003  # noise is all that they leave


def test_endmembers_of_the_scene_are_the_median_of_several_extractions(tmp_path, monkeypatch):
    """With the parts in any order, and on the good bands only; the adapted pipeline takes them."""
    cube, wavelengths, _ = tiny_scene(height=16, width=16)
    cube[..., 3] = np.nan
    pipe = tiny_pipeline()
    prepared = pipe.processor.preprocess(cube, wavelengths)[0]
    sets = []

    def shuffled(*args, **kwargs):
        result = extract_endmembers(*args, **kwargs)
        order = torch.randperm(3, generator=torch.Generator().manual_seed(len(sets)))
        result.polished = None
        result.endmembers = result.endmembers[order] * (1 + 0.1 * torch.rand(3, 23))  # noise that each has of its own
        sets.append(result.endmembers)
        return result

    monkeypatch.setattr("hsunmix.training.adaptation.extract_endmembers", shuffled)
    adapt_to_scene(pipe, cube, tmp_path, 1, quiet=True, wavelengths=wavelengths, num_endmembers=3)
    saved = read_library(tmp_path / "endmembers.hdr")
    median = pipe.processor.spectra(saved, prepared, "endmembers")
    matched = torch.stack([one[match_endmembers(median, one)] for one in sets])
    assert len(sets) == 3 and (median >= matched.amin(0) * 0.99).all() and (median <= matched.amax(0) * 1.01).all()
    apart = spectral_angle(matched, matched.roll(1, 0)).mean()
    assert spectral_angle(median, matched).mean() < 0.7 * apart
    adapted = SemiBlindUnmixingPipeline.from_pretrained(tmp_path)
    out = adapted(
        cube, wavelengths, endmembers=saved, correct_endmembers=False, generator=torch.Generator().manual_seed(0)
    )
    start = pipe.processor.spectra(out.coarse_endmembers[0], prepared, "endmembers")
    assert out.endmembers[0].shape == (3, 24) and spectral_angle(start, median).max() < 1e-3


def test_the_number_of_endmembers_is_estimated_where_nobody_says_it():
    cube, wavelengths, _ = tiny_scene(height=16, width=16)
    pipe = tiny_pipeline()
    prepared = pipe.processor.preprocess(cube, wavelengths)[0]
    out = pipe(cube, wavelengths, generator=torch.Generator().manual_seed(0))
    assert consensus_endmembers(prepared, quiet=True).shape == (out.abundances[0].shape[-1], 24)


def test_adapting_takes_one_scene(tmp_path):
    cube, wavelengths, endmembers = tiny_scene()
    with pytest.raises(ValueError, match="`cube` holds 2 scenes"):
        adapt_to_scene(tiny_pipeline(), [cube, cube], tmp_path, wavelengths=wavelengths, endmembers=endmembers)


def test_command(tmp_path, monkeypatch, capsys):
    """From a file to a pipeline that unmixes; an interrupted run is continued."""
    cube, wavelengths, _ = tiny_scene(height=16, width=16)
    np.savez(tmp_path / "scene.npz", cube=cube, wavelengths=wavelengths)
    command = ["adapt", str(tmp_path / "scene.npz"), "-r", "3", "-o", str(tmp_path / "adapted"), "--train-steps", "2"]
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hsunmix.training.adaptation.shutil", SimpleNamespace(rmtree=lambda *a, **k: None))
        patch.setattr(SemiBlindUnmixingPipeline, "save_pretrained", interrupt)
        assert main([*command, "-q"]) == 130
    assert (tmp_path / "adapted" / ".training" / "checkpoint-2").is_dir()
    assert main([*command, "--resume"]) == 0
    said = capsys.readouterr()
    folder = tmp_path / "adapted"
    assert f"--checkpoint {folder} -o out --endmembers {folder / 'endmembers.hdr'} --no-correction\n" in said.out
    assert "abundance RMSE on scenes mixed from this one: 0." in said.out and "INFO" not in said.err
    assert not (tmp_path / "adapted" / ".training").exists()
    assert main(["info", str(tmp_path / "adapted")]) == 0
    assert "scene.npz, from base (num_endmembers 3," in capsys.readouterr().out
    known = ["--checkpoint", str(folder), "--endmembers", str(folder / "endmembers.hdr"), "--no-correction"]
    assert main(["unmix", str(tmp_path / "scene.npz"), *known, "-o", str(tmp_path / "out"), "-q"]) == 0
    assert main([*command]) == 2
    assert "already holds model_index.json" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--no-correction"]) == 2
    assert "--no-correction" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--train-steps", "0"]) == 2
    assert "--train-steps must be 1 or more" in capsys.readouterr().err
