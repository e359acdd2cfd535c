"""How many endmembers: a distribution, from the singular values of the pixels and from where the pixels lie.

A small network reads both; a rule, which finds the last clear gap between singular values, is pooled with it, since
scenes unlike the simulated ones of its training leave the network undecided. Whitening and noise estimate as in HySime
(Bioucas-Dias and Nascimento, IEEE TGRS 2008); edge of the noise after Marchenko and Pastur (1967).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from ..physics import estimate_noise
from .networks import SmallNetworks
from .subspace import effective_noise

LARGEST_NUMBER = 12
"""Largest number of endmembers that is estimated."""

_WEIGHTS = Path(__file__).parent / "number.safetensors"
_MODEL_ERRORS = (0.03, 0.003)  # relative to the rms of the pixels; count as noise. The rule takes the first
_DIRECTIONS = 20  # singular values that are looked at
_VERTICES = 16  # of successive projections
_STANDS_OUT = 1.65  # singular value over the next: noise and endmember variability fall more slowly
_RULE_WEIGHT = 0.3  # in the pool
_RULE_SURE = 0.5  # probability of what the rule says, on simulated scenes; the rest is spread evenly


def estimate_num_endmembers(
    pixels: torch.Tensor, noise_std: torch.Tensor | None = None, maximum: int = LARGEST_NUMBER
) -> int:
    """The most probable number of endmembers of a scene.

    Args:
        pixels: (N, B) spectra.
        noise_std: (B,) standard deviation of the noise; estimated when `None`.
        maximum: largest number returned, at most 12.

    Returns:
        Number of endmembers, at least 2.

    Raises:
        ValueError: if `pixels` is not (N, B) with at least two of each.
    """
    found = number_probabilities(pixels, noise_std, maximum)
    return max(found, key=lambda count: found[count])


def number_probabilities(
    pixels: torch.Tensor, noise_std: torch.Tensor | None = None, maximum: int = LARGEST_NUMBER
) -> dict[int, float]:
    """How probable each number of endmembers is.

    Args:
        pixels: (N, B) spectra.
        noise_std: (B,) standard deviation of the noise; estimated when `None`.
        maximum: largest number, at most 12.

    Returns:
        Probability of 2, 3, ... endmembers, as far as pixels and bands allow.

    Raises:
        ValueError: if `pixels` is not (N, B) with at least two of each.
    """
    if pixels.ndim != 2 or min(pixels.shape) < 2:
        raise ValueError(f"`pixels` must be (N, B) with at least 2 of each, but has shape {tuple(pixels.shape)}.")
    if noise_std is None:
        noise_std = estimate_noise(pixels)
    views = scene_views(pixels, noise_std)
    largest = max(2, min(maximum, LARGEST_NUMBER, len(pixels), pixels.shape[1] - 1))
    network = pooled_probabilities(_bundled(), describe_numbers(views, pixels.shape)).double()
    rule = torch.full_like(network, (1 - _RULE_SURE) / len(network))
    rule[min(_last_gap(views[0]), largest) - 2] += _RULE_SURE
    pooled = ((1 - _RULE_WEIGHT) * network + _RULE_WEIGHT * rule)[: largest - 1]
    return dict(enumerate((pooled / pooled.sum()).tolist(), start=2))


@cache
def _bundled() -> SmallNetworks:
    return SmallNetworks.load(_WEIGHTS)


@torch.no_grad()
def pooled_probabilities(networks: SmallNetworks, features: torch.Tensor) -> torch.Tensor:
    """What the networks together say: probabilities (..., 11) of 2 to 12 endmembers from features (..., 11, F)."""
    return networks(features).log_softmax(-1).mean(0).softmax(-1)


View = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def scene_views(pixels: torch.Tensor, noise_std: torch.Tensor) -> list[View]:
    """What `describe_numbers` reads, once for each model error that counts as noise."""
    return [_view(pixels, noise_std, error) for error in _MODEL_ERRORS]


def _view(pixels: torch.Tensor, noise_std: torch.Tensor, model_error: float) -> View:
    """Logarithms of singular values (20,) and edge of the noise (), of residuals of successive projections (17, 3).

    All of whitened pixels of unit norm. The residuals are largest, 99 % quantile and rms over the pixels.
    """
    num_pixels, num_bands = pixels.shape
    white = pixels.double() / effective_noise(pixels, noise_std, model_error)
    norm = white.norm(dim=1, keepdim=True)
    unit = white / norm.clamp_min(1e-2 * norm.mean() + 1e-30)
    power, vectors = torch.linalg.eigh(unit.T @ unit / num_pixels)
    edge = norm.clamp_min(1e-30).reciprocal().square().mean() * (1 + (num_bands / num_pixels) ** 0.5) ** 2
    left = unit @ vectors.flip(1)[:, : _VERTICES + 2]
    residuals = []
    for _ in range(_VERTICES + 1):
        square = left.square().sum(1)
        high = square.kthvalue(1 + int(0.99 * (num_pixels - 1))).values
        residuals.append(torch.stack([square.max(), high, square.mean()]))
        axis = left[square.argmax()]
        axis = axis / axis.norm().clamp_min(1e-12)
        left = left - (left @ axis)[:, None] * axis
    power = power.flip(0)[:_DIRECTIONS]
    power = torch.cat([power, power[-1:].expand(_DIRECTIONS - len(power))])
    return _log(power), _log(edge), _log(torch.stack(residuals))


def _log(square: torch.Tensor) -> torch.Tensor:
    return square.clamp_min(1e-14).log10() / 2


def _last_gap(view: View) -> int:
    """The rule: a direction, and all before it, count if its singular value stands out of noise and of the next."""
    values, edge, _ = view
    gap = torch.log10(torch.tensor(_STANDS_OUT))
    clear = (values[:-1] - values[1:] > gap) & (values[:-1] > edge)
    counts = clear[:LARGEST_NUMBER].nonzero()[:, 0] + 1
    return max(2, int(counts.max())) if len(counts) else 2


def describe_numbers(views: list[View], shape: tuple[int, ...] | torch.Size) -> torch.Tensor:
    """What speaks for each number of endmembers k = 2 to 12.

    Args:
        views: of `scene_views`.
        shape: (N, B) of the pixels.

    Returns:
        (11, F): singular values about k, their gaps, the largest gap before and after, what is left above the noise,
        and what successive projections leave after k - 1 and k vertices.
    """
    counts = range(2, LARGEST_NUMBER + 1)
    columns = []
    for values, edge, residuals in views:
        gaps, falls = values[:-1] - values[1:], residuals[:-1] - residuals[1:]
        above = values - edge
        for k in counts:
            before = gaps[1 : k - 1].max() if k > 2 else gaps.new_zeros(())
            columns += [
                gaps[k - 1], gaps[k - 2], gaps[k], above[k - 1], above[k], values[k - 1] - values[0],
                before, gaps[k:14].max(), above[k:15].clamp_min(0).sum(),
                residuals[k - 1, 0], residuals[k, 0], residuals[k - 1, 0] - edge, residuals[k, 0] - edge,
                residuals[k - 1, 1] - edge, residuals[k, 1] - edge, *falls[k - 1],
            ]  # fmt: skip
    per_view = torch.stack(columns).unflatten(0, (len(views), len(counts), -1)).transpose(0, 1).flatten(1)
    number = torch.tensor(list(counts), dtype=per_view.dtype, device=per_view.device)[:, None] / LARGEST_NUMBER
    size = torch.tensor(shape, dtype=per_view.dtype, device=per_view.device).log10().expand(len(counts), 2)
    return torch.cat([per_view, number, size], 1).float().cpu()
