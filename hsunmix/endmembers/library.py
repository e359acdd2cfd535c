"""Endmembers from a spectral library: few spectra that together explain the scene.

Preselection by the distance to the signal subspace (MUSIC-CSR: Iordache et al., IEEE TGRS 2014), then greedy forward
selection and exchange by the residual of non-negative least squares.
"""

from __future__ import annotations

import torch

from ..physics import estimate_noise, normal_equations, solve_nonnegative
from .subspace import effective_noise, fit_subspace

_PRESELECT = 60
_PIXELS = 500


def select_from_library(
    pixels: torch.Tensor,
    library: torch.Tensor,
    num_endmembers: int,
    noise_std: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """The R spectra of a library that explain the pixels best, with free brightness.

    Args:
        pixels: (N, B) spectra.
        library: (L, B) spectra at the bands of the cube.
        num_endmembers: R.
        noise_std: (B,) standard deviation of the noise; estimated when `None`.
        generator: source of randomness for the choice of pixels, on the CPU; a fixed seed when `None`.

    Returns:
        (R, B) spectra of the library, unscaled, in the order in which they were found.

    Raises:
        ValueError: if shapes do not fit or the library has fewer than R usable spectra.
    """
    indices = library_indices(pixels, library, num_endmembers, noise_std, generator)
    return library[indices]


def library_indices(
    pixels: torch.Tensor,
    library: torch.Tensor,
    num_endmembers: int,
    noise_std: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """As `select_from_library`, but returns the (R,) indices of the spectra in the library."""
    if pixels.ndim != 2 or library.ndim != 2 or pixels.shape[1] != library.shape[1]:
        raise ValueError(
            f"`library` has shape {tuple(library.shape)} and `pixels` {tuple(pixels.shape)}: both must have the same "
            "bands; resample the library to the bands of the cube."
        )
    usable = torch.isfinite(library).all(1) & (library.abs().sum(1) > 0)
    if int(usable.sum()) < num_endmembers:
        raise ValueError(
            f"`library` has {int(usable.sum())} usable spectra, fewer than `num_endmembers`={num_endmembers}."
        )
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    if noise_std is None:
        noise_std = estimate_noise(pixels)
    noise = effective_noise(pixels, noise_std, floor=0.001)
    dim = min(num_endmembers, pixels.shape[1], len(pixels))
    subspace = fit_subspace(pixels, noise, dim)

    where = usable.nonzero()[:, 0]
    white = library[where].double() / noise
    white = white / white.norm(dim=1, keepdim=True)
    distance = 1 - (white @ subspace.basis.T).square().sum(1)
    where = where[distance.argsort()[:_PRESELECT]]

    subset = torch.randperm(len(pixels), generator=generator)[:_PIXELS].to(pixels.device)
    points = subspace.lift(subspace.project(pixels[subset])) / noise
    spectra = library[where].double() / noise
    spectra = spectra / spectra.norm(dim=1, keepdim=True)
    return where[_greedy_exchange(points, spectra, num_endmembers)]


def _greedy_exchange(points: torch.Tensor, spectra: torch.Tensor, count: int) -> torch.Tensor:
    gram, rhs = normal_equations(points, spectra)
    power = float(points.square().sum())

    def residual(chosen: list[int]) -> float:
        g, h = gram[chosen][:, chosen], rhs[:, chosen]
        b = solve_nonnegative(g, h)
        return power - 2 * float((b * h).sum()) + float((b * (b @ g)).sum())

    chosen: list[int] = []
    for _ in range(count):
        trials = [(residual([*chosen, k]), k) for k in range(len(spectra)) if k not in chosen]
        chosen.append(min(trials)[1])
    best = residual(chosen)
    improved = True
    while improved:
        improved = False
        for position in range(count):
            rest = chosen[:position] + chosen[position + 1 :]
            trials = [(residual([*rest, k]), k) for k in range(len(spectra)) if k not in chosen]
            value, k = min(trials, default=(float("inf"), -1))
            if value < best * (1 - 1e-9):
                chosen[position], best, improved = k, value, True
    return torch.tensor(chosen, device=spectra.device)
