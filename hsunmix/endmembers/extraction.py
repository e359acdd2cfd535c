"""Endmembers from a cube: blind, knowing only R, or with approximate spectra of some or all; in DESIGN.md's steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..physics import BRIGHTNESS_THRESHOLD, Alternatives, brightness_fit, estimate_noise, nnls, unit_rows
from .blending import blend
from .candidates import METHODS, Candidate, independent, polished, propose
from .matching import match_endmembers
from .scene import ScenePoints, prepare_scene
from .selection import Ranking, rank_candidates


@dataclass
class EndmemberResult:
    """What `extract_endmembers` found.

    Attributes:
        endmembers: (R, B) spectra in the units of the cube, non-negative: a weighted mean of candidates (and of
            approximate spectra), or the best candidate where one method was asked for.
        method: what found most of `endmembers`: "archetypes", "vca", "spa" or "minimum_volume".
        spread: (R,) how far apart the sets lie whose mean `endmembers` are, radians (or would be, where pixels show
            fewer than R materials and the best set is taken); 0 where one method was asked for.
        alternatives: as of `Blend`, among which the facets of the pixels may choose; `None` where archetypes rank
            first, and the pixels are a cloud without facets, or no such mean was taken.
        brightness_variation: relative spread of the brightness of the pixels, noise removed.
        natural_scale: True where `endmembers` are scaled so that the abundances of a pixel sum to one; False where the
            brightness varies and every endmember is scaled to the same maximum.
        polished: (R, B), where archetypes rank first: the same with these after more alternations, towards where most
            pixels would have them (`polish_archetypes`); else, or where one method was asked for, `None`.
    """

    endmembers: torch.Tensor
    method: str
    spread: torch.Tensor
    alternatives: Alternatives | None
    brightness_variation: float
    natural_scale: bool
    polished: torch.Tensor | None = None


def extract_endmembers(
    cube: torch.Tensor,
    num_endmembers: int,
    noise_std: torch.Tensor | None = None,
    valid: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
    method: str = "auto",
    approximate: torch.Tensor | None = None,
    archetypes: bool = True,
) -> EndmemberResult:
    """Find the spectra of the pure materials in a cube, knowing how many there are, and perhaps about what some are.

    Archetypal analysis, vertex components, successive projections and minimum volume all propose; evidence ranks the
    candidates, and a small network weighs the best of them, and the approximate spectra, endmember by endmember. Of
    these, smooth errors are corrected first, where the pixels are clear enough (`hsunmix.endmembers.approximate`).

    Args:
        cube: (H, W, B) reflectance, or (N, B) pixels without neighbours.
        num_endmembers: R, at least 2.
        noise_std: (B,) standard deviation of the noise; estimated when `None`.
        valid: (H, W) or (N,) bool, True where the cube holds data; NaN pixels are left out anyway.
        generator: source of randomness, on the CPU; a fixed seed when `None`.
        method: "auto" lets all methods propose; or one of "archetypes", "vca", "spa", "minimum_volume".
        approximate: (k, B) spectra of k <= R of the endmembers, a few degrees off; needs the method "auto".
        archetypes: `False` leaves archetypal analysis out of the method "auto": pixels whose endmembers vary are a
            cloud, too, but none about archetypes.

    Returns:
        The endmembers and how they are scaled. The first k are the approximate ones, corrected, in the scale in which
        they were given.

    Raises:
        ValueError: if shapes do not fit, too few pixels or bands are left, or `method` is unknown.
    """
    # 1. check
    grid, mask = _check_cube(cube, valid, num_endmembers)
    if method != "auto" and method not in METHODS:
        raise ValueError(f"`method` is {method!r}: choose one of 'auto', {', '.join(map(repr, METHODS))}.")
    if approximate is not None and method != "auto":
        raise ValueError('`approximate` spectra are weighed against all candidates: leave `method` at "auto".')
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    pixels = grid[mask]
    if approximate is not None and (len(approximate) > num_endmembers or approximate.shape[1:] != pixels.shape[1:]):
        raise ValueError(
            f"`approximate` has shape {tuple(approximate.shape)}, but there are {num_endmembers} endmembers and "
            f"{pixels.shape[1]} bands."
        )
    if noise_std is None:
        noise_std = estimate_noise(pixels)
    elif noise_std.shape != pixels.shape[1:]:
        raise ValueError(f"`noise_std` has shape {tuple(noise_std.shape)}; one value per band is needed.")

    # 2. signal subspace, smoothing
    scene = prepare_scene(grid, num_endmembers, noise_std, mask)

    # 3. propose, 4. rank
    proposing = tuple(one for one in METHODS if archetypes or one != "archetypes") if method == "auto" else (method,)
    pool = propose(scene, proposing, generator)
    ranking = rank_candidates(scene, pool, generator)

    # 5. weigh, 6. scale
    dtype = cube.dtype if cube.is_floating_point() else torch.float32
    found = _weigh(scene, pool, ranking, method, approximate, dtype)
    first = pool[ranking.order[0]]
    if method == "auto" and first.method == "archetypes":
        others = [polished(scene, one, generator) if one is first else one for one in pool]
        spectra = _weigh(scene, others, ranking, method, approximate, dtype, found.natural_scale).endmembers
        known = 0 if approximate is None else len(approximate)
        return replace(found, polished=spectra[match_endmembers(found.endmembers, spectra, known)])
    return found


def _weigh(
    scene: ScenePoints,
    pool: list[Candidate],
    ranking: Ranking,
    method: str,
    approximate: torch.Tensor | None,
    dtype: torch.dtype,
    natural_scale: bool | None = None,
) -> EndmemberResult:
    """One set of endmembers from a pool, in the scale of the pixels: the natural one where it fits, or as is said."""
    chosen, alternatives = pool[ranking.order[0]], None
    cloud, spread = chosen.method == "archetypes", scene.norm.new_zeros(len(chosen.points))
    if method == "auto":
        mean = blend(scene, pool, ranking, approximate)
        points = unit_rows(scene.subspace.project(mean.spectra))
        spread = mean.spread
        if independent(points):
            chosen = Candidate(points, mean.method)
            alternatives = None if cloud else mean.alternatives
        else:  # where the pixels show fewer than R materials
            order = match_endmembers(mean.best, scene.subspace.lift(chosen.points).clamp_min(0))
            chosen = Candidate(chosen.points[order], chosen.method)
    spectra, variation, natural = _to_spectra(scene, chosen, natural_scale)
    if approximate is not None:
        norm = approximate.double().norm(dim=1, keepdim=True)
        spectra = torch.cat([mean.spectra[: len(approximate)] * norm, spectra[len(approximate) :]])
    return EndmemberResult(spectra.to(dtype), chosen.method, spread.to(dtype), alternatives, variation, natural)


def _check_cube(
    cube: torch.Tensor, valid: torch.Tensor | None, num_endmembers: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The cube as (H, W, B) without NaN, and its mask of usable pixels (H, W)."""
    if cube.ndim not in (2, 3):
        raise ValueError(f"`cube` must be (H, W, B) or (N, B), but has shape {tuple(cube.shape)}.")
    grid = cube if cube.is_floating_point() else cube.float()
    grid = grid if cube.ndim == 3 else grid[:, None]
    mask = torch.isfinite(grid).all(-1)
    if valid is not None:
        if valid.shape != cube.shape[:-1]:
            raise ValueError(
                f"`valid` has shape {tuple(valid.shape)}, but `cube` has pixels {tuple(cube.shape[:-1])}."
            )
        mask &= valid.bool().reshape(mask.shape)
    mask &= (grid != 0).any(-1)
    num_pixels, num_bands = int(mask.sum()), grid.shape[-1]
    if num_endmembers < 2:
        raise ValueError(f"`num_endmembers` is {num_endmembers}; at least 2 are needed.")
    if num_endmembers > num_bands:
        raise ValueError(f"`num_endmembers` is {num_endmembers}, but `cube` has only {num_bands} bands.")
    if num_endmembers > num_pixels:
        raise ValueError(
            f"`num_endmembers` is {num_endmembers}, but `cube` has only {num_pixels} usable pixels (finite, not all "
            "zero): pass a larger cube or give the endmembers."
        )
    return torch.where(mask[..., None], grid, 0), mask


def _to_spectra(
    scene: ScenePoints, candidate: Candidate, natural: bool | None = None
) -> tuple[torch.Tensor, float, bool]:
    """Spectra (R, B) in the scale of the pixels, the variation of brightness, and whether that scale is natural."""
    points = candidate.points / candidate.points.norm(dim=1, keepdim=True) * scene.norm.mean()
    factors, variation = brightness_fit(scene.raw, points, 1.0)  # noise has unit variance in these coordinates
    spectra = scene.subspace.lift(points).clamp_min(0)
    if natural is None:
        natural = variation < BRIGHTNESS_THRESHOLD and bool((factors > 0.05 * factors.max()).all())
    if natural:
        factors = factors.clamp_min(0.05 * float(factors.max()))
        return spectra / factors[:, None].to(spectra.dtype), variation, True
    spectra = spectra / spectra.amax(1, keepdim=True).clamp_min(1e-12)
    step = max(1, len(scene.raw) // 2500)
    brightness = nnls(scene.subspace.lift(scene.smooth[::step]), spectra).sum(1).median()
    return spectra * brightness, variation, False
