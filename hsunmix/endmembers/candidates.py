"""The pool of candidate endmember sets: everything that might be right, for `selection` to choose from."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..physics import nnls, unit_rows
from .archetypes import archetypal_analysis, polish_archetypes
from .geometric import minimum_volume, successive_projections, vertex_components
from .scene import ScenePoints

METHODS = ("archetypes", "vca", "spa", "minimum_volume")  # in this order they propose, and the scorer knows them
_ARCHETYPE_PIXELS = 2000
_VERTEX_STARTS = 6
_VOLUME_PIXELS = 2500
_EQUAL = 1e-6  # of log volumes: starts often are the same simplex in another order, equal but for the last bits
_MODEL_ERRORS = (1.5, 1.0, 2.5)  # softness of the facets in units of the model error, the best guess first


@dataclass(frozen=True)
class Candidate:
    """One endmember set.

    Attributes:
        points: (R, K) endmembers of unit norm, in the coordinates of the scene.
        method: "archetypes", "vca", "spa" or "minimum_volume".
    """

    points: torch.Tensor
    method: str


def propose(
    scene: ScenePoints, methods: tuple[str, ...], generator: torch.Generator | None, num_starts: int = 96
) -> list[Candidate]:
    """Candidate endmember sets from every method asked for.

    Args:
        scene: the pixels.
        methods: any of "archetypes", "vca", "spa", "minimum_volume".
        generator: source of randomness (on the CPU).
        num_starts: starts of the archetypal analysis; with few, luck decides whether a good one is among them.

    Returns:
        The candidates of one method after the other; singular sets (from duplicated pixels, say) are left out, unless
        nothing else is left.
    """
    found = {}
    if "archetypes" in methods:
        found["archetypes"] = _archetypes(scene, num_starts, generator)
    if "vca" in methods or "minimum_volume" in methods:
        found["vca"] = _vertices(scene, generator)
    if "spa" in methods:
        rank = scene.num_endmembers
        chosen = [successive_projections(points, rank) for points in (scene.projected, scene.smooth[:, :rank])]
        found["spa"] = scene.unit[torch.cat(chosen)]
    if "minimum_volume" in methods:
        found["minimum_volume"] = _minimum_volumes(scene, found["vca"], generator)
    sets = [(unit_rows(points), method) for method in methods for points in found[method]]
    pool = [Candidate(points, method) for points, method in sets if independent(points)]
    return pool or [Candidate(unit_rows(found["vca" if "vca" in found else methods[0]][0]), methods[0])]


def _archetypes(scene: ScenePoints, num_starts: int, generator: torch.Generator | None) -> torch.Tensor:
    """Archetypes (S, R, K) on unit-norm pixels; for half of the starts, dark pixels count less, as noise says."""
    subset = _subset(len(scene.norm), _ARCHETYPE_PIXELS, generator).to(scene.norm.device)
    unit = scene.unit[subset]
    variance = scene.noise_var[subset] + scene.model_error**2
    weighted = unit * (variance.min() / variance)[:, None] ** 0.25
    half = (num_starts + 1) // 2
    parts = [
        archetypal_analysis(points, scene.num_endmembers, starts, generator)
        for points, starts in ((unit, half), (weighted, num_starts - half))
        if starts
    ]
    return torch.cat(parts)


def polished(scene: ScenePoints, candidate: Candidate, generator: torch.Generator | None = None) -> Candidate:
    """Archetypes after more alternations; the same where these would depend on each other."""
    subset = _subset(len(scene.norm), _ARCHETYPE_PIXELS, generator).to(scene.norm.device)
    points = unit_rows(polish_archetypes(scene.unit[subset], candidate.points))
    return Candidate(points, candidate.method) if independent(points) else candidate


def _vertices(scene: ScenePoints, generator: torch.Generator | None) -> torch.Tensor:
    """Vertex components (S, R, K), found with brightness removed and with brightness left in."""
    rank = scene.num_endmembers
    found = [
        vertex_components(points, rank, _VERTEX_STARTS, generator)
        for points in (scene.projected, scene.smooth[:, :rank])
    ]
    return scene.unit[torch.cat(found)]


def _minimum_volumes(scene: ScenePoints, starts: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """Soft minimum-volume simplices (S, R, K): with fixed brightness where pixels lie near a plane, and with free."""
    rank = scene.num_endmembers
    subset = _subset(len(scene.norm), _VOLUME_PIXELS, generator).to(scene.norm.device)
    unit = scene.unit[:, :rank]
    found = []
    for points in (unit * (scene.norm / scene.norm.mean())[:, None], scene.projected):
        plane = _plane(points)
        scale = points.norm(dim=1)  # of the unit pixels, whose noise is known
        init = _largest_simplex(starts[..., :rank], plane)
        if init is None or (points @ plane - 1).square().mean() > 0.3**2:
            continue
        for share in _MODEL_ERRORS:
            std = (scene.noise_var + (share * scene.model_error) ** 2).sqrt() * scale
            simplex = minimum_volume(points[subset], init[None], plane, std[subset])[0]
            found.append(_complete(scene, simplex))
    return torch.stack(found) if found else starts[:0]


def _plane(points: torch.Tensor) -> torch.Tensor:
    """Normal (R,) of the plane `x . normal = 1` nearest to points (N, R).

    By the normal equations: the last bits of `torch.linalg.lstsq` depend on where the numbers lie in memory, and small
    scenes make other endmembers of them.
    """
    gram = points.T @ points
    ridge = 1e-12 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram + ridge, points.sum(0))


def _largest_simplex(starts: torch.Tensor, plane: torch.Tensor) -> torch.Tensor | None:
    """The start (R, R) of the largest volume, all of its endmembers moved onto the plane; `None` if none can be."""
    height = starts @ plane  # [S, R]
    usable = (height.amin(1) > 0.05 * height.amax(1)) & torch.tensor(
        [independent(one) for one in starts], device=height.device
    )
    if not usable.any():
        return None
    moved = starts[usable] / height[usable][..., None]
    volume = torch.linalg.slogdet(moved)[1]
    return moved[int((volume > volume.max() - _EQUAL).nonzero()[0])]


def _complete(scene: ScenePoints, simplex: torch.Tensor) -> torch.Tensor:
    """Add the coordinates beyond the first R to endmembers (R, R), by regression on the pixels; (R, K)."""
    rank = scene.num_endmembers
    abundances = nnls(scene.unit[:, :rank], simplex)
    gram = abundances.T @ abundances
    ridge = 1e-6 * gram.diagonal().mean() * torch.eye(rank, dtype=gram.dtype, device=gram.device)
    return torch.cat([simplex, torch.linalg.solve(gram + ridge, abundances.T @ scene.unit[:, rank:])], 1)


def _subset(total: int, wanted: int, generator: torch.Generator | None) -> torch.Tensor:
    return torch.randperm(total, generator=generator)[:wanted]


def independent(points: torch.Tensor, limit: float = 1e-4) -> bool:
    """Are the endmembers (R, K) finite and linearly independent?"""
    if not torch.isfinite(points).all():
        return False
    singular = torch.linalg.svdvals(unit_rows(points))
    return bool(singular[-1] > limit * singular[0])
