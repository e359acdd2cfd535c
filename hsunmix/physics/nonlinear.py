"""Other than linear mixing: what light adds on its way over several materials, or endmembers that vary.

With it taken out, the linear model holds and every other step works on what is left. Generalised bilinear model (GBM):
Halimi et al., IEEE TGRS 2011. Polynomial post-nonlinear model (PPNM): Altmann et al., IEEE TIP 2012. Varying
endmembers: `variability`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch

from .brightness import (
    BRIGHTNESS_THRESHOLD,
    BrightnessModel,
    brightness_fit,
    brightness_level,
    brightness_model,
    in_natural_scale,
)
from .consistency import anchor_brightness, nnls, normal_equations, regularise, solve_nonnegative
from .evidence import BANDS_PER_ERROR, Reading
from .variability import Variation, constant_part

MIXING_MODELS = ("linear", "bilinear", "postnonlinear", "variable")
"""Models that scenes can be unmixed with."""

_GAMMA_MEAN, _GAMMA_STD = 0.5, 12**-0.5  # of interactions that are uniform in [0, 1]
_CURVATURE_STD, _MOST_CURVATURE = 0.2, 0.5
# Endmembers vary where that leaves less variation of the brightness, and their changes of shape are larger, than this.
_STEADY, _CHANGE = 0.06, 0.02
_SAME_SCALE = 1e-4  # relative
# Where scattering hides how constant the brightness is: what counts as constant, and what it then may vary by.
_NEARLY_EVEN, _EVEN = 0.04, 0.01
# Two materials have scattered light where evidence of it is so many standard deviations, and hardly anything but noise
# is left with it. In 26 simulated linear scenes it was 1.6 at most; bilinear ones between 4 and 5 gained and lost.
_SIGNIFICANT, _EXPLAINED = 5.0, 0.05
_PIXELS_COMPARED, _PIXELS_FITTED = 16384, 4096  # for the one, and for the other
_PROBE = 0.1  # noise added to see what is fitted of it, in units of the noise
_MOST_INTERACTING = 10  # endmembers; for each pair of more, in each pixel, there is an unknown
_ROUNDS = 4  # from nothing; the second already comes near
_PIXELS_AT_ONCE = 2048


class LinearPart(NamedTuple):
    """What of the pixels is a linear mixture.

    Attributes:
        pixels: (N, B).
        error: factor by which the errors of their abundances exceed those that the sensor noise causes.
        reading: of these, where errors are not independent from band to band, else `None`.
        scattered: what was taken out looks much like more light, so that what each pixel leaves open of it looks like
            light that varies.
        variation: of the endmembers, where they vary, else `None`.
    """

    pixels: torch.Tensor
    error: float = 1.0
    reading: Reading | None = None
    scattered: bool = False
    variation: Variation | None = None


class _Known(NamedTuple):
    """What is the same for all pixels."""

    endmembers: torch.Tensor  # [R, B]
    noise_std: torch.Tensor  # [B], model error included
    brightness: float  # expected
    precision: float  # of the brightness around it


def linear_part(
    pixels: torch.Tensor,
    endmembers: torch.Tensor,
    noise_std: torch.Tensor,
    mixing_model: str,
    valid: torch.Tensor,
    brightness: float = 1.0,
    brightness_precision: float = 0.0,
    scaled_abundances: torch.Tensor | None = None,
    ordinary: float | None = None,
    at_facets: bool = False,
) -> LinearPart:
    """The pixels without what a model adds to their linear mixture, with given endmembers.

    A nonlinear model is linear in the coefficients of its nonlinear terms once these are computed from the last
    abundances: both are solved for together, the coefficients under a prior, and the terms computed anew. With
    `b = s * a` the terms are `b_i e_i * b_j e_j / s` for each pair (GBM, coefficients in [0, 1]) or `(b E)^2 / s`
    (PPNM), where s is 1 under ordinary illumination. For endmembers that vary see `constant_part`.

    Args:
        pixels: (N, B) spectra.
        endmembers: (R, B) reflectance.
        noise_std: (B,) sensor noise.
        mixing_model: of `MIXING_MODELS`.
        valid: (H, W) bool, N of them true: where the pixels lie.
        brightness: expected brightness, used only with a positive precision.
        brightness_precision: inverse variance of the brightness around it; 0 leaves it free.
        scaled_abundances: (N, R) estimate of `s * a` to start from; least squares, and more rounds, when `None`.
        ordinary: brightness that counts as 1; the median over the pixels when `None`.
        at_facets: see `constant_part`.

    Returns:
        The pixels in their dtype; for the linear model `pixels` itself.

    Raises:
        ValueError: for an unknown model.
    """
    if mixing_model not in MIXING_MODELS:
        raise ValueError(f"`mixing_model` must be one of {', '.join(MIXING_MODELS)}, but is {mixing_model!r}.")
    if mixing_model == "linear":
        return LinearPart(pixels)
    if mixing_model == "variable":
        constant = constant_part(pixels, endmembers, noise_std, valid, at_facets)
        linear = constant.pixels + constant.common
        return LinearPart(linear, constant.error, constant.reading, variation=constant.variation)
    part = torch.zeros_like(pixels)
    rounds = _ROUNDS if scaled_abundances is None else 1
    scaled = nnls(pixels, endmembers, noise_std) if scaled_abundances is None else scaled_abundances
    weights = noise_std
    solve = _interactions if mixing_model == "bilinear" else _curvature
    for turn in range(rounds):
        relative = _relative(scaled, ordinary)
        known = _Known(endmembers, weights, brightness, brightness_precision)
        solved = [
            solve(pixels[rows], scaled[rows].to(pixels.dtype), relative[rows].to(pixels.dtype), known)
            for rows in torch.arange(len(pixels), device=pixels.device).split(_PIXELS_AT_ONCE)
        ]
        scaled, part = (torch.cat(parts) for parts in zip(*solved, strict=True))
        if turn == 0:  # wrong endmembers must not be explained by interactions
            residual = pixels - scaled.to(pixels.dtype) @ endmembers - part
            excess = (residual.square().mean(0) - noise_std.square()).clamp_min(0).mean()
            weights = (noise_std.square() + BANDS_PER_ERROR * excess).sqrt()
    return LinearPart(pixels - part, scattered=True)


def left_open(
    pixels: torch.Tensor,
    endmembers: torch.Tensor,
    noise_std: torch.Tensor,
    mixing_model: str,
    scaled_abundances: torch.Tensor,
    brightness: float = 1.0,
    brightness_precision: float = 0.0,
    ordinary: float | None = None,
) -> torch.Tensor:
    """How much larger errors of the abundances are than if the nonlinear part of the pixels was known.

    Nonlinear terms look like endmembers in part: an error of their coefficients is one of the abundances, too. With
    the prior on these coefficients the covariance of both is known.

    Args:
        pixels: (N, B) spectra, nonlinear part included.
        endmembers: (R, B) reflectance.
        noise_std: (B,) of noise and model error.
        mixing_model: of `MIXING_MODELS`.
        scaled_abundances: (N, R) `s * a`.
        brightness: see `linear_part`.
        brightness_precision: see there.
        ordinary: see there.

    Returns:
        (N,) float64, ratio of the variances (traces of the covariances), at least 1; where mixtures are linear, 1.
    """
    if mixing_model not in ("bilinear", "postnonlinear"):
        return torch.ones(len(pixels), dtype=torch.float64, device=pixels.device)
    known = _Known(endmembers, noise_std, brightness, brightness_precision)
    relative = _relative(scaled_abundances, ordinary)
    system_of = _bilinear_system if mixing_model == "bilinear" else _postnonlinear_system
    count, ratios = len(endmembers), []
    for rows in torch.arange(len(pixels), device=pixels.device).split(_PIXELS_AT_ONCE):
        system = system_of(pixels[rows], scaled_abundances[rows], relative[rows].to(pixels.dtype), known)[0]
        own = regularise(system[:, :count, :count])
        cross, other = system[:, :count, count:], system[:, count:, count:]
        left = own - cross @ torch.linalg.solve(other, cross.mT)
        joint, alone = (torch.linalg.inv(one).diagonal(dim1=1, dim2=2).sum(1) for one in (left, own))
        ratios.append((joint / alone).clamp_min(1))
    return torch.cat(ratios)


def _relative(scaled_abundances: torch.Tensor, ordinary: float | None) -> torch.Tensor:
    """Brightness (N,), the ordinary one being 1."""
    total = scaled_abundances.sum(1)
    middle = float(total.median()) if ordinary is None else ordinary
    return (total / max(middle, 1e-6)).clamp_min(1e-3)


def choose_mixing_model(
    pixels: torch.Tensor,
    endmembers: torch.Tensor,
    noise_std: torch.Tensor,
    valid: torch.Tensor,
    known: bool = False,
) -> str:
    """The model that a scene calls for; linear unless another one explains all that a linear mixture leaves.

    Endmembers vary where a brightness that varies gets as good as constant if they may, which it doesn't if
    illumination varies from pixel to pixel, and where their shape varies too, which it doesn't if illumination varies
    smoothly. Two materials have scattered light where there is evidence of it (`interaction_evidence`), and the
    residual falls to the noise with that counted; with extracted spectra under constant brightness only. The
    post-nonlinear model is never chosen: it explains whatever brightens with the pixel.

    Args:
        pixels: (N, B) spectra.
        endmembers: (R, B) spectra in the scale in which abundances sum to one.
        noise_std: (B,) sensor noise.
        valid: (H, W) bool, N of them true: where the pixels lie.
        known: the endmembers are not extracted, but exact or of a library.

    Returns:
        "linear", "variable" or "bilinear".
    """
    if _varies(pixels, endmembers, noise_std, valid):
        return "variable"
    if _interacts(pixels, endmembers, noise_std, known):
        return "bilinear"
    return "linear"


def _varies(pixels: torch.Tensor, endmembers: torch.Tensor, noise_std: torch.Tensor, valid: torch.Tensor) -> bool:
    weights, variation = brightness_fit(pixels, endmembers, noise_std)
    if variation <= BRIGHTNESS_THRESHOLD:
        return False
    # as they are, or in the scale that they have on average in this scene, which nominal ones don't
    average = in_natural_scale(endmembers, weights)
    known = torch.allclose(average, endmembers, rtol=_SAME_SCALE, atol=0)
    for spectra in (endmembers,) if known else (endmembers, average):
        constant = constant_part(pixels, spectra, noise_std, valid)
        if constant.variation.change > _CHANGE and brightness_level(constant.pixels, spectra, noise_std)[2] < _STEADY:
            return True
    return False


def variation_left(
    pixels: torch.Tensor, endmembers: torch.Tensor, noise_std: torch.Tensor, valid: torch.Tensor
) -> float:
    """Relative variation of the brightness that endmembers leave unexplained though they may vary.

    Under even light it is more with wrong endmembers than with the right ones, a little less with some inside of them.

    Args:
        pixels: (N, B) spectra.
        endmembers: (R, B) spectra in the scale in which abundances sum to one.
        noise_std: (B,) sensor noise.
        valid: (H, W) bool, N of them true: where the pixels lie.

    Returns:
        The standard deviation over the mean, with what noise may hide of it; infinity for hardly more pixels than
        endmembers.
    """
    constant = constant_part(pixels, endmembers, noise_std, valid)
    return brightness_level(constant.pixels, endmembers, noise_std)[2]


def brightness_of_linear_part(
    part: LinearPart, endmembers: torch.Tensor, noise_std: torch.Tensor, mode: str = "auto", exact: bool = False
) -> BrightnessModel:
    """`brightness_model` of what `linear_part` has left of the pixels.

    Where light was scattered, a brightness that seems nearly constant is.

    Args:
        part: of N pixels.
        endmembers: (R, B) with which it was computed.
        noise_std: (B,) sensor noise.
        mode: "free", "fixed" or "auto".
        exact: the endmembers have no error.

    Returns:
        The `BrightnessModel`.

    Raises:
        ValueError: for any other mode.
    """
    model = brightness_model(part.pixels, endmembers, noise_std, mode, exact)
    if part.scattered and model.mode == "fixed" and not exact and model.variation < _NEARLY_EVEN:
        return replace(model, precision=max(model.precision, (_EVEN * model.level) ** -2))
    return model


def _unexplained(pixels: torch.Tensor, endmembers: torch.Tensor, noise_std: torch.Tensor, mixing_model: str) -> float:
    """Mean square of what a model can't explain, in units of the noise, whatever part of the noise it has fitted.

    For fitted spectra f with the Jacobian H, E |y - f|^2 = |bias|^2 + |(1 - H) noise|^2; what H does to noise is
    measured with a little more of it, as in Monte Carlo SURE (Ramani et al., IEEE TIP 2008).
    """
    some = _some(pixels, _PIXELS_FITTED)
    light = brightness_model(some, endmembers, noise_std)

    def fitted(spectra: torch.Tensor) -> torch.Tensor:
        linear = _linear_of_some(spectra, endmembers, noise_std, mixing_model, light)
        return spectra - linear + nnls(linear, endmembers, noise_std).to(linear.dtype) @ endmembers

    probe = torch.randn(some.shape, generator=torch.Generator().manual_seed(0), dtype=some.dtype).to(some.device)
    plain = fitted(some)
    moved = (fitted(some + _PROBE * noise_std * probe) - plain) / (_PROBE * noise_std)
    left = (some - plain) / noise_std
    unexplained = left.square().mean() - 1 + 2 * (moved * probe).mean() - moved.square().mean()
    return max(float(unexplained), -1.0)  # of endmembers that depend on each other it says nothing


def _interacts(pixels: torch.Tensor, endmembers: torch.Tensor, noise_std: torch.Tensor, known: bool) -> bool:
    if not 2 <= len(endmembers) <= _MOST_INTERACTING:
        return False
    if not known and brightness_model(pixels, endmembers, noise_std).mode == "free":
        return False
    common, own = interaction_evidence(pixels, endmembers, noise_std)
    if not (common > _SIGNIFICANT and own < common**2):
        return False
    linear, bilinear = (_unexplained(pixels, endmembers, noise_std, model) for model in ("linear", "bilinear"))
    return bilinear < _EXPLAINED * (1 + max(linear, 0.0))


def interaction_evidence(
    pixels: torch.Tensor, endmembers: torch.Tensor, noise_std: torch.Tensor
) -> tuple[float, float]:
    """How sure it is that light was scattered by two materials, by what no linear mixture of any spectra leaves.

    Abundances are told from the part of a pixel in the span of the endmembers; noise outside of it is independent of
    that. If all is linear, what is outside is noise and, where the span is wrong, linear in the abundances. What their
    products explain of the rest, in the directions of the products of the spectra, is scattering (a matched filter:
    Kay, Fundamentals of Statistical Signal Processing, volume 2, 1998). Extracted endmembers take up a part of it, but
    not that.

    Args:
        pixels: (N, B) spectra.
        endmembers: (R, B).
        noise_std: (B,) sensor noise.

    Returns:
        One coefficient for all pairs of endmembers, in standard deviations of its error; what a coefficient for each
        pair explains besides, in the same units squared, beyond what noise does on average. The second is small if
        it is scattering, and large if something else bends the pixels: endmembers that vary, say.
    """
    some = _some(pixels, _PIXELS_COMPARED)
    abundances = nnls(some, endmembers, noise_std).double()  # (n, R), scaled
    spectra = endmembers.double() / noise_std  # (R, B), in units of the noise
    first, second = torch.triu_indices(len(endmembers), len(endmembers), 1, device=some.device)
    span = torch.linalg.qr(spectra.T).Q  # (B, R)
    products = spectra[first] * endmembers[second]  # (Q, B)
    products = products - (products @ span) @ span.T
    seen = (some / noise_std).double() @ products.T  # (n, Q)
    brightness = abundances.sum(1, keepdim=True)
    dimmest = max(0.1 * float(brightness.median()), 1e-6)
    pairs = abundances[:, first] * abundances[:, second] / brightness.clamp_min(dimmest)
    linear = torch.linalg.qr(abundances).Q
    pairs = pairs - linear @ (linear.T @ pairs)
    precision = (pairs.T @ pairs) * (products @ products.T)  # (Q, Q) of the coefficients
    evidence = (pairs * seen).sum(0)  # (Q,)
    common = float(evidence.sum() / precision.sum().clamp_min(1e-30).sqrt())
    explained = float(evidence @ torch.linalg.pinv(precision, hermitian=True) @ evidence)
    return common, explained - common**2 - (len(evidence) - 1)


def _some(pixels: torch.Tensor, enough: int) -> torch.Tensor:
    """Enough pixels to tell one mixing model from another."""
    return pixels[:: max(1, len(pixels) // enough)]


def _linear_of_some(
    some: torch.Tensor, endmembers: torch.Tensor, noise_std: torch.Tensor, mixing_model: str, light: BrightnessModel
) -> torch.Tensor:
    """The linear part of some pixels of a scene, wherever they lie."""
    everywhere = torch.ones(1, len(some), dtype=torch.bool, device=some.device)
    return linear_part(some, endmembers, noise_std, mixing_model, everywhere, light.level, light.precision).pixels


def _bilinear_system(
    pixels: torch.Tensor, scaled: torch.Tensor, relative: torch.Tensor, known: _Known
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normal equations (n, R + Q, R + Q) and (n, R + Q), in which pairs count like further endmembers.

    Besides, the products (Q, B) of pairs of endmembers, and the largest coefficient (n, Q) of each.
    """
    endmembers, noise_std, brightness, precision = known
    count = len(endmembers)
    first, second = torch.triu_indices(count, count, 1, device=pixels.device)
    products = endmembers[first] * endmembers[second]  # [Q, B]
    terms = torch.cat([endmembers, products]).double()
    weight = noise_std.double().reciprocal()
    gram = (terms * weight.square()) @ terms.T  # [R + Q, R + Q]
    rhs = ((pixels * weight.to(pixels.dtype)) @ (terms * weight).to(pixels.dtype).T).double()
    pair_scale = scaled[:, first].double() * scaled[:, second].double() / relative.double()[:, None]  # [n, Q]
    prior_precision = (_GAMMA_STD * pair_scale).clamp_min(1e-5).square().reciprocal()
    prior = _GAMMA_MEAN * pair_scale
    own = torch.zeros_like(rhs)
    own[:, count:] = prior_precision
    system = gram + torch.diag_embed(own)
    rhs[:, count:] += prior_precision * prior
    if precision > 0:
        system[:, :count, :count] += precision
        rhs[:, :count] += precision * brightness
    return system, rhs, products, pair_scale


def _interactions(
    pixels: torch.Tensor, scaled: torch.Tensor, relative: torch.Tensor, known: _Known
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled abundances (n, R) and nonlinear part (n, B) of the GBM."""
    system, rhs, products, pair_scale = _bilinear_system(pixels, scaled, relative, known)
    count = scaled.shape[1]
    solution = solve_nonnegative(system, rhs, torch.cat([scaled > 0, pair_scale > 0], 1))
    interactions = torch.minimum(solution[:, count:], pair_scale)
    return solution[:, :count], interactions.to(pixels.dtype) @ products


def _postnonlinear_system(
    pixels: torch.Tensor, scaled: torch.Tensor, relative: torch.Tensor, known: _Known
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normal equations (n, R + 1, R + 1), (n, R + 1), and the term (n, B); the last unknown is coefficient + bound."""
    endmembers, noise_std, brightness, precision = known
    term = (scaled @ endmembers).square() / relative[:, None]  # [n, B]
    shifted = pixels + _MOST_CURVATURE * term
    gram, rhs = normal_equations(shifted, endmembers, noise_std)
    if precision > 0:
        gram, rhs = anchor_brightness(gram, rhs, brightness, precision)
    weighted = term / noise_std.square()
    count, prior_precision = len(endmembers), _CURVATURE_STD**-2
    system = gram.new_zeros(len(pixels), count + 1, count + 1)
    system[:, :count, :count] = gram
    system[:, :count, count] = system[:, count, :count] = (weighted @ endmembers.T).double()
    system[:, count, count] = (weighted * term).sum(1).double() + prior_precision
    last = (weighted * shifted).sum(1).double() + prior_precision * _MOST_CURVATURE
    return system, torch.cat([rhs, last[:, None]], 1), term


def _curvature(
    pixels: torch.Tensor, scaled: torch.Tensor, relative: torch.Tensor, known: _Known
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled abundances (n, R) and nonlinear part (n, B) of the PPNM."""
    system, rhs, term = _postnonlinear_system(pixels, scaled, relative, known)
    count = scaled.shape[1]
    solution = solve_nonnegative(system, rhs)
    curvature = solution[:, count].clamp_max(2 * _MOST_CURVATURE) - _MOST_CURVATURE
    return solution[:, :count], curvature.to(pixels.dtype)[:, None] * term
