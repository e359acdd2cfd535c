"""ResUNet1D: the diffusion network over endmember spectra (DDPM: Ho et al., 2020), conditioned on the coarse spectra.

A band is (wavelength, value): the network runs along the bands of whatever sensor there is and reads the wavelengths
as input channels, so that one set of weights knows absorption features on every grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput

from ..hub import HubNetwork
from .layers import TimeEmbedding, UNetTrunk, fuse, schedule_at

_FREQUENCIES = 4  # octaves of the wavelength code
_STATISTICS = 5  # of `hsunmix.physics.Evidence.statistics`


@dataclass
class ResUNet1DOutput(BaseOutput):
    """Output of `ResUNet1D`.

    Attributes:
        sample: (N, R, B), predicted clean sample `2 * endmembers - 1`, endmembers in units of their scale.
        log_std: (N, R, B), natural logarithm of its expected error, in units of `sample`.
    """

    sample: torch.Tensor
    log_std: torch.Tensor | None = None


class ResUNet1D(HubNetwork, ModelMixin, ConfigMixin):
    """Timestep-conditioned residual UNet over spectra, any sensor and any number of endmembers.

    Args:
        block_out_channels: width of each resolution, the finest first.
        layers_per_block: residual blocks on each side of each resolution.
        kernel_size: odd size of the convolutions, in bands.
        time_embedding_channels: size of the sinusoidal timestep code.
        num_train_timesteps: length of the cosine noise schedule of training.
        coarse_std: expected error of the coarse spectra, as a share of their scale.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        block_out_channels: tuple[int, ...] = (48, 96, 128, 160),
        layers_per_block: int = 1,
        kernel_size: int = 5,
        time_embedding_channels: int = 32,
        num_train_timesteps: int = 1000,
        coarse_std: float = 0.05,
    ) -> None:
        super().__init__()
        self.time_embedding = TimeEmbedding(time_embedding_channels)
        channels = 5 + _STATISTICS + 2 * _FREQUENCIES + 2
        self.trunk = UNetTrunk(
            channels, 2, block_out_channels, layers_per_block, self.time_embedding.out_channels, 1, kernel_size
        )

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        coarse: torch.Tensor,
        evidence: torch.Tensor,
        evidence_std: torch.Tensor,
        statistics: torch.Tensor,
        wavelengths: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> ResUNet1DOutput | tuple[torch.Tensor, torch.Tensor]:
        """Predict the clean spectra.

        Args:
            sample: (N, R, B) noisy spectra, `signal * (2 * endmembers - 1) + noise * n`.
            timestep: scalar or (N,).
            coarse: (N, R, B) coarse spectra, in units of their scale.
            evidence: (N, R, B) spectra after one closed-form step onto the data (`hsunmix.physics.endmember_step`).
            evidence_std: (N, R, B) standard deviation of that step.
            statistics: (N, R, 5) from `hsunmix.physics.Evidence.statistics` with the coarse spectra: how each
                endmember occurs in the scene, and how well all explain it.
            wavelengths: (N, B) in nm; relative band positions when `None`.
            return_dict: `ResUNet1DOutput` instead of a tuple.

        Returns:
            `ResUNet1DOutput`, or `(sample, log_std)`, (N, R, B) each.
        """
        n, num_endmembers, bands = sample.shape
        signal, noise = schedule_at(timestep, self.config.num_train_timesteps, sample)
        centred = 2 * coarse.float() - 1
        coarse_std = torch.full_like(centred, 2 * self.config.coarse_std)
        base, std = fuse(sample, signal, noise, centred, coarse_std)
        move = (evidence.float() - coarse.float()) / self.config.coarse_std  # in units of the error to be mended
        reliability = (evidence_std.float() / self.config.coarse_std).clamp(1e-3, 1e3).log10()
        inputs = torch.stack([base, centred, std.log() + 2, move.clamp(-10, 10) / 2, reliability], dim=2)
        occurrence = statistics.to(inputs)[..., None].expand(-1, -1, -1, bands)  # [N, R, S, B]
        code = self._wavelength_code(wavelengths, n, bands, sample.device)  # [N, K, B]
        code = code[:, None].expand(-1, num_endmembers, -1, -1)
        inputs = torch.cat([inputs, occurrence, code], dim=2).flatten(0, 1).to(sample.dtype)  # [N*R, C, B]
        time = self.time_embedding(timestep, n * num_endmembers, inputs)
        output = self.trunk(inputs, time, num_endmembers).unflatten(0, (n, num_endmembers)).float()
        clean = (base + std * output[:, :, 0]).to(sample.dtype)
        log_std = (std.log() + output[:, :, 1]).clamp(-12, 1).to(sample.dtype)
        return ResUNet1DOutput(clean, log_std) if return_dict else (clean, log_std)

    @staticmethod
    def _wavelength_code(wavelengths: torch.Tensor | None, n: int, bands: int, device: torch.device) -> torch.Tensor:
        """Position of every band: octaves of its wavelength, band spacing, and whether wavelengths are known."""
        known = 0.0 if wavelengths is None else 1.0
        if wavelengths is None:
            position = torch.linspace(0, 1, bands, device=device).expand(n, bands)
        else:
            position = (wavelengths.to(device).float() - 400) / 2100
        spacing = torch.gradient(position, dim=-1)[0].abs() if bands > 1 else torch.ones_like(position)
        octaves = 2 ** torch.arange(_FREQUENCIES, device=device)[:, None] * torch.pi
        phase = position[:, None] * octaves  # [N, F, B]
        extra = torch.stack([spacing.clamp(1e-4, 1).log10() + 2, torch.full_like(position, known)], dim=1)
        return torch.cat([phase.sin(), phase.cos(), extra], dim=1)
