"""What a chain tells its networks about the endmembers, and how it reads the data."""

import numpy as np
import pytest
import torch

from hsunmix import SemiBlindUnmixingPipeline, bundled_checkpoint
from hsunmix.physics import gather_evidence, linear_part, spectral_angle
from hsunmix.pipelines import chain as chain_module
from hsunmix.pipelines.chain import EXTRACTED_SHARE, Chain, noisiness, seen_share
from hsunmix.simulation import benchmark_scene, parametric_spectra

from .tiny import tiny_pipeline, tiny_scene

NUM_BANDS = 60


@pytest.fixture(scope="module")
def bundled():
    """The weights of the package."""
    pipeline = SemiBlindUnmixingPipeline.from_pretrained(bundled_checkpoint("base"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def evidence(noise, endmember_error, bend):
    """And the noise, of a scene with that noise, expected error of the endmembers and error of the model."""
    rng = np.random.default_rng(0)
    position = np.linspace(0, 1, NUM_BANDS)
    endmembers = 0.2 + 0.5 * np.exp(-0.5 * ((position - np.array([[0.1], [0.5], [0.9]])) / 0.2) ** 2)
    abundances = rng.dirichlet([1.0, 1.0, 1.0], 500)
    pixels = abundances @ endmembers + bend * abundances.prod(1, keepdims=True) * np.sin(9 * position)
    pixels = pixels + noise * rng.standard_normal(pixels.shape)
    tensors = [torch.as_tensor(x, dtype=torch.float32) for x in (pixels, endmembers)]
    noise_std = torch.full((NUM_BANDS,), noise)
    std = endmember_error * tensors[1]
    return gather_evidence(*tensors, noise_std, endmember_std=std), noise_std


@pytest.mark.parametrize(
    ("noise", "endmember_error", "bend", "least", "most"),
    [
        pytest.param(0.03, 0.01, 0.0, 1.5, 2.0, id="noise is what is wrong with a pixel"),
        pytest.param(0.0003, 0.01, 1.0, EXTRACTED_SHARE, 0.3, id="the model is"),
        pytest.param(0.0003, 0.1, 0.0, EXTRACTED_SHARE, 0.3, id="endmembers are"),
    ],
)
def test_networks_see_more_of_the_uncertainty_of_endmembers_the_more_noise_rules(
    noise, endmember_error, bend, least, most
):
    assert least <= seen_share(*evidence(noise, endmember_error, bend)) <= most


def test_noisiness_is_the_share_of_the_noise_whatever_endmembers_are_expected_to_be_off():
    assert noisiness(*evidence(0.03, 0.01, 0.0)) > 0.7
    assert noisiness(*evidence(0.0003, 0.1, 0.0)) > 0.7
    assert noisiness(*evidence(0.0003, 0.01, 1.0)) < 0.1


@pytest.mark.parametrize("mixing_model", ["linear", "variable"])
def test_endmembers_that_vary_are_placed_by_facets_as_sharp_as_the_reading_without_errors_of_scales(
    mixing_model, monkeypatch
):
    chains, seen = [], []
    placed, step, own = Chain._place_endmembers, chain_module.facet_step, Chain.abundance_std

    def place(chain):
        before = chain.evidence, chain.seen_share
        placed(chain)
        assert (chain.evidence, chain.seen_share) == before

    def facets(evidence, here, *others):
        seen.append((evidence, here, others[-1]))
        return step(evidence, here, *others)

    monkeypatch.setattr(Chain, "_place_endmembers", place)
    monkeypatch.setattr(chain_module, "facet_step", facets)
    monkeypatch.setattr(Chain, "abundance_std", lambda chain: chains.append(chain) or own(chain))
    generator, wavelengths = torch.Generator().manual_seed(0), torch.linspace(400, 2400, 60)
    spectra = parametric_spectra(400, wavelengths, generator)
    scene = benchmark_scene(spectra, wavelengths, generator, mixing_model, 30.0, num_endmembers=3)
    call = {"endmembers": scene.endmembers, "mixing_model": mixing_model, "brightness": "fixed"}
    tiny_pipeline()(scene.cube, wavelengths, **call, num_inference_steps=1, output_uncertainty=True)
    (chain,), (evidence, here, alike) = chains, seen[0]
    assert alike == (mixing_model == "variable")
    assert chain.stages[-1].noisiness == noisiness(chain.evidence, chain.cube.noise_std)

    def gram(at_facets):
        light = chain.brightness_model.level, chain.brightness_model.precision
        known = chain.cube.noise_std, mixing_model, chain.cube.valid, *light
        part = linear_part(chain.observed, here, *known, at_facets=at_facets)
        gathered = gather_evidence(part.pixels, here, part.error * chain.cube.noise_std, *light, reading=part.reading)
        return torch.linalg.inv(gathered.gram)

    sharp, blurred = gram(True), gram(False)
    torch.testing.assert_close(torch.linalg.inv(evidence.gram), sharp, rtol=1e-3, atol=1e-3 * float(sharp.abs().max()))
    assert (sharp.trace() < 0.9 * blurred.trace()) == (mixing_model == "variable")


@pytest.mark.parametrize("mixing_model", ["linear", "variable"])
def test_abundances_of_varying_endmembers_are_read_with_the_errors_of_variation_and_blocks_left_alone(
    mixing_model, monkeypatch
):
    chains, blocks = [], []
    gathered, smooth = Chain._gather, chain_module.smooth_error

    def gather(chain, **options):
        gathered(chain, **options)
        chains.append(chain)

    monkeypatch.setattr(Chain, "_gather", gather)
    monkeypatch.setattr(chain_module, "smooth_error", lambda *a: blocks.append(1) or smooth(*a))
    cube, wavelengths, endmembers = tiny_scene()
    tiny_pipeline()(cube, wavelengths, fixed_endmembers=endmembers, mixing_model=mixing_model, brightness="free")
    chain = chains[-1]
    part = linear_part(chain.observed, chain.endmembers, chain.cube.noise_std, mixing_model, chain.cube.valid)
    if mixing_model == "linear":
        assert blocks and part.reading is None
        return
    assert not blocks
    expected = part.reading.weights @ chain.endmembers.double().T
    torch.testing.assert_close(chain.evidence.gram, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(("mixing", "snr_db"), [("variable", 30.0), ("linear", 15.0), ("bilinear", 20.0)])
def test_placed_endmembers_go_to_where_refined_maps_would_have_them_and_the_maps_stay(
    bundled, mixing, snr_db, monkeypatch
):
    generator, wavelengths = torch.Generator().manual_seed(2), torch.linspace(400, 2400, 60)
    spectra = parametric_spectra(400, wavelengths, generator)
    scene = benchmark_scene(spectra, wavelengths, generator, mixing, snr_db, num_endmembers=4)
    given = scene.endmembers * (1 + torch.linspace(-0.1, 0.1, 60))

    def unmixed(**call):
        return bundled(scene.cube, mixing_model=mixing, generator=torch.Generator().manual_seed(0), **call)

    def off(out):
        return spectral_angle(torch.as_tensor(out.endmembers[0]), scene.endmembers).mean()

    known = {"endmembers": given, "wavelengths": wavelengths, "brightness": "fixed"}
    out = unmixed(**known)
    part = unmixed(scene=out.scene[0])
    np.testing.assert_array_equal(part.endmembers, out.endmembers)
    np.testing.assert_allclose(part.residual, out.residual, atol=1e-5)
    conclude = Chain.conclude_endmembers
    monkeypatch.setattr(Chain, "conclude_endmembers", lambda chain: None)
    before = unmixed(**known)
    for name in ("abundances", "brightness", "coarse_endmembers"):
        np.testing.assert_array_equal(getattr(out, name), getattr(before, name), err_msg=name)
    assert not np.array_equal(out.endmembers, before.endmembers)

    def as_if_maps_were_true(chain):
        chain.scaled_abundances = scene.abundances.flatten(0, 1)
        conclude(chain)

    monkeypatch.setattr(Chain, "conclude_endmembers", as_if_maps_were_true)
    assert off(unmixed(**known)) < 0.85 * off(before)


def test_endmembers_keep_their_common_maximum_in_the_last_step_and_rebuild_the_cube(bundled):
    cube, wavelengths, endmembers = tiny_scene(height=16, width=16)
    light = np.exp(0.3 * np.random.default_rng(0).standard_normal((16, 16, 1))).astype(np.float32)
    out = bundled(light * cube, wavelengths, endmembers=endmembers, brightness="free", mixing_model="linear")
    (spectra,), (stages,) = out.endmembers, out.scene[0].stages
    assert not np.array_equal(spectra, stages[-1].endmembers)
    np.testing.assert_allclose(spectra.max(1), spectra.max(), rtol=1e-5)
    rebuilt = out.brightness[0][..., None] * (out.abundances[0] @ spectra)
    residual = np.sqrt(
        np.square(rebuilt - out.scene[0].prepare(light * cube).pixels.numpy().reshape(cube.shape)).mean(2)
    )
    np.testing.assert_allclose(residual, out.residual[0], atol=1e-4)


@pytest.mark.parametrize(
    ("known", "size", "steps", "moves"),
    [
        pytest.param({"endmembers": 3}, 16, 2, True, id="corrected"),
        pytest.param({"num_endmembers": 3}, 16, 2, True, id="extracted"),
        pytest.param({"endmembers": 3}, 16, 0, False, id="coarse estimate only"),
        pytest.param({"endmembers": 3}, 7, 2, False, id="too few pixels"),
        pytest.param({"fixed_endmembers": 3}, 16, 2, False, id="exact"),
        pytest.param({"library": 3, "num_endmembers": 3}, 16, 2, False, id="library"),
        pytest.param({"fixed_endmembers": 1, "num_endmembers": 3}, 16, 2, True, id="one exact"),
    ],
)
def test_only_endmembers_that_pixels_have_placed_have_a_last_step(bundled, known, size, steps, moves):
    cube, wavelengths, endmembers = tiny_scene(height=size, width=size)
    call = {name: count if name == "num_endmembers" else endmembers[:count] for name, count in known.items()}
    out = bundled(cube, wavelengths, **call, num_inference_steps=steps, brightness="fixed")
    scene = out.scene[0]
    assert (not torch.equal(scene.concluded[0], scene.stages[0][-1].endmembers)) == moves
    np.testing.assert_array_equal(out.endmembers[0], scene.concluded[0])
    exact = len(call.get("fixed_endmembers", []))
    np.testing.assert_array_equal(out.endmembers[0][:exact], endmembers[:exact])
    part = bundled(cube, scene=scene, num_inference_steps=steps)
    np.testing.assert_array_equal(part.endmembers, out.endmembers)
