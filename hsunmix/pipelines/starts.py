"""Where the endmember chains start: spectra that the user gives, a library, extraction from the cube."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from ..endmembers import (
    distance_to_scene,
    extract_endmembers,
    match_endmembers,
    number_probabilities,
    select_from_library,
)
from ..physics import (
    BRIGHTNESS_THRESHOLD,
    Alternatives,
    brightness_fit,
    brightness_of_linear_part,
    choose_mixing_model,
    in_natural_scale,
    linear_part,
    nnls,
    spectral_angle,
    variation_left,
)
from .chain import LEAST_PIXELS
from .processor import HyperspectralProcessor, PreparedCube

logger = logging.getLogger(__name__)
MANY = 20  # endmembers; nobody knows so many to be in one scene
_SAME = 2e-3  # radians: a tenth of a degree
# How far off spectra of a library may be (`_Members.off`, radians) to be taken as they are. On simulated scenes the
# right ones are up to .010 off (30 dB) or .016 (10 dB), those of a library turned by 2 degrees .019 or more.
_MOST_OFF = 0.017
_ALIKE = 0.1  # radians between an extracted endmember and what may be an approximate spectrum of it
# Extractions from a scene without its scattering, each with the endmembers of the last: on simulated scenes three have
# 6 % less abundance error and 14 % less angle than one, and two more another 3 and 4 %.
_ROUNDS = 3
# times the variation of the brightness that archetypes leave of a variable scene; they lie inside, where less varies.
# In 24 simulated runs other endmembers were better in 11 of the 13 where they left less, worse in 9 of the other 11.
_ALLOWED = 1.08
# Variation of the brightness that archetypes may leave for others to be tried before a scene is called linear, and how
# much less these must leave. Where simulated endmembers vary they leave .6 to .7 times as much, on Jasper Ridge .9.
_MOST_LEFT, _FAR_LESS = 0.12, 0.8


class _Extracted(NamedTuple):
    """Endmembers (M, R, K), alternatives to each set, each set polished; spread (R,) and method of the first."""

    endmembers: torch.Tensor
    alternatives: list[Alternatives | None]
    polished: list[torch.Tensor | None]
    spread: torch.Tensor
    method: str

    def in_natural_scale(self, cube: PreparedCube, given: torch.Tensor | None) -> _Extracted:
        """The same in the scale in which abundances sum to one, see `_natural_scale`."""
        sets = [_natural_scale(cube, one, given) for one in self.endmembers]
        polished = [None if one is None else _natural_scale(cube, one, given) for one in self.polished]
        return self._replace(endmembers=torch.stack(sets), polished=polished)


@dataclass(frozen=True)
class Starts:
    """Where the chains of one cube start.

    Attributes:
        endmembers: (M, R, K) spectra on the good bands, one set for each member of the ensemble.
        movable: (R,) bool; `False` keeps an endmember exactly.
        origin: of them, see `hsunmix.pipelines.chain.Chain`.
        alternatives: M to these sets, among which the facets of the pixels may choose, `None` where they may not.
        polished: (R, K) where each of these sets goes where archetypes rank first, `None` elsewhere.
        error: (R,) how far off those that the user knows something of are expected to be, radians, else `None`.
        number_probabilities: of each number of endmembers, where it was estimated, else `None`.
        mixing_model: of `hsunmix.physics.MIXING_MODELS`; of "auto", what it has come to.
    """

    endmembers: torch.Tensor
    movable: torch.Tensor
    origin: str
    mixing_model: str
    alternatives: list[Alternatives | None]
    polished: list[torch.Tensor | None]
    error: torch.Tensor | None = None
    number_probabilities: dict[int, float] | None = None


def start_endmembers(
    processor: HyperspectralProcessor,
    cube: PreparedCube,
    num_endmembers: int | None,
    endmembers: Any,
    fixed_endmembers: Any,
    library: Any,
    ensemble_size: int,
    generator: torch.Generator | None,
    mixing_model: str = "linear",
    correct_endmembers: bool = True,
    brightness: str = "auto",
) -> Starts:
    """E0 of every ensemble member.

    Fixed spectra come first, then approximate ones, corrected by what can be extracted, then, up to `num_endmembers`,
    extracted ones.

    Args:
        processor: brings the user's spectra to the bands of the cube.
        cube: the prepared cube.
        num_endmembers: R; the number of given spectra, else estimated, when `None`.
        endmembers: (k, B) approximate spectra, or `None`.
        fixed_endmembers: (k, B) exact spectra, or `None`.
        library: (L, B) spectra to choose from, or `None`.
        ensemble_size: M.
        generator: source of randomness.
        mixing_model: "auto" or of `hsunmix.physics.MIXING_MODELS`; extraction, which knows linear mixtures only, is
            repeated on the linear part of the pixels.
        correct_endmembers: `False` takes the approximate spectra for what all pixels of this cube have placed, and the
            best of a library as they are.
        brightness: "fixed" scales extracted endmembers so that abundances sum to one as nearly as they can; by default
            they have that scale where it fits the scene, else a common maximum.

    Returns:
        The starts.

    Raises:
        ValueError: if the numbers of endmembers, bands and pixels don't fit.
    """
    num_pixels, num_bands = cube.pixels.shape
    fixed = None if fixed_endmembers is None else processor.spectra(fixed_endmembers, cube, "fixed_endmembers")
    loose = None if endmembers is None else processor.spectra(endmembers, cube, "endmembers")
    known = [part for part in (fixed, loose) if part is not None]
    given = torch.cat(known) if known else None
    count, probabilities = num_endmembers, None
    if given is not None:
        count = _count_given(given, num_endmembers, num_bands, correct_endmembers)
    elif count is None:
        probabilities = number_probabilities(cube.pixels, cube.noise_std)
        count = max(probabilities, key=probabilities.__getitem__)
    if count > num_bands:
        raise ValueError(f"`num_endmembers` is {count}, but the cube has only {num_bands} usable bands.")

    error = None
    alternatives: list[Alternatives | None] = [None] * ensemble_size
    polished: list[torch.Tensor | None] = [None] * ensemble_size
    guessed = ""
    if probabilities is not None:
        guessed = f" (their number is estimated, with a probability of {100 * probabilities[count]:.0f} %)"
    all_fixed = fixed is not None and len(fixed) == count
    correctable = correct_endmembers and _can_extract(cube, count)
    members = None
    if library is not None:
        spectra = processor.spectra(library, cube, "library")
        if len(spectra) < count:
            raise ValueError(f"`library` has {len(spectra)} usable spectra, fewer than the {count} endmembers.")
        members = _members(cube, spectra, count, mixing_model)
        if members.off > _MOST_OFF and correctable:
            given = loose = _approximate_members(cube, spectra, count, generator)
            logger.warning(
                "the %d spectra of the library that explain the scene best are %.1f degrees off: endmembers are "
                "extracted, and %d spectra of the library that are like one of them count as approximate",
                count,
                math.degrees(members.off),
                0 if given is None else len(given),
            )
            members = None
    if given is not None and (all_fixed or (len(given) == count and not correctable)):
        origin = "given" if all_fixed else "approximate" if correct_endmembers else "extracted"
        uncorrected = "of this scene" if origin == "extracted" else "not corrected: too few different pixels"
        logger.info("endmembers: %d, given, %s", count, "exact" if all_fixed else uncorrected)
        mixing_model = _decided(mixing_model, cube, given, known=all_fixed)
        starts = given.expand(ensemble_size, -1, -1)
    elif members is not None:
        logger.info("endmembers: %d of the %d spectra in the library%s", count, len(spectra), guessed)
        origin, error, mixing_model = "library", members.error, members.model
        starts = members.endmembers.expand(ensemble_size, -1, -1)
    elif count > num_pixels:
        raise ValueError(
            f"`num_endmembers` is {count}, but the cube has only {num_pixels} usable pixels: pass `endmembers`, "
            "`fixed_endmembers` or a larger cube."
        )
    else:
        found, mixing_model = _extract_and_decide(cube, count, given, ensemble_size, generator, mixing_model)
        if brightness == "fixed":
            found = found.in_natural_scale(_without_nonlinear_part(cube, found.endmembers[0], mixing_model), given)
        starts, alternatives, polished = found.endmembers, found.alternatives, found.polished
        source = f"mostly by {found.method.replace('_', ' ')}{guessed}"
        if given is None:
            origin = "extracted"
            logger.info("endmembers: %d, extracted, %s", count, source)
        else:
            origin, error, corrected = "corrected", found.spread, ""
            if loose is not None:
                moved = spectral_angle(starts[0, len(given) - len(loose) : len(given)], loose).rad2deg().tolist()
                corrected = f", approximate ones corrected by {', '.join(f'{angle:.1f}' for angle in moved)} degrees"
            logger.info("endmembers: %d, %d of them given%s; extracted, %s", count, len(given), corrected, source)
        if fixed is not None:
            starts[:, : len(fixed)] = fixed
            for one in alternatives:
                if one is not None:
                    one.weights[:, : len(fixed)] = 0
    movable = torch.ones(count, dtype=torch.bool, device=cube.pixels.device)
    movable[: 0 if fixed is None else len(fixed)] = False
    if mixing_model != "linear":
        logger.info("mixing model: %s", mixing_model)
    return Starts(starts, movable, origin, mixing_model, alternatives, polished, error, probabilities)


def _count_given(given: torch.Tensor, num_endmembers: int | None, num_bands: int, correct_endmembers: bool) -> int:
    """How many endmembers there are where some (k, K) are given; refuses what doesn't fit."""
    count = max(len(given), 2) if num_endmembers is None else num_endmembers
    if len(given) > min(num_bands, MANY):
        whole = "a whole library belongs in `library`, from which the endmembers are chosen"
        if len(given) > num_bands:
            raise ValueError(f"{len(given)} spectra are given, more than the {num_bands} usable bands: {whole}.")
        logger.warning("all of the %d spectra that are given count as endmembers; %s", len(given), whole)
    _warn_of_twins(given)
    if count < len(given):
        raise ValueError(f"`num_endmembers` is {count}, but {len(given)} spectra are given.")
    if not correct_endmembers and len(given) < count:
        raise ValueError(
            f"`correct_endmembers`: only {len(given)} of the {count} endmembers are given and can stay as they are; "
            "the others would have to be extracted."
        )
    return count


class _Members(NamedTuple):
    """Spectra (R, K) of a library, how far off they are expected to be (R,), in radians, and the mixing model.

    `off` is the root mean square of that, weighed by how much of the pixels each spectrum is: one that is none of
    theirs, where R is too large, may be anything.
    """

    endmembers: torch.Tensor
    error: torch.Tensor
    model: str
    off: float


def _members(cube: PreparedCube, library: torch.Tensor, count: int, mixing_model: str) -> _Members:
    """The spectra of a library (L, K) that explain the scene best, as they are."""
    pixels = cube.pixels
    chosen = select_from_library(pixels, library, count, cube.noise_std)
    model = _decided(mixing_model, cube, chosen, known=True)
    if model == "variable":  # nonlinear terms would only confirm the first choice
        pixels = linear_part(pixels, chosen, cube.noise_std, model, cube.valid).pixels
        chosen = select_from_library(pixels, library, count, cube.noise_std)
    error = distance_to_scene(pixels, chosen, cube.noise_std)
    amounts = nnls(pixels.double(), chosen).mean(0)  # (R,)
    weight = (amounts * chosen.double().norm(dim=1)).square().clamp_min(1e-12)
    off = float(((weight * error.square()).sum() / weight.sum()).sqrt())
    return _Members(chosen, error, model, off)


def _approximate_members(
    cube: PreparedCube, library: torch.Tensor, count: int, generator: torch.Generator | None
) -> torch.Tensor | None:
    """The spectra (k, K) of a library that are like an extracted endmember, at the level of these; `None` if none is.

    Where no spectra of the library are those of the scene, the ones that explain it best may be of other materials.
    """
    found = _natural_scale(cube, _extract(cube, count, None, 1, generator).endmembers[0], None)
    angle, nearest = spectral_angle(found[:, None], library[None]).min(1)
    alike = angle < _ALIKE
    if not bool(alike.any()):
        return None
    own = library[nearest[alike]]
    level = ((found[alike] * own).sum(1) / own.square().sum(1)).median()  # of a library in another unit
    return level * library[nearest[alike].unique()]


def _decided(mixing_model: str, cube: PreparedCube, endmembers: torch.Tensor, known: bool = False) -> str:
    """The mixing model of a scene with these endmembers (R, K), where the user has left it open."""
    if mixing_model != "auto":
        return mixing_model
    return choose_mixing_model(*_seen(cube, endmembers), known)


def _can_extract(cube: PreparedCube, count: int) -> bool:
    """Do the pixels say where approximate endmembers should be?"""
    return len(cube.pixels) >= LEAST_PIXELS * count and not bool((cube.pixels == cube.pixels[:1]).all())


def _extract_and_decide(
    cube: PreparedCube,
    count: int,
    given: torch.Tensor | None,
    ensemble_size: int,
    generator: torch.Generator | None,
    mixing_model: str,
) -> tuple[_Extracted, str]:
    """Endmembers from the linear part of the pixels, and the mixing model, chosen with them where it is "auto"."""
    found = _extract(cube, count, given, ensemble_size, generator)
    first = found.endmembers[0] if mixing_model == "linear" else _natural_scale(cube, found.endmembers[0], given)
    decided = _decided(mixing_model, cube, first)
    cloud = found.method == "archetypes"
    if mixing_model == "auto" and decided == "linear" and cloud:
        simplex = _simplex_of_varying(cube, first, given, generator)
        if simplex is not None:
            first, decided, cloud = simplex, "variable", False
    if decided != "linear":
        rounds = 1 if decided == "variable" else _ROUNDS
        found = _extract_linear_part(cube, first, decided, given, ensemble_size, generator, rounds)
        if decided == "variable" and cloud:
            found = _simplex_instead(cube, found, given, ensemble_size, generator)
    return found, decided


def _extract(
    cube: PreparedCube,
    count: int,
    given: torch.Tensor | None,
    ensemble_size: int,
    generator: torch.Generator | None,
    archetypes: bool = True,
) -> _Extracted:
    """Endmembers of the M members of an ensemble, the corrected given ones first.

    Every member of an ensemble has an extraction of its own, from other pixels and starts: the luck of a single one is
    often most of its error.
    """
    if bool((cube.pixels == cube.pixels[:1]).all()):
        raise ValueError("`cube` has the same spectrum in every pixel: there is nothing to tell materials apart by.")
    grid = cube.to_map(cube.pixels).nan_to_num()
    generator = generator or torch.Generator().manual_seed(0)
    found = [
        extract_endmembers(
            grid, count, cube.noise_std, cube.valid, generator, approximate=given, archetypes=archetypes
        )
        for _ in range(ensemble_size)
    ]
    known, best = 0 if given is None else len(given), found[0]
    sets, alternatives, polished = [best.endmembers], [best.alternatives], [best.polished]
    for one in found[1:]:
        order = match_endmembers(best.endmembers, one.endmembers, known)
        sets.append(one.endmembers[order])
        alternatives.append(one.alternatives and one.alternatives.reorder(order))
        polished.append(None if one.polished is None else one.polished[order])
    return _Extracted(torch.stack(sets), alternatives, polished, best.spread, best.method)


def _extract_linear_part(
    cube: PreparedCube,
    endmembers: torch.Tensor,
    mixing_model: str,
    given: torch.Tensor | None,
    ensemble_size: int,
    generator: torch.Generator | None,
    rounds: int,
) -> _Extracted:
    """As `_extract`, from what a mixing model with these endmembers (R, K) leaves, and in their order.

    Every further round goes on with the endmembers of the last one.
    """
    for to_come in reversed(range(rounds)):
        linear = _without_nonlinear_part(cube, endmembers, mixing_model)
        members = 1 if to_come else ensemble_size
        found = _extract(linear, len(endmembers), given, members, generator)
        if given is None:
            order = match_endmembers(endmembers, found.endmembers[0])
            sets, alternatives, polished, spread, method = found
            alternatives = [one and one.reorder(order) for one in alternatives]
            polished = [None if one is None else one[order] for one in polished]
            found = _Extracted(sets[:, order], alternatives, polished, spread[order], method)
        if to_come:
            endmembers = _natural_scale(linear, found.endmembers[0], given)
    return found


def _without_nonlinear_part(cube: PreparedCube, endmembers: torch.Tensor, mixing_model: str) -> PreparedCube:
    """A cube without what a mixing model with these endmembers (R, K) adds to the linear mixture.

    Where what is taken out looks like light, with a brightness that is constant where it may be.
    """
    known = (cube.pixels, endmembers, cube.noise_std, mixing_model, cube.valid)
    part = linear_part(*known)
    light = brightness_of_linear_part(part, endmembers, cube.noise_std) if part.scattered else None
    if light is not None and light.mode == "fixed":
        part = linear_part(*known, light.level, light.precision)
    return replace(cube, pixels=part.pixels)


def _simplex_of_varying(
    cube: PreparedCube, archetypes: torch.Tensor, given: torch.Tensor | None, generator: torch.Generator | None
) -> torch.Tensor | None:
    """Endmembers (R, K) that show that they vary where archetypes, inside of them, don't; `None` where none do."""
    if brightness_fit(cube.pixels, archetypes, cube.noise_std)[1] <= BRIGHTNESS_THRESHOLD:
        return None
    left = variation_left(*_seen(cube, archetypes))
    if left > _MOST_LEFT:
        return None
    before = _state(generator)
    simplex = _without_archetypes(cube, archetypes, given, generator)
    if variation_left(*_seen(cube, simplex)) < _FAR_LESS * left and _decided("auto", cube, simplex) == "variable":
        return simplex
    _take_back(generator, before)
    return None


def _simplex_instead(
    cube: PreparedCube,
    found: _Extracted,
    given: torch.Tensor | None,
    ensemble_size: int,
    generator: torch.Generator | None,
) -> _Extracted:
    """Endmembers of a scene in which they vary, where archetypes ranked first; those without these if they explain it.

    Endmembers that vary make the pixels look like a cloud about archetypes. If they were none, the linear part keeps
    what is wrong with them, so that all is done once more without them.
    """
    before = _state(generator)
    first = _without_archetypes(cube, found.endmembers[0], given, generator)
    other = _extract_linear_part(cube, first, "variable", given, ensemble_size, generator, rounds=1)
    spectra = (_natural_scale(cube, one.endmembers[0], given) for one in (found, other))
    cloud, simplex = (variation_left(*_seen(cube, one)) for one in spectra)
    if simplex < _ALLOWED * cloud:
        return other
    _take_back(generator, before)
    return found


def _without_archetypes(
    cube: PreparedCube, endmembers: torch.Tensor, given: torch.Tensor | None, generator: torch.Generator | None
) -> torch.Tensor:
    """What the other methods find instead of endmembers (R, K), in the natural scale; in order where none is given."""
    other = _extract(cube, len(endmembers), given, 1, generator, archetypes=False)
    spectra = _natural_scale(cube, other.endmembers[0], given)
    return spectra if given is not None else spectra[match_endmembers(endmembers, spectra)]


def _seen(
    cube: PreparedCube, endmembers: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What tells mixing models apart: the pixels, endmembers (R, K), the noise, and where the pixels lie."""
    return cube.pixels, endmembers, cube.noise_std, cube.valid


def _state(generator: torch.Generator | None) -> torch.Tensor | None:
    return None if generator is None else generator.get_state()


def _take_back(generator: torch.Generator | None, state: torch.Tensor | None) -> None:
    """An attempt in vain changes nothing else."""
    if generator is not None and state is not None:
        generator.set_state(state)


def _natural_scale(cube: PreparedCube, endmembers: torch.Tensor, given: torch.Tensor | None) -> torch.Tensor:
    """Endmembers (R, K) in the scale in which abundances sum to one, as nearly as they do in this scene.

    Where some are given, theirs is that scale.
    """
    if given is not None:
        return endmembers
    return in_natural_scale(endmembers, brightness_fit(cube.pixels, endmembers, cube.noise_std)[0])


def _warn_of_twins(given: torch.Tensor) -> None:
    """Say which given spectra (R, K) differ in nothing but brightness."""
    angles = spectral_angle(given[:, None], given[None]).triu(1) + torch.ones_like(given @ given.T).tril()
    first, second = divmod(int(angles.argmin()), len(given))
    if len(given) > 1 and angles[first, second] < _SAME:
        logger.warning(
            "spectra %d and %d of those that are given differ in brightness only: "
            "their abundances can't be told apart",
            first + 1,
            second + 1,
        )
