"""Forward models of simulated scenes: linear, bilinear, post-nonlinear, variable endmembers; misfit; brightness.

All on pixels as rows: abundances (N, R), endmembers (R, B), result (N, B) before brightness and noise.
"""

from __future__ import annotations

import math

import torch

from .draws import Draws
from .fields import gaussian_blur, random_curves, random_fields
from .regions import voronoi_labels

_DARKEST = 2.3  # shade and dark materials take up to this from the logarithm of the brightness

MIXING_MODELS = ("linear", "bilinear", "postnonlinear", "variable")
"""Mixing models known to `mix_pixels`."""


def mix_pixels(
    abundances: torch.Tensor, endmembers: torch.Tensor, mixing: str, height: int, width: int, draws: Draws
) -> torch.Tensor:
    """Mixed pixels (N, B) of the given model, N = height * width.

    Args:
        abundances: (N, R) on the simplex.
        endmembers: (R, B).
        mixing: "linear"; "bilinear", the generalised bilinear model with gamma ~ U(0, 1) per pixel and pair (Halimi et
            al., IEEE TGRS 2011); "postnonlinear", y = x + b x^2 with a smooth field b in [-0.3, 0.3] (Altmann et al.,
            IEEE TIP 2012); "variable", see `variable_endmember_pixels`.
        height: rows.
        width: columns.
        draws: source of randomness.

    Raises:
        ValueError: for an unknown model.
    """
    if mixing == "linear":
        return abundances @ endmembers
    if mixing == "bilinear":
        first, second = torch.triu_indices(len(endmembers), len(endmembers), 1, device=endmembers.device)
        interaction = abundances[:, first] * abundances[:, second]
        interaction = interaction * draws.uniform(0.0, 1.0, *interaction.shape)
        return torch.addmm(abundances @ endmembers, interaction, endmembers[first] * endmembers[second])
    if mixing == "postnonlinear":
        pixels = abundances @ endmembers
        curvature = uniform_fields(1, height, width, draws, -0.3, 0.3, 8.0).view(-1, 1)
        return pixels * (1.0 + curvature * pixels)
    if mixing == "variable":
        return variable_endmember_pixels(abundances, endmembers, height, width, draws)
    raise ValueError(f"`mixing` must be one of {', '.join(MIXING_MODELS)}, got {mixing!r}.")


def variable_endmember_pixels(
    abundances: torch.Tensor,
    endmembers: torch.Tensor,
    height: int,
    width: int,
    draws: Draws,
    mean_degrees: float = 2.0,
) -> torch.Tensor:
    """Mixed pixels (N, B) of endmembers that vary over the image.

    Each endmember has a smooth scaling field in [0.75, 1.25] and two smooth changes of shape, orthogonal to it, whose
    amplitudes are smooth fields; the mean angle to the nominal endmember is `mean_degrees`. Everything is of low rank,
    so the per-pixel endmembers (N, R, B) are never formed.
    """
    num_endmembers, num_bands = endmembers.shape
    scaling = uniform_fields(num_endmembers, height, width, draws, 0.75, 1.25, 8.0).view(num_endmembers, -1).T
    scaled = abundances * scaling  # (N, R)
    pixels = scaled @ endmembers
    position = torch.linspace(0.0, 1.0, num_bands, device=endmembers.device)
    amplitude = math.tan(math.radians(mean_degrees)) / math.sqrt(math.pi / 2.0)  # two fields: Rayleigh, mean 1.2533
    for _ in range(2):
        change = amplitude * _change_of_shape(endmembers, position, draws, 0.2)
        field = random_fields(num_endmembers, height, width, draws, draws.number(4.0, 12.0)).view(num_endmembers, -1).T
        pixels = torch.addmm(pixels, scaled * field.clamp(-2.5, 2.5), change)
    return pixels.clamp_min(0.0)


def unexplained_pixels(
    abundances: torch.Tensor, endmembers: torch.Tensor, height: int, width: int, draws: Draws
) -> torch.Tensor:
    """What no mixture of the endmembers explains in real pixels (N, B): to be added to those of `mix_pixels`.

    Each endmember has two to four changes of shape, coarse or fine along the spectrum, by 0.3 to 4 degrees, whose
    amplitudes are smooth or rough fields. In half of the scenes they lie outside of the span of the endmembers, as
    where these are a mean of all that their material looks like; in the others a random share of what lies in it is
    left.
    """
    num_endmembers, num_bands = endmembers.shape
    position = torch.linspace(0.0, 1.0, num_bands, device=endmembers.device)
    count = draws.integer(2, 4)
    amplitude = math.tan(math.radians(draws.log_number(0.3, 4.0))) / math.sqrt(count)
    pixels = torch.zeros(len(abundances), num_bands, device=endmembers.device)
    for _ in range(count):
        strength = amplitude * draws.uniform(0.0, 1.5, num_endmembers, 1)
        change = strength * _change_of_shape(endmembers, position, draws, draws.log_number(0.03, 0.3))
        field = random_fields(num_endmembers, height, width, draws, draws.log_number(0.6, 10.0))
        pixels = torch.addmm(pixels, abundances * field.view(num_endmembers, -1).T.clamp(-2.5, 2.5), change)
    outside = 1.0 if draws.chance(0.5) else draws.number(0.0, 1.0)
    basis = torch.linalg.qr(endmembers.double().T)[0].to(pixels.dtype)  # [B, R]
    return pixels - outside * (pixels @ basis) @ basis.T


def _change_of_shape(endmembers: torch.Tensor, position: torch.Tensor, draws: Draws, length: float) -> torch.Tensor:
    """Random changes (R, B) of endmembers, orthogonal to them and of their norm; `length` along positions (B,)."""
    norm = endmembers.norm(dim=1, keepdim=True)
    change = endmembers * random_curves(len(endmembers), position, draws, length)
    change = change - endmembers * ((change * endmembers).sum(1, keepdim=True) / norm.square().clamp_min(1e-12))
    return change * (norm / change.norm(dim=1, keepdim=True).clamp_min(1e-12))


def uniform_fields(
    num: int, height: int, width: int, draws: Draws, low: float, high: float, length: float
) -> torch.Tensor:
    """Smooth fields (num, H, W) whose values are about uniform in [low, high]."""
    fields = random_fields(num, height, width, draws, length)
    return low + (high - low) * torch.special.ndtr(fields)


def random_brightness(height: int, width: int, draws: Draws, abundances: torch.Tensor | None = None) -> torch.Tensor:
    """Brightness field (H, W): a log-normal field of median about 1, in part dimmed by shadows and by materials.

    The field has log standard deviation 0.05 to 0.4 and is smooth (haze, illumination), rough (canopy, shade between
    objects), topographic (cosine of the incidence angle on rough terrain), or constant within cells (roof slopes).
    Shadows dim regions down to a tenth. With `abundances`, some materials are dimmer wherever they occur, down to a
    tenth too, and dim what is mixed with them: water, wet or shaded ground.

    Args:
        height: rows.
        width: columns.
        draws: source of randomness.
        abundances: (N, R) on the simplex, N = height * width, or `None`.
    """
    kind = draws.choice(("smooth", "rough", "topographic", "cells"), (0.35, 0.3, 0.25, 0.1))
    if kind == "smooth":
        field = random_fields(1, height, width, draws, draws.log_number(3.0, 24.0))[0]
    elif kind == "rough":
        field = random_fields(1, height, width, draws, draws.log_number(0.5, 6.0), draws.number(0.2, 1.0))[0]
    elif kind == "topographic":
        length, smoothness = draws.log_number(3.0, 16.0), draws.number(0.8, 2.0)
        terrain = random_fields(1, height + 1, width + 1, draws, length, smoothness)[0]
        direction = draws.number(0.0, 2.0 * math.pi)
        slope_y, slope_x = terrain.diff(dim=0)[:, :-1], terrain.diff(dim=1)[:-1]
        field = slope_y * math.sin(direction) + slope_x * math.cos(direction)
    else:
        labels = voronoi_labels(height, width, draws)
        field = draws.normal(int(labels.max()) + 1)[labels]
    field = (field - field.mean()) / field.std(correction=0).clamp_min(1e-6)
    if draws.chance(0.3):
        field = 0.9 * field + 0.44 * draws.normal(height, width)
    log_brightness = draws.log_number(0.05, 0.4) * field.clamp(-3.5, 3.0)
    if draws.chance(0.2):
        labels = voronoi_labels(height, width, draws)
        shaded = (draws.uniform(0.0, 1.0, int(labels.max()) + 1) < draws.number(0.05, 0.4)).float()
        log_brightness = log_brightness - draws.number(0.4, _DARKEST) * gaussian_blur(shaded[labels][None], 0.7)[0]
    if abundances is not None and draws.chance(0.5):
        dimmed = draws.uniform(0.0, 1.0, abundances.shape[1]) < 0.4
        dimming = torch.where(dimmed, draws.uniform(0.2, _DARKEST, abundances.shape[1]), 0.0)
        log_brightness = log_brightness - (abundances @ dimming).view(height, width)
    return log_brightness.exp()
