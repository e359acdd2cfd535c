"""Joint training: the three networks end to end through a few unrolled steps of the sampler."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ..hub import NETWORKS
from ..models import HybridSTU, ResUNet1D, ResUNet2D, laplace_nll, spectral_angle_loss
from ..models.layers import schedule_at
from ..physics import anchor_brightness, gather_evidence, normal_equations
from ..pipelines.chain import EXTRACTED_SHARE, network_share
from .losses import Losses, consistent_maps, endmember_inputs


class JointModel(nn.Module):
    """The three networks as one module, so that one optimiser, one EMA and one process group serve them.

    Args:
        encoder: `HybridSTU`.
        unet: `ResUNet2D`.
        endmember_unet: `ResUNet1D`.
    """

    def __init__(self, encoder: HybridSTU, unet: ResUNet2D, endmember_unet: ResUNet1D) -> None:
        super().__init__()
        self.encoder, self.unet, self.endmember_unet = encoder, unet, endmember_unet

    @classmethod
    def from_pretrained(cls, encoder: Path | str, unet: Path | str, endmember_unet: Path | str) -> JointModel:
        """Load the three from their folders.

        Args:
            encoder: folder of a `HybridSTU`.
            unet: folder of a `ResUNet2D`.
            endmember_unet: folder of a `ResUNet1D`.

        Returns:
            The three as one module.
        """
        return cls(
            HybridSTU.from_pretrained(encoder),
            ResUNet2D.from_pretrained(unet),
            ResUNet1D.from_pretrained(endmember_unet),
        )

    def save_pretrained(self, folder: str) -> None:
        """Each network in a folder of its own: `encoder`, `unet`, `endmember_unet`.

        Args:
            folder: made where it doesn't exist.
        """
        for name in NETWORKS:
            getattr(self, name).save_pretrained(str(Path(folder) / name))

    def forward(self, batch: dict, num_steps: int) -> list[tuple[torch.Tensor, ...]]:
        """Run the deterministic sampler and keep what it predicts on its way.

        Args:
            batch: of `SimulatedExamples`.
            num_steps: DDIM steps.

        Returns:
            For every step: predicted maps and their log error (N, R, H, W), in units of the sample; abundances after
            the A-step (N, R, H, W); predicted spectra and their log error (N, R, B), in units of the sample; the
            endmembers (N, R, B). First the coarse abundances and their log error.
        """
        coarse, coarse_log_std = self.encoder(
            batch["cube"], batch["coarse_endmembers"], batch["evidence"], batch["wavelengths"], return_dict=False
        )
        scale, _, conditions = endmember_inputs(batch)
        length = self.unet.config.num_train_timesteps
        timesteps = [length - 1 - (length * k) // num_steps for k in range(num_steps)]
        maps, spectra = torch.zeros_like(coarse, dtype=torch.float32), torch.zeros_like(conditions[0])
        passed: list[tuple[torch.Tensor, ...]] = [(coarse, coarse_log_std)]
        for step, t in enumerate(timesteps):
            lines, lines_log_std = (x.float() for x in self.endmember_unet(spectra, t, *conditions, return_dict=False))
            std = lines_log_std.exp() / 2 * scale
            endmembers = self._endmembers(lines, std, scale, batch)
            data = gather_batch(batch, endmembers, std)
            clean, log_std = (
                x.float()
                for x in self.unet(maps, t, coarse.detach(), coarse_log_std.detach(), data["maps"], return_dict=False)
            )
            abundances = consistent_maps((clean + 1) / 2, log_std.exp() / 2, data)
            passed.append((clean, log_std, abundances, lines, lines_log_std, endmembers))
            if step + 1 < num_steps:
                following = timesteps[step + 1]
                maps = _ddim_step(maps, 2 * abundances - 1, t, following, length)
                spectra = _ddim_step(spectra, 2 * endmembers / scale - 1, t, following, length)
        return passed

    @staticmethod
    def _endmembers(lines: torch.Tensor, std: torch.Tensor, scale: torch.Tensor, batch: dict) -> torch.Tensor:
        start, predicted = batch["coarse_endmembers"], (lines + 1) / 2 * scale
        moved = batch["moved_endmembers"]
        share = network_share(start, batch["start_error"], batch["noise_std"], predicted, std, moved)
        weighed = start + share * (predicted - start)
        endmembers = torch.where(batch["extracted"][:, None, None], weighed, predicted).clamp_min(0)
        peak = endmembers.amax(-1, keepdim=True).clamp_min(1e-3)
        endmembers = torch.where(batch["counted"][:, None, None], endmembers / peak * scale, endmembers)
        return torch.where(batch["fixed"][:, None, None], start, endmembers)


def joint_loss(model: nn.Module, batch: dict, num_steps: int, relative: bool = False) -> Losses:
    """Losses on abundances, spectra and reconstruction after every step of the unrolled sampler.

    Args:
        model: `JointModel`.
        batch: of `SimulatedExamples`.
        num_steps: denoising steps that the gradient runs through.
        relative: the squared error of the maps of every scene counts by its logarithm, so that scenes of little noise,
            whose errors are small, count as much as others.

    Returns:
        Scalars by name; `loss` is minimised.
    """
    (coarse, coarse_log_std), *steps = model(batch, num_steps)
    _, target, conditions = endmember_inputs(batch)
    truth = batch["abundances"]
    with torch.autocast(truth.device.type, enabled=False):  # reconstruction is compared in full precision
        coarse_error = coarse.float() - truth
        loss = laplace_nll(coarse_error, coarse_log_std.float()) + coarse_error.square().mean()
        for clean, log_std, abundances, lines, lines_log_std, endmembers in steps:
            error, line_error = clean - (2 * truth - 1), lines - target
            rebuilt = torch.einsum("nrhw,nrb->nhwb", abundances, endmembers)
            if relative:
                size = 0.05 * _log_square(error / 2) + 0.2 * _log_square(abundances - truth)
            else:
                size = error.square().mean() + 4 * (abundances - truth).square().mean()
            maps_loss = laplace_nll(error, log_std) + size
            free = ~batch["fixed"]
            spectra_loss = 0.5 * spectral_angle_loss(endmembers, batch["endmembers"])
            if free.any():
                spectra_loss = spectra_loss + laplace_nll(line_error[free], lines_log_std[free])
            fit = spectral_angle_loss(rebuilt, batch["cube"].permute(0, 2, 3, 1))
            loss = loss + (maps_loss + spectra_loss + 0.05 * fit) / len(steps)
    abundances, endmembers = steps[-1][2], steps[-1][5]
    return {
        "loss": loss,
        "rmse": (abundances - truth).square().mean().sqrt(),
        "coarse_rmse": coarse_error.square().mean().sqrt(),
        "sad": spectral_angle_loss(endmembers, batch["endmembers"]),
        "coarse_sad": spectral_angle_loss(conditions[0], batch["endmembers"]),
    }


def _log_square(error: torch.Tensor) -> torch.Tensor:
    """Mean over the scenes of the logarithm of their mean squares."""
    return (error.square().flatten(1).mean(1) + 3e-6).log().mean()


def gather_batch(batch: dict, endmembers: torch.Tensor, std: torch.Tensor) -> dict[str, torch.Tensor]:
    """Evidence of a batch with the given endmembers; the Gram matrix and right-hand side keep their gradient.

    Args:
        batch: of `SimulatedExamples`.
        endmembers: (N, R, B).
        std: (N, R, B) their standard deviation.

    Returns:
        `maps` (N, R, 5, H, W), and what `consistent_maps` takes.
    """

    def unmix(
        pixels: torch.Tensor,
        spectra: torch.Tensor,
        error: torch.Tensor,
        noise_std: torch.Tensor,
        precision: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            evidence = gather_evidence(pixels, spectra, noise_std, 1.0, precision, error)
        gram, rhs = anchor_brightness(*normal_equations(pixels, spectra, evidence.band_std), 1.0, precision)
        maps, confidence = evidence.maps(valid), evidence.confidence
        return {"maps": maps, "gram": gram, "rhs": rhs, "confidence": confidence, "brightness": evidence.brightness}

    cube = batch["cube"]
    valid = torch.ones(cube.shape[-2:], dtype=torch.bool, device=cube.device)
    share = torch.where(batch["extracted"], EXTRACTED_SHARE, 1.0) * ~batch["fixed"]
    pixels = cube.flatten(2).transpose(1, 2).float()
    with torch.autocast(cube.device.type, enabled=False):
        return torch.vmap(unmix)(
            pixels, endmembers, share[:, None, None] * std, batch["noise_std"], batch["brightness_precision"]
        )


def _ddim_step(sample: torch.Tensor, clean: torch.Tensor, t: int, following: int, length: int) -> torch.Tensor:
    """Deterministic DDIM step (Song et al., 2021) on the cosine schedule."""
    (signal, noise), (next_signal, next_noise) = (schedule_at(k, length, sample) for k in (t, following))
    return next_signal * clean + next_noise * (sample - signal * clean) / noise
