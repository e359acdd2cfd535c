"""HybridSTU: coarse abundances from 3-D then 2-D convolutions and a softmax over the endmembers.

After HybridSN (Roy et al., IEEE GRSL 2020: 3-D convolutions folded into 2-D ones), with two changes that free it of
sensor and scene: the band axis is pooled to a fixed number of spectral bins, and pixels and endmembers pass through
the same spectral trunk, so that each logit comes from the pair (pixel, endmember).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn

from ..hub import HubNetwork
from ..physics import EVIDENCE_CHANNELS, estimate_noise, gather_evidence
from .layers import ChannelNorm, EndmemberExchange, ResidualBlock, quieten

_SMALLEST = 1e-3  # abundance at which the logit of the closed-form estimate is cut off


@dataclass
class HybridSTUOutput(BaseOutput):
    """Output of `HybridSTU`.

    Attributes:
        abundances: (N, R, H, W), on the simplex.
        log_std: (N, R, H, W), natural logarithm of the expected error of `abundances`.
    """

    abundances: torch.Tensor
    log_std: torch.Tensor | None = None


class HybridSTU(HubNetwork, ModelMixin, ConfigMixin):
    r"""Hybrid spectral-spatial network for coarse abundances, any number of bands and endmembers.

    The logit of endmember r is `log(a_r + eps) + g_r f_r`: closed-form abundance a_r, learned correction f_r, and gate
    `g_r = std_r / (a_r + std_r)`, the known relative error of a_r, so that the correction vanishes as the noise does.

    Args:
        spectral_bins: length to which the band axis is pooled.
        spectral_channels: widths of the two 3-D convolutions.
        feature_channels: spectral features per pixel after folding the spectral axis into the channels.
        hidden_channels: width of the 2-D convolutions on each (pixel, endmember) map.
        num_blocks: number of 2-D residual blocks.
    """

    _supports_gradient_checkpointing = False

    @register_to_config
    def __init__(
        self,
        spectral_bins: int = 48,
        spectral_channels: tuple[int, int] = (8, 16),
        feature_channels: int = 32,
        hidden_channels: int = 32,
        num_blocks: int = 3,
    ) -> None:
        super().__init__()
        first, second = spectral_channels
        self.conv3d_in = nn.Conv3d(2, first, (7, 3, 3), stride=(2, 1, 1), padding=(3, 1, 1), padding_mode="replicate")
        self.conv3d_out = nn.Conv3d(
            first, second, (5, 3, 3), stride=(2, 1, 1), padding=(2, 1, 1), padding_mode="replicate"
        )
        self.fold = nn.Conv2d(second * (((spectral_bins + 1) // 2 + 1) // 2), feature_channels, 1)
        self.norm = ChannelNorm(feature_channels)
        self.conv_pair = nn.Conv2d(2 * feature_channels + EVIDENCE_CHANNELS, hidden_channels, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(hidden_channels, hidden_channels) for _ in range(num_blocks))
        self.exchanges = nn.ModuleList(EndmemberExchange(hidden_channels) for _ in range(num_blocks))
        self.norm_out = ChannelNorm(hidden_channels)
        self.conv_out = nn.Conv2d(hidden_channels, 2, 3, padding=1)
        quieten(self.conv_out)

    def forward(
        self,
        cube: torch.Tensor,
        endmembers: torch.Tensor,
        evidence: torch.Tensor | None = None,
        wavelengths: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> HybridSTUOutput | tuple[torch.Tensor, torch.Tensor]:
        """Estimate coarse abundances.

        Args:
            cube: (N, B, H, W) reflectance.
            endmembers: (N, R, B) reflectance, in the scale in which the abundances are counted.
            evidence: (N, R, 5, H, W) maps from `hsunmix.physics.Evidence.maps`; computed here when `None`.
            wavelengths: (N, B) in nm; relative band positions when `None`.
            return_dict: `HybridSTUOutput` instead of a tuple.

        Returns:
            `HybridSTUOutput`, or `(abundances, log_std)`, (N, R, H, W) each.

        Raises:
            ValueError: if the bands of `cube` and `endmembers` differ.
        """
        if cube.shape[1] != endmembers.shape[2]:
            raise ValueError(f"`cube` has {cube.shape[1]} bands, but `endmembers` have {endmembers.shape[2]}.")
        num_endmembers = endmembers.shape[1]
        if evidence is None:
            evidence = self._evidence(cube, endmembers)
        scale = endmembers.amax(dim=(1, 2)).clamp_min(1e-6)  # [N]
        pixels = self._trunk(cube / scale[:, None, None, None], wavelengths)  # [N, F, H, W]
        lines = (endmembers / scale[:, None, None]).flatten(0, 1)[..., None, None]  # [N*R, B, 1, 1]
        positions = None if wavelengths is None else wavelengths.repeat_interleave(num_endmembers, 0)
        spectra = self._trunk(lines, positions).unflatten(0, (-1, num_endmembers))  # [N, R, F, 1, 1]
        pair = torch.cat([pixels[:, None] * spectra, pixels[:, None] - spectra, evidence.to(pixels.dtype)], dim=2)

        x = self.conv_pair(pair.flatten(0, 1).contiguous(memory_format=torch.channels_last))  # [N*R, C, H, W]
        for block, exchange in zip(self.blocks, self.exchanges, strict=True):
            x = exchange(block(x), num_endmembers)
        correction, log_error = self.conv_out(nn.functional.silu(self.norm_out(x))).float().chunk(2, dim=1)

        shape = (-1, num_endmembers, *cube.shape[2:])
        closed_form = (evidence[:, :, 0].float() + 1) / 2  # [N, R, H, W]
        log_std = (evidence[:, :, 1].float() - 1.5) * (1.5 * torch.log(torch.tensor(10.0)).item())
        gate = log_std.exp() / (closed_form + log_std.exp())
        logits = (closed_form + _SMALLEST).log() + gate * correction.reshape(shape)
        abundances = logits.softmax(dim=1).to(cube.dtype)
        log_std = (log_std + log_error.reshape(shape)).clamp(-12, 0).to(cube.dtype)
        return HybridSTUOutput(abundances, log_std) if return_dict else (abundances, log_std)

    def _trunk(self, cube: torch.Tensor, wavelengths: torch.Tensor | None) -> torch.Tensor:
        """Spectral features (N, F, H, W) of a cube (N, B, H, W); an endmember comes in as a cube of one pixel."""
        n, bands, height, width = cube.shape
        if wavelengths is None:
            position = torch.linspace(-1, 1, bands, device=cube.device).expand(n, bands)
        else:
            position = (wavelengths.float() - 1450) / 1050
        bins = self.config.spectral_bins
        values = nn.functional.adaptive_avg_pool1d(cube.flatten(2).transpose(1, 2), bins)  # [N, H*W, bins]
        values = values.transpose(1, 2).reshape(n, 1, bins, height, width)
        position = nn.functional.adaptive_avg_pool1d(position[:, None].to(cube.dtype), bins)  # [N, 1, bins]
        x = torch.cat([values, position[..., None, None].expand_as(values)], dim=1)  # [N, 2, bins, H, W]
        x = nn.functional.silu(self.conv3d_in(x))
        x = nn.functional.silu(self.conv3d_out(x))
        return self.norm(self.fold(x.flatten(1, 2)))  # spectral axis folded into the channels

    @staticmethod
    def _evidence(cube: torch.Tensor, endmembers: torch.Tensor) -> torch.Tensor:
        maps = []
        for scene, spectra in zip(cube.float(), endmembers.float(), strict=True):
            pixels = scene.flatten(1).T
            evidence = gather_evidence(pixels, spectra, estimate_noise(pixels))
            maps.append(evidence.maps(torch.ones(scene.shape[1:], dtype=torch.bool, device=scene.device)))
        return torch.stack(maps).to(cube.dtype)
