"""How diffusers expects a pipeline to be saved, loaded, cast and offloaded (its public test mixins), on tiny networks.

`tests/hub` holds what needs a Hub.
"""

import contextlib
import json
from pathlib import Path

import accelerate
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, ModelMixin
from diffusers.utils import logging as diffusers_logging

from hsunmix.pipelines import SemiBlindUnmixingPipeline
from tests.pipelines.tiny import FIELDS, MODELS, assert_outputs_close, tiny_components, tiny_inputs, tiny_pipeline

LOADER = Path(__file__).parents[2] / "pipelines" / "semi_blind_unmixing"


@pytest.fixture(scope="module")
def pipe():
    """One pipeline for the tests that only call it."""
    return tiny_pipeline()


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"variant": "fp16"}, {"safe_serialization": False}], ids=str)
def test_save_and_load(pipe, tmp_path, options, caplog):
    pipe.save_pretrained(tmp_path, **options)
    suffixes = {p.suffix for p in tmp_path.rglob("*") if p.is_file()}
    assert suffixes == ({".json", ".bin"} if "safe_serialization" in options else {".json", ".safetensors"})
    load_options = {k: v for k, v in options.items() if k == "variant"}
    logger = diffusers_logging.get_logger("diffusers.pipelines.pipeline_utils")
    level = logger.level
    logger.setLevel("INFO")
    logger.addHandler(caplog.handler)
    try:
        loaded = SemiBlindUnmixingPipeline.from_pretrained(tmp_path, **load_options)
    finally:
        logger.setLevel(level)
        logger.removeHandler(caplog.handler)
    loaded.set_progress_bar_config(disable=True)
    assert all(f"Loaded {name} as" in caplog.text for name in pipe.components)
    assert all(not component.training for component in loaded.components.values() if isinstance(component, ModelMixin))
    for name in MODELS:
        loaded_state = loaded.components[name].state_dict()
        assert all(torch.equal(v, loaded_state[k]) for k, v in pipe.components[name].state_dict().items())
        variant = f".{options['variant']}." if "variant" in options else "model."
        assert any(variant in p.name for p in (tmp_path / name).iterdir())
    assert_outputs_close(pipe(**tiny_inputs()), loaded(**tiny_inputs()))


def test_missing_variant(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="variant=fp16"):
        SemiBlindUnmixingPipeline.from_pretrained(tmp_path, variant="fp16")


def test_model_index_names_importable_classes(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "SemiBlindUnmixingPipeline"
    assert [index[name][1] for name in MODELS] == ["HybridSTU", "ResUNet2D", "ResUNet1D"]
    assert all(index[name][0].startswith("hsunmix.models.") for name in MODELS)
    assert index["scheduler"] == index["endmember_scheduler"] == ["diffusers", "DDIMScheduler"]


def test_load_with_own_component(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    unet = tiny_components(seed=9)["unet"]
    loaded = SemiBlindUnmixingPipeline.from_pretrained(tmp_path, unet=unet)
    assert loaded.unet is unet


def test_code_in_the_folder_is_not_run(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    evil = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    for path in ("pipeline.py", "unet/resunet_2d.py", "hsunmix.py", "unet/hsunmix.models.resunet_2d.py"):
        (tmp_path / path).write_text(evil)
    with contextlib.suppress(ValueError):  # a refusal is as good as ignoring the files
        SemiBlindUnmixingPipeline.from_pretrained(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_loader_for_the_base_class(pipe, tmp_path, monkeypatch):
    """`DiffusionPipeline` doesn't know hsunmix; the re-export in `pipelines/` leads it to the very same class."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pipe.save_pretrained(tmp_path)
    loaded = DiffusionPipeline.from_pretrained(tmp_path, custom_pipeline=str(LOADER), trust_remote_code=True)
    assert type(loaded) is SemiBlindUnmixingPipeline
    loaded.set_progress_bar_config(disable=True)
    assert_outputs_close(pipe(**tiny_inputs()), loaded(**tiny_inputs()))


# -- dtype and device -------------------------------------------------------------------------------------------------


def test_to_dtype():
    pipe = tiny_pipeline()
    assert {pipe.components[name].dtype for name in MODELS} == {torch.float32}
    pipe.to(dtype=torch.float16)
    assert {pipe.components[name].dtype for name in MODELS} == {torch.float16}
    assert pipe.dtype == torch.float16 and pipe.device == torch.device("cpu")


@pytest.mark.parametrize(("dtype", "blind"), [(torch.bfloat16, True), (torch.bfloat16, False), (torch.float16, False)])
def test_half_precision(pipe, dtype, blind):
    reference = pipe(**tiny_inputs(blind=blind))
    half = tiny_pipeline().to(dtype)
    output = half(**tiny_inputs(blind=blind, output_type="pt"))
    for name in FIELDS:
        if getattr(output, name) is not None:
            assert getattr(output, name).dtype == dtype, name
            assert torch.isfinite(getattr(output, name)).all(), name
    assert half(**tiny_inputs(blind=blind)).abundances.dtype == np.float32
    assert np.abs(output.abundances.float().numpy() - reference.abundances).mean() < 0.05


def test_components_of_different_dtypes(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path)
    pipe = SemiBlindUnmixingPipeline.from_pretrained(
        tmp_path, dtype={"unet": torch.bfloat16, "default": torch.float32}
    )
    pipe.set_progress_bar_config(disable=True)
    assert [pipe.components[n].dtype for n in MODELS] == [torch.float32, torch.bfloat16, torch.float32]
    assert np.isfinite(pipe(**tiny_inputs()).abundances).all()


def test_layerwise_casting():
    pipe = tiny_pipeline().to(torch.bfloat16)
    pipe.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
    assert torch.isfinite(pipe(**tiny_inputs(output_type="pt"))[0]).all()


def test_sequential_offload(pipe):
    """The weights of every layer away except during its forward; the CPU stands in for the accelerator."""
    reference = pipe(**tiny_inputs())
    offloaded = tiny_pipeline()
    for name in MODELS:  # not by `enable_sequential_cpu_offload`: accelerate can't bring weights back to "cpu:0"
        accelerate.cpu_offload(offloaded.components[name], torch.device("cpu"))
        assert offloaded.components[name].device.type == "meta"
    for _ in range(2):
        assert_outputs_close(reference, offloaded(**tiny_inputs()), 1e-5)


def test_group_offload(pipe):
    offloaded = tiny_pipeline()
    offloaded.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")
    assert_outputs_close(pipe(**tiny_inputs()), offloaded(**tiny_inputs()), 1e-5)


def test_model_offload_hooks_are_freed(pipe):
    """Models stay on the accelerator until the pipeline says that it is done, so it must say so."""
    reference = pipe(**tiny_inputs())
    offloaded = tiny_pipeline()
    offloaded.enable_model_cpu_offload(device="cpu")
    freed = []
    original = offloaded.maybe_free_model_hooks
    offloaded.maybe_free_model_hooks = lambda: (freed.append(1), original())
    for return_dict in (True, False):
        output = offloaded(**tiny_inputs(), return_dict=return_dict)
        np.testing.assert_allclose(output[0], reference[0], atol=1e-5)
    assert len(freed) == 2
    assert all(hasattr(offloaded.components[name], "_hf_hook") for name in MODELS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_accelerator(pipe, dtype):
    moved = tiny_pipeline().to("cuda", dtype)
    output = moved(**tiny_inputs(output_type="pt"))
    assert output[0].device.type == "cuda" and torch.isfinite(output[0]).all()
    tolerance = 1e-3 if dtype == torch.float32 else 0.1
    assert np.abs(output[0].float().cpu().numpy() - pipe(**tiny_inputs()).abundances).mean() < tolerance
    for offload in ("enable_model_cpu_offload", "enable_sequential_cpu_offload"):
        offloaded = tiny_pipeline()
        getattr(offloaded, offload)()
        np.testing.assert_allclose(offloaded(**tiny_inputs())[0], pipe(**tiny_inputs())[0], atol=1e-3)
