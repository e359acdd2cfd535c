"""Label maps with sharp borders: Voronoi cells, dead leaves, blocks; and masks of thin lines (roads, rivers)."""

from __future__ import annotations

import math

import torch

from .draws import Draws
from .fields import random_fields


def pixel_grid(height: int, width: int, device: torch.device) -> torch.Tensor:
    """Row and column of every pixel, (H * W, 2)."""
    rows = torch.arange(height, device=device, dtype=torch.float32)
    columns = torch.arange(width, device=device, dtype=torch.float32)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).view(-1, 2)


def _rotate(points: torch.Tensor, angle: float, stretch: float = 1.0) -> torch.Tensor:
    c, s = math.cos(angle), math.sin(angle)
    turn = points.new_tensor([[c * stretch, -s], [s * stretch, c]])
    return points @ turn


def voronoi_labels(height: int, width: int, draws: Draws) -> torch.Tensor:
    """Labels (H, W) of Voronoi cells, from a few large to hundreds of small ones; elongated or warped in part."""
    count = round(draws.log_number(3, max(4, min(350, height * width / 12))))
    points = pixel_grid(height, width, draws.device)
    sites = draws.uniform(0.0, 1.0, count, 2) * points.new_tensor([height, width])
    if draws.chance(0.5):  # irregular borders
        size = math.sqrt(height * width / count)
        warp = random_fields(2, height, width, draws, length=max(1.0, size * draws.number(0.1, 0.5)))
        points = points + warp.view(2, -1).T * size * draws.number(0.02, 0.25)
    if draws.chance(0.4):  # elongated cells
        angle, stretch = draws.number(0.0, math.pi), draws.number(1.5, 5.0)
        points, sites = _rotate(points, angle, stretch), _rotate(sites, angle, stretch)
    nearness = torch.addmm(-0.5 * sites.square().sum(1), points, sites.T)  # largest where |x - site| is smallest
    return nearness.argmax(1).view(height, width)


def block_labels(height: int, width: int, draws: Draws) -> torch.Tensor:
    """Labels (H, W) of a grid of rectangles of random sizes, turned by any angle in half of the scenes."""
    points = pixel_grid(height, width, draws.device) - 0.5 * draws.device_tensor([height, width])
    if draws.chance(0.5):
        points = _rotate(points, draws.number(0.0, math.pi))
    reach = math.hypot(height, width) / 2.0 + 1.0
    labels = points.new_zeros(height * width, dtype=torch.long)
    for axis in (0, 1):
        size = draws.log_number(2.5, max(3.0, min(height, width) / 2.0))
        steps = draws.uniform(0.4 * size, 1.6 * size, math.ceil(2.5 * reach / size) + 1)
        cuts = steps.cumsum(0) - reach
        labels = labels * (len(cuts) + 1) + torch.bucketize(points[:, axis].contiguous(), cuts)
    return _relabel(labels).view(height, width)


def dead_leaves_labels(height: int, width: int, draws: Draws) -> torch.Tensor:
    """Labels (H, W) of opaque rectangles and ellipses dropped on each other (Lee, Mumford and Huang, IJCV 2001).

    Radii follow a power law from half the image down to half a pixel. Large leaves are tested at every pixel, small
    ones painted in their own neighbourhood only; the topmost leaf at a pixel is the one of largest rank.
    """
    side, extent = min(height, width), draws.device_tensor([height, width])
    num_large = draws.integer(30, 120)
    num_small = round(draws.log_number(40, 1200) * height * width / 4096)
    if draws.chance(0.5):  # small objects on top of large ones, or in any order
        rank = torch.cat([draws.permutation(num_large), num_large + draws.permutation(num_small)]) + 1
    else:
        rank = draws.permutation(num_large + num_small) + 1
    rank = rank.int()
    slope = draws.number(1.5, 3.0)
    large = _power_law(draws.uniform(0.0, 1.0, num_large), 3.5, max(5.0, 0.5 * side), slope)
    small = _power_law(draws.uniform(0.0, 1.0, num_small), 0.5, 3.5, slope)

    centres = draws.uniform(0.0, 1.0, num_large, 2) * extent - 0.5
    inside = _inside_leaves(pixel_grid(height, width, draws.device), -centres, large, draws)  # (num_large, N)
    labels = (inside * rank[:num_large, None]).amax(0)

    centres = draws.uniform(0.0, 1.0, num_small, 2) * extent - 0.5
    window = pixel_grid(15, 15, draws.device) - 7.0  # no small leaf reaches further
    inside = _inside_leaves(window, centres.round() - centres, small, draws)  # (num_small, 225)
    near = centres.round()[:, None] + window
    inside &= ((near >= 0.0) & (near < extent)).all(-1)
    row, column = near.long().unbind(-1)
    index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    labels = labels.scatter_reduce(0, index.view(-1), (inside * rank[num_large:, None]).view(-1), "amax")
    return _relabel(labels).view(height, width)


def _power_law(uniform: torch.Tensor, low: float, high: float, slope: float) -> torch.Tensor:
    """Variates between `low` and `high` with density proportional to x^-slope, by inversion."""
    power = 1.0 - slope
    return (low**power + uniform * (high**power - low**power)) ** (1.0 / power)


def _inside_leaves(points: torch.Tensor, offsets: torch.Tensor, radius: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Which points (P, 2), moved by `offsets` (L, 2), lie in each of L leaves of random shape at 0, bool (L, P)."""
    count = len(radius)
    elongation = draws.uniform(0.0, 0.6, count).exp()  # half axes: radius times and over this
    angle = draws.uniform(0.0, math.pi, count)
    if draws.chance(0.4):  # man-made scenes: all in line, up to right angles
        angle = angle[:1] + 0.5 * math.pi * (angle > 0.5 * math.pi)
    along = torch.stack([angle.cos(), angle.sin()], -1) / (radius * elongation)[:, None]
    across = torch.stack([-angle.sin(), angle.cos()], -1) / (radius / elongation)[:, None]
    u, v = (torch.addmm((axis * offsets).sum(1, keepdim=True), axis, points.T) for axis in (along, across))
    split = round(count * draws.number(0.0, 1.0))  # rectangles first, then ellipses
    rectangles = torch.maximum(u[:split].abs_(), v[:split].abs_())
    ellipses = u[split:].square_().addcmul_(v[split:], v[split:])
    return torch.cat([rectangles, ellipses]) <= 1.0


def line_coverage(height: int, width: int, draws: Draws, num_lines: int) -> torch.Tensor:
    """Share of every pixel that is covered by each of some thin roads (straight) and rivers (winding).

    Returns:
        Coverage in [0, 1], (num_lines, H, W); lines are 0.7 to 3 pixels wide.
    """
    points = pixel_grid(height, width, draws.device)
    origin = draws.uniform(0.1, 0.9, num_lines, 2) * draws.device_tensor([height, width])
    angle = draws.uniform(0.0, math.pi, num_lines)
    if draws.chance(0.4):  # a street grid
        angle = angle[:1] + 0.5 * math.pi * (angle > 0.5 * math.pi)
    axes = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], -1).view(num_lines, 2, 2)
    local = points[None] @ axes - origin[:, None] @ axes  # (L, N, 2): along, across
    along, across = local.unbind(-1)
    winding = (draws.uniform(0.0, 1.0, num_lines, 1) < draws.number(0.0, 1.0)).float()
    for wavelength in (60.0, 25.0, 11.0):
        amplitude = winding * wavelength * draws.uniform(0.02, 0.12, num_lines, 1)
        phase = draws.uniform(0.0, 2.0 * math.pi, num_lines, 1)
        across = across + amplitude * torch.sin(along * (2.0 * math.pi / wavelength) + phase)
    half_width = 0.5 * draws.uniform(0.7, 3.0, num_lines, 1)
    return (half_width + 0.5 - across.abs()).clamp(0.0, 1.0).view(num_lines, height, width)


def _relabel(labels: torch.Tensor) -> torch.Tensor:
    """Labels renumbered 0, 1, 2, ... without gaps."""
    return torch.unique(labels, return_inverse=True)[1]
