"""The pool of candidate endmember sets: everything that might be right, for `selection` to choose from."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..physics import nnls
from .archetypes import archetypal_analysis
from .geometric import minimum_volume, successive_projections, vertex_components
from .scaling import complete
from .scene import ScenePoints

_ARCHETYPE_PIXELS = 2000
_VOLUME_PIXELS = 4000


@dataclass(frozen=True)
class Candidate:
    """One endmember set.

    Attributes:
        points: (R, K) endmembers in the coordinates of the scene, of arbitrary scale.
        method: "archetypes", "vca", "spa" or "minimum_volume".
    """

    points: torch.Tensor
    method: str


def propose(
    scene: ScenePoints, methods: tuple[str, ...], generator: torch.Generator | None, num_starts: int = 24
) -> list[Candidate]:
    """Candidate endmember sets from every method asked for.

    Args:
        scene: the pixels.
        methods: any of "archetypes", "vca", "spa", "minimum_volume".
        generator: source of randomness (on the CPU).
        num_starts: starts of the archetypal analysis; a third of it for VCA.

    Returns:
        The candidates; singular sets (from duplicated pixels, say) are left out.
    """
    count = scene.num_endmembers
    unit = scene.unit
    rank = unit[:, :count]
    found: dict[str, torch.Tensor] = {}
    if "archetypes" in methods:
        subset = _subset(len(unit), _ARCHETYPE_PIXELS, generator).to(unit.device)
        found["archetypes"] = archetypal_analysis(unit[subset], count, num_starts, generator)
    if "vca" in methods or "minimum_volume" in methods:
        starts = max(1, num_starts // 3)
        found["vca"] = torch.cat(
            [
                unit[vertex_components(rank, count, starts, generator)],
                unit[vertex_components(scene.smooth[:, :count], count, starts, generator)],
            ]
        )
    if "spa" in methods or "minimum_volume" in methods:
        found["spa"] = torch.cat(
            [unit[successive_projections(rank, count)], unit[successive_projections(scene.smooth[:, :count], count)]]
        )
    if "minimum_volume" in methods:
        volumes = _minimum_volumes(scene, torch.cat([found["vca"], found["spa"]]), generator)
        found["minimum_volume"] = volumes
    pool = []
    for method in methods:
        good = [points for points in found[method] if _independent(points)]
        pool += [Candidate(points, method) for points in good]
    return pool or [Candidate(found[methods[0]][0], methods[0])]


def _minimum_volumes(scene: ScenePoints, starts: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """Soft minimum-volume simplices, (S, R, K): brightness free and fixed, facets as soft as noise or model error."""
    count = scene.num_endmembers
    found = []
    for free in (True, False):
        points = (scene.unit if free else scene.smooth / scene.norm.mean())[:, :count]
        noise_var = scene.noise_var if free else scene.noise_var.mul(scene.norm.square()) / scene.norm.mean() ** 2
        plane = torch.linalg.lstsq(points, torch.ones_like(points[:, :1])).solution[:, 0]
        if not free and (points @ plane - 1).square().mean() > 0.3**2:
            continue  # far from a plane
        corners = starts[:, :, :count]
        height = corners @ plane
        usable = [
            k
            for k in range(len(corners))
            if height[k].min() > 0.05 * height[k].max() and _independent(corners[k] / height[k][:, None])
        ]
        if not usable:
            continue
        init = corners[usable]
        volume = torch.linalg.slogdet(init / (init @ plane)[..., None])[1]
        init = init[volume.argmax()][None]
        subset = _subset(len(points), _VOLUME_PIXELS, generator).to(points.device)
        for share in (0.0, 1.0, 3.0):
            std = (noise_var[subset] + (share * scene.model_error) ** 2).sqrt()
            for outliers in (0.0, 1e-3):
                simplex = minimum_volume(points[subset], init, plane, std, outliers)
                found.append(_complete(scene, simplex[0]))
    return torch.stack(found) if found else starts[:0]


def _complete(scene: ScenePoints, simplex: torch.Tensor) -> torch.Tensor:
    """Add the coordinates beyond the first R to endmembers (R, R), by regression on the pixels; (R, K)."""
    count = scene.num_endmembers
    unit = scene.unit
    coefficients = nnls(unit[:, :count], simplex)
    rest = complete(unit[:, count:], coefficients, torch.ones_like(unit[:, :1]))
    return torch.cat([simplex, rest], 1)


def _subset(total: int, wanted: int, generator: torch.Generator | None) -> torch.Tensor:
    return torch.randperm(total, generator=generator)[:wanted]


def _independent(points: torch.Tensor, limit: float = 1e-4) -> bool:
    """Are the endmembers (R, K) finite and linearly independent?"""
    if not torch.isfinite(points).all():
        return False
    singular = torch.linalg.svdvals(points / points.norm(dim=1, keepdim=True).clamp_min(1e-30))
    return bool(singular[-1] > limit * singular[0])
