"""Adaptation of a pretrained pipeline to one unlabelled scene.

Two losses for ResUNet2D, neither of which needs a reference. The pipeline unmixes the scene and says how far off each
of its numbers may be; from samples of that posterior scenes of the same kind are mixed, noise is added, and the
network learns to unmix these (Monte Carlo EM: Wei and Tanner, 1990; the pretrained network is the prior that it starts
from). And half of the bands is predicted from the maps that the other half gives (SAM + MSE): noise that the network
has not seen it can't fit (Batson and Royer, Noise2Self, 2019). What was learned counts a quarter: a mean of old and
new weights keeps what the old ones can (WiSE-FT: Wortsman et al., CVPR 2022), above all how far they trust themselves.

Where nothing but the number of endmembers is known, the scene also gets endmembers that do not hang on the luck of one
extraction: the median of several, each from other pixels and starts (bagging: Breiman, Machine Learning 1996).

Where there is hardly any noise, the data have the last word, and maps don't hang on the weights: these stay as they
are.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from diffusers import DDPMScheduler
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from ..data import write_library
from ..endmembers import estimate_num_endmembers, extract_endmembers, match_endmembers
from ..models import HybridSTU, ResUNet2D, spectral_angle_loss
from ..physics import gather_evidence, noise_share, robust_endmember_step, scatter, unit_rows
from ..pipelines import SemiBlindUnmixingOutput, SemiBlindUnmixingPipeline
from ..pipelines.calibration import away_from_bounds, calibration
from ..pipelines.chain import ANCHOR_STD, EXTRACTED_SHARE
from ..pipelines.processor import PreparedCube
from .arguments import argument_parser
from .crops import random_crop
from .loop import train
from .losses import Losses, abundance_loss, carried_sample, training_scheduler

_NOISE_FACTOR = 1.25  # noise of the mixed scenes: that of the cube, times or divided by up to this
_ANGLE_WEIGHT = 0.5
_ADAPTED_SHARE = 0.25  # of the adapted weights in the mean
_EXTRACTIONS = 16  # whose median the endmembers of a scene are
_STEP = 0.5  # of a robust E-step; with all of it, the pipeline's own step goes too far on Jasper Ridge
_QUIET = 0.2  # share of the noise in the residual, below which a scene counts as quiet
_WORK = ".training"


class SceneExamples(Dataset):
    """Endless, reproducible stream of batches from one scene that has been unmixed.

    Args:
        cube: the scene as the pipeline prepared it.
        output: of the pipeline for that scene alone, one chain, with uncertainty.
        seed: of the stream.
        length: number of batches.
        size: rows and columns of a patch; smaller where the scene is.
        batch_size: patches in a batch.
    """

    def __init__(
        self,
        cube: PreparedCube,
        output: SemiBlindUnmixingOutput,
        seed: int,
        length: int,
        size: int = 48,
        batch_size: int = 2,
    ) -> None:
        scene = (output.scene or [])[0]
        self.seed, self.length, self.batch_size = seed, length, batch_size
        self.size = min(size, *cube.valid.shape)
        self.wavelengths, self.noise_std = cube.wavelengths, cube.noise_std
        self.coarse, self.endmembers = (scene.stages[0][k].endmembers.float().cpu() for k in (0, -1))
        last = scene.stages[0][-1]
        self.endmember_std, seen_share = last.std.float().cpu(), last.seen_share
        self.seen_std = seen_share * self.endmember_std
        self.counted = EXTRACTED_SHARE / seen_share if scene.extracted else 1.0  # by the A-step, of what networks see
        self.brightness = (scene.brightness_model.level, scene.brightness_model.precision)
        self.valid = cube.valid
        self.cube = scatter(cube.pixels, cube.valid)
        fields: tuple[Any, ...] = (output.abundances, output.abundance_uncertainty, output.brightness)
        filled = [scatter(torch.as_tensor(x[0])[cube.valid].float(), cube.valid) for x in fields]
        self.abundances, self.shade = filled[0], filled[2][..., None]
        rebuilt = self.shade * (self.abundances @ self.endmembers)
        residual = torch.where(cube.valid[..., None], self.cube - rebuilt, 0)
        share = noise_share(residual[cube.valid], self.noise_std)
        self.misfit = residual * (1 - share) ** 0.5  # what no mixture explains
        factor = calibration(scene.origin, scene.mixing_model, last.noisiness)[0]
        variance = away_from_bounds(filled[1], self.abundances).square()
        leaking = self.abundances.square() @ last.misplaced.float().cpu()  # errors of the endmembers are drawn as such
        self.std = (variance - leaking).clamp_min(0).sqrt() / factor

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | None]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        num_endmembers, num_bands = self.endmembers.shape
        order = torch.randperm(num_bands, generator=generator)
        share = min(max(num_bands // 2, num_endmembers), num_bands - 1)
        seen, hidden = order[:share].sort().values, order[share:].sort().values
        rows = [self._mixed(generator) | self._split(generator, seen, hidden) for _ in range(self.batch_size)]
        batch: dict[str, torch.Tensor | None] = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
        for key, bands in (("wavelengths", slice(None)), ("seen_wavelengths", seen)):
            one = self.wavelengths
            batch[key] = None if one is None else one[bands].expand(self.batch_size, -1).contiguous()
        return batch

    def _mixed(self, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """A scene mixed from a sample of the posterior, as `hsunmix.training.examples.make_example` gives it."""
        maps, std, shade = random_crop([self.abundances, self.std, self.shade], self.size, generator)
        misfit = random_crop([self.misfit], self.size, generator)[0]  # of another place
        maps = (maps + std * torch.randn(maps.shape, generator=generator)).clamp_min(0)
        maps = maps / maps.sum(-1, keepdim=True).clamp_min(1e-6)
        clean = shade * (maps @ sample_endmembers(self.endmembers, self.endmember_std, generator))
        noise_std = self.noise_std * _NOISE_FACTOR ** (2 * float(torch.rand((), generator=generator)) - 1)
        cube = clean + misfit + noise_std * torch.randn(clean.shape, generator=generator)
        pixels, everywhere = cube.flatten(0, 1), torch.ones(maps.shape[:2], dtype=torch.bool)
        start = gather_evidence(pixels, self.coarse, noise_std, *self.brightness)
        refined = gather_evidence(pixels, self.endmembers, noise_std, *self.brightness, self.seen_std)
        return {
            "cube": cube.permute(2, 0, 1),
            "coarse_endmembers": self.coarse,
            "evidence": start.maps(everywhere),
            "refined_evidence": refined.maps(everywhere),
            "gram": refined.gram,
            "rhs": refined.rhs,
            "confidence": refined.counting(self.counted).confidence,
            "brightness": refined.brightness,
            "abundances": maps.permute(2, 0, 1),
        }

    def _split(self, generator: torch.Generator, seen: torch.Tensor, hidden: torch.Tensor) -> dict[str, torch.Tensor]:
        """A patch of the scene itself: the evidence of some bands, and the others in units of their noise."""
        cube, valid = random_crop([self.cube, self.valid], self.size, generator)
        pixels, everywhere = cube[..., seen].flatten(0, 1), torch.ones(valid.shape, dtype=torch.bool)
        evidence = gather_evidence(
            pixels, self.endmembers[:, seen], self.noise_std[seen], *self.brightness, self.seen_std[:, seen]
        )
        level, precision = self.brightness
        return {
            "seen_cube": cube[..., seen].permute(2, 0, 1),
            "seen_endmembers": self.endmembers[:, seen],
            "seen_evidence": evidence.maps(everywhere),
            "seen_gram": evidence.gram,
            "seen_rhs": evidence.rhs,
            "seen_confidence": evidence.counting(self.counted).confidence,
            "seen_brightness": evidence.brightness,
            "hidden_cube": cube[..., hidden] / self.noise_std[hidden],
            "hidden_endmembers": self.endmembers[:, hidden] / self.noise_std[hidden],
            "level": torch.tensor(level if precision > 0 else torch.nan),
            "valid": valid,
        }


def sample_endmembers(endmembers: torch.Tensor, std: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Endmembers (R, B) that may be the true ones: turned towards or away from each other by about their error.

    Args:
        endmembers: (R, B).
        std: (R, B) standard deviations; 0 leaves an endmember as it is.
        generator: source of all randomness.

    Returns:
        (R, B), non-negative, with the maxima of `endmembers`.
    """
    norm = endmembers.norm(dim=1, keepdim=True)
    unit = endmembers / norm
    mixing = torch.randn(len(unit), len(unit), generator=generator).fill_diagonal_(0)
    direction = mixing @ unit
    direction = unit_rows(direction - (direction * unit).sum(1, keepdim=True) * unit)
    angle = std.norm(dim=1, keepdim=True) / norm * torch.randn(len(unit), 1, generator=generator)
    turned = (unit + angle * direction).clamp_min(0)
    return turned * endmembers.amax(1, keepdim=True) / turned.amax(1, keepdim=True).clamp_min(1e-9)


def adaptation_loss(model: torch.nn.Module, batch: dict, encoder: HybridSTU, scheduler: DDPMScheduler) -> Losses:
    """Error of the maps of scenes mixed from the posterior, and of hidden bands of the scene itself.

    Args:
        model: `ResUNet2D`.
        batch: of `SceneExamples`.
        encoder: makes the coarse maps; not trained.
        scheduler: of the training.

    Returns:
        Scalars by name; `loss` is minimised.
    """
    mixed = abundance_loss(model, batch, encoder, scheduler, on_policy_fraction=1.0)
    error, angle = hidden_bands_loss(model, batch, encoder, scheduler)
    return mixed | {"loss": mixed["loss"] + error + _ANGLE_WEIGHT * angle, "hidden_mse": error, "hidden_sam": angle}


def hidden_bands_loss(
    model: torch.nn.Module, batch: dict, encoder: HybridSTU, scheduler: DDPMScheduler
) -> tuple[torch.Tensor, torch.Tensor]:
    """How well maps from some of the bands rebuild the others.

    Args:
        model: `ResUNet2D`.
        batch: of `SceneExamples`.
        encoder: makes the coarse maps; not trained.
        scheduler: of the training.

    Returns:
        `(mse, angle)`: mean squared error in units of the noise variance, 1 where nothing but noise is left, with the
        brightness of each pixel fitted where it is free; mean spectral angle in radians.
    """
    data = {key.removeprefix("seen_"): value for key, value in batch.items() if key.startswith("seen_")}
    with torch.no_grad():
        coarse = encoder(data["cube"], data["endmembers"], data["evidence"], data["wavelengths"])
    conditions = (coarse.abundances, coarse.log_std, data["evidence"])
    sample, timestep = carried_sample(model, conditions, data, coarse.abundances, scheduler, 1.0)
    clean = model(sample, timestep, *conditions, return_dict=False)[0].float()
    maps = ((clean + 1) / 2).clamp(0, 1)
    maps = maps / maps.sum(1, keepdim=True).clamp_min(1e-6)
    cube, valid = batch["hidden_cube"], batch["valid"]  # [N, H, W, K], [N, H, W]
    rebuilt = torch.einsum("nrhw,nrk->nhwk", maps, batch["hidden_endmembers"])
    fitted = (cube * rebuilt).sum(-1) / rebuilt.square().sum(-1).clamp_min(1e-9)
    level = batch["level"][:, None, None]
    brightness = torch.where(level.isnan(), fitted, level.nan_to_num())
    error = (cube - brightness[..., None] * rebuilt).square().mean(-1)
    # a pixel that no mixture explains must not rule the others
    return error.clamp_max(50)[valid].mean(), spectral_angle_loss(rebuilt[valid], cube[valid])


def adapt_to_scene(
    pipe: SemiBlindUnmixingPipeline,
    cube: Any,
    folder: Path,
    max_train_steps: int = 300,
    learning_rate: float = 3e-4,
    seed: int = 0,
    resume: bool = False,
    quiet: bool = False,
    **call: Any,
) -> dict[str, float] | None:
    """Fit the abundance network of a pipeline to one unlabelled scene, and save the pipeline.

    Where no spectra are given, the endmembers of the scene are saved beside it, as the ENVI spectral library
    `endmembers.hdr`: the adapted pipeline takes them as `endmembers`, with `correct_endmembers=False`. The weights
    stay as they are where the scene has hardly any noise. A run that is interrupted leaves its state in the folder,
    from which `resume` goes on.

    Args:
        pipe: pretrained; its own weights stay as they are.
        cube: (H, W, B), or anything else that the pipeline takes for one scene.
        folder: for the adapted pipeline.
        max_train_steps: optimiser steps.
        learning_rate: its largest value; warmed up, then decayed to 0 (cosine).
        seed: of everything random.
        resume: go on from the last state in the folder, if there is one.
        quiet: no progress bar.
        **call: arguments of the pipeline that say what is known of the scene: `num_endmembers`, `endmembers`,
            `fixed_endmembers`, `library`, `wavelengths`, `reflectance_scale`, `brightness`, `correct_endmembers`.

    Returns:
        `before` and `after`: abundance RMSE of the network's maps on 8 fresh batches mixed from the scene; and
        `noise_share`, that of the noise in the residual of least squares. `None` in all processes but the main one.

    Raises:
        ValueError: for inputs that can't be unmixed; the message names the argument.
    """
    prepared = pipe.processor.preprocess(cube, call.get("wavelengths"), call.get("reflectance_scale"))
    if len(prepared) != 1:
        raise ValueError(f"`cube` holds {len(prepared)} scenes, but a pipeline is adapted to one.")
    found = None
    unknown = all(call.get(name) is None for name in ("endmembers", "fixed_endmembers", "library"))
    if unknown and call.get("correct_endmembers", True):  # else the pipeline says what is missing
        found = consensus_endmembers(prepared[0], call.get("num_endmembers"), seed, quiet)
        call |= {"num_endmembers": None, "correct_endmembers": False, "endmembers": prepared[0].to_spectra(found)}
    output: Any = pipe(  # the losses know linear mixtures only
        cube, **call, mixing_model="linear", output_uncertainty=True, generator=torch.Generator().manual_seed(seed)
    )
    work = folder / _WORK
    if not resume:
        shutil.rmtree(work, ignore_errors=True)
    options = {
        "output_dir": work,
        "seed": seed,
        "max_train_steps": max_train_steps,
        "learning_rate": learning_rate,
        "lr_warmup_steps": max(max_train_steps // 15, 1),
        "checkpointing_steps": 50,
        "checkpoints_total_limit": 1,
        "validation_steps": max_train_steps,
    }
    args = argument_parser("").parse_args([str(x) for key, value in options.items() for x in (f"--{key}", value)])
    args.resume_from_checkpoint, args.quiet = "latest" if resume else None, quiet
    network = ResUNet2D.from_config(pipe.unet.config)
    network.load_state_dict(pipe.unet.state_dict())
    loss = partial(
        adaptation_loss,
        encoder=deepcopy(pipe.encoder).cpu().float(),  # the losses move it to where they are computed
        scheduler=training_scheduler(network.config.num_train_timesteps),
    )
    examples = partial(SceneExamples, prepared[0], output)
    fresh = examples(seed + 2, 8)
    before = _error(network, fresh, loss)
    mixed = gather_evidence(prepared[0].pixels, fresh.endmembers, fresh.noise_std).scaled_abundances @ fresh.endmembers
    share = noise_share(prepared[0].pixels - mixed, fresh.noise_std)
    own = adapted = pipe.unet
    if share >= _QUIET:
        if not train(args, network, loss, partial(examples, seed + 1), fresh):
            return None
        adapted = ResUNet2D.from_pretrained(work)
        adapted.register_to_config(_name_or_path="")
        old, new = own.state_dict(), adapted.state_dict()
        adapted.load_state_dict({key: torch.lerp(old[key].to(new[key]), new[key], _ADAPTED_SHARE) for key in new})
    elif not PartialState().is_main_process:
        return None
    try:
        pipe.unet = adapted
        pipe.save_pretrained(folder)
        if found is not None:
            wavelengths = prepared[0].wavelengths
            spectra = call["endmembers"] if wavelengths is None else found
            names = [f"endmember {k + 1}" for k in range(len(spectra))]
            write_library(folder / "endmembers", spectra.numpy(), names, wavelengths)
        after = before if adapted is own else _error(adapted, fresh, loss)
    finally:
        pipe.unet = own
    shutil.rmtree(work, ignore_errors=True)
    return {"before": before, "after": after, "noise_share": share}


def consensus_endmembers(
    cube: PreparedCube, num_endmembers: int | None = None, seed: int = 0, quiet: bool = False
) -> torch.Tensor:
    """Median of the endmembers that several extractions find, half of a robust E-step further.

    Args:
        cube: the prepared scene, K good bands.
        num_endmembers: R; the most probable one when `None`.
        seed: of the extractions.
        quiet: no progress bar.

    Returns:
        (R, K) spectra.

    Raises:
        ValueError: if the scene has too few pixels or bands for R endmembers.
    """
    if num_endmembers is None:
        num_endmembers = estimate_num_endmembers(cube.pixels, cube.noise_std)
    grid = cube.to_map(cube.pixels).nan_to_num()
    sets: list[torch.Tensor] = []
    for k in tqdm(range(_EXTRACTIONS), desc="extractions", disable=quiet):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + k)
        one = extract_endmembers(grid, num_endmembers, cube.noise_std, cube.valid, generator)
        found = one.endmembers if one.polished is None else one.polished
        sets.append(found[match_endmembers(sets[0], found)] if sets else found)
    found = torch.stack(sets)  # [_EXTRACTIONS, R, K]
    norm = found.norm(dim=2, keepdim=True)
    spectra = unit_rows((found / norm).quantile(0.5, dim=0)) * norm.quantile(0.5, dim=0)
    scaled = gather_evidence(cube.pixels, spectra, cube.noise_std).scaled_abundances
    anchor = ANCHOR_STD * spectra.amax(1, keepdim=True)
    fitted = robust_endmember_step(cube.pixels, scaled, cube.noise_std, spectra, anchor)
    return torch.lerp(spectra, fitted, _STEP)


@torch.no_grad()
def _error(network: ResUNet2D, examples: SceneExamples, loss: Callable[..., Losses]) -> float:
    """Mean abundance RMSE of all batches, each shown alike to every network."""
    errors = []
    for index in range(len(examples)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(index)
            errors.append(loss(network, examples[index])["rmse"].item())
    return sum(errors) / len(errors)
