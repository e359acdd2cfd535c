"""The behaviour that diffusers asks of a model (its public model test mixins), on the three networks, tiny."""

import copy
import inspect
import json

import accelerate
import pytest
import torch
from diffusers.training_utils import EMAModel
from diffusers.utils import BaseOutput
from safetensors.torch import load_file

from hsunmix.models import HybridSTU, ResUNet1D, ResUNet2D
from tests.pipelines.tiny import ENCODER, ENDMEMBER_UNET, UNET, tiny_model

BATCH, R, BANDS, HEIGHT, WIDTH = 2, 3, 20, 6, 5
CONFIGS = {HybridSTU: ENCODER, ResUNet2D: UNET, ResUNet1D: ENDMEMBER_UNET}


def make_inputs(cls, seed=0):
    """Plausible inputs of each network, as keyword arguments."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape, low=0.05, high=0.95):
        return low + (high - low) * torch.rand(shape, generator=generator)

    wavelengths = torch.linspace(450, 2350, BANDS).expand(BATCH, BANDS)
    evidence = uniform(BATCH, R, 5, HEIGHT, WIDTH)
    if cls is HybridSTU:
        cube, endmembers = uniform(BATCH, BANDS, HEIGHT, WIDTH), uniform(BATCH, R, BANDS)
        return {"cube": cube, "endmembers": endmembers, "evidence": evidence, "wavelengths": wavelengths}
    shape = (BATCH, R, HEIGHT, WIDTH) if cls is ResUNet2D else (BATCH, R, BANDS)
    sample = torch.randn(shape, generator=generator)
    inputs = {"sample": sample, "timestep": torch.tensor(400), "coarse": uniform(*shape)}
    if cls is ResUNet2D:
        return {**inputs, "coarse_log_std": uniform(*shape).log(), "evidence": evidence}
    spread, statistics = uniform(*shape, low=0.01, high=0.2), uniform(*shape[:2], 5)
    evidence = {"evidence": uniform(*shape), "evidence_std": spread, "statistics": statistics}
    return {**inputs, **evidence, "wavelengths": wavelengths}


def cast(inputs, dtype):
    """Inputs in another dtype; wavelengths stay, as half precision can't tell neighbouring bands apart."""
    return {k: v.to(dtype) if v.is_floating_point() and k != "wavelengths" else v for k, v in inputs.items()}


@pytest.fixture(params=CONFIGS, ids=lambda cls: cls.__name__)
def cls(request):
    return request.param


@pytest.fixture
def model(cls):
    torch.manual_seed(0)
    return tiny_model(cls, CONFIGS[cls])


@pytest.fixture
def inputs(cls):
    return make_inputs(cls)


def run(model, inputs, **kwargs):
    with torch.no_grad():
        return model(**inputs, return_dict=False, **kwargs)


def assert_close(first, second, tolerance=5e-5):
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def test_forward_signature(cls):
    parameters = inspect.signature(cls.forward).parameters
    assert parameters["return_dict"].default is True
    if cls is not HybridSTU:
        assert list(parameters)[1:3] == ["sample", "timestep"]


def test_output_is_a_dataclass_in_tuple_order(model, inputs):
    with torch.no_grad():
        output = model(**inputs)
    assert isinstance(output, BaseOutput)
    main = output["abundances"] if isinstance(model, HybridSTU) else output["sample"]
    assert output[0] is main and main.shape == (inputs.get("sample", inputs["evidence"][:, :, 0])).shape
    assert_close(output.to_tuple(), run(model, inputs), 0)
    # accelerate's offload hooks and mixed precision rebuild an output from a dict, so all fields but one have defaults
    assert_close(output.to_tuple(), accelerate.utils.send_to_device(output, "cpu").to_tuple(), 0)


def test_deterministic_in_training_mode_too(model, inputs):
    first = run(model, inputs)
    assert_close(first, run(model, inputs), 0)
    assert_close(first, run(model.train(), inputs), 0)


def test_config_survives_json(model, cls):
    config = json.loads(model.to_json_string())
    assert config["_class_name"] == cls.__name__
    again = cls.from_config(config)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    expected = set(inspect.signature(cls.__init__).parameters) - {"self"}
    assert {k for k in config if not k.startswith("_")} == expected
    cls()  # every argument has a default


def test_config_values_are_read_through_config(model):
    key = next(k for k in model.config if not k.startswith("_"))
    with pytest.warns(FutureWarning):
        assert getattr(model, key) == model.config[key]
    with pytest.raises(AttributeError, match=f"'{type(model).__name__}' object has no attribute 'does_not_exist'"):
        _ = model.does_not_exist


@pytest.mark.parametrize("low_cpu_mem_usage", [True, False])
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_save_and_load(model, cls, inputs, tmp_path, variant, low_cpu_mem_usage):
    model.save_pretrained(tmp_path, variant=variant)
    suffix = f".{variant}.safetensors" if variant else ".safetensors"
    assert {p.name for p in tmp_path.iterdir()} == {"config.json", f"diffusion_pytorch_model{suffix}"}
    if variant:
        with pytest.raises(OSError, match="no file named diffusion_pytorch_model"):
            cls.from_pretrained(tmp_path)
    loaded = cls.from_pretrained(tmp_path, variant=variant, low_cpu_mem_usage=low_cpu_mem_usage)
    assert not loaded.training
    assert {k: loaded.config[k] for k in CONFIGS[cls]} == CONFIGS[cls]
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    assert_close(run(model, inputs), run(loaded, inputs))


def test_saved_file_holds_every_parameter(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert set(load_file(tmp_path / "diffusion_pytorch_model.safetensors")) == set(model.state_dict())


def test_shards(model, cls, inputs, tmp_path):
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    model.save_pretrained(tmp_path, max_shard_size=f"{int(0.75 * size / 1024)}KB")
    assert (tmp_path / "diffusion_pytorch_model.safetensors.index.json").is_file()
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert_close(run(model, inputs), run(cls.from_pretrained(tmp_path), inputs))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(model, cls, inputs, tmp_path, dtype):
    reference = run(model, inputs)
    model.to(dtype).save_pretrained(tmp_path)
    for low_cpu_mem_usage in (True, False):
        assert cls.from_pretrained(tmp_path, dtype=dtype, low_cpu_mem_usage=low_cpu_mem_usage).dtype == dtype
    loaded = cls.from_pretrained(tmp_path, dtype=dtype)
    assert all(p.dtype == dtype for p in loaded.parameters())
    output = run(loaded, cast(inputs, dtype))
    for half, full in zip(output, reference, strict=True):
        assert half.dtype == dtype
        assert (half.float() - full).abs().mean() < 0.1 * full.abs().mean() + 0.02


def test_half_precision_tells_neighbouring_bands_apart(model, inputs):
    """2000.1 and 2003.3 nm are one number in bfloat16, so wavelengths must be encoded before the cast."""
    if "wavelengths" not in inputs:
        pytest.skip("reads no wavelengths")
    model.to(torch.bfloat16)
    inputs = cast(inputs, torch.bfloat16)
    shift = torch.linspace(0, 3.9, BANDS)  # stays within one bfloat16 step at 2000 nm
    near, far = torch.full((BATCH, BANDS), 2000.0) + shift, torch.full((BATCH, BANDS), 2000.0) + 10 * shift
    outputs = [torch.cat([x.flatten() for x in run(model, {**inputs, "wavelengths": w})]) for w in (near, far)]
    assert all(torch.isfinite(x).all() for x in outputs)
    assert not torch.equal(*outputs)


def test_layerwise_casting(model, inputs):
    reference = run(model, inputs)
    model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    stored = {m.weight.dtype for m in model.modules() if isinstance(m, torch.nn.Conv1d | torch.nn.Conv2d)}
    assert model.dtype == torch.float32 and torch.float8_e4m3fn in stored
    norms = [m.weight.dtype for m in model.modules() if isinstance(m, torch.nn.LayerNorm | torch.nn.GroupNorm)]
    assert all(dtype == torch.float32 for dtype in norms), "name normalisations `norm*`: they keep their precision"
    for cheap, full in zip(run(model, inputs), reference, strict=True):
        assert cheap.dtype == torch.float32 and torch.isfinite(cheap).all()
        assert (cheap - full).abs().mean() < 0.2 * full.abs().mean() + 0.05


def test_parameters_are_used_inside_their_own_layers_only(model, inputs):
    """Sequential offload keeps each layer's weights away except during that layer's forward."""
    reference = run(model, inputs)
    accelerate.cpu_offload(model, torch.device("cpu"), offload_buffers=len(model._parameters) > 0)
    assert all(p.device.type == "meta" for p in model.parameters())
    assert_close(reference, run(model, inputs), 1e-6)
    with torch.no_grad():
        assert_close(reference, model(**inputs).to_tuple(), 1e-6)


@pytest.mark.parametrize("offload_type", ["leaf_level", "block_level"])
def test_group_offload(model, inputs, offload_type):
    reference = run(model, inputs)
    blocks = 1 if offload_type == "block_level" else None
    model.enable_group_offload(torch.device("cpu"), offload_type=offload_type, num_blocks_per_group=blocks)
    assert_close(reference, run(model, inputs), 1e-6)


def test_no_graph_breaks_and_no_recompilation(model, inputs):
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        first = run(compiled, inputs)
        assert_close(first, run(compiled, inputs), 0)
    assert_close(run(model, inputs), first, 1e-5)
    torch.compiler.reset()


def test_exports(model, inputs):
    exported = torch.export.export(model, args=(), kwargs=inputs)
    with torch.no_grad():
        assert_close(run(model, inputs), exported.module()(**inputs).to_tuple(), 1e-5)


def loss_of(output):
    return sum((x - torch.linspace(-1, 1, x.numel()).reshape(x.shape)).square().mean() for x in output)


def test_every_parameter_gets_a_gradient_from_a_fresh_start(cls, inputs):
    """From the constructor's own initialisation, and from the first output alone: otherwise DDP hangs."""
    model = cls(**CONFIGS[cls]).train()
    output = model(**inputs, return_dict=False)[0]
    torch.nn.functional.mse_loss(output, torch.randn_like(output)).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_training_changes_every_parameter_and_lowers_the_loss(cls, inputs):
    torch.manual_seed(0)
    model = cls(**CONFIGS[cls]).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(6):
        loss = loss_of(model(**inputs, return_dict=False))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []


def test_ema(model, cls, inputs, tmp_path):
    ema = EMAModel(model.parameters(), decay=0.5, model_cls=cls, model_config=model.config)
    loss_of(model.train()(**inputs, return_dict=False)).backward()
    torch.optim.SGD(model.parameters(), lr=1e-2).step()
    ema.step(model.parameters())
    ema.save_pretrained(tmp_path)
    loaded = EMAModel.from_pretrained(tmp_path, cls)
    for ours, theirs in zip(ema.shadow_params, loaded.shadow_params, strict=True):
        assert torch.equal(ours, theirs)


def test_gradient_checkpointing(model, cls, inputs):
    if not cls._supports_gradient_checkpointing:
        with pytest.raises(ValueError, match="gradient checkpointing"):
            model.enable_gradient_checkpointing()
        return
    assert not model.is_gradient_checkpointing
    losses, gradients, calls, counts = [], [], [], []
    for module in model.modules():
        if isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d):
            module.register_forward_hook(lambda *_: calls.append(1))
    for enable in (False, True):
        getattr(model, "enable_gradient_checkpointing" if enable else "disable_gradient_checkpointing")()
        assert model.is_gradient_checkpointing is enable
        switches = [m.gradient_checkpointing for m in model.modules() if hasattr(m, "gradient_checkpointing")]
        assert switches and all(s is enable for s in switches)
        model.zero_grad()
        calls.clear()
        loss = loss_of(model.train()(**inputs, return_dict=False))
        loss.backward()
        counts.append(len(calls))
        losses.append(loss.item())
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert counts[1] > counts[0], "nothing was computed again, so nothing was saved"
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert_close(*gradients)


@pytest.mark.parametrize("cls", [ResUNet2D, ResUNet1D], ids=lambda cls: cls.__name__)
def test_any_form_of_timestep(model, inputs):
    reference = run(model, inputs)
    for timestep in (400, 400.0, torch.tensor([400]), torch.full((BATCH,), 400)):
        assert_close(reference, run(model, {**inputs, "timestep": timestep}), 1e-6)
    other = run(model, {**inputs, "timestep": torch.tensor([400, 100])})
    torch.testing.assert_close(other[0][0], reference[0][0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(other[0][1], reference[0][1])


def test_batch_equals_single(model, inputs):
    whole = run(model, inputs)
    for i in range(BATCH):
        single = {k: v[i : i + 1] if v.ndim else v for k, v in inputs.items()}
        assert_close([x[i : i + 1] for x in whole], run(model, single), 1e-5)
