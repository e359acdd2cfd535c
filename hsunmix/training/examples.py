"""Training examples: simulated scenes turned into what the networks see inside the pipeline.

Batch i of a run depends only on the seed and on i: any number of workers and ranks, stopped and resumed anywhere,
sees the same stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from ..data import read_library
from ..endmembers import match_endmembers
from ..endmembers.geometric import vertex_components
from ..models import ResUNet1D
from ..physics import Evidence, endmember_step, estimate_noise, gather_evidence, spectral_angle, unit_rows
from ..physics.brightness import DOUBTFUL_WIDTH, LEAST_WIDTH
from ..pipelines.chain import EXTRACTED_SHARE
from ..simulation import LibrarySpectra, Scene, SceneSimulator, is_held_out, random_sensor
from .labelled import LabelledScenes
from .real_maps import RealMaps

_IMAGES = ("cube", "evidence", "refined_evidence", "abundances")  # of a batch, [N, ..., H, W]
_PIXELS = ("rhs", "confidence", "brightness")  # of a batch, [N, H * W, ...]
_QUIET = (22.0, 55.0)  # dB; of scenes with misfit, which more noise would hide
_EXTRACTED = (0.008, 0.12)  # radians; how near the endmembers are that the pipeline extracts from such scenes


def load_libraries(paths: Sequence[str], held_out: bool = False) -> list[LibrarySpectra]:
    """Read spectral libraries, keeping the training materials only, or (for validation) the held-out ones only.

    Args:
        paths: ENVI spectral libraries.
        held_out: keep only the materials of `hsunmix.simulation.HELD_OUT_MATERIALS`; else leave those out.

    Returns:
        One `LibrarySpectra` per file.
    """
    libraries = []
    for path in paths:
        library = read_library(path)
        index = [i for i, name in enumerate(library.names) if is_held_out(name) == held_out]
        if len(index) >= 12:
            library = library.subset(index)
            libraries.append(LibrarySpectra(torch.as_tensor(library.spectra), torch.as_tensor(library.wavelengths)))
    return libraries


@dataclass
class ExampleConfig:
    """How scenes are turned into examples.

    Attributes:
        batch_size: scenes in a batch; they share sensor, size and number of endmembers.
        size: rows and columns of a scene.
        num_endmembers: smallest and largest number of endmembers.
        given_fraction: share of scenes whose endmembers are known exactly.
        extracted_fraction: share of scenes whose endmembers are extracted from the scene.
        corrected_fraction: share of these that are nearer to the truth, as those that the pipeline chooses among many
            candidates and corrects; how near is known roughly.
        max_angle: largest spectral angle, in degrees, by which the other endmembers are off.
        max_contamination: largest share of foreign materials in an endmember, as extraction leaves it.
        no_wavelengths_fraction: share of batches without wavelengths.
        real_maps_fraction: share of scenes mixed from the maps of real scenes, where there are any.
        misfit_fraction: share of batches whose scenes have little noise, and something in them that no mixture
            explains, as real scenes have; corrected endmembers there are off by less than half a degree to 7 degrees.
        labelled_fraction: share of batches that are patches of labelled scenes, where there are any.
        refined: also the evidence of refined endmembers, which only ResUNet2D asks for.
    """

    batch_size: int = 4
    size: int = 64
    num_endmembers: tuple[int, int] = (2, 7)
    given_fraction: float = 0.4
    extracted_fraction: float = 0.2
    corrected_fraction: float = 0.0
    max_angle: float = 8.0
    max_contamination: float = 0.2
    no_wavelengths_fraction: float = 0.2
    real_maps_fraction: float = 0.3
    misfit_fraction: float = 0.0
    labelled_fraction: float = 0.5
    refined: bool = True


class SimulatedExamples(Dataset):
    """Endless, reproducible stream of batches.

    Args:
        simulator: makes the scenes.
        config: see `ExampleConfig`.
        seed: of the stream; streams of different seeds share nothing.
        length: number of batches.
        real_maps: mixed into the stream.
        endmember_unet: trained ResUNet1D; the evidence that the maps are refined with then comes from its endmembers.
        labelled: scenes with references, whose patches are mixed into the stream.
    """

    def __init__(
        self,
        simulator: SceneSimulator,
        config: ExampleConfig,
        seed: int,
        length: int,
        real_maps: RealMaps | None = None,
        endmember_unet: ResUNet1D | None = None,
        labelled: LabelledScenes | None = None,
    ) -> None:
        self.simulator, self.config, self.seed, self.length = simulator, config, seed, length
        self.real_maps, self.endmember_unet, self.labelled = real_maps, endmember_unet, labelled

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | None]:
        config = self.config
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        if self.labelled is not None and torch.rand((), generator=generator) < config.labelled_fraction:
            scenes = self.labelled.draw(config.batch_size, config.size, generator)
            wavelengths = scenes[0].wavelengths
        else:
            scenes, wavelengths = self._simulate(generator)
        if torch.rand((), generator=generator) < config.no_wavelengths_fraction:
            wavelengths = None
        rows = [make_example(scene, generator, config, wavelengths, self.endmember_unet) for scene in scenes]
        batch: dict = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
        batch["wavelengths"] = None if wavelengths is None else wavelengths.float().expand(len(rows), -1).contiguous()
        return batch

    def _simulate(self, generator: torch.Generator) -> tuple[list[Scene], torch.Tensor]:
        """Scenes of one sensor, size and number of endmembers, and the sensor's wavelengths (B,)."""
        config = self.config
        low, high = config.num_endmembers
        count = int(torch.randint(low, high + 1, (), generator=generator))
        sensor = random_sensor(generator)
        kind: dict[str, Any] = {}
        if config.misfit_fraction and torch.rand((), generator=generator) < config.misfit_fraction:
            kind = {"misfit": True, "snr_db": _QUIET}
        scenes = []
        for _ in range(config.batch_size):
            fixed: dict[str, Any] = {"num_endmembers": count, "height": config.size, "width": config.size}
            if self.real_maps is not None and torch.rand((), generator=generator) < config.real_maps_fraction:
                fixed = self.real_maps.draw(count, config.size, generator) or fixed
            scenes.append(self.simulator(generator, sensor=sensor, **kind, **fixed))
        return scenes, sensor.wavelengths.float()


def turned(batch: dict[str, torch.Tensor | None], turn: int) -> dict[str, torch.Tensor | None]:
    """A batch whose scenes are flipped or transposed, all alike: another batch for a network over maps.

    Args:
        batch: of `SimulatedExamples`.
        turn: one of the eight symmetries of a square, 0 to 7; 0 changes nothing.

    Returns:
        The batch, with its pixels in the new order.
    """
    if turn == 0:
        return batch

    def turn_image(x: torch.Tensor) -> torch.Tensor:  # (..., H, W)
        x = x.transpose(-1, -2) if turn & 4 else x
        return x.flip([axis for axis, bit in ((-2, 1), (-1, 2)) if turn & bit])

    cube = batch["cube"]
    assert cube is not None
    order = turn_image(
        torch.arange(cube.shape[-2] * cube.shape[-1], device=cube.device).view(cube.shape[-2:])
    ).flatten()
    images = {key: turn_image(x) for key, x in batch.items() if key in _IMAGES and x is not None}
    return batch | images | {key: x[:, order] for key, x in batch.items() if key in _PIXELS and x is not None}


def make_example(
    scene: Scene,
    generator: torch.Generator,
    config: ExampleConfig,
    wavelengths: torch.Tensor | None = None,
    endmember_unet: ResUNet1D | None = None,
) -> dict[str, torch.Tensor]:
    """One scene as the pipeline would see it at the start and in the middle of sampling.

    Returns:
        `cube` (B, H, W); `coarse_endmembers`, `moved_endmembers`, `moved_std`, `endmembers` (R, B): the start, the
        start after one closed-form step onto the data and that step's standard deviation, the truth; `evidence` and
        `refined_evidence` (R, 5, H, W) of the start and of the refined endmembers (without `config.refined` of the
        start too), for the latter also the normal equations `gram` (R, R), `rhs` (N, R), `confidence` and `brightness`
        (N,); `noise_std` (B,); `abundances` (R, H, W), the truth; `statistics` (R, 5) at the start; `start_error`
        (R,), radians, how far off the start is thought to be; and scalars: `counted`, abundances count endmembers of
        equal maximum; `fixed`, the endmembers are known exactly and stay; `extracted`; `brightness_precision`, 0 where
        brightness is free.
    """
    pixels = scene.cube.flatten(0, 1)
    valid = torch.ones(scene.cube.shape[:2], dtype=torch.bool)
    truth, abundances = scene.endmembers, scene.abundances  # [R, B], [H, W, R]
    referenced = bool(scene.brightness.isnan().any())  # a reference says itself how it counts
    counted = referenced or bool(torch.rand((), generator=generator) < 0.5)
    if referenced:
        truth = truth / truth.amax(1, keepdim=True).clamp_min(1e-3)
    elif counted:  # abundances per endmember of maximum 1
        peak = truth.amax(1).clamp_min(1e-3)
        truth = truth / peak[:, None]
        abundances = abundances * peak
        abundances = abundances / abundances.sum(-1, keepdim=True)
    constant = not counted and bool((scene.brightness - 1).abs().max() < 1e-4)
    tight = torch.rand((), generator=generator) if constant and torch.rand((), generator=generator) < 0.7 else None

    draw = float(torch.rand((), generator=generator))
    given = draw < config.given_fraction
    least = LEAST_WIDTH if given else DOUBTFUL_WIDTH  # of the prior on the brightness; in use it may be less
    precision = 0.0 if tight is None else float(least * (0.06 / least) ** tight) ** -2
    extracted = not given and draw < config.given_fraction + config.extracted_fraction
    if given:
        coarse = truth
    elif extracted:
        coarse = extract_like(pixels, truth, generator)
        if config.corrected_fraction and torch.rand((), generator=generator) < config.corrected_fraction:
            share = 0.2 + 0.8 * torch.rand((), generator=generator)
            if scene.misfit:
                nearest, farthest = _EXTRACTED
                wanted = nearest * (farthest / nearest) ** torch.rand((), generator=generator)
                share = (wanted / spectral_angle(coarse, truth).mean().clamp_min(1e-6)).clamp_max(1)
            coarse = truth + share * (coarse - truth)
    else:
        coarse = spoil_endmembers(truth, generator, config)
    if counted:  # as the pipeline does where brightness is free
        coarse = coarse / coarse.amax(1, keepdim=True).clamp_min(1e-3)
    start_error = spectral_angle(coarse, truth)
    if config.corrected_fraction:
        start_error = start_error * (0.4 * torch.randn(start_error.shape, generator=generator)).exp()
    noise_std = estimate_noise(pixels)
    start = gather_evidence(pixels, coarse, noise_std, 1.0, precision)
    scale = coarse.amax(1, keepdim=True).clamp_min(1e-3)
    moved, moved_std = endmember_step(
        pixels, start.scaled_abundances, start.noise_std, coarse, 0.05 * scale.expand_as(coarse)
    )
    refined, fixed = start, given and bool(torch.rand((), generator=generator) < 0.85)
    if config.refined and not fixed:
        if endmember_unet is None:  # off by about as much as the closed-form step
            better, error = moved, (moved - truth).square().mean(1, keepdim=True).sqrt()
            better_std = (error * (0.3 * torch.randn(error.shape, generator=generator)).exp()).expand_as(moved)
        else:
            better, better_std = predict_endmembers(endmember_unet, coarse, moved, moved_std, start, wavelengths)
            if extracted:  # as in the pipeline, but for its robust step, they stay where they are in their span
                better, better_std = coarse, EXTRACTED_SHARE * better_std
        if counted:
            better = better / better.amax(1, keepdim=True).clamp_min(1e-3)
        refined = gather_evidence(pixels, better, noise_std, 1.0, precision, better_std)
    return {
        "cube": scene.cube.permute(2, 0, 1),
        "coarse_endmembers": coarse,
        "moved_endmembers": moved,
        "moved_std": moved_std,
        "endmembers": truth,
        "evidence": start.maps(valid),
        "refined_evidence": refined.maps(valid),
        "gram": refined.gram,
        "rhs": refined.rhs,
        "confidence": refined.confidence,
        "brightness": refined.brightness,
        "noise_std": noise_std,
        "abundances": abundances.permute(2, 0, 1),
        "statistics": start.statistics(),
        "start_error": start_error,
        "counted": torch.tensor(counted),
        "fixed": torch.tensor(fixed),
        "extracted": torch.tensor(extracted),
        "brightness_precision": torch.tensor(precision, dtype=torch.float64),
    }


@torch.no_grad()
def predict_endmembers(
    network: ResUNet1D,
    coarse: torch.Tensor,
    moved: torch.Tensor,
    moved_std: torch.Tensor,
    start: Evidence,
    wavelengths: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Endmembers (R, B) and their standard deviation as the pipeline has them after its first step."""
    scale = coarse.amax(1, keepdim=True).clamp_min(1e-3)
    conditions = [(x / scale)[None] for x in (coarse, moved, moved_std)] + [start.statistics()[None]]
    position = None if wavelengths is None else wavelengths[None]
    last = network.config.num_train_timesteps - 1
    clean, log_std = network(torch.zeros_like(conditions[0]), last, *conditions, position, return_dict=False)
    return ((clean[0] + 1) / 2 * scale).clamp_min(0), log_std[0].exp() / 2 * scale


def extract_like(pixels: torch.Tensor, truth: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Endmembers (R, B) extracted by VCA in the signal subspace, in the order and norm of the truth.

    Real extraction takes a second per scene; a network trained on it was no better on held-out materials.
    """
    _, vectors = torch.linalg.eigh((pixels.T @ pixels).double())
    basis = vectors[:, -len(truth) :].to(pixels.dtype)  # [B, R]
    points = unit_rows(pixels @ basis)
    index = vertex_components(points.double(), len(truth), 1, generator)[0]
    found = (points[index] @ basis.T).clamp_min(1e-4)
    order = match_endmembers(truth, found)
    return unit_rows(found[order]) * truth.norm(dim=1, keepdim=True)


def spoil_endmembers(endmembers: torch.Tensor, generator: torch.Generator, config: ExampleConfig) -> torch.Tensor:
    """Endmembers (R, B) as extraction or a foreign library would give them: bent, contaminated, noisy."""
    count, bands = endmembers.shape
    norm = endmembers.norm(dim=1, keepdim=True)
    share = config.max_contamination * torch.rand(count, 1, generator=generator) * torch.rand((), generator=generator)
    foreign = torch.distributions.utils.clamp_probs(torch.rand(count, count, generator=generator)) ** 3
    foreign.fill_diagonal_(0)
    foreign = foreign / foreign.sum(1, keepdim=True).clamp_min(1e-6)
    spoiled = (1 - share) * endmembers + share * (foreign @ endmembers)

    knots = int(torch.randint(3, 14, (), generator=generator))
    curve = torch.nn.functional.interpolate(
        torch.randn(count, 1, knots, generator=generator), size=bands, mode="linear", align_corners=True
    )[:, 0]
    weight = spoiled.square() / spoiled.square().sum(1, keepdim=True).clamp_min(1e-12)
    curve = curve - (weight * curve).sum(1, keepdim=True)
    bend = (weight * curve.square()).sum(1, keepdim=True).sqrt().clamp_min(1e-3)  # angle per unit amplitude
    angle = torch.deg2rad(config.max_angle * torch.rand(count, 1, generator=generator))
    spoiled = spoiled * (angle / bend * curve).clamp(-2, 2).exp()

    noise = 0.02 * torch.rand(count, 1, generator=generator) ** 3 * norm / bands**0.5
    spoiled = (spoiled + noise * torch.randn(count, bands, generator=generator)).clamp_min(1e-4)
    return spoiled * norm / spoiled.norm(dim=1, keepdim=True)
