"""Put three trained networks and their schedulers together as a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import DDIMScheduler

from ..models import HybridSTU, ResUNet1D, ResUNet2D
from ..models.layers import NOISE_SCHEDULE
from ..pipelines import SemiBlindUnmixingPipeline

Network = TypeVar("Network", HybridSTU, ResUNet1D, ResUNet2D)
Folders = Path | str | Sequence[Path | str]


def make_scheduler(num_train_timesteps: int) -> DDIMScheduler:
    """DDIM on the cosine schedule of training, from pure noise down to nothing left."""
    return DDIMScheduler(
        num_train_timesteps=num_train_timesteps,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
        **NOISE_SCHEDULE,
    )


def assemble(encoder: Folders, unet: Folders, endmember_unet: Folders, **settings: Any) -> SemiBlindUnmixingPipeline:
    """Build the pipeline from folders of trained networks.

    Of several folders the mean of the weights is taken, which makes sense where one was trained from the other (model
    soups: Wortsman et al., ICML 2022).

    Args:
        encoder: folder of a HybridSTU, or several.
        unet: folder of a ResUNet2D, or several.
        endmember_unet: folder of a ResUNet1D, or several.
        **settings: configuration of the pipeline: `default_denoising_steps`, `default_guidance_scale`, ...

    Returns:
        The pipeline, ready for `save_pretrained`.
    """
    coarse, maps = _mean(HybridSTU, encoder), _mean(ResUNet2D, unet)
    spectra = _mean(ResUNet1D, endmember_unet)
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


def _mean(kind: type[Network], folders: Folders) -> Network:
    networks = [kind.from_pretrained(one) for one in ([folders] if isinstance(folders, (str, Path)) else folders)]
    weights = [network.state_dict() for network in networks]
    networks[0].load_state_dict({name: torch.stack([one[name] for one in weights]).mean(0) for name in weights[0]})
    return networks[0]
