"""One chain of the sampler: the state of one scene (and ensemble member), and the two data consistency steps.

The networks predict; this file makes their predictions agree with the measured cube (half-quadratic splitting).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from ..physics import (
    Alternatives,
    BrightnessModel,
    Evidence,
    Variation,
    abundance_std,
    abundance_step,
    endmember_step,
    explained_share,
    facet_step,
    final_endmember_step,
    fit_leak,
    fraction_variance,
    gather_evidence,
    leaked_abundances,
    left_open,
    linear_part,
    mean_endmembers,
    noise_share,
    relative_turn,
    robust_endmember_step,
    scatter,
    smooth_error,
    split_brightness,
)
from .calibration import calibration, left_by_facets, near_bounds
from .processor import PreparedCube
from .scene import PLACED, SceneModel, Stage

LEAST_PIXELS = 20  # for each endmember: with fewer they say nothing of given or found spectra
ANCHOR_STD = 0.05  # how far the closed-form step may move endmembers, as a share of their maximum
_PLACED_STD = 0.01  # the same once they are placed
# More than two endmembers go to their facets and to where all pixels would have them in turn, up to _ROUNDS times, as
# long as facets turn them by at least _LEAST_TURN of what the alternatives differ by. Without facets it is
# _WITHOUT_FACETS rounds. Up to _FEW corrected ones go to facets once: the next prior would forget what was given.
_ROUNDS, _LEAST_TURN, _WITHOUT_FACETS, _FEW = 3, 0.25, 2, 5
LEAST_PRIOR_STD = 0.02  # of abundances; with less, networks overrule data of little noise that know better
# The share of the endmembers' uncertainty that an A-step counts as error of its own pixel. Extraction has placed them
# by all pixels, so that their errors are common to all: no prior on maps could tell.
EXTRACTED_SHARE = 0.25
# The most of it that the networks see. They gain by being told to trust pixels less where neither endmembers nor model
# but noise is what is wrong there (linear scenes 2 to 4 %, held-out ones up to 1 %). In the A-step too, real scenes
# lost 1 to 2 %.
_MOST_SEEN = 2.0
# Factor of the variance that the endmember network expects: on simulated scenes of held-out materials its errors are
# 1.0 (10 dB) to 1.7 times (30 dB) smaller than it says, those of corrected spectra about as large as they say.
_NETWORK_VARIANCE = 0.5
_LEAK_SHARE = 0.5  # of the leak of given endmembers that is taken out of the data, half of its variance with it


@dataclass
class Chain:
    """State of one chain (R endmembers, N valid pixels on an H x W grid, K good bands).

    Attributes:
        cube: the prepared scene; its pixels are the linear part of what was measured.
        coarse_endmembers: (R, K) the start E0.
        movable: (R,) bool; `False` keeps an endmember exactly.
        brightness_model: prior on the brightness.
        origin: of the endmembers: "given" as exact, "approximate", of a "library", "corrected" by the pixels, that is
            placed by them from spectra that the user gave, or "extracted".
        start_error: (R,) how far off the start is expected to be, radians; `None` where nothing but the network tells.
        mixing_model: of `hsunmix.physics.MIXING_MODELS`.
        alternatives: to the start, among which the facets of the pixels may choose; `None` where they may not.
        polished: (R, K) where the start goes if it consists of archetypes; `None` where it doesn't.
        followed: stages that the whole scene has gone through, of which `cube` is a part; `None` for a cube by itself.
        concluded: (R, K) endmembers of the result, from `conclude_endmembers` or of the whole scene; `None` before.
        stages: the start, and the state after each denoising step that asks the networks.
        observed: (N, K) the measured pixels.
        endmembers: (R, K) current estimate.
        endmember_std: (R, K) its standard deviation: what `endmember_unet` expects of itself, 0 for fixed ones.
        error_share: (R,) expected squared error of `endmembers` over the square of that: less than 1 where the start
            is nearer than the network can tell.
        seen_share: of `endmember_std` in `evidence`, see `seen_share`.
        evidence: closed-form unmixing with the current endmembers.
        scaled_abundances: (N, R) current `b = s * a`.
        moved_endmembers: (R, K) the start after one closed-form step onto the data, which the network sees. Repeated
            with data of single pixels it only drifts (the residual falls while spectra and maps get worse).
        moved_std: (R, K) standard deviation of that step.
        fitted_endmembers: (R, K) the start, or where all pixels have placed it, that moved to where most of them would
            have it as far as noise doesn't rule, and then, in rounds, to their facets and to where all of them would
            have it as far as endmembers explain what these have in common; archetypes first go where `polished` says.
        explained: share of what pixels have in common in the residual that other endmembers explain; `None` where they
            have not placed `fitted_endmembers`.
        facet_move: (R, K) what of that is due to facets, or to more alternations of archetypes.
        residual_noise: share of the noise in what the start leaves of the pixels.
        variation: of endmembers that vary, from `hsunmix.physics.linear_part`, else `None`.
        leak: (R, R) what the endmembers' errors do to the abundances, as the maps of the last step that asked show it.
        statistics: (R, 5) how the coarse endmembers occur in the scene.
        precision: (N, R) what the last A-step trusted its prior with.
        confidence: (N,) what it trusted the data with, as `Evidence.confidence`.
        predicted: (N, R) of the abundance network, at the last step that asked.
        predicted_share: of them in the result, see `hsunmix.pipelines.stein`.
        posterior_share: of the errors that the posterior expects, what the whole scene shows that there is, see there.
        coarse_abundances: (N, R) of the encoder.
        coarse_log_std: (R, H, W) of the encoder.
    """

    cube: PreparedCube
    coarse_endmembers: torch.Tensor
    movable: torch.Tensor
    brightness_model: BrightnessModel
    origin: str
    start_error: torch.Tensor | None = None
    mixing_model: str = "linear"
    alternatives: Alternatives | None = None
    polished: torch.Tensor | None = None
    followed: list[Stage] | None = None
    concluded: torch.Tensor | None = None
    stages: list[Stage] = field(default_factory=list)
    observed: torch.Tensor = field(init=False)
    endmembers: torch.Tensor = field(init=False)
    endmember_std: torch.Tensor = field(init=False)
    error_share: torch.Tensor = field(init=False)
    seen_share: float = 1.0
    evidence: Evidence = field(init=False)
    scaled_abundances: torch.Tensor = field(init=False)
    moved_endmembers: torch.Tensor = field(init=False)
    moved_std: torch.Tensor = field(init=False)
    fitted_endmembers: torch.Tensor = field(init=False)
    explained: float | None = field(init=False, default=None)
    facet_move: torch.Tensor = field(init=False)
    residual_noise: float = field(init=False)
    variation: Variation | None = field(init=False)
    leak: torch.Tensor = field(init=False)
    statistics: torch.Tensor = field(init=False)
    precision: torch.Tensor | None = None
    confidence: torch.Tensor | None = None
    predicted: torch.Tensor = field(init=False)
    predicted_share: float = 0.0
    posterior_share: float = 1.0
    coarse_abundances: torch.Tensor = field(init=False)
    coarse_log_std: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.observed = self.cube.pixels
        self.error_share = torch.ones_like(self.coarse_endmembers[:, 0])
        if self.followed is not None:
            self.follow()
            self.scaled_abundances = self.evidence.scaled_abundances
            return
        if self.brightness_model.mode == "free":
            self.coarse_endmembers = self._common_maximum(self.coarse_endmembers)
        self.endmembers = self.coarse_endmembers
        self.endmember_std = torch.zeros_like(self.endmembers)
        self._gather()
        self.scaled_abundances = self.evidence.scaled_abundances
        if self.brightness_model.mode == "free":  # brightness 1 is the ordinary illumination of the scene
            ordinary = self.evidence.brightness.median().clamp_min(1e-6)
            self.coarse_endmembers = self.coarse_endmembers * ordinary
            self.endmembers = self.coarse_endmembers
            self._gather()
            self.scaled_abundances = self.evidence.scaled_abundances
        self.statistics = self.evidence.statistics()
        data, start = (self.cube.pixels, self.scaled_abundances), self.coarse_endmembers
        anchor = ANCHOR_STD * self.scale.expand_as(start)
        self.moved_endmembers, self.moved_std = endmember_step(*data, self.evidence.noise_std, start, anchor)
        self.residual_noise = noise_share(data[0] - data[1] @ start, self.cube.noise_std)
        self.fitted_endmembers, self.facet_move = start, torch.zeros_like(start)
        if self.extracted and len(data[0]) >= LEAST_PIXELS * len(start):
            self._place_endmembers()
        self._record()

    @property
    def extracted(self) -> bool:
        """All pixels of the scene have placed the start."""
        return self.origin in PLACED

    @property
    def scale(self) -> torch.Tensor:
        """(R, 1) maximum of each coarse endmember: the unit of the endmember network."""
        return self.coarse_endmembers.amax(1, keepdim=True).clamp_min(1e-6)

    @property
    def last_endmembers(self) -> torch.Tensor:
        """(R, K) those of the result."""
        return self.endmembers if self.concluded is None else self.concluded

    @property
    def coarse_maps(self) -> torch.Tensor:
        """(R, H, W) coarse abundances on the grid."""
        return scatter(self.coarse_abundances, self.cube.valid).permute(2, 0, 1)

    def abundance_maps(self) -> torch.Tensor:
        """(R, H, W) current abundances on the grid."""
        return scatter(split_brightness(self.scaled_abundances)[0], self.cube.valid).permute(2, 0, 1)

    def predicted_maps(self) -> torch.Tensor:
        """(R, H, W) predicted abundances on the grid."""
        return scatter(self.predicted.to(self.cube.pixels.dtype), self.cube.valid).permute(2, 0, 1)

    def evidence_maps(self) -> torch.Tensor:
        """(R, 5, H, W) what the data alone say, as input of the networks; brightness relative to the whole scene."""
        maps = self.evidence.maps(self.cube.valid)
        if self.followed is not None:
            own = self.evidence.brightness.median().clamp_min(1e-6)
            maps[:, 2] += (own / max(self.stages[-1].brightness, 1e-6)).log() / 2
        return maps

    def follow(self) -> None:
        """Take the endmembers that the whole scene had at the next stage; nothing for a cube by itself."""
        if self.followed is None:
            return
        stage = self.followed[min(len(self.stages), len(self.followed) - 1)]
        self.stages.append(stage)
        self.endmembers = stage.endmembers.to(self.coarse_endmembers)
        self.endmember_std = stage.std.to(self.coarse_endmembers)
        self.leak = stage.leak.to(self.coarse_endmembers.device)
        self.error_share = stage.error_share.to(self.coarse_endmembers)
        self.seen_share = stage.seen_share
        self._gather()

    def _place_endmembers(self) -> None:
        before = self.cube, self.evidence, self.seen_share, self.variation  # of the start, which the networks see
        start = self.coarse_endmembers
        if self.polished is not None:
            start = torch.where(self.movable[:, None], self._in_scale(self.polished), start)
            self.facet_move = start - self.coarse_endmembers
        if self.brightness_model.uneven:  # what is left of the pixels is mostly light, and says little of spectra
            self.fitted_endmembers = start
            return
        if self.polished is not None:
            self._residual_at(start)
        data = self.cube.pixels, self.evidence.scaled_abundances, self.cube.noise_std
        start = robust_endmember_step(*data, start, ANCHOR_STD * self.scale * self.movable[:, None])
        self.fitted_endmembers, others = start, self.alternatives
        few = _FEW if others is not None and self.origin == "corrected" else 2
        rounds = _WITHOUT_FACETS if others is None else _ROUNDS
        for _ in range(rounds if len(start) > few else 1):
            came_from = self.fitted_endmembers
            if others is not None:
                self._place_by_facets(others, start)
            turned = self.fitted_endmembers
            self._place_by_residual()
            if others is not None and relative_turn(came_from, turned, others) < _LEAST_TURN:
                break
        self.endmembers = self.coarse_endmembers
        self.cube, self.evidence, self.seen_share, self.variation = before

    def _place_by_facets(self, alternatives: Alternatives, start: torch.Tensor) -> None:
        here = self.fitted_endmembers
        share = noise_share(self._residual_at(here), self.cube.noise_std)
        corrected, alike = self.origin == "corrected", self.mixing_model == "variable"
        moved = facet_step(self.evidence, here, alternatives, share, corrected, start, alike)
        move = torch.where(self.movable[:, None], moved - here, 0.0)
        self.facet_move = self.facet_move + move
        self.fitted_endmembers = here + move

    def _place_by_residual(self) -> None:
        residual = self._residual_at(self.fitted_endmembers)
        pixels, abundances = self.cube.pixels, self.evidence.scaled_abundances
        data, free = (pixels, abundances, self.evidence.noise_std), self.scale * self.movable[:, None]
        wide, _ = endmember_step(*data, self.fitted_endmembers, ANCHOR_STD * free)
        share = explained_share(residual, pixels - abundances @ wide, self.cube.noise_std)
        self.fitted_endmembers = final_endmember_step(*data, self.fitted_endmembers, _PLACED_STD * free, share)
        self.explained = share

    def _residual_at(self, endmembers: torch.Tensor) -> torch.Tensor:
        """What these endmembers (R, K) leave of the pixels, (N, K); gathers the evidence with them.

        It is as sharp as facets: the steps that follow go to these and to what all pixels have in common, and the
        errors of scales, which differ from place to place, blur neither.
        """
        self.endmembers = endmembers
        self._gather(at_facets=True)
        return self.cube.pixels - self.evidence.scaled_abundances @ endmembers

    def _record(self) -> None:
        brightness = float(self.evidence.brightness.median())
        self.leak = torch.zeros_like(self.evidence.gram)
        told = self.endmembers, self.endmember_std, self.seen_share, brightness
        noisy = noisiness(self.evidence, self.cube.noise_std)
        self.stages.append(Stage(*told, self.leak, self.error_share, noisy, torch.zeros_like(self.leak)))

    def move_endmembers(self, clean: torch.Tensor, std: torch.Tensor, trust: float) -> None:
        """E-step: from the predicted spectra (R, K) onto the data, as far as `trust` times the error allows."""
        self.endmember_std = torch.where(self.movable[:, None], std, 0.0)
        prior_std = self.endmember_std
        if self.start_error is not None:
            clean, prior_std = self._weigh_start(clean, prior_std)
        elif self.extracted:
            clean = self._leave_span(clean, std)
        prior = torch.where(self.movable[:, None], clean, self.coarse_endmembers)
        moved, _ = endmember_step(
            self.cube.pixels, self.scaled_abundances, self.evidence.noise_std, prior, trust * prior_std
        )
        self.endmembers = self._in_scale(moved)
        self._gather()
        self._record()

    def pull_abundances(self, clean: torch.Tensor, std: torch.Tensor, guidance_scale: float) -> None:
        """A-step: from the predicted maps (R, H, W) with their expected errors onto the data."""
        valid, evidence, counted = self.cube.valid, self.evidence, self._counted_evidence()
        abundances = _on_simplex(clean.permute(1, 2, 0)[valid])  # [N, R]
        self.predicted = abundances.double()
        if self.followed is None:
            self.leak = fit_leak(evidence, abundances)
            self.stages[-1] = replace(self.stages[-1], leak=self.leak)
        leaked = leaked_abundances(abundances, self.leak)
        if self.mixing_model != "variable":  # there the errors of the data are as smooth
            abundances = _on_simplex(abundances + smooth_error(evidence, abundances, valid, leaked))

        std = (std.permute(1, 2, 0)[valid].square() + LEAST_PRIOR_STD**2).sqrt()
        brightness = evidence.brightness[:, None].clamp_min(1e-6)
        self.precision = (brightness * std).square().reciprocal() / guidance_scale
        share = 0.0 if self.extracted else _LEAK_SHARE
        self.confidence = (share / evidence.noise_confidence + (1 - share) / counted.confidence).reciprocal()
        rhs = evidence.rhs - share * (brightness * leaked) @ evidence.gram
        trust = self.precision / self.confidence[:, None]  # in the units of the normal equations
        scaled = abundance_step(evidence.gram, rhs, brightness * abundances, trust)
        self.scaled_abundances = scaled.to(self.cube.pixels.dtype)

    def follow_prediction(self) -> None:
        """Go from the maps after the A-step towards the predicted ones, as far as the whole scene says."""
        abundances, brightness = split_brightness(self.scaled_abundances.double())
        followed = abundances + self.predicted_share * (self.predicted - abundances)
        self.scaled_abundances = (brightness[:, None] * followed).to(self.cube.pixels.dtype)

    def conclude_endmembers(self) -> None:
        """Last E-step: placed endmembers go to where the refined maps would have them; those of the result.

        These maps know more than the data of each pixel, which have placed them. They stay as they are.
        """
        if self.explained is None:
            return
        maps, free = self.scaled_abundances, ANCHOR_STD * self.scale * self.movable[:, None]
        if self.variation is not None:
            data, where = (self.observed, maps, self.cube.noise_std), (self.cube.valid, self.variation)
            moved = mean_endmembers(*data, self.endmembers, free, *where)
        else:
            data = self.cube.pixels, maps, self.evidence.noise_std
            moved = final_endmember_step(*data, self.endmembers, free, self.explained)
        self.concluded = self._in_scale(moved)

    def posterior_std(self) -> torch.Tensor:
        """(N, R) standard deviation of the abundances, float64, by what data and networks expect of themselves."""
        evidence = self._counted_evidence()
        confidence = (evidence.confidence if self.confidence is None else self.confidence)[:, None]
        confidence = confidence / self._left_open()[:, None]
        trust = None if self.precision is None else self.precision / confidence
        brightness = split_brightness(self.scaled_abundances)[1].clamp_min(1e-3)[:, None]
        return abundance_std(evidence.gram, trust) * confidence.rsqrt() / brightness

    def _left_open(self) -> torch.Tensor:
        """(N,) see `hsunmix.physics.left_open`."""
        return left_open(
            self.observed,
            self.endmembers,
            self.evidence.noise_std,
            self.mixing_model,
            self.scaled_abundances,
            self.brightness_model.level,
            self.brightness_model.precision,
            self.stages[-1].brightness,
        )

    def count_alternatives(self) -> None:
        """Count as errors of the endmembers what of the way from one alternative to another facets have left open.

        Where endmembers vary, the posterior holds enough of them.
        """
        if self.alternatives is None or not self.facet_move.any() or self.mixing_model == "variable":
            return
        brightness = self.evidence.brightness
        lit = brightness > 0.5 * brightness.median()
        error = self.posterior_share * float(self.posterior_std()[lit].square().mean().sqrt())
        misplaced = left_by_facets(self.origin, error) * fraction_variance(self.endmembers, self.alternatives)
        self.stages[-1] = replace(self.stages[-1], misplaced=misplaced)

    def abundance_std(self) -> torch.Tensor:
        """(N, R) calibrated standard deviation of the abundances: the posterior's, and what endmembers leak."""
        abundances, stage = split_brightness(self.scaled_abundances)[0].double(), self.stages[-1]
        scale, leak = calibration(self.origin, self.mixing_model, stage.noisiness)
        expected = leak * self.error_share.double()[:, None] * self._counted_evidence().leakage  # by the network
        misplaced = stage.misplaced.to(expected)
        leaking = torch.where(misplaced.any(1, keepdim=True), misplaced, expected)
        variance = (scale * self.posterior_share * self.posterior_std()).square() + abundances.square() @ leaking
        return near_bounds(variance.sqrt(), abundances).to(self.cube.pixels.dtype)

    def residual(self) -> torch.Tensor:
        """(N,) root mean square of cube minus model."""
        return (self.cube.pixels - self.scaled_abundances @ self.last_endmembers).square().mean(1).sqrt()

    def _gather(self, at_facets: bool = False) -> None:
        brightness = (self.brightness_model.level, self.brightness_model.precision)
        part = linear_part(
            self.observed,
            self.endmembers,
            self.cube.noise_std,
            self.mixing_model,
            self.cube.valid,
            *brightness,
            scaled_abundances=None if self.precision is None else self.scaled_abundances,
            ordinary=self.stages[-1].brightness if self.stages else None,
            at_facets=at_facets,
        )
        self.cube, self.variation = replace(self.cube, pixels=part.pixels), part.variation
        self.evidence = gather_evidence(
            self.cube.pixels,
            self.endmembers,
            part.error * self.cube.noise_std,
            *brightness,
            endmember_std=self.endmember_std,
            reading=part.reading,
        )
        if self.extracted:
            if self.followed is None:
                self.seen_share = seen_share(self.evidence, self.cube.noise_std)
            self.evidence = self.evidence.counting(self.seen_share)

    def _counted_evidence(self) -> Evidence:
        """The evidence with as much of the endmembers' uncertainty as the A-step counts."""
        return self.evidence.counting(EXTRACTED_SHARE / self.seen_share) if self.extracted else self.evidence

    def _leave_span(self, clean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
        """What the network may correct in extracted endmembers: noise, and only outside of their span.

        Extraction has seen all pixels at once and knows best where in their span the endmembers sit; the network knows
        what a spectrum looks like, which shows outside of it. There the prediction counts as far as its expected error
        is less than that of the extraction, the noise that is left after projection on R of K dimensions.
        """
        rank, bands = self.fitted_endmembers.shape
        basis = torch.linalg.qr(self.fitted_endmembers.double().T)[0]  # [K, R]
        move = (clean - self.fitted_endmembers).double()
        move = move - (move @ basis) @ basis.T
        variance = self.cube.noise_std.double().square() * rank / bands
        expected = std.double().square()
        weight = (variance - expected).clamp_min(0) / (variance + expected)  # nothing beyond the noise
        return (self.fitted_endmembers + weight * move).to(clean.dtype).clamp_min(0)

    def _weigh_start(self, clean: torch.Tensor, std: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Prediction and start of each endmember, weighed by their expected errors, and what error is left.

        The network has learned from starts that were often further off, and takes those that all pixels together have
        placed for no better. Where endmembers vary, it takes that for errors, as the data seem to confirm: they stay.
        """
        assert self.start_error is not None
        start, noise_std = self.coarse_endmembers, self.cube.noise_std
        error = (self.start_error * start.norm(dim=1)).square() / std.square().sum(1).clamp_min(1e-12)
        if self.mixing_model == "variable":
            self.error_share = error.clamp_max(1.0)
            return self.fitted_endmembers, torch.zeros_like(std)
        share = network_share(
            start, self.start_error, noise_std, clean, std, self.moved_endmembers, self.residual_noise
        )
        weight = share[:, 0]
        self.error_share = ((1 - weight).square() * error + weight.square()).clamp_max(1.0)
        step = clean + self.facet_move - self.fitted_endmembers  # the network knows nothing of these
        return self.fitted_endmembers + share * step, share.sqrt() * std

    def _in_scale(self, endmembers: torch.Tensor) -> torch.Tensor:
        """Endmembers (R, K) with the maximum of the start, where brightness is free, since abundances hang on it."""
        if self.brightness_model.mode != "free":
            return endmembers
        return torch.where(self.movable[:, None], self._common_maximum(endmembers) * self.scale, endmembers)

    @staticmethod
    def _common_maximum(endmembers: torch.Tensor) -> torch.Tensor:
        return endmembers / endmembers.amax(1, keepdim=True).clamp_min(1e-6)


def network_share(
    start: torch.Tensor,
    start_error: torch.Tensor,
    noise_std: torch.Tensor,
    predicted: torch.Tensor,
    std: torch.Tensor,
    moved: torch.Tensor,
    residual_noise: float = 1.0,
) -> torch.Tensor:
    """Weight (..., R, 1) of predicted spectra against the start that extraction has placed, by their expected errors.

    Extraction leaves noise to correct; what else it leaves, networks have hardly learned to see. So the nearer the
    expected error of a prediction comes to the noise of one pixel, the less it counts, but for what the data confirm:
    the part of its step that lies along theirs. Beyond that noise a half of this part counts, where it is no model
    error that data and network follow.

    Args:
        start: (..., R, K) spectra.
        start_error: (..., R) how far off they are expected to be, radians.
        noise_std: (..., K) of a pixel.
        predicted: (..., R, K) spectra.
        std: (..., R, K) their expected errors.
        moved: (..., R, K) the start after an E-step.
        residual_noise: share of the noise in what the start leaves of the pixels.
    """
    expected = std.square().sum(-1, keepdim=True)  # [..., R, 1]
    error = (start_error[..., None] * start.norm(dim=-1, keepdim=True)).square()
    share = error / (error + _NETWORK_VARIANCE * expected).clamp_min(1e-12)
    confirmed = torch.cosine_similarity(predicted - start, moved - start, dim=-1)[..., None].clamp_min(0).square()
    doubt = expected / noise_std.square().sum(-1)[..., None, None]
    return share * torch.where(doubt < 1, 1 - (1 - confirmed) * doubt, 0.5 * residual_noise**2 * confirmed)


def noisiness(evidence: Evidence, noise_std: torch.Tensor) -> float:
    """Share of the noise of the sensor in what is wrong with the pixels, as a variance.

    The rest are model errors, which count as in `Evidence.noise_std`, and errors of the endmembers beyond these.

    Args:
        evidence: of them.
        noise_std: (K,) of the sensor.
    """
    noise, effective = (x.double().square().mean() for x in (noise_std, evidence.noise_std))
    return float((noise / effective).clamp_max(1))


def seen_share(evidence: Evidence, noise_std: torch.Tensor) -> float:
    """Share of the uncertainty of extracted endmembers that the networks see.

    It grows with the share of the noise in what is wrong with a pixel: against model errors, as the residual shows
    them, and against those of the endmembers.

    Args:
        evidence: with all of that uncertainty.
        noise_std: (K,) of the sensor.
    """
    counted = evidence.counting(EXTRACTED_SHARE)
    noisy = noisiness(evidence, noise_std) * counted.confidence.median() / evidence.noise_confidence
    return float(EXTRACTED_SHARE + (_MOST_SEEN - EXTRACTED_SHARE) * noisy)


def _on_simplex(abundances: torch.Tensor) -> torch.Tensor:
    abundances = abundances.clamp(0, 1)
    return abundances / abundances.sum(1, keepdim=True).clamp_min(1e-6)


def scene_chains(cube: PreparedCube, scene: SceneModel) -> list[Chain]:
    """The chains of a part of a scene, which follow those of the whole."""
    chains = []
    for stages, concluded, share, posterior_share in zip(
        scene.stages, scene.concluded, scene.predicted_shares, scene.posterior_shares, strict=True
    ):
        start = stages[0].endmembers.to(cube.pixels)
        fixed = torch.zeros(len(start), dtype=torch.bool, device=start.device)
        chain = Chain(
            cube,
            start,
            fixed,
            scene.brightness_model,
            scene.origin,
            mixing_model=scene.mixing_model,
            followed=stages,
            concluded=concluded.to(start),
            predicted_share=share,
            posterior_share=posterior_share,
        )
        chains.append(chain)
    return chains
