"""Abundance maps of made-up landscapes: sharp regions, thin lines and single pixels, or smooth random fields.

Networks trained on smooth fields alone damage real scenes, so 70 % of the maps are sharp by default.
"""

from __future__ import annotations

from typing import Literal

import torch

from .draws import Draws
from .fields import gaussian_blur, random_fields
from .regions import block_labels, dead_leaves_labels, line_coverage, voronoi_labels

SMOOTH_KINDS = ("gaussian", "matern")
SHARP_KINDS = ("voronoi", "dead_leaves", "blocks", "lines")
ABUNDANCE_KINDS = SMOOTH_KINDS + SHARP_KINDS
"""Kinds of maps known to `random_abundances`."""


def random_abundances(
    num_endmembers: int,
    height: int,
    width: int,
    generator: torch.Generator,
    kind: str | None = None,
    max_purity: float | Literal["random"] | None = "random",
    sharp_probability: float = 0.7,
    absent_probability: float = 0.05,
    plain_probability: float = 0.0,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Random abundance maps on the simplex.

    Args:
        num_endmembers: R, at least 2.
        height: rows.
        width: columns.
        generator: source of all randomness.
        kind: "gaussian" or "matern" (softmax of random fields), "voronoi", "dead_leaves", "blocks", "lines" (few large
            cells crossed by many roads and rivers), or None for a random one.
        max_purity: largest abundance in the scene; purer pixels are pulled to the barycentre of the simplex. "random"
            caps a third of the scenes at 0.7 to 0.95, None caps none.
        sharp_probability: share of the sharp kinds when `kind` is None.
        absent_probability: chance that one of three or more endmembers occurs nowhere.
        plain_probability: chance that sharp regions have no texture; as often, independently, a share of them has one
            mixture in common, the ground that the others lie on.
        device: device of the result; the generator's when None.

    Returns:
        Abundances (R, H, W), float32, non-negative, summing to 1 over R.

    Raises:
        ValueError: for an unknown `kind`, fewer than two endmembers, an empty image or an impossible `max_purity`.
    """
    if num_endmembers < 2 or height < 1 or width < 1:
        raise ValueError(
            "`num_endmembers` must be at least 2 and `height`, `width` at least 1, "
            f"got {num_endmembers}, {height}, {width}."
        )
    if kind is not None and kind not in ABUNDANCE_KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(ABUNDANCE_KINDS)} or None, got {kind!r}.")
    draws = Draws(generator, device)
    if kind is None:
        kind = draws.choice(SHARP_KINDS if draws.chance(sharp_probability) else SMOOTH_KINDS)
    if kind in SMOOTH_KINDS:
        maps = _smooth_maps(num_endmembers, height, width, draws, kind)
    else:
        maps = _sharp_maps(num_endmembers, height, width, draws, kind, plain_probability)
    if draws.chance(0.6):  # most materials are wholly absent from most pixels
        maps = (maps - draws.log_number(0.01, 0.25) * maps.amax(0, keepdim=True)).clamp_min(0)
    if num_endmembers > 2 and draws.chance(absent_probability):
        absent = draws.integer(0, num_endmembers - 1)
        others = torch.arange(num_endmembers, device=maps.device)[:, None, None] != absent
        maps = torch.where(others, maps + 1e-6, 0.0)  # where it was alone, the others share the pixel
    maps = maps / maps.sum(0, keepdim=True)
    if max_purity == "random":
        max_purity = draws.number(0.7, 0.95) if draws.chance(1.0 / 3.0) else None
    return maps if max_purity is None else cap_purity(maps, float(max_purity))


def cap_purity(abundances: torch.Tensor, max_purity: float) -> torch.Tensor:
    """Pull pixels whose largest abundance is above a cap towards the barycentre of the simplex, onto the cap.

    Args:
        abundances: (R, H, W), on the simplex.
        max_purity: the cap.

    Returns:
        (R, H, W).

    Raises:
        ValueError: if `max_purity` is not in (1 / R, 1].
    """
    centre = 1.0 / abundances.shape[0]
    if not centre < max_purity <= 1.0:
        raise ValueError(f"`max_purity` must be above 1 / R = {centre:.3f} and at most 1, got {max_purity}.")
    purity = abundances.amax(0, keepdim=True)
    shrink = ((max_purity - centre) / (purity - centre).clamp_min(1e-12)).clamp_max(1.0)
    return centre + shrink * (abundances - centre)


def _smooth_maps(num_endmembers: int, height: int, width: int, draws: Draws, kind: str) -> torch.Tensor:
    """Softmax of random fields of random correlation length, roughness and temperature."""
    length = draws.log_number(1.5, max(2.0, min(height, width) / 4.0))
    smoothness = draws.number(0.3, 2.5) if kind == "matern" else None
    stretch = draws.number(1.5, 4.0) if draws.chance(0.25) else 1.0
    fields = random_fields(num_endmembers, height, width, draws, length, smoothness, stretch)
    logits = draws.log_number(1.0, 8.0) * fields + 0.7 * draws.normal(num_endmembers, 1, 1)
    maps = logits.softmax(0)
    return _add_lines(maps, draws, draws.integer(1, 3)) if draws.chance(0.2) else maps


def _sharp_maps(
    num_endmembers: int, height: int, width: int, draws: Draws, kind: str, plain_probability: float
) -> torch.Tensor:
    """Regions of constant mixture, then lines, single-pixel objects, texture, and an optical blur in half of them."""
    if kind == "lines":
        labels = draws.choice((voronoi_labels, block_labels))(height, width, draws)
    else:
        labels = {"voronoi": voronoi_labels, "dead_leaves": dead_leaves_labels, "blocks": block_labels}[kind](
            height, width, draws
        )
    mixtures = _region_mixtures(int(labels.max()) + 1, num_endmembers, draws)
    plain = grounded = False
    if plain_probability:  # scenes of the default stay what they are
        plain, grounded = draws.chance(plain_probability), draws.chance(plain_probability)
    if grounded:
        ground = draws.uniform(0.0, 1.0, len(mixtures), 1) < draws.number(0.3, 0.9)
        mixtures = torch.where(ground, _mixtures(1, num_endmembers, draws, 0.1, 5.0), mixtures)
    maps = mixtures.T[:, labels]  # (R, H, W)
    if kind == "lines" or draws.chance(0.3):
        maps = _add_lines(maps, draws, draws.integer(2, 8) if kind == "lines" else draws.integer(1, 3))
    if draws.chance(0.5):
        maps = _add_objects(maps, draws)
    if not plain:
        maps = _add_texture(maps, draws)
    return gaussian_blur(maps, draws.number(0.35, 1.1)) if draws.chance(0.5) else maps


def _mixtures(count: int, num_endmembers: int, draws: Draws, low: float, high: float) -> torch.Tensor:
    """Dirichlet mixtures (count, R); some endmembers are more frequent than others."""
    frequency = (0.5 * draws.normal(num_endmembers)).exp()
    concentration = draws.log_number(low, high) * frequency / frequency.mean()
    return draws.dirichlet(count, concentration.clamp_min(0.02))


def _region_mixtures(num_regions: int, num_endmembers: int, draws: Draws) -> torch.Tensor:
    """One mixture per region (G, R): its own, or one of a few land-cover classes."""
    if draws.chance(0.3):
        classes = _mixtures(draws.integer(3, 12), num_endmembers, draws, 0.05, 1.5)
        return classes[draws.integers(classes.shape[0], num_regions)]
    return _mixtures(num_regions, num_endmembers, draws, 0.05, 1.5)


def _add_lines(maps: torch.Tensor, draws: Draws, num_lines: int) -> torch.Tensor:
    """Paint roads and rivers over the maps, each of one nearly pure mixture."""
    mixtures = _mixtures(num_lines, maps.shape[0], draws, 0.05, 0.4)
    coverage = line_coverage(maps.shape[1], maps.shape[2], draws, num_lines)
    for share, mixture in zip(coverage, mixtures):
        maps = torch.lerp(maps, mixture[:, None, None], share[None])
    return maps


def _add_objects(maps: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Replace up to 3 % of the pixels by single-pixel objects of their own mixture."""
    num_endmembers, height, width = maps.shape
    count = max(1, int(height * width * draws.log_number(5e-4, 0.03)))
    pixels = draws.permutation(height * width)[:count]
    flat = maps.reshape(num_endmembers, -1).clone()
    flat[:, pixels] = _mixtures(count, num_endmembers, draws, 0.05, 0.5).T
    return flat.view_as(maps)


def _add_texture(maps: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Per-pixel variation in log-ratio space, white and correlated in a random proportion."""
    count, height, width = maps.shape
    strength, rough = draws.log_number(0.03, 1.2), draws.number(0.0, 1.0)
    texture = rough * draws.normal(count, height, width)
    texture = texture + (1.0 - rough) * random_fields(count, height, width, draws, draws.log_number(0.7, 8.0), 0.5)
    return ((maps + 1e-4).log() + strength * texture).softmax(0)
