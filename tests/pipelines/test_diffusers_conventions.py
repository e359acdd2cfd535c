"""How diffusers expects a pipeline to be called (its public test mixins, Marigold's habits), on tiny networks.

Whether the numbers are good is tested elsewhere; saving and devices in `test_saving_and_devices.py`.
"""

import contextlib
import copy
import dataclasses
import inspect
import io
import typing
import warnings

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, HeunDiscreteScheduler
from diffusers.callbacks import PipelineCallback
from diffusers.utils import BaseOutput

import hsunmix
from hsunmix.models import HybridSTU, ResUNet1D, ResUNet2D
from hsunmix.pipelines import SemiBlindUnmixingPipeline
from tests.pipelines.tiny import (
    FIELDS,
    MODELS,
    assert_outputs_close,
    pick,
    tiny_components,
    tiny_inputs,
    tiny_pipeline,
    tiny_scene,
)


@pytest.fixture(scope="module")
def pipe():
    """One pipeline for the tests that only call it."""
    return tiny_pipeline()


def generator(seed):
    return torch.Generator().manual_seed(seed)


# -- the class --------------------------------------------------------------------------------------------------------


def test_call_signature():
    parameters = inspect.signature(SemiBlindUnmixingPipeline.__call__).parameters
    for name in ("num_inference_steps", "generator", "latents", "output_type", "return_dict", "callback_on_step_end"):
        assert parameters[name].default is not inspect.Parameter.empty, name
    assert list(parameters)[1] == "cube"
    assert all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def test_constructor_signature():
    hints = typing.get_type_hints(SemiBlindUnmixingPipeline.__init__)
    assert [hints[name] for name in MODELS] == [HybridSTU, ResUNet2D, ResUNet1D]
    parameters = dict(list(inspect.signature(SemiBlindUnmixingPipeline.__init__).parameters.items())[1:])
    components = [name for name, p in parameters.items() if p.default is inspect.Parameter.empty]
    assert components == [*MODELS, "scheduler", "endmember_scheduler"]
    assert sorted(SemiBlindUnmixingPipeline.model_cpu_offload_seq.split("->")) == sorted(MODELS)
    assert hsunmix.SemiBlindUnmixingPipeline is SemiBlindUnmixingPipeline


def test_components_and_parameters_rebuild_the_pipeline(pipe):
    components = tiny_components()
    assert set(pipe.components) == set(components)
    again = SemiBlindUnmixingPipeline(**pipe.components, **pipe.parameters)
    again.set_progress_bar_config(disable=True)
    assert_outputs_close(pipe(**tiny_inputs()), again(**tiny_inputs()), 0)
    assert pipe.scheduler is not pipe.endmember_scheduler


def test_from_pipe(pipe):
    other = SemiBlindUnmixingPipeline.from_pipe(pipe)
    other.set_progress_bar_config(disable=True)
    assert all(other.components[name] is component for name, component in pipe.components.items())
    assert_outputs_close(pipe(**tiny_inputs()), other(**tiny_inputs()), 0)


def test_defaults_live_in_the_config(tmp_path):
    pipe = tiny_pipeline()
    defaults = {k: v for k, v in pipe.parameters.items() if k.startswith("default_")}
    assert pipe.config.default_denoising_steps == defaults["default_denoising_steps"] > 0
    pipe = tiny_pipeline(default_denoising_steps=3)
    steps = []

    def count(pipe, i, t, kwargs):
        steps.append(i)
        return kwargs

    pipe(**tiny_inputs(num_inference_steps=None, strength=1.0, callback_on_step_end=count))
    assert steps == [0, 1, 2]
    pipe.save_pretrained(tmp_path)
    assert SemiBlindUnmixingPipeline.from_pretrained(tmp_path).config.default_denoising_steps == 3


# -- outputs ----------------------------------------------------------------------------------------------------------


def test_dataclass_and_tuple(pipe):
    output = pipe(**tiny_inputs())
    values = pipe(**tiny_inputs(), return_dict=False)
    assert isinstance(output, BaseOutput) and isinstance(values, tuple)
    names = [f.name for f in dataclasses.fields(output)]
    assert names[: len(FIELDS)] == FIELDS and len(values) == len(names)
    assert output[0] is output.abundances
    assert_outputs_close(output, type(output)(*values), 0)
    assert output.abundance_uncertainty is None and output.endmember_uncertainty is None


def test_shapes(pipe):
    output = pipe(**tiny_inputs(size=(7, 5)))
    shapes = {n: getattr(output, n).shape for n in FIELDS if getattr(output, n) is not None}
    maps, spectra = (1, 7, 5, 3), (1, 3, 24)
    assert shapes == {
        "abundances": maps,
        "endmembers": spectra,
        "coarse_abundances": maps,
        "coarse_endmembers": spectra,
        "brightness": (1, 7, 5),
        "residual": (1, 7, 5),
        "noise": (1, 24),
    }
    np.testing.assert_allclose(output.abundances.sum(-1), 1, atol=1e-5)


def test_output_types(pipe):
    as_numpy, as_torch = pipe(**tiny_inputs()), pipe(**tiny_inputs(output_type="pt"))
    for name in FIELDS:
        if getattr(as_numpy, name) is not None:
            assert isinstance(getattr(as_numpy, name), np.ndarray) and getattr(as_numpy, name).dtype == np.float32
            assert torch.is_tensor(getattr(as_torch, name)) and not getattr(as_torch, name).requires_grad
    assert_outputs_close(as_numpy, as_torch, 1e-6)
    with pytest.raises(ValueError, match="`output_type`"):
        pipe(**tiny_inputs(output_type="pil"))


@pytest.mark.parametrize("convert", [torch.from_numpy, lambda c: c[None], lambda c: [c], lambda c: [torch.tensor(c)]])
def test_input_types(pipe, convert):
    inputs = tiny_inputs()
    reference = pipe(**inputs)
    assert_outputs_close(reference, pipe(**tiny_inputs(cube=convert(inputs["cube"]))))


# -- randomness and batches -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ensemble_size", [1, 3])
@pytest.mark.parametrize("blind", [False, True])
def test_same_generator_same_everything(pipe, blind, ensemble_size):
    kwargs = {"ensemble_size": ensemble_size, "output_uncertainty": ensemble_size > 1}
    first = pipe(**tiny_inputs(blind=blind), **kwargs)
    torch.manual_seed(1234)
    np.random.seed(1234)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert_outputs_close(first, pipe(**tiny_inputs(blind=blind), **kwargs), 0)
    assert torch.equal(states[0], torch.get_rng_state()), "drew from torch's global generator"
    assert np.array_equal(states[1], np.random.get_state()[1]), "drew from numpy's global generator"
    if ensemble_size > 1:
        assert first.abundance_uncertainty is not None and first.endmember_uncertainty is not None
        assert (first.abundance_uncertainty > 0).any()


def test_another_seed_draws_other_noise(pipe):
    outputs = [pipe(**tiny_inputs(generator=generator(s), ensemble_size=2)).abundances for s in (0, 1)]
    assert not np.array_equal(*outputs)


def test_global_seed_without_generator(pipe):
    outputs = []
    for _ in range(2):
        torch.manual_seed(0)
        outputs.append(pipe(**tiny_inputs(generator=None)))
    assert_outputs_close(*outputs, 0)


@pytest.mark.parametrize("blind", [False, True])
def test_batch_equals_single(pipe, blind):
    cubes = [tiny_scene(seed)[0] for seed in range(3)]
    batch = pipe(**tiny_inputs(blind=blind, cube=cubes, generator=[generator(s) for s in range(3)]))
    assert batch.abundances.shape[0] == batch[0].shape[0] == 3
    for index, cube in enumerate(cubes):
        single = pipe(**tiny_inputs(blind=blind, cube=cube, generator=generator(index)))
        assert_outputs_close(single, pick(batch, index))
    assert not np.allclose(batch.abundances[0], batch.abundances[1])


@pytest.mark.parametrize("batch_size", [1, 2])
def test_batch_size_only_saves_memory(pipe, batch_size):
    # too few pixels to correct the endmembers by extraction, which knows no batches and magnifies last bits
    cubes = np.stack([tiny_scene(seed, 7, 8)[0] for seed in range(3)])
    outputs = []
    for size in (None, batch_size):
        generators = [generator(s) for s in range(3)]
        outputs.append(pipe(**tiny_inputs(cube=cubes, generator=generators, batch_size=size)))
    assert_outputs_close(*outputs)


def test_ensemble_does_not_depend_on_batch_size(pipe):
    outputs = [pipe(**tiny_inputs(ensemble_size=3, output_uncertainty=True, batch_size=s)) for s in (None, 1, 2)]
    assert_outputs_close(outputs[0], outputs[1])
    assert_outputs_close(outputs[0], outputs[2])


def test_list_of_different_sizes(pipe):
    cubes = [tiny_scene(0, 8, 8)[0], tiny_scene(1, 5, 11)[0]]
    batch = pipe(**tiny_inputs(cube=cubes, generator=[generator(0), generator(1)]))
    assert [a.shape for a in batch.abundances] == [(8, 8, 3), (5, 11, 3)] and isinstance(batch.abundances, list)
    for index, cube in enumerate(cubes):
        assert_outputs_close(pipe(**tiny_inputs(cube=cube, generator=generator(index))), pick(batch, index))


def test_one_generator_for_a_batch(pipe):
    cubes = np.stack([tiny_scene(0)[0]] * 2)
    outputs = [pipe(**tiny_inputs(cube=cubes, ensemble_size=2)) for _ in range(2)]
    assert_outputs_close(*outputs, 0)
    assert not np.array_equal(outputs[0].abundances[0], outputs[0].abundances[1]), "the same noise for every cube"


# -- latents ----------------------------------------------------------------------------------------------------------


def test_latents_warm_start(pipe):
    options = {"output_type": "latent", "strength": 0.5}
    latents = pipe(**tiny_inputs(**options))[0]
    assert torch.is_tensor(latents) and torch.isfinite(latents).all()
    runs = [pipe(**tiny_inputs(latents=x, **options))[0] for x in (latents, latents, latents + 0.5)]
    assert runs[0].shape == latents.shape
    assert torch.equal(runs[0], runs[1])
    assert not torch.allclose(runs[0], runs[2], atol=1e-4), "`latents` is ignored"
    given = latents.clone()
    pipe(**tiny_inputs(latents=latents))
    assert torch.equal(given, latents), "changed the caller's `latents`"


def test_latents_of_the_wrong_shape(pipe):
    latents = pipe(**tiny_inputs(output_type="latent"))[0]
    for wrong in (latents[..., :-1], latents[None], latents.numpy()):
        with pytest.raises(ValueError, match="`latents`"):
            pipe(**tiny_inputs(latents=wrong))


# -- callbacks and progress -------------------------------------------------------------------------------------------


def test_callback_gets_what_it_asked_for(pipe):
    assert "latents" in SemiBlindUnmixingPipeline._callback_tensor_inputs
    for names in (["latents"], pipe._callback_tensor_inputs):
        seen = []

        def record(pipeline, i, t, kwargs, seen=seen):
            assert pipeline is pipe
            seen.append((i, int(t), {k: v.clone() for k, v in kwargs.items()}))
            return kwargs

        inputs = tiny_inputs(num_inference_steps=4, strength=0.5)
        plain = pipe(**tiny_inputs(num_inference_steps=4, strength=0.5))
        called = pipe(**inputs, callback_on_step_end=record, callback_on_step_end_tensor_inputs=names)
        assert_outputs_close(plain, called, 0)
        assert [i for i, _, _ in seen] == list(range(pipe.num_timesteps)) == [0, 1]
        assert [t for _, t, _ in seen] == sorted((t for _, t, _ in seen), reverse=True)
        assert all(set(kwargs) == set(names) and all(map(torch.is_tensor, kwargs.values())) for *_, kwargs in seen)


def test_callback_changes_tensors(pipe):
    def zero_at_the_end(pipeline, i, t, kwargs):
        if i == pipeline.num_timesteps - 1:
            kwargs = {k: torch.zeros_like(v) for k, v in kwargs.items()}
        return kwargs

    def zero_at_first(pipeline, i, t, kwargs):
        return {k: torch.zeros_like(v) for k, v in kwargs.items()} if i == 0 else kwargs

    asked = {"callback_on_step_end_tensor_inputs": pipe._callback_tensor_inputs}
    output = pipe(**tiny_inputs(output_type="latent"), callback_on_step_end=zero_at_the_end, **asked)
    assert output[0].abs().sum() == 0, "latent output must be what the last callback returned"
    changed = pipe(**tiny_inputs(output_type="latent"), callback_on_step_end=zero_at_first, **asked)[0]
    assert not torch.allclose(changed, pipe(**tiny_inputs(output_type="latent"))[0], atol=1e-5)


def test_callback_asks_for_something_unknown(pipe):
    with pytest.raises(ValueError, match="`callback_on_step_end_tensor_inputs`"):
        pipe(
            **tiny_inputs(),
            callback_on_step_end=lambda p, i, t, k: k,
            callback_on_step_end_tensor_inputs=["does_not_exist"],
        )


def test_callback_interrupts(pipe):
    steps = []

    def stop(pipeline, i, t, kwargs):
        steps.append(i)
        pipeline._interrupt = True
        return kwargs

    output = pipe(**tiny_inputs(num_inference_steps=5), callback_on_step_end=stop)
    assert steps == [0] and np.isfinite(output.abundances).all()
    steps.clear()
    pipe(**tiny_inputs(num_inference_steps=2, strength=1.0))
    assert pipe.interrupt is False and pipe.num_timesteps == 2


def test_callback_changes_the_guidance_scale(pipe):
    def increase(pipeline, i, t, kwargs):
        pipeline._guidance_scale += 1.0
        return kwargs

    pipe(**tiny_inputs(guidance_scale=2.0, num_inference_steps=3), callback_on_step_end=increase)
    assert pipe.guidance_scale == 2.0 + pipe.num_timesteps

    def explode(pipeline, i, t, kwargs):
        pipeline._guidance_scale = 1e4
        return kwargs

    options = {"num_inference_steps": 3, "strength": 1.0, "guidance_scale": 1.0}
    plain, changed = pipe(**tiny_inputs(**options)), pipe(**tiny_inputs(**options), callback_on_step_end=explode)
    assert not np.allclose(plain.abundances, changed.abundances, atol=1e-6), "the loop reads a stale guidance scale"


def test_callback_objects(pipe):
    class Record(PipelineCallback):
        tensor_inputs = ["latents"]
        calls = 0

        def callback_fn(self, pipeline, step_index, timesteps, callback_kwargs):
            Record.calls += 1
            assert set(callback_kwargs) == {"latents"}
            return callback_kwargs

    pipe(**tiny_inputs(num_inference_steps=3, strength=1.0), callback_on_step_end=Record(cutoff_step_ratio=1.0))
    assert Record.calls == 3


def test_progress_bar():
    pipe = tiny_pipeline()
    for disable in (True, False):
        pipe.set_progress_bar_config(disable=disable)
        with contextlib.redirect_stderr(io.StringIO()) as stderr, contextlib.redirect_stdout(io.StringIO()) as stdout:
            pipe(**tiny_inputs(num_inference_steps=3, strength=1.0))
        assert stdout.getvalue() == ""
        assert ("3/3" in stderr.getvalue()) is not disable


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"guidance_scale": 7.5}, {"guidance_scale": 1.0}, {"num_inference_steps": 1}])
def test_options_give_finite_outputs(pipe, options):
    output = pipe(**tiny_inputs(**options))
    assert np.isfinite(output.abundances).all() and np.isfinite(output.endmembers).all()


@pytest.mark.parametrize(
    "options",
    [
        {"num_inference_steps": -1},
        {"num_inference_steps": 1.5},
        {"strength": -0.1},
        {"strength": 1.1},
        {"guidance_scale": -1.0},
        {"ensemble_size": 0},
        {"batch_size": 0},
        {"generator": [torch.Generator()] * 3},
        {"generator": 0},
        {"brightness": "bright"},
        {"mixing_model": "cubic"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_bad_options_are_named(pipe, options):
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"`{name}`"):
        pipe(**tiny_inputs(**options))


def test_call_leaves_no_trace(pipe):
    """No gradient, no change of mode or weights, no warning about deprecated use, the caller's arrays untouched."""
    before = {name: copy.deepcopy(pipe.components[name].state_dict()) for name in MODELS}
    inputs = tiny_inputs()
    arrays = {k: v.copy() for k, v in inputs.items() if isinstance(v, np.ndarray)}
    config = dict(pipe.config)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        warnings.simplefilter("error", DeprecationWarning)
        pipe(**inputs)
    assert all(np.array_equal(array, inputs[k]) for k, array in arrays.items())
    assert dict(pipe.config) == config
    for name, state in before.items():
        assert not pipe.components[name].training
        assert all(torch.equal(value, pipe.components[name].state_dict()[k]) for k, value in state.items())
        assert all(p.grad is None for p in pipe.components[name].parameters())


def test_scheduler_can_be_replaced():
    pipe = tiny_pipeline()
    assert isinstance(pipe.scheduler, DDIMScheduler)
    reference = pipe(**tiny_inputs())
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, num_train_timesteps=500)
    assert pipe(**tiny_inputs()).abundances.shape == reference.abundances.shape
    assert pipe.components["scheduler"].config.num_train_timesteps == 500
    pipe.scheduler = HeunDiscreteScheduler(prediction_type="sample")  # has two timesteps for a step
    with pytest.raises(ValueError, match="`scheduler` and `endmember_scheduler`"):
        pipe(**tiny_inputs())


def test_attention_slicing_is_harmless(pipe):
    reference = pipe(**tiny_inputs())
    pipe.enable_attention_slicing(1)
    assert_outputs_close(reference, pipe(**tiny_inputs()), 1e-6)
    pipe.disable_attention_slicing()
