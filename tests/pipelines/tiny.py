"""A pipeline of a few thousand random parameters and a cube that it unmixes in a fraction of a second."""

import dataclasses

import numpy as np
import torch
from diffusers import DDIMScheduler

from hsunmix.models import HybridSTU, ResUNet1D, ResUNet2D

MODELS = ["encoder", "unet", "endmember_unet"]
FIELDS = [
    "abundances",
    "endmembers",
    "abundance_uncertainty",
    "endmember_uncertainty",
    "coarse_abundances",
    "coarse_endmembers",
    "brightness",
    "residual",
    "noise",
]

ENCODER = {
    "spectral_bins": 16,
    "spectral_channels": [2, 4],
    "feature_channels": 8,
    "hidden_channels": 8,
    "num_blocks": 1,
}
UNET = {"block_out_channels": [8, 16], "layers_per_block": 1, "time_embedding_channels": 8}
ENDMEMBER_UNET = {**UNET, "kernel_size": 3}
SCHEDULER = {
    "beta_schedule": "squaredcos_cap_v2",
    "clip_sample": False,
    "timestep_spacing": "trailing",
    "set_alpha_to_one": True,
    "prediction_type": "sample",
}


def tiny_model(cls, config, seed=0):
    """A model in which no weight is zero: the usual start, last layers at zero, would hide most mistakes."""
    model = cls(**config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def tiny_components(seed=0):
    """The five components, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {
            "encoder": tiny_model(HybridSTU, ENCODER, seed),
            "unet": tiny_model(ResUNet2D, UNET, seed + 1),
            "endmember_unet": tiny_model(ResUNet1D, ENDMEMBER_UNET, seed + 2),
            "scheduler": DDIMScheduler(**SCHEDULER),
            "endmember_scheduler": DDIMScheduler(**SCHEDULER),
        }


def tiny_pipeline(seed=0, **config):
    """A pipeline of tiny components, silent."""
    from hsunmix.pipelines import SemiBlindUnmixingPipeline

    pipe = SemiBlindUnmixingPipeline(**tiny_components(seed), **config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_scene(seed=0, height=8, width=8, bands=24, num_endmembers=3):
    """Cube (H, W, B), wavelengths (B,) nm, endmembers (R, B) of a linear scene with mild noise."""
    rng = np.random.default_rng(seed)
    wavelengths = np.linspace(450, 2350, bands)
    centres = np.linspace(600, 2200, num_endmembers)[:, None]
    endmembers = 0.15 + 0.6 * np.exp(-0.5 * ((wavelengths - centres) / 350) ** 2)
    abundances = rng.dirichlet(np.full(num_endmembers, 0.3), (height, width))
    cube = abundances @ endmembers + 0.01 * rng.standard_normal((height, width, bands))
    return cube.clip(1e-3).astype(np.float32), wavelengths, endmembers.astype(np.float32)


def tiny_inputs(seed=0, *, blind=False, size=(7, 8), **overrides):
    """Arguments of a call; semi-blind (approximate endmembers given) unless `blind`."""
    cube, wavelengths, endmembers = tiny_scene(seed, *size)
    known = {"num_endmembers": len(endmembers)} if blind else {"endmembers": endmembers}
    inputs = {
        "cube": cube,
        "wavelengths": wavelengths,
        "num_inference_steps": 2,
        "generator": torch.Generator().manual_seed(seed),
        **known,
    }
    return {**inputs, **overrides}


def to_numpy(value):
    return value.float().numpy() if torch.is_tensor(value) else np.asarray(value, dtype=np.float64)


def assert_outputs_close(first, second, tolerance=1e-4):
    """Every field of two outputs, None and NaN in the same places."""
    for name in FIELDS:
        a, b = getattr(first, name), getattr(second, name)
        assert (a is None) == (b is None), name
        if a is not None:
            for x, y in zip(a, b, strict=True):
                np.testing.assert_allclose(to_numpy(x), to_numpy(y), atol=tolerance, rtol=tolerance, err_msg=name)


def pick(output, index):
    """The part of a batched output that belongs to one cube, as a batch of one."""
    return dataclasses.make_dataclass("Picked", FIELDS)(
        **{n: None if getattr(output, n) is None else [getattr(output, n)[index]] for n in FIELDS}
    )
