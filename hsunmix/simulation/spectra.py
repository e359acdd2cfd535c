"""Reflectance spectra: a parametric generator that needs no data, and spectral libraries resampled to any sensor.

Absorption positions follow Clark et al., JGR 1990 (minerals, OH, water, carbonates) and Curran, RSE 1989 (leaves).
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from .draws import Draws
from .fields import random_curves

Range = tuple[float, float]

# Groups of absorptions that occur together: (centre, width = standard deviation, relative depth), nm.
_ABSORPTIONS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "ferric": ((480, 45, 1.0), (530, 35, 0.7), (670, 40, 0.4), (880, 70, 0.9)),
    "ferrous": ((1000, 130, 1.0), (1900, 220, 0.5)),
    "hydroxyl": ((1400, 12, 1.0), (2200, 18, 0.8)),
    "water": ((970, 25, 0.12), (1200, 30, 0.2), (1450, 50, 0.8), (1940, 60, 1.0)),
    "liquid_water": ((970, 35, 0.12), (1200, 45, 0.25), (1450, 65, 1.0), (1940, 80, 1.3), (2600, 250, 0.9)),
    "clay": ((1412, 14, 0.6), (2165, 18, 0.6), (2207, 20, 1.0), (2350, 25, 0.3)),
    "sulfate": ((1447, 16, 0.7), (1490, 18, 0.6), (1535, 16, 0.4), (1750, 22, 0.5), (1945, 40, 1.0), (2215, 28, 0.6)),
    "carbonate": ((1880, 25, 0.15), (1995, 30, 0.2), (2160, 25, 0.15), (2338, 32, 1.0), (2520, 45, 1.1)),
    "magnesium_hydroxyl": ((1390, 12, 0.4), (2250, 20, 0.4), (2328, 26, 1.0), (2385, 20, 0.5)),
    "chlorophyll": ((445, 45, 1.0), (490, 35, 0.7), (640, 28, 0.6), (676, 17, 1.0)),
    "cellulose": ((1490, 45, 0.4), (1730, 35, 0.35), (2100, 60, 1.0), (2310, 45, 0.9)),
    "water_body": ((760, 45, 0.6), (1000, 130, 2.0), (1500, 330, 4.0), (2300, 450, 4.0)),
    "hydrocarbon": ((1200, 20, 0.3), (1730, 22, 1.0), (2310, 28, 1.2)),
}


class _Family(NamedTuple):
    """Ranges of the random parameters of a family of materials.

    base: reflectance at the blue end; slope: change over 1000 nm; steps: (centre, width, amplitude) ranges of smooth
    rises or falls; peaks: (centre, width, amplitude) ranges of bumps; absorptions: (probability, largest depth).
    """

    base: Range
    slope: Range
    steps: tuple[tuple[Range, Range, Range], ...]
    peaks: tuple[tuple[Range, Range, Range], ...]
    absorptions: dict[str, Range]


_FAMILIES: dict[str, _Family] = {
    "mineral": _Family(
        (0.05, 0.75), (-0.12, 0.12), (((450, 700), (40, 200), (0.0, 0.35)),), (),
        {"ferric": (0.3, 0.6), "ferrous": (0.3, 0.8), "hydroxyl": (0.4, 0.5), "water": (0.4, 0.6), "clay": (0.3, 0.6),
         "sulfate": (0.12, 0.7), "carbonate": (0.25, 0.5), "magnesium_hydroxyl": (0.25, 0.5)},
    ),
    "ferric_mineral": _Family(
        (0.02, 0.12), (-0.08, 0.1), (((540, 610), (12, 40), (0.1, 0.4)), ((720, 780), (20, 50), (0.0, 0.15))), (),
        {"ferric": (1.0, 0.9), "hydroxyl": (0.3, 0.3), "water": (0.3, 0.5), "clay": (0.3, 0.4)},
    ),
    "soil": _Family(
        (0.03, 0.15), (0.0, 0.12), (((520, 640), (50, 120), (0.05, 0.25)), ((900, 1300), (150, 350), (0.02, 0.2))), (),
        {"ferric": (0.7, 0.35), "hydroxyl": (0.6, 0.2), "water": (0.9, 0.5), "clay": (0.6, 0.3),
         "carbonate": (0.3, 0.25), "cellulose": (0.2, 0.15)},
    ),
    "leaf": _Family(
        (0.02, 0.12), (-0.06, 0.02), (((700, 742), (9, 18), (0.2, 0.5)), ((1350, 1500), (40, 120), (-0.12, 0.0))),
        (((545, 560), (20, 32), (0.01, 0.12)),),
        {"chlorophyll": (1.0, 1.6), "liquid_water": (1.0, 1.8), "cellulose": (0.3, 0.15)},
    ),
    "dry_vegetation": _Family(
        (0.05, 0.18), (-0.05, 0.06),
        (((580, 760), (60, 130), (0.15, 0.4)), ((1900, 2200), (90, 200), (-0.2, 0.0))), (),
        {"cellulose": (1.0, 0.6), "chlorophyll": (0.4, 0.5), "liquid_water": (0.6, 0.4)},
    ),
    "water": _Family(
        (0.02, 0.09), (-0.005, 0.0), (((590, 720), (25, 60), (-0.08, -0.02)),), (((480, 590), (40, 80), (0.0, 0.08)),),
        {"water_body": (1.0, 1.2), "chlorophyll": (0.4, 0.4)},
    ),
    "flat": _Family(  # concrete, asphalt, gravel, metal
        (0.04, 0.6), (-0.08, 0.08), (((430, 560), (40, 120), (0.0, 0.12)),), (),
        {"water": (0.4, 0.25), "carbonate": (0.3, 0.2), "hydroxyl": (0.3, 0.15), "hydrocarbon": (0.4, 0.2)},
    ),
    "painted": _Family(  # paint, plastic, roofing sheets
        (0.04, 0.4), (-0.14, 0.0),
        (((430, 720), (12, 40), (-0.15, 0.4)), ((680, 900), (20, 60), (0.0, 0.25))),
        (((450, 620), (20, 50), (0.0, 0.25)),),
        {"hydrocarbon": (0.8, 0.6), "ferric": (0.2, 0.4)},
    ),
}  # fmt: skip
PARAMETRIC_FAMILIES = tuple(_FAMILIES)
"""Names of the families of materials that `parametric_spectra` draws from."""
_FAMILY_WEIGHTS = (0.3, 0.07, 0.13, 0.16, 0.1, 0.06, 0.1, 0.08)


def _family_tables() -> dict[str, torch.Tensor]:
    """The families as padded tensors, so that spectra of all families are computed at once."""
    none = ((0.0, 0.0), (1.0, 1.0), (0.0, 0.0))

    def padded(parts: tuple) -> list:
        return list(parts) + [none] * (2 - len(parts))

    families = _FAMILIES.values()
    lines = [(i, *line) for i, group in enumerate(_ABSORPTIONS.values()) for line in group]
    return {
        "ends": torch.tensor([(f.base, f.slope) for f in families], dtype=torch.float32),  # (F, 2, 2)
        "steps": torch.tensor([padded(f.steps) for f in families], dtype=torch.float32),  # (F, 2, 3, 2)
        "peaks": torch.tensor([padded(f.peaks) for f in families], dtype=torch.float32),
        "groups": torch.tensor([[f.absorptions.get(g, (0.0, 0.0)) for g in _ABSORPTIONS] for f in families]),
        "lines": torch.tensor(lines, dtype=torch.float32),  # (K, 4): group, centre, width, relative depth
    }


_TABLES = _family_tables()


def parametric_spectra(
    num: int,
    wavelengths: torch.Tensor,
    generator: torch.Generator,
    device: torch.device | str | None = None,
    return_families: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, list[str]]:
    """Random plausible reflectance spectra of minerals, soils, plants, water and man-made surfaces.

    reflectance = (base + slope + smooth steps + bumps) * exp(-sum of Gaussian absorptions) * slow random variation.

    Args:
        num: number of spectra.
        wavelengths: (B,) band centres in nm.
        generator: source of all randomness.
        device: device of the result; the generator's when None.
        return_families: also return the family name of every spectrum.

    Returns:
        (N, B) reflectance of N = `num` spectra, in [0, 1.05], float32; with `return_families` also N names.
    """
    draws = Draws(generator, device)
    x = wavelengths.to(draws.device, torch.float32)
    family = draws.scalars.choices(range(len(_FAMILIES)), weights=_FAMILY_WEIGHTS, k=num)
    index = torch.tensor(family, device=draws.device, dtype=torch.long)
    table = {key: value.to(draws.device) for key, value in _TABLES.items()}

    def within(ranges: torch.Tensor) -> torch.Tensor:  # (..., 2) -> uniform draws (...)
        return ranges[..., 0] + (ranges[..., 1] - ranges[..., 0]) * draws.uniform(0.0, 1.0, *ranges.shape[:-1])

    base, slope = within(table["ends"][index]).unsqueeze(-1).unbind(1)  # (num, 1) each
    reflectance = base + slope * (x - 400.0) / 1000.0
    for centre, width, height in _parts(within(table["steps"][index])):
        reflectance = reflectance + height * torch.sigmoid((x - centre) / width)
    for centre, width, height in _parts(within(table["peaks"][index])):
        reflectance = reflectance + height * torch.exp(-0.5 * ((x - centre) / width) ** 2)
    reflectance = reflectance.clamp_min(0.004) * torch.exp(-_optical_depth(x, table, index, draws))
    wiggle = 0.06 * random_curves(num, x, draws, 350.0) + 0.015 * random_curves(num, x, draws, 90.0, terms=48)
    spectra = (reflectance * torch.exp(wiggle)).clamp(0.001, 1.05)
    return (spectra, [PARAMETRIC_FAMILIES[i] for i in family]) if return_families else spectra


def _parts(parameters: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """(num, P, 3) parameters as P triples of (num, 1) columns."""
    return [tuple(part.unsqueeze(-1).unbind(1)) for part in parameters.unbind(1)]  # type: ignore[misc]


def _optical_depth(x: torch.Tensor, table: dict[str, torch.Tensor], index: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Sum of the absorptions that each spectrum has, (num, B)."""
    probability, deepest = table["groups"][index].unbind(-1)  # (num, G)
    present = draws.uniform(0.0, 1.0, *probability.shape) < probability
    strength = present * deepest * draws.uniform(0.1, 1.0, *probability.shape)
    group, centre, width, relative = table["lines"].unbind(-1)  # (K,)
    count, lines = index.shape[0], group.shape[0]
    depth = strength[:, group.long()] * relative * draws.uniform(0.6, 1.2, count, lines)  # (num, K)
    centre = centre + 0.25 * width * draws.uniform(-1.0, 1.0, count, lines)
    width = width * draws.uniform(0.75, 1.35, count, lines)
    shape = torch.exp(-0.5 * ((x - centre[..., None]) / width[..., None]) ** 2)  # (num, K, B)
    return torch.einsum("nk,nkb->nb", depth, shape)
