"""Where the facets of the simplex lie: what the distribution of the abundances says about the endmembers.

Least squares can't see how far out the endmembers sit: every simplex around the pixels fits them as well. But many
pixels lack a material altogether and lie on the facet opposite to it, and none lies beyond it but for the noise. So
abundances have a likelihood (as in dependent component analysis: Nascimento and Bioucas-Dias, IEEE TGRS 2012): each is
0 in some pixels, small in others, and anywhere up to 1 in the rest, blurred by the noise.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from .consistency import regularise
from .evidence import Evidence
from .mixing import spectral_angle, unit_rows

# Independent pixels that all of them count for: neighbours are alike, and the densities not those of any real scene.
# With more, simulated scenes without noise gain, some of those with noise lose.
_COUNT = 6.0
_COUNT_CORRECTED = 4.0  # where spectra that were given have told where endmembers are
_COUNT_ALIKE = 2.0  # where neighbours share errors as well
# The fractions of others that an endmember may turn out to hold: factors of their covariance among the alternatives to
# it, and of that which an error of their angle in any direction would have; the std of each is at least
# _LEAST / (R - 1) and at most _MOST (R - 1)^(1/2).
_ALONG, _ANY, _LEAST, _MOST = 6.0, 0.15, 0.003, 0.1
# No endmember turns by more than that many times the angle of the alternatives to their mean (root mean square) and
# that many radians: what are small fractions of bright ones may be most of a dark one.
_FAR, _NEAR = 2.0, 0.01
_LEAST_APART = 0.001  # radians, of the alternatives, for how far that is
_ALIKE = 0.01  # of the power of the endmembers is added, for those angles: alike ones don't exchange what they like
_PIXELS = 2500  # that are looked at, spread evenly over the scene
_DARK = 0.1  # times the ordinary brightness: darker pixels say nothing of facets
_LEAST_SUM = 0.5  # of abundances without bounds; they are near 1 but in the wildest pixels
_LEAST_SHARE = 0.01  # of the noise: model errors blur no more than that
_SOFTNESS = (0.05, 0.025, 0.012, 0.006, 0.003, 0.0015, 0.001, 0.001)  # least std of abundances, by round
_STRAY = math.log(0.01 / 3)  # of the density of the one pixel in a hundred that is nothing of all this
_TRACE = 0.01  # mean of the smallest abundances that are not 0: a pile of these begins at the facet
_MEAN_RANGE = (0.05, 1.0)  # of small ones
_EXTENT_RANGE = (0.1, 2.0)
_SAME = 2.0  # times the errors by dimension: pixels nearer than that may be the same mixture
_LEAST_ERROR = 0.01  # of abundances, for that
_SHAPE = 4  # of the generalised normal distribution of large ones: nearly even, then falling off
_NORM = math.lgamma(1 + 1 / _SHAPE)
_STEPS = 8  # of the simplex in each round


class Alternatives(NamedTuple):
    """What else R endmembers might be: P spectra for each.

    Attributes:
        spectra: (P, R, B) in any scale.
        weights: (P, R), those for one endmember adding up to one; 0 for endmembers that are known.
    """

    spectra: torch.Tensor
    weights: torch.Tensor

    def reorder(self, order: torch.Tensor) -> Alternatives:
        """The same for the endmembers in another order.

        Args:
            order: (R,) indices.

        Returns:
            The alternatives in that order.
        """
        return Alternatives(self.spectra[:, order], self.weights[:, order])


@torch.no_grad()
def facet_step(
    evidence: Evidence,
    endmembers: torch.Tensor,
    alternatives: Alternatives,
    noise_share: float = 1.0,
    corrected: bool = False,
    start: torch.Tensor | None = None,
    alike: bool = False,
) -> torch.Tensor:
    """Move endmembers within their span to where the facets of the pixels would have them.

    Maximum a posteriori: abundances `a = u M` of pixels with coordinates u, each with a density of four parts (none
    of the material; a trace or little, exponentials; any amount, a generalised normal, nearly even up to its extent),
    blurred by the noise, and a prior on the fractions `M^-1 - 1` of others that the endmembers `M^-1 E` hold, as wide
    as the alternatives to them differ in these. The parameters of the densities are fitted by expectation maximisation
    (Dempster et al., 1977), M by L-BFGS, from soft facets to those that the noise says.

    Args:
        evidence: of N pixels with these R endmembers.
        endmembers: (R, B) spectra.
        alternatives: to them.
        noise_share: of the noise in what these endmembers leave of the pixels; the rest blurs the facets as well.
        corrected: they come from spectra that were given, and pixels have less to say. With two endmembers most are
            much nearer than the alternatives, some further off: that prior is Student's t of one degree of freedom,
            and far alternatives widen it less. Else it is Gaussian.
        start: (R, B) spectra from which they are on their way; `endmembers` when `None`.
        alike: neighbouring pixels share errors, as where endmembers vary: all of them say less.

    Returns:
        (R, B) spectra in the dtype of `endmembers`, non-negative, turned from the start by no more than .01 rad and
        twice as far as the alternatives differ; those given where the pixels say nothing.
    """
    coordinates, brightness = _coordinates(evidence)
    if len(coordinates) < len(endmembers) or len(endmembers) < 2:
        return endmembers
    spectra = endmembers.double()
    root = torch.linalg.inv(torch.linalg.cholesky(regularise(evidence.gram))).T  # of their errors' covariance
    root = root / (evidence.noise_confidence * max(noise_share, _LEAST_SHARE)).sqrt()
    count = _COUNT_ALIKE if alike else _COUNT_CORRECTED if corrected else _COUNT
    heavy_tails = corrected and len(endmembers) == 2  # with more, typical scenes lost 1 to 3 % by them
    precision = _fraction_precision(spectra, alternatives, heavy_tails) / count
    movable = alternatives.weights.any(0).to(spectra)
    # outside of inference mode, in which users may call: its tensors have no gradient
    with torch.inference_mode(False), torch.enable_grad():
        known = [x.clone() for x in (coordinates, brightness, root, precision, movable)]
        unmixing = _most_probable(*known, heavy_tailed=count if heavy_tails else None)
    sign, size = torch.linalg.slogdet(unmixing)
    if not (sign > 0 and torch.isfinite(size)):
        return endmembers
    moved = torch.linalg.solve(unmixing, spectra).clamp_min(0)
    square = _angles_apart(alternatives)[1].to(spectra)
    start = spectra if start is None else start.double()
    return _turned_by(start, moved, _FAR * square.sqrt() + _NEAR).to(endmembers.dtype)


def _turned_by(start: torch.Tensor, moved: torch.Tensor, most: torch.Tensor) -> torch.Tensor:
    """Spectra (R, B) between two sets, at an angle of at most (R,) radians to the first; the second where it is so.

    Of the way, they go no larger a share than of the angle: those that get dark turn most at its end.
    """
    angle = spectral_angle(moved, start)
    across, along = moved.norm(dim=1) * (angle - most).sin(), start.norm(dim=1) * most.sin()
    share = torch.minimum(most / angle.clamp_min(1e-12), along / (along + across).clamp_min(1e-12))
    rest = torch.where(angle > most, 1 - share, 0.0)
    return moved - rest[:, None] * (moved - start)


def relative_turn(start: torch.Tensor, moved: torch.Tensor, alternatives: Alternatives) -> float:
    """How far endmembers turn, in units of how far the alternatives to them differ.

    Args:
        start: (R, B) spectra.
        moved: (R, B).
        alternatives: to them.

    Returns:
        Root mean square, over those that are not known, of the angle between the two over that of the alternatives to
        their mean (root mean square, too); 0 where all are known.
    """
    apart = _angles_apart(alternatives)[1].sqrt().clamp_min(_LEAST_APART)
    turned = (spectral_angle(moved.double(), start.double()).to(apart) / apart)[alternatives.weights.any(0)]
    return float(turned.square().mean().sqrt()) if len(turned) else 0.0


def _angles_apart(alternatives: Alternatives) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and mean square (R,), float64, of the angles, radians, of alternatives to the mean of them."""
    spectra, weights = unit_rows(alternatives.spectra.double()), alternatives.weights.double()
    angles = spectral_angle(spectra, (weights[..., None] * spectra).sum(0))
    return (weights * angles).sum(0), (weights * angles.square()).sum(0)


def _fraction_precision(
    endmembers: torch.Tensor, alternatives: Alternatives, heavy_tails: bool = False
) -> torch.Tensor:
    """Inverse covariance (R, R, R) of the fractions of all endmembers (R, B) that the first, second, ... may hold."""
    rank = len(endmembers)
    eye = torch.eye(rank, dtype=endmembers.dtype, device=endmembers.device)
    gram = regularise(endmembers @ endmembers.T)
    angle, square = (one.to(endmembers) for one in _angles_apart(alternatives))
    shrunk = angle / square.sqrt().clamp_min(1e-6)  # far ones count less, such as spectra given
    shrunk = shrunk.square() if heavy_tails else shrunk
    variance = shrunk * square * endmembers.square().sum(1)
    off = _fractions_apart(endmembers, alternatives)
    along = torch.einsum("r,pr,pri,prj->rij", shrunk, alternatives.weights.to(endmembers), off, off)
    turned = torch.linalg.inv(gram + _ALIKE * gram.diagonal().mean() * eye)
    wide = _ALONG * along + _ANY * variance[:, None, None] * turned
    return torch.linalg.inv(wide + (_LEAST / (rank - 1)) ** 2 * eye) + eye / (_MOST**2 * (rank - 1))


def _fractions_apart(endmembers: torch.Tensor, alternatives: Alternatives) -> torch.Tensor:
    """Fractions of the endmembers (R, B) in each alternative less those in the mean of these, [P, R, R]."""
    spectra, weights = (one.to(endmembers) for one in alternatives)
    gram = regularise(endmembers @ endmembers.T)
    fractions = torch.linalg.solve(gram, endmembers @ unit_rows(spectra).flatten(0, 1).T).T.unflatten(0, weights.shape)
    least_sum = (0.1 * fractions.abs().sum(2, keepdim=True)).clamp_min(1e-12)
    fractions = fractions / fractions.sum(2, keepdim=True).clamp_min(least_sum)
    return (fractions - (weights[..., None] * fractions).sum(0)).clamp(-1, 1)


def fraction_variance(endmembers: torch.Tensor, alternatives: Alternatives) -> torch.Tensor:
    """How alternatives differ in what they hold of others.

    Args:
        endmembers: (R, B) spectra.
        alternatives: to them.

    Returns:
        (R, R) float64, variance of the fraction of endmember k (column) in what may be endmember r (row).
    """
    apart = _fractions_apart(endmembers.double(), alternatives)
    return torch.einsum("pr,prk->rk", alternatives.weights.to(apart), apart.square())


def _coordinates(evidence: Evidence) -> tuple[torch.Tensor, torch.Tensor]:
    """Abundances (n, R) without bounds that add up to one, and the brightness (n,) of these pixels."""
    brightness, unbounded = evidence.brightness.double(), evidence.unbounded.double()
    total = unbounded.sum(1)
    usable = ((brightness > _DARK * brightness.median()) & (total > _LEAST_SUM)).nonzero().squeeze(1)
    spread = torch.linspace(0, len(usable) - 1, min(len(usable), _PIXELS), dtype=torch.float64, device=usable.device)
    kept = usable[spread.long()]
    return unbounded[kept] / total[kept, None], brightness[kept]


def _most_probable(
    coordinates: torch.Tensor,
    brightness: torch.Tensor,
    root: torch.Tensor,
    precision: torch.Tensor,
    movable: torch.Tensor,
    *,
    heavy_tailed: float | None,
) -> torch.Tensor:
    """M (R, R), whose rows add up to one.

    Args:
        coordinates: (n, R).
        brightness: (n,).
        root: (R, R) L, the errors of the coordinates having the covariance `L L^T / brightness^2`.
        precision: (R, R, R) of the prior on the fractions in each endmember.
        movable: (R,) 1, or 0 for endmembers that are known: their rows, and those of the inverse, are those of 1.
        heavy_tailed: independent pixels that all of them count for, where the prior has heavy tails, else `None`.
    """
    rank = len(root)
    eye = torch.eye(rank, dtype=root.dtype, device=root.device)
    moves = torch.linalg.svd(torch.ones_like(root[:, :1]))[0][:, 1:].contiguous()  # [R, R-1]: they keep the sum

    def unmixing_of(free: torch.Tensor) -> torch.Tensor:
        return eye + movable[:, None] * (free @ moves.T)

    free = torch.zeros_like(moves, requires_grad=True)
    counts = _pixel_weights(coordinates, brightness, root)
    densities = root.new_full((rank, 4), 1 / 4), root.new_full((rank,), 0.25), root.new_full((rank,), 1.0)
    for softness in _SOFTNESS:
        # the errors are those of the round before: if they shrank with the simplex, a point fits
        with torch.no_grad():
            unmixing = unmixing_of(free)
            std = ((root.T @ unmixing).norm(dim=0) / brightness[:, None]).clamp_min(softness)  # [n, R]
            densities = _fit_densities(coordinates @ unmixing, counts, std, *densities)
        search = torch.optim.LBFGS([free], max_iter=_STEPS, line_search_fn="strong_wolfe")

        def loss(search: Any = search, parameters: tuple[torch.Tensor, ...] = (std, *densities)) -> torch.Tensor:
            search.zero_grad()
            unmixing = unmixing_of(free)
            likelihood = _log_densities(coordinates @ unmixing, *parameters).logsumexp(-1).sum(1) @ counts
            moved = torch.linalg.inv(unmixing) - eye
            squares = torch.einsum("ri,rij,rj->r", moved, precision, moved)  # [R]
            if heavy_tailed is not None:  # of one degree of freedom and dimension: log(1 + square), for a pixel
                squares = 2 / heavy_tailed * (heavy_tailed * squares).log1p()
            value = squares.sum() / 2 - torch.linalg.slogdet(unmixing)[1] - likelihood
            value.backward()
            return value

        search.step(loss)
    return unmixing_of(free.detach())


def _pixel_weights(coordinates: torch.Tensor, brightness: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
    """Weights (n,) of the pixels, which add up to one: n of the same mixture count as the square root of n.

    A background of one mixture would else be the facet of every material that it holds little of. The facets of two
    materials are points: there all pixels count alike.
    """
    rank = len(root)
    if rank == 2:
        return torch.full_like(brightness, 1 / len(brightness))
    covariance = root @ root.T / brightness.median().square()
    covariance = covariance + _LEAST_ERROR**2 * torch.eye(rank, dtype=root.dtype, device=root.device)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), coordinates.T, upper=False).T
    alike = (torch.cdist(whitened, whitened).square() / (-(rank - 1) * _SAME**2)).exp().sum(1)
    weights = alike.rsqrt()
    return weights / weights.sum()


def _fit_densities(
    abundances: torch.Tensor,
    counts: torch.Tensor,
    std: torch.Tensor,
    weights: torch.Tensor,
    means: torch.Tensor,
    extents: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A few steps of expectation maximisation: weights (R, 4); means (R,) of little, extents (R,) of any amount.

    `counts` (n,) weighs the pixels.
    """
    for _ in range(3):
        parts = _log_densities(abundances, std, weights, means, extents)
        share = (parts - parts.logsumexp(-1, keepdim=True)).exp()[..., :4] * counts[:, None, None]  # [n, R, 4]
        weights = share.sum(0) + 0.02
        weights = weights / weights.sum(1, keepdim=True)
        total = share.sum(0).clamp_min(1e-12)
        centre = abundances - std.square() / means
        hazard = math.sqrt(2 / math.pi) / torch.special.erfcx(-centre / std / math.sqrt(2))  # of the normal below
        small = centre + std * hazard  # [n, R], expected
        means = ((share[..., 2] * small).sum(0) / total[:, 2]).clamp(*_MEAN_RANGE)
        power = (share[..., 3] * abundances.clamp_min(0) ** _SHAPE).sum(0) / total[:, 3]
        extents = ((_SHAPE * power) ** (1 / _SHAPE)).clamp(*_EXTENT_RANGE)
    return weights, means, extents


def _log_densities(
    abundances: torch.Tensor, std: torch.Tensor, weights: torch.Tensor, means: torch.Tensor, extents: torch.Tensor
) -> torch.Tensor:
    """Logarithms (n, R, 5) of weight times density: none, a trace, little, any amount, and nothing of all this.

    The second and the third are exactly exponentials blurred by the noise, the fourth nearly so: its edge at 0 is, its
    tail is as much wider as the noise.
    """
    z = abundances / std
    none = -0.5 * z.square() - std.log() - 0.5 * math.log(2 * math.pi)

    def exponential(mean: torch.Tensor) -> torch.Tensor:
        steep = std / mean
        return 0.5 * steep.square() - abundances / mean - mean.log() + torch.special.log_ndtr(z - steep)

    trace, little = exponential(torch.full_like(means, _TRACE)), exponential(means)
    wide = torch.hypot(extents, std)
    any_amount = torch.special.log_ndtr(z) - (abundances.clamp_min(0) / wide) ** _SHAPE - wide.log() - _NORM
    parts = torch.stack([none, trace, little, any_amount], -1) + weights.log()
    return torch.cat([parts, torch.full_like(parts[..., :1], _STRAY)], -1)
