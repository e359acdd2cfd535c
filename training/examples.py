"""Training examples: simulated scenes turned into what the networks see inside the pipeline.

Batch i of a run depends only on the seed and on i: any number of workers and ranks, stopped and resumed anywhere,
sees the same stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch.utils.data import Dataset

from hsunmix.data import read_library
from hsunmix.endmembers.geometric import vertex_components
from hsunmix.physics import endmember_step, estimate_noise, gather_evidence, spectral_angle, unit_rows
from hsunmix.simulation import LibrarySpectra, Scene, SceneSimulator, is_held_out, random_sensor


def load_libraries(paths: Sequence[str], held_out: bool = False) -> list[LibrarySpectra]:
    """Read spectral libraries, keeping the training materials only, or (for validation) the held-out ones only."""
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
        max_angle: largest spectral angle, in degrees, by which the other endmembers are off.
        max_contamination: largest share of foreign materials in an endmember, as extraction leaves it.
        no_wavelengths_fraction: share of batches without wavelengths.
    """

    batch_size: int = 4
    size: int = 64
    num_endmembers: tuple[int, int] = (2, 7)
    given_fraction: float = 0.4
    extracted_fraction: float = 0.2
    max_angle: float = 8.0
    max_contamination: float = 0.2
    no_wavelengths_fraction: float = 0.2


class SimulatedExamples(Dataset):
    """Endless, reproducible stream of batches.

    Args:
        simulator: makes the scenes.
        config: see `ExampleConfig`.
        seed: of the stream; streams of different seeds share nothing.
        length: number of batches.
    """

    def __init__(self, simulator: SceneSimulator, config: ExampleConfig, seed: int, length: int) -> None:
        self.simulator, self.config, self.seed, self.length = simulator, config, seed, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | None]:
        config = self.config
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        low, high = config.num_endmembers
        num_endmembers = int(torch.randint(low, high + 1, (), generator=generator))
        sensor = random_sensor(generator)
        scenes = [
            self.simulator(
                generator,
                num_endmembers=num_endmembers,
                height=config.size,
                width=config.size,
                sensor=sensor,
            )
            for _ in range(config.batch_size)
        ]
        rows = [make_example(scene, generator, config) for scene in scenes]
        batch: dict = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
        batch["wavelengths"] = sensor.wavelengths.float().expand(config.batch_size, -1).contiguous()
        if torch.rand((), generator=generator) < config.no_wavelengths_fraction:
            batch["wavelengths"] = None
        return batch


def make_example(scene: Scene, generator: torch.Generator, config: ExampleConfig) -> dict[str, torch.Tensor]:
    """One scene as the pipeline would see it at the start and in the middle of sampling.

    Returns:
        `cube` (B, H, W); `coarse_endmembers`, `moved_endmembers`, `moved_std`, `endmembers` (R, B): the start, the
        start after one closed-form step onto the data and that step's standard deviation, the truth; `evidence` and
        `moved_evidence` (R, 4, H, W) of the two; `abundances` (R, H, W), the truth; `misfit` (), mean at the start.
    """
    pixels = scene.cube.flatten(0, 1)
    valid = torch.ones(scene.cube.shape[:2], dtype=torch.bool)
    truth, abundances = scene.endmembers, scene.abundances  # [R, B], [H, W, R]
    if torch.rand((), generator=generator) < 0.5:  # count abundances per endmember of maximum 1
        peak = truth.amax(1).clamp_min(1e-3)
        truth = truth / peak[:, None]
        abundances = abundances * peak
        total = abundances.sum(-1, keepdim=True)
        abundances = abundances / total
        constant = False
    else:
        constant = bool((scene.brightness - 1).abs().max() < 1e-4)
    precision = 0.0
    if constant and torch.rand((), generator=generator) < 0.7:
        precision = float(0.01 + 0.05 * torch.rand((), generator=generator)) ** -2

    draw = float(torch.rand((), generator=generator))
    given = draw < config.given_fraction
    if given:
        coarse = truth
    elif draw < config.given_fraction + config.extracted_fraction:
        coarse = extract_like(pixels, truth, generator)
    else:
        coarse = spoil_endmembers(truth, generator, config)
    noise_std = estimate_noise(pixels)
    start = gather_evidence(pixels, coarse, noise_std, 1.0, precision)
    scale = coarse.amax(1, keepdim=True).clamp_min(1e-3)
    moved, moved_std = endmember_step(
        pixels, start.scaled_abundances, start.noise_std, coarse, 0.05 * scale.expand_as(coarse)
    )
    if given and torch.rand((), generator=generator) < 0.8:
        moved_evidence = start
    else:
        # the endmember network knows how far off it is; the maps learn to live with that much error
        error = (moved - truth).square().mean(1, keepdim=True).sqrt()
        jitter = (0.3 * torch.randn(error.shape, generator=generator)).exp()
        moved_evidence = gather_evidence(pixels, moved, noise_std, 1.0, precision, (error * jitter).expand_as(moved))
    return {
        "cube": scene.cube.permute(2, 0, 1),
        "coarse_endmembers": coarse,
        "moved_endmembers": moved,
        "moved_std": moved_std,
        "endmembers": truth,
        "evidence": start.maps(valid),
        "moved_evidence": moved_evidence.maps(valid),
        "abundances": abundances.permute(2, 0, 1),
        "misfit": start.misfit.mean(),
    }


def extract_like(pixels: torch.Tensor, truth: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Endmembers (R, B) extracted by VCA in the signal subspace, in the order and norm of the truth."""
    _, vectors = torch.linalg.eigh((pixels.T @ pixels).double())
    basis = vectors[:, -len(truth) :].to(pixels.dtype)  # [B, R]
    points = unit_rows(pixels @ basis)
    index = vertex_components(points.double(), len(truth), 1, generator)[0]
    found = (points[index] @ basis.T).clamp_min(1e-4)
    order = linear_sum_assignment(spectral_angle(truth[:, None], found[None]).numpy())[1]
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
