"""What the training scripts share: arguments, the loop on Accelerate, EMA, checkpoints, exact resume.

Flags follow the training examples of diffusers.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from diffusers import DDPMScheduler, ModelMixin
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from examples import ExampleConfig, RealMaps, SimulatedExamples, load_libraries
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from hsunmix.models import ResUNet1D
from hsunmix.simulation import SceneSimulator

logger = logging.getLogger(__name__)
Loss = Callable[[torch.nn.Module, dict], dict[str, torch.Tensor]]


def argument_parser(description: str) -> argparse.ArgumentParser:
    """Arguments that every training script has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--library", nargs="*", default=[], help="ENVI spectral libraries; built-in parametric spectra are added")
    add("--output_dir", type=Path, required=True, help="where checkpoints and the trained network go")
    add("--init_from", type=Path, default=None, help="folder of a trained network to start from")
    add("--maps", nargs="*", default=[], help="maps of real scenes from make_maps.py, mixed into the simulated ones")
    add("--endmember_unet", type=Path, default=None, help="trained ResUNet1D: maps are refined with its endmembers")
    add("--seed", type=int, default=0)
    add("--size", type=int, default=64, help="rows and columns of a simulated scene")
    add("--max_endmembers", type=int, default=7)
    add("--extraction", choices=("vca", "auto"), default="vca", help="endmembers of part of the scenes: fast, or real")
    add("--given_fraction", type=float, default=0.4, help="share of scenes whose endmembers are known exactly")
    add("--extracted_fraction", type=float, default=0.2, help="share of scenes whose endmembers are extracted")
    add("--train_batch_size", type=int, default=4, help="scenes per process and step")
    add("--gradient_accumulation_steps", type=int, default=1)
    add("--max_train_steps", type=int, default=2000)
    add("--learning_rate", type=float, default=1e-3)
    add("--lr_scheduler", default="cosine")
    add("--lr_warmup_steps", type=int, default=100)
    add("--adam_weight_decay", type=float, default=1e-4)
    add("--max_grad_norm", type=float, default=1.0)
    add("--ema_decay", type=float, default=0.999)
    add("--mixed_precision", choices=("no", "bf16", "fp16"), default="no")
    add("--checkpointing_steps", type=int, default=500)
    add("--checkpoints_total_limit", type=int, default=2)
    add("--resume_from_checkpoint", default=None, help="a checkpoint folder, or 'latest'")
    add("--dataloader_num_workers", type=int, default=1)
    add("--validation_steps", type=int, default=500)
    add("--validation_batches", type=int, default=16)
    return parser


def training_scheduler(num_train_timesteps: int) -> DDPMScheduler:
    """DDPM on the cosine schedule; the networks predict the clean sample."""
    return DDPMScheduler(
        num_train_timesteps=num_train_timesteps,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        clip_sample=False,
    )


def noised_sample(
    scheduler: DDPMScheduler,
    target: torch.Tensor,
    on_policy_fraction: float,
    first_estimate: Callable[[int], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a network is shown at a random noise level.

    Part of the batches is noised truth (DDPM). The others are what the deterministic sampler itself carries: half of
    them its start, nothing but the conditions; half its own first estimate without noise, else the network would take
    its own bias for a measurement and drift.

    Args:
        scheduler: of the training.
        target: (N, ...) clean sample.
        on_policy_fraction: share of batches of the second kind.
        first_estimate: maps the first timestep to the sampler's estimate of the clean sample after its first step.

    Returns:
        `(sample, timestep)`, shapes of `target` and (N,).
    """
    last = scheduler.config.num_train_timesteps - 1
    timestep = torch.randint(0, last, (len(target),), device=target.device)
    noise = torch.randn_like(target)
    draw = float(torch.rand(()))
    if draw >= on_policy_fraction:
        return scheduler.add_noise(target, noise, timestep), timestep
    if draw < on_policy_fraction / 2:
        return torch.zeros_like(target), torch.full_like(timestep, last)
    with torch.no_grad():
        estimate = first_estimate(last)
    return scheduler.add_noise(estimate, torch.zeros_like(noise), timestep), timestep


def train(args: argparse.Namespace, model: ModelMixin, loss_function: Loss) -> None:
    """Fit `model` on simulated scenes and leave its EMA weights in `args.output_dir`.

    Args:
        args: from `argument_parser`.
        model: the network to train, on any device.
        loss_function: maps `(model, batch)` to named losses; the entry `loss` is minimised, the others are reported.
    """
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        project_config=ProjectConfiguration(project_dir=str(args.output_dir)),
    )
    logging.basicConfig(level=logging.INFO if accelerator.is_main_process else logging.ERROR)
    set_seed(args.seed, device_specific=True)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.learning_rate, betas=(0.9, 0.99), weight_decay=args.adam_weight_decay
    )
    schedule = get_scheduler(
        args.lr_scheduler,
        optimizer,
        num_warmup_steps=args.lr_warmup_steps * accelerator.num_processes,
        num_training_steps=args.max_train_steps * accelerator.num_processes,
    )
    ema = EMAModel(model.parameters(), decay=args.ema_decay, use_ema_warmup=True, power=0.75)
    ema.to(accelerator.device)
    accelerator.register_for_checkpointing(ema)
    model, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)

    first_step = _resume(accelerator, args)
    batches = _batches(accelerator, args, first_step)
    started, log = time.time(), {}
    progress = tqdm(
        total=args.max_train_steps, initial=first_step, disable=not accelerator.is_local_main_process, mininterval=10
    )
    for step in range(first_step, args.max_train_steps):
        for _ in range(args.gradient_accumulation_steps):
            batch = _to_device(next(batches), accelerator.device)
            with accelerator.accumulate(model):
                with accelerator.autocast():
                    losses = loss_function(model, batch)
                accelerator.backward(losses["loss"])
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
        ema.step(model.parameters())
        for name, value in losses.items():
            log[name] = 0.98 * log.get(name, value.item()) + 0.02 * value.item()
        progress.update()
        progress.set_postfix({k: f"{v:.4f}" for k, v in log.items()}, refresh=False)
        if (step + 1) % args.checkpointing_steps == 0 or step + 1 == args.max_train_steps:
            _save(accelerator, args, model, ema, step + 1)
        if (step + 1) % args.validation_steps == 0 or step + 1 == args.max_train_steps:
            _validate(accelerator, args, model, ema, loss_function, step + 1, time.time() - started)
    accelerator.end_training()


def _simulator(args: argparse.Namespace, held_out: bool) -> SceneSimulator:
    libraries = load_libraries(args.library, held_out)
    return SceneSimulator(libraries or None, num_endmembers=(2, args.max_endmembers))


def _endmember_unet(args: argparse.Namespace) -> ResUNet1D | None:
    if args.endmember_unet is None:
        return None
    return ResUNet1D.from_pretrained(args.endmember_unet).requires_grad_(False).eval()


def _example_config(args: argparse.Namespace, batch_size: int) -> ExampleConfig:
    return ExampleConfig(
        batch_size=batch_size,
        size=args.size,
        num_endmembers=(2, args.max_endmembers),
        given_fraction=args.given_fraction,
        extracted_fraction=args.extracted_fraction,
        extraction=args.extraction,
    )


def _batches(accelerator: Accelerator, args: argparse.Namespace, first_step: int):
    """This rank's part of the stream, from where the run stopped."""
    config = _example_config(args, args.train_batch_size)
    rank, world = accelerator.process_index, accelerator.num_processes
    total = args.max_train_steps * args.gradient_accumulation_steps * world
    start = first_step * args.gradient_accumulation_steps * world + rank
    maps = RealMaps(args.maps) if args.maps else None
    examples = SimulatedExamples(
        _simulator(args, held_out=False), config, args.seed + 1, total, maps, _endmember_unet(args)
    )
    return iter(
        DataLoader(
            examples,
            batch_size=None,
            sampler=range(start, total, world),
            num_workers=args.dataloader_num_workers,
            generator=torch.Generator(),  # the loader must not draw from the global stream, which resuming restores
            prefetch_factor=4 if args.dataloader_num_workers else None,
        )
    )


def _to_device(batch: dict, device: torch.device) -> dict:
    return {key: value if value is None else value.to(device, non_blocking=True) for key, value in batch.items()}


def _save(accelerator: Accelerator, args: argparse.Namespace, model, ema: EMAModel, step: int) -> None:
    accelerator.save_state(str(args.output_dir / f"checkpoint-{step}"))
    if accelerator.is_main_process:
        _save_ema(accelerator.unwrap_model(model), ema, args.output_dir)
        found = sorted(args.output_dir.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
        for folder in found[: -args.checkpoints_total_limit]:
            shutil.rmtree(folder)
    accelerator.wait_for_everyone()


def _save_ema(model: ModelMixin, ema: EMAModel, folder: Path) -> None:
    ema.store(model.parameters())
    ema.copy_to(model.parameters())
    model.save_pretrained(str(folder))
    ema.restore(model.parameters())


def _resume(accelerator: Accelerator, args: argparse.Namespace) -> int:
    if args.resume_from_checkpoint is None:
        return 0
    folder = Path(args.resume_from_checkpoint)
    if args.resume_from_checkpoint == "latest":
        found = sorted(args.output_dir.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
        if not found:
            logger.warning("No checkpoint in %s: starting from the beginning.", args.output_dir)
            return 0
        folder = found[-1]
    accelerator.load_state(str(folder))
    return int(folder.name.split("-")[1])


@torch.no_grad()
def _validate(accelerator, args, model, ema: EMAModel, loss_function: Loss, step: int, seconds: float) -> None:
    """Mean losses of the EMA weights on held-out materials, appended to `validation.jsonl`."""
    if not accelerator.is_main_process:
        return
    config = _example_config(args, 1)
    examples = SimulatedExamples(
        _simulator(args, held_out=True), config, 10_007, args.validation_batches, None, _endmember_unet(args)
    )
    plain = accelerator.unwrap_model(model)
    ema.store(plain.parameters())
    ema.copy_to(plain.parameters())
    state = torch.get_rng_state()
    torch.manual_seed(0)
    totals: dict[str, float] = {}
    for index in range(len(examples)):
        with accelerator.autocast():
            losses = loss_function(plain, _to_device(examples[index], accelerator.device))
        for name, value in losses.items():
            totals[name] = totals.get(name, 0.0) + value.item() / len(examples)
    torch.set_rng_state(state)
    ema.restore(plain.parameters())
    record = {"step": step, "seconds": round(seconds, 1), **{k: round(v, 6) for k, v in totals.items()}}
    logger.info("validation %s", record)
    with open(args.output_dir / "validation.jsonl", "a") as file:
        file.write(json.dumps(record) + "\n")
