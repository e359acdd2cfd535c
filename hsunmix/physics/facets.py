"""Where the facets of the simplex lie: what the distribution of the abundances says about the endmembers.

Least squares can't see how far out the endmembers sit: every simplex around the pixels fits them as well. But many
pixels lack a material altogether and lie on the facet opposite to it, and none lies beyond it but for the noise. So
abundances have a likelihood (as in dependent component analysis: Nascimento and Bioucas-Dias, IEEE TGRS 2012): each is
0 in some pixels, small in others, and anywhere up to 1 in the rest, blurred by the noise.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from .consistency import regularise
from .evidence import Evidence

# Independent pixels that all of them count for: neighbours are alike, and the densities not those of any real scene.
# With 7, simulated scenes without noise gain more, some of those with noise lose.
_COUNT = 4.0
_MIXED = 0.15  # std of the fraction of another that an endmember may turn out to hold: alike ones are not exchanged
_PIXELS = 2500  # that are looked at, spread evenly over the scene
_DARK = 0.1  # times the ordinary brightness: darker pixels say nothing of facets
_LEAST_SUM = 0.5  # of abundances without bounds; they are near 1 but in the wildest pixels
_LEAST_SHARE = 0.01  # of the noise: model errors blur no more than that
_SOFTNESS = (0.05, 0.025, 0.012, 0.006, 0.003, 0.0015, 0.001, 0.001)  # least std of abundances, by round
_LEAST_LEEWAY = 1e-3  # radians, for endmembers that may not move; with less, the search for the others is slow
_STRAY = math.log(0.01 / 3)  # of the density of the one pixel in a hundred that is nothing of all this
_MEAN_RANGE = (0.05, 1.0)  # of small abundances
_EXTENT_RANGE = (0.1, 2.0)
_SHAPE = 4  # of the generalised normal distribution of large ones: nearly even, then falling off
_NORM = math.lgamma(1 + 1 / _SHAPE)
_STEPS = 8  # of the simplex in each round


@torch.no_grad()
def facet_step(
    evidence: Evidence, endmembers: torch.Tensor, leeway: torch.Tensor, noise_share: float = 1.0
) -> torch.Tensor:
    """Move endmembers within their span to where the facets of the pixels would have them.

    Maximum a posteriori: abundances `a = u M` of pixels with coordinates u, each with a density of three parts (none
    of the material; little, an exponential; any amount, a generalised normal, nearly even up to its extent), blurred
    by the noise, and Gaussian priors on `M^-1` and on the endmembers `M^-1 E`. The parameters of the densities are
    fitted by expectation maximisation (Dempster et al., 1977), M by L-BFGS, from soft facets to those that the noise
    says.

    Args:
        evidence: of N pixels with these R endmembers.
        endmembers: (R, B) spectra.
        leeway: (R,) standard deviation of the prior, relative to the norm of each endmember (radians).
        noise_share: of the noise in what these endmembers leave of the pixels; the rest blurs the facets as well.

    Returns:
        (R, B) spectra in the dtype of `endmembers`, non-negative; those given where the pixels say nothing.
    """
    coordinates, brightness = _coordinates(evidence)
    if len(coordinates) < len(endmembers):
        return endmembers
    spectra = endmembers.double()
    root = torch.linalg.inv(torch.linalg.cholesky(regularise(evidence.gram))).T  # of their errors' covariance
    root = root / (evidence.noise_confidence * max(noise_share, _LEAST_SHARE)).sqrt()
    norm = spectra.norm(dim=1)
    width = leeway.double().clamp_min(_LEAST_LEEWAY) * norm.clamp_min(1e-3 * norm.max())
    precision = width.square().reciprocal() / _COUNT
    # outside of inference mode, in which users may call: its tensors have no gradient
    with torch.inference_mode(False), torch.enable_grad():
        values = (x.clone() for x in (coordinates, brightness, root, spectra @ spectra.T, precision))
        unmixing = _most_probable(*values)
    sign, size = torch.linalg.slogdet(unmixing)
    if not (sign > 0 and torch.isfinite(size)):
        return endmembers
    return torch.linalg.solve(unmixing, spectra).clamp_min(0).to(endmembers.dtype)


def _coordinates(evidence: Evidence) -> tuple[torch.Tensor, torch.Tensor]:
    """Abundances (n, R) without bounds that add up to one, and the brightness (n,) of these pixels."""
    brightness, unbounded = evidence.brightness.double(), evidence.unbounded.double()
    total = unbounded.sum(1)
    usable = ((brightness > _DARK * brightness.median()) & (total > _LEAST_SUM)).nonzero().squeeze(1)
    spread = torch.linspace(0, max(len(usable) - 1, 0), min(len(usable), _PIXELS), device=usable.device)
    kept = usable[spread.long()]
    return unbounded[kept] / total[kept, None], brightness[kept]


def _most_probable(
    coordinates: torch.Tensor,
    brightness: torch.Tensor,
    root: torch.Tensor,
    gram: torch.Tensor,
    precision: torch.Tensor,
) -> torch.Tensor:
    """M (R, R), whose rows add up to one.

    Args:
        coordinates: (n, R).
        brightness: (n,).
        root: (R, R) L, the errors of the coordinates having the covariance `L L^T / brightness^2`.
        gram: (R, R) of the endmembers.
        precision: (R,) of the prior on each.
    """
    rank = len(gram)
    eye = torch.eye(rank, dtype=gram.dtype, device=gram.device)
    moves = torch.linalg.svd(torch.ones_like(gram[:, :1]))[0][:, 1:].contiguous()  # [R, R-1]: they keep the sum
    free = torch.zeros_like(moves, requires_grad=True)
    densities = gram.new_full((rank, 3), 1 / 3), gram.new_full((rank,), 0.25), gram.new_full((rank,), 1.0)
    for softness in _SOFTNESS:
        with (
            torch.no_grad()
        ):  # the errors are those of the round before: if they shrank with the simplex, a point fits
            unmixing = eye + free @ moves.T
            std = ((root.T @ unmixing).norm(dim=0) / brightness[:, None]).clamp_min(softness)  # [n, R]
            densities = _fit_densities(coordinates @ unmixing, std, *densities)
        search = torch.optim.LBFGS([free], max_iter=_STEPS, line_search_fn="strong_wolfe")

        def loss(search: Any = search, parameters: tuple[torch.Tensor, ...] = (std, *densities)) -> torch.Tensor:
            search.zero_grad()
            unmixing = eye + free @ moves.T
            likelihood = _log_densities(coordinates @ unmixing, *parameters).logsumexp(-1).sum(1).mean()
            moved = torch.linalg.inv(unmixing) - eye
            distance = (precision @ ((moved @ gram) * moved).sum(1) + moved.square().sum() / (_COUNT * _MIXED**2)) / 2
            value = distance - torch.linalg.slogdet(unmixing)[1] - likelihood
            value.backward()
            return value

        search.step(loss)
    return eye + free.detach() @ moves.T


def _fit_densities(
    abundances: torch.Tensor, std: torch.Tensor, weights: torch.Tensor, means: torch.Tensor, extents: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A few steps of expectation maximisation: weights (R, 3); means (R,) of little, extents (R,) of any amount."""
    for _ in range(3):
        parts = _log_densities(abundances, std, weights, means, extents)
        share = (parts - parts.logsumexp(-1, keepdim=True)).exp()[..., :3]  # [n, R, 3]
        weights = share.mean(0) + 0.02
        weights = weights / weights.sum(1, keepdim=True)
        total = share.sum(0).clamp_min(1e-12)
        centre = abundances - std.square() / means
        hazard = math.sqrt(2 / math.pi) / torch.special.erfcx(-centre / std / math.sqrt(2))  # of the normal below
        small = centre + std * hazard  # [n, R], expected
        means = ((share[..., 1] * small).sum(0) / total[:, 1]).clamp(*_MEAN_RANGE)
        power = (share[..., 2] * abundances.clamp_min(0) ** _SHAPE).sum(0) / total[:, 2]
        extents = ((_SHAPE * power) ** (1 / _SHAPE)).clamp(*_EXTENT_RANGE)
    return weights, means, extents


def _log_densities(
    abundances: torch.Tensor, std: torch.Tensor, weights: torch.Tensor, means: torch.Tensor, extents: torch.Tensor
) -> torch.Tensor:
    """Logarithms (n, R, 4) of weight times density: no abundance, little, any, and what is nothing of all this.

    The second is exactly the exponential blurred by the noise, the third nearly so: its edge at 0 is, its tail is as
    much wider as the noise.
    """
    z = abundances / std
    none = -0.5 * z.square() - std.log() - 0.5 * math.log(2 * math.pi)
    little = std / means
    little = 0.5 * little.square() - abundances / means - means.log() + torch.special.log_ndtr(z - little)
    wide = torch.hypot(extents, std)
    any_amount = torch.special.log_ndtr(z) - (abundances.clamp_min(0) / wide) ** _SHAPE - wide.log() - _NORM
    parts = torch.stack([none, little, any_amount], -1) + weights.log()
    return torch.cat([parts, torch.full_like(parts[..., :1], _STRAY)], -1)
