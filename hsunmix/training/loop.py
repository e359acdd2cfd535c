"""The training loop that all stages share, on Accelerate: EMA, checkpoints, exact resume, validation, trackers."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..models import ResUNet1D
from ..simulation import SceneSimulator
from .examples import ExampleConfig, SimulatedExamples, load_libraries, turned
from .labelled import LabelledScenes
from .real_maps import RealMaps

logger = logging.getLogger(__name__)
Loss = Callable[[torch.nn.Module, dict], dict[str, torch.Tensor]]
# Seconds to wait for a batch: a worker that can't hand one over, as with a temporary folder of too long a name for a
# socket, says so on its standard error and lives on, and the training would wait for ever.
_PATIENCE = 600


def train(
    args: argparse.Namespace,
    model: Any,
    loss_function: Loss,
    examples: Callable[[int], Dataset] | None = None,
    held_out: Any = None,
) -> bool:
    """Fit `model` and leave its EMA weights in `args.output_dir`.

    Args:
        args: from `argument_parser`.
        model: the network to train, on any device; a module with `save_pretrained`.
        loss_function: maps `(model, batch)` to named losses; the entry `loss` is minimised, the others are reported.
        examples: maps a number of batches to the data set that holds them; simulated scenes when `None`.
        held_out: sequence of batches for validation; simulated scenes of materials held out of training when `None`.

    Returns:
        Whether this is the main process, the one that has written.

    Raises:
        ValueError: if the network is to be uploaded and no repository is named.
        RuntimeError: no batch comes for ten minutes.
    """
    if args.push_to_hub and not args.hub_model_id:
        raise ValueError("`--push_to_hub` needs `--hub_model_id`, the repository 'user/name'.")
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        log_with=None if args.report_to == "none" else args.report_to,
        project_config=ProjectConfiguration(project_dir=str(args.output_dir)),
    )
    args.output_dir.mkdir(parents=True, exist_ok=True)
    logging.basicConfig()
    package = logging.getLogger("hsunmix")
    if package.level == logging.NOTSET and accelerator.is_main_process and not args.quiet:
        package.setLevel(logging.INFO)
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
    accelerator.init_trackers("hsunmix", {k: v for k, v in vars(args).items() if isinstance(v, (str, int, float))})

    first_step = _resume(accelerator, args)
    batches = _batches(accelerator, args, first_step, examples or partial(_examples, args))
    held_out = held_out or _held_out_examples(args)
    started = time.time()
    log: dict[str, float] = {}
    progress = tqdm(
        total=args.max_train_steps,
        initial=first_step,
        disable=args.quiet or not accelerator.is_local_main_process,
        mininterval=10,
    )
    for step in range(first_step, args.max_train_steps):
        for _ in range(args.gradient_accumulation_steps):
            batch = next(batches)
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
        accelerator.log(log | {"learning_rate": schedule.get_last_lr()[0]}, step=step + 1)
        if (step + 1) % args.checkpointing_steps == 0 or step + 1 == args.max_train_steps:
            _save(accelerator, args, model, ema, step + 1)
        if (step + 1) % args.validation_steps == 0 or step + 1 == args.max_train_steps:
            _validate(accelerator, args, model, ema, loss_function, held_out, step + 1, time.time() - started)
    if args.push_to_hub and accelerator.is_main_process:
        type(accelerator.unwrap_model(model)).from_pretrained(args.output_dir).push_to_hub(args.hub_model_id)
    accelerator.end_training()
    return bool(accelerator.is_main_process)


def _simulator(args: argparse.Namespace, held_out: bool) -> SceneSimulator:
    libraries = load_libraries(args.library, held_out)
    plain = 0.0 if held_out else args.plain_fraction  # validation stays comparable
    return SceneSimulator(libraries or None, num_endmembers=(2, args.max_endmembers), plain_probability=plain)


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
        corrected_fraction=args.corrected_fraction,
        misfit_fraction=args.misfit_fraction,
        labelled_fraction=args.labelled_fraction,
        refined=args.refined,
    )


def _examples(args: argparse.Namespace, length: int) -> SimulatedExamples:
    return SimulatedExamples(
        _simulator(args, held_out=False),
        _example_config(args, args.train_batch_size),
        args.seed + 1,
        length,
        RealMaps(args.maps) if args.maps else None,
        _endmember_unet(args),
        LabelledScenes(args.labelled) if args.labelled else None,
    )


def _batches(
    accelerator: Accelerator, args: argparse.Namespace, first_step: int, examples: Callable[[int], Dataset]
) -> Iterator[dict]:
    """This rank's part of the stream, from where the run stopped; every batch in `args.echoes` orientations."""
    rank, world = accelerator.process_index, accelerator.num_processes
    length = -(-args.max_train_steps * args.gradient_accumulation_steps // args.echoes)
    used = first_step * args.gradient_accumulation_steps
    loader = DataLoader(
        examples(length * world),
        batch_size=None,
        sampler=range(used // args.echoes * world + rank, length * world, world),
        num_workers=args.dataloader_num_workers,
        generator=torch.Generator(),  # the loader must not draw from the global stream, which resuming restores
        prefetch_factor=4 if args.dataloader_num_workers else None,
        timeout=_PATIENCE if args.dataloader_num_workers else 0,
    )
    skip = used % args.echoes
    for batch in loader:
        batch = _to_device(batch, accelerator.device)
        for echo in range(skip, args.echoes):
            yield turned(batch, 3 * echo % 8)
        skip = 0


def _to_device(batch: dict, device: torch.device) -> dict:
    return {key: value if value is None else value.to(device, non_blocking=True) for key, value in batch.items()}


def _save(accelerator: Accelerator, args: argparse.Namespace, model: Any, ema: EMAModel, step: int) -> None:
    unfinished = args.output_dir / "checkpoint.partial"  # a crash while saving must not leave half a checkpoint behind
    accelerator.save_state(str(unfinished))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        folder = args.output_dir / f"checkpoint-{step}"
        if folder.exists():  # of a run that was resumed from an earlier one
            shutil.rmtree(folder)
        unfinished.replace(folder)
        _save_ema(accelerator.unwrap_model(model), ema, args.output_dir)
        found = sorted(args.output_dir.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
        for folder in found[: -args.checkpoints_total_limit]:
            shutil.rmtree(folder)
    accelerator.wait_for_everyone()


def _save_ema(model: Any, ema: EMAModel, folder: Path) -> None:
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


def _held_out_examples(args: argparse.Namespace) -> SimulatedExamples:
    return SimulatedExamples(
        _simulator(args, held_out=True),
        _example_config(args, 1),
        seed=10_007,
        length=args.validation_batches,
        endmember_unet=_endmember_unet(args),
    )


@torch.no_grad()
def _validate(
    accelerator: Accelerator,
    args: argparse.Namespace,
    model: Any,
    ema: EMAModel,
    loss_function: Loss,
    examples: Any,
    step: int,
    seconds: float,
) -> None:
    """Mean losses of the EMA weights on held-out materials, appended to `validation.jsonl`."""
    if not accelerator.is_main_process:
        return
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
    accelerator.log({f"validation/{k}": v for k, v in totals.items()}, step=step)
    with open(args.output_dir / "validation.jsonl", "a") as file:
        file.write(json.dumps(record) + "\n")
