"""From the chains of one cube to what the user gets: mean and spread over the members, on the user's grid."""

from __future__ import annotations

import torch

from ..physics import split_brightness
from .chain import Chain


def summarise(
    chains: list[Chain], latents: list[torch.Tensor] | None, with_uncertainty: bool
) -> dict[str, torch.Tensor | None]:
    """Average the chains of one cube.

    Args:
        chains: M chains of the same cube, endmembers in the same order.
        latents: M final abundance latents (R, H, W); `None` returns the coarse estimate.
        with_uncertainty: compute standard deviations: those within the chains (closed form) and between them together.

    Returns:
        The fields of `SemiBlindUnmixingOutput` without batch axis.
    """
    cube = chains[0].cube
    if latents is None:
        abundances = torch.stack([chain.coarse_abundances for chain in chains])  # [M, N, R]
    else:
        maps = torch.stack(latents).permute(0, 2, 3, 1)[:, cube.valid]  # [M, N, R]
        abundances = split_brightness(((maps + 1) / 2).clamp_min(0))[0]
    endmembers = torch.stack([chain.last_endmembers for chain in chains])  # [M, R, K]
    brightness = torch.stack([chain.scaled_abundances.sum(1) for chain in chains])  # [M, N]

    abundance_uncertainty = endmember_uncertainty = None
    if with_uncertainty:
        within = torch.stack([chain.abundance_std() for chain in chains])
        abundance_uncertainty = cube.to_map(_total_std(abundances, within))
        within = torch.stack([chain.endmember_std for chain in chains])
        endmember_uncertainty = cube.to_spectra(_total_std(endmembers, within))
    return {
        "abundances": cube.to_map(abundances.mean(0)),
        "endmembers": cube.to_spectra(endmembers.mean(0)),
        "abundance_uncertainty": abundance_uncertainty,
        "endmember_uncertainty": endmember_uncertainty,
        "coarse_abundances": cube.to_map(torch.stack([chain.coarse_abundances for chain in chains]).mean(0)),
        "coarse_endmembers": cube.to_spectra(torch.stack([chain.coarse_endmembers for chain in chains]).mean(0)),
        "brightness": cube.to_map(brightness.mean(0)),
        "residual": cube.to_map(torch.stack([chain.residual() for chain in chains]).mean(0)),
        "noise": cube.to_spectra(cube.noise_std),
    }


def _total_std(values: torch.Tensor, within: torch.Tensor) -> torch.Tensor:
    """Standard deviation of a mixture of members: mean variance within plus variance between."""
    return (within.square().mean(0) + values.var(0, unbiased=False)).sqrt()
