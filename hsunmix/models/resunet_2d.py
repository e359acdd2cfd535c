"""ResUNet2D: the diffusion network over abundance maps (DDPM: Ho et al., 2020), conditioned on the coarse maps.

Each endmember's map is one image of the batch; the maps of a scene see each other through a permutation-equivariant
exchange. The network predicts the clean maps and how far off it expects to be.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput

from ..hub import HubNetwork
from ..physics import EVIDENCE_CHANNELS
from .layers import TimeEmbedding, UNetTrunk, fuse, schedule_at


@dataclass
class ResUNet2DOutput(BaseOutput):
    """Output of `ResUNet2D`.

    Attributes:
        sample: (N, R, H, W), predicted clean sample `2 * abundances - 1`.
        log_std: (N, R, H, W), natural logarithm of its expected error, in units of `sample`.
    """

    sample: torch.Tensor
    log_std: torch.Tensor | None = None


class ResUNet2D(HubNetwork, ModelMixin, ConfigMixin):
    """Timestep-conditioned residual UNet over abundance maps, any number of endmembers and any size.

    Args:
        block_out_channels: width of each resolution, the finest first.
        layers_per_block: residual blocks on each side of each resolution.
        time_embedding_channels: size of the sinusoidal timestep code.
        num_train_timesteps: length of the cosine noise schedule of training.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        block_out_channels: tuple[int, ...] = (32, 64, 96, 128),
        layers_per_block: int = 1,
        time_embedding_channels: int = 32,
        num_train_timesteps: int = 1000,
    ) -> None:
        super().__init__()
        self.time_embedding = TimeEmbedding(time_embedding_channels)
        channels = 3 + EVIDENCE_CHANNELS
        self.trunk = UNetTrunk(
            channels, 2, block_out_channels, layers_per_block, self.time_embedding.out_channels, dims=2
        )

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        coarse: torch.Tensor,
        coarse_log_std: torch.Tensor,
        evidence: torch.Tensor,
        return_dict: bool = True,
    ) -> ResUNet2DOutput | tuple[torch.Tensor, torch.Tensor]:
        """Predict the clean abundance maps.

        Args:
            sample: (N, R, H, W) noisy maps, `signal * (2 * abundances - 1) + noise * n`.
            timestep: scalar or (N,).
            coarse: (N, R, H, W) coarse abundances in [0, 1].
            coarse_log_std: (N, R, H, W) natural logarithm of their expected error.
            evidence: (N, R, 5, H, W) maps from `hsunmix.physics.Evidence.maps`.
            return_dict: `ResUNet2DOutput` instead of a tuple.

        Returns:
            `ResUNet2DOutput`, or `(sample, log_std)`, (N, R, H, W) each.
        """
        n, num_endmembers = sample.shape[:2]
        signal, noise = schedule_at(timestep, self.config.num_train_timesteps, sample)
        centred = 2 * coarse.float() - 1
        coarse_std = 2 * coarse_log_std.float().exp()
        base, std = fuse(sample, signal, noise, centred, coarse_std)
        log_std = std.log()
        inputs = torch.stack([base, centred, log_std / 3 + 1.0], dim=2)
        inputs = torch.cat([inputs.to(sample.dtype), evidence.to(sample.dtype)], dim=2).flatten(0, 1)  # [N*R, 8, H, W]
        time = self.time_embedding(timestep, n * num_endmembers, inputs)
        output = self.trunk(inputs, time, num_endmembers).unflatten(0, (n, num_endmembers)).float()
        clean = (base + std * output[:, :, 0]).to(sample.dtype)
        log_std = (log_std + output[:, :, 1]).clamp(-12, 1).to(sample.dtype)
        return ResUNet2DOutput(clean, log_std) if return_dict else (clean, log_std)
