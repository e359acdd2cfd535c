"""Classical methods that the benchmark runs beside the pipeline, each as its paper has it and without tuning.

Blind ones find endmembers, which are then inverted twice: fully constrained, and with the brightness free and
endmembers of equal maximum (SCLSU). Sparse ones take their abundances from a whole library at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from ..endmembers import extract_endmembers
from ..endmembers.geometric import successive_projections, vertex_components

_PENALTY = 0.01  # of the augmented Lagrangian, in units of the mean eigenvalue of the library's Gram matrix
_ITERATIONS = 300
_TOLERANCE = 1e-4  # relative change of the abundances that ends the iteration
_SPARSITY, _SMOOTHNESS = 1e-2, 3e-3  # for a cube of maximum 1

Extract = Callable[[torch.Tensor, int, torch.Generator], torch.Tensor]


def vca(cube: torch.Tensor, num_endmembers: int, generator: torch.Generator) -> torch.Tensor:
    """Vertex component analysis (Nascimento and Bioucas-Dias, IEEE TGRS 2005), one start.

    Args:
        cube: (H, W, B).
        num_endmembers: R.
        generator: of the random directions.

    Returns:
        (R, B) spectra of pixels, projected on R singular vectors or, under strong noise, on R - 1 principal axes.
    """
    pixels = cube.flatten(0, 1).double()
    mean = pixels.mean(0)
    centred = pixels - mean
    axes = torch.linalg.eigh(centred.T @ centred)[1][:, -num_endmembers:].flip(1).T  # [R, B]
    scores = centred @ axes.T
    power, signal = pixels.square().sum(1).mean(), scores.square().sum(1).mean() + mean.square().sum()
    ratio = (signal - num_endmembers / len(mean) * power) / (power - signal).clamp_min(1e-12 * float(power))
    if 10 * math.log10(max(float(ratio), 1e-3)) < 15 + 10 * math.log10(num_endmembers):
        plane = scores[:, :-1]
        height = plane.norm(dim=1).max().expand(len(plane), 1)
        chosen = vertex_components(torch.cat([plane, height], 1), num_endmembers, 1, generator)[0]
        return plane[chosen] @ axes[:-1] + mean
    points, basis = _leading_coordinates(cube, num_endmembers)
    along = points @ points.mean(0)
    chosen = vertex_components(points / along[:, None], num_endmembers, 1, generator)[0]
    return points[chosen] @ basis


def spa(cube: torch.Tensor, num_endmembers: int, generator: torch.Generator) -> torch.Tensor:
    """Successive projections (Araujo et al., 2001; SiVM by another name); arguments and result as `vca`."""
    points, basis = _leading_coordinates(cube, num_endmembers)
    return points[successive_projections(points, num_endmembers)[0]] @ basis


def archetypes(cube: torch.Tensor, num_endmembers: int, generator: torch.Generator) -> torch.Tensor:
    """Archetypal analysis by entropic descent on unit-norm pixels (Zouaoui et al., IEEE TIP 2023), best of 96 starts.

    Arguments and result as `vca`.
    """
    return extract_endmembers(cube, num_endmembers, generator=generator, method="archetypes").endmembers


def minimum_volume(cube: torch.Tensor, num_endmembers: int, generator: torch.Generator) -> torch.Tensor:
    """Soft minimum-volume simplex in the manner of SISAL (Bioucas-Dias, WHISPERS 2009); as `vca`."""
    return extract_endmembers(cube, num_endmembers, generator=generator, method="minimum_volume").endmembers


BLIND: dict[str, Extract] = {"vca": vca, "spa": spa, "archetypes": archetypes, "minimum_volume": minimum_volume}
"""Methods that know the number of endmembers."""


def _leading_coordinates(cube: torch.Tensor, num_endmembers: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels (N, R) in the basis (R, B) of the R leading singular vectors, and that basis."""
    pixels = cube.flatten(0, 1).double()
    vectors = torch.linalg.eigh(pixels.T @ pixels)[1]
    basis = vectors[:, -num_endmembers:].T
    return pixels @ basis.T, basis


def sunsal(cube: torch.Tensor, library: torch.Tensor, sparsity: float = _SPARSITY) -> torch.Tensor:
    """SUnSAL (Bioucas-Dias and Figueiredo, WHISPERS 2010): min |Y - A E|^2 / 2 + sparsity |A|_1 over A >= 0, by ADMM.

    Args:
        cube: (H, W, B).
        library: (L, B).
        sparsity: weight of the sum of the abundances.

    Returns:
        (H, W, L) non-negative abundances, whose sum is free.
    """
    pixels, spectra = cube.flatten(0, 1).double(), library.double()
    gram, rhs = spectra @ spectra.T, pixels @ spectra.T
    penalty = _PENALTY * float(gram.diagonal().mean())
    inverse = torch.linalg.inv(gram + penalty * torch.eye(len(gram), dtype=gram.dtype))
    positive, dual = torch.zeros_like(rhs), torch.zeros_like(rhs)
    for _ in range(_ITERATIONS):
        free = (rhs + penalty * (positive + dual)) @ inverse
        before, positive = positive, (free - dual - sparsity / penalty).clamp_min(0)
        dual = dual - free + positive
        if _settled(before, positive):
            break
    return positive.unflatten(0, cube.shape[:2])


def sunsal_tv(
    cube: torch.Tensor, library: torch.Tensor, sparsity: float = _SPARSITY, smoothness: float = _SMOOTHNESS
) -> torch.Tensor:
    """SUnSAL-TV (Iordache et al., IEEE TGRS 2012): `sunsal` with the anisotropic total variation of the maps, by ADMM.

    Args:
        cube: (H, W, B).
        library: (L, B).
        sparsity: weight of the sum of the abundances.
        smoothness: weight of the total variation, with periodic borders.

    Returns:
        (H, W, L) non-negative abundances, whose sum is free.
    """
    spectra = library.double()
    gram, rhs = spectra @ spectra.T, cube.double() @ spectra.T  # [L, L], [H, W, L]
    penalty = _PENALTY * float(gram.diagonal().mean())
    inverse = torch.linalg.inv(gram + 2 * penalty * torch.eye(len(gram), dtype=gram.dtype))
    frequencies = [2 - 2 * torch.cos(2 * torch.pi * torch.fft.fftfreq(n, dtype=torch.float64)) for n in cube.shape[:2]]
    response = (1 + frequencies[0][:, None] + frequencies[1])[..., None]  # of I + D^T D
    positive, smooth = torch.zeros_like(rhs), torch.zeros_like(rhs)
    edges = torch.zeros(2, *rhs.shape, dtype=torch.float64)
    dual_positive, dual_smooth, dual_edges = (torch.zeros_like(x) for x in (positive, smooth, edges))
    for _ in range(_ITERATIONS):
        free = (rhs + penalty * (positive + dual_positive + smooth + dual_smooth)) @ inverse
        before, positive = positive, (free - dual_positive - sparsity / penalty).clamp_min(0)
        target = free - dual_smooth + _backward(edges + dual_edges)
        smooth = torch.fft.ifft2(torch.fft.fft2(target, dim=(0, 1)) / response, dim=(0, 1)).real
        slope = _forward(smooth)
        edges = torch.nn.functional.softshrink(slope - dual_edges, smoothness / penalty)
        dual_positive = dual_positive - free + positive
        dual_smooth = dual_smooth - free + smooth
        dual_edges = dual_edges - slope + edges
        if _settled(before, positive):
            break
    return positive


SPARSE: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {"sunsal": sunsal, "sunsal_tv": sunsal_tv}
"""Methods that know a library."""


def _settled(before: torch.Tensor, after: torch.Tensor) -> bool:
    return float((after - before).norm()) < _TOLERANCE * float(after.norm())


def _forward(maps: torch.Tensor) -> torch.Tensor:
    """Differences (2, H, W, L) to the next row and column, periodic."""
    return torch.stack([maps.roll(-1, axis) - maps for axis in (0, 1)])


def _backward(edges: torch.Tensor) -> torch.Tensor:
    """The adjoint of `_forward`."""
    return sum((edges[axis].roll(1, axis) - edges[axis] for axis in (0, 1)), torch.zeros_like(edges[0]))


def most_abundant(abundances: np.ndarray, num_endmembers: int) -> tuple[np.ndarray, np.ndarray]:
    """The R spectra of a library that sparse unmixing found most of.

    Args:
        abundances: (H, W, L).
        num_endmembers: R.

    Returns:
        `(indices, abundances)`, (R,) and (H, W, R), these divided by their sum; equal where that is 0.
    """
    chosen = np.sort(np.argsort(abundances.mean(axis=(0, 1)))[::-1][:num_endmembers])
    maps = abundances[..., chosen]
    total = maps.sum(axis=-1, keepdims=True)
    return chosen, np.divide(maps, total, out=np.full_like(maps, 1 / num_endmembers), where=total > 0)
