"""Put three trained networks and their schedulers together as a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import DDIMScheduler

from ..models import HybridSTU, ResUNet1D, ResUNet2D
from ..models.layers import NOISE_SCHEDULE
from ..pipelines import SemiBlindUnmixingPipeline


def make_scheduler(num_train_timesteps: int) -> DDIMScheduler:
    """DDIM on the cosine schedule of training, from pure noise down to nothing left."""
    return DDIMScheduler(
        num_train_timesteps=num_train_timesteps,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
        **NOISE_SCHEDULE,
    )


def assemble(
    encoder: Path | str, unet: Path | str, endmember_unet: Path | str, **settings: Any
) -> SemiBlindUnmixingPipeline:
    """Build the pipeline from folders of trained networks.

    Args:
        encoder: folder of a HybridSTU.
        unet: folder of a ResUNet2D.
        endmember_unet: folder of a ResUNet1D.
        **settings: configuration of the pipeline: `default_denoising_steps`, `default_guidance_scale`, ...

    Returns:
        The pipeline, ready for `save_pretrained`.
    """
    coarse, maps = HybridSTU.from_pretrained(encoder), ResUNet2D.from_pretrained(unet)
    spectra = ResUNet1D.from_pretrained(endmember_unet)
    for network in (coarse, maps, spectra):
        network.register_to_config(_name_or_path="")  # no folder of the training machine in what is published
    return SemiBlindUnmixingPipeline(
        encoder=coarse,
        unet=maps,
        endmember_unet=spectra,
        scheduler=make_scheduler(maps.config.num_train_timesteps),
        endmember_scheduler=make_scheduler(spectra.config.num_train_timesteps),
        **settings,
    )
