"""Train ResUNet2D, the diffusion network over abundance maps (DDPM), on what the frozen encoder makes of noisy scenes.

Run as `accelerate launch training/train_abundance_diffusion.py --encoder runs/encoder --output_dir runs/maps`.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import torch
from common import argument_parser, train, training_scheduler
from diffusers import DDPMScheduler

from hsunmix.models import HybridSTU, ResUNet2D, laplace_nll


def loss_function(
    model: torch.nn.Module, batch: dict, encoder: HybridSTU, scheduler: DDPMScheduler, on_policy_fraction: float
) -> dict[str, torch.Tensor]:
    """Error of the predicted clean maps at a random noise level, and the likelihood of the error expected.

    Part of the batches is noised truth (DDPM). The others are what the deterministic sampler itself carries from step
    to step, its own first estimate without noise: else the network takes its own bias for a measurement.
    """
    encoder.to(batch["cube"].device)
    with torch.no_grad():
        coarse = encoder(batch["cube"], batch["coarse_endmembers"], batch["evidence"], batch["wavelengths"])
    conditions = (coarse.abundances, coarse.log_std, batch["moved_evidence"])
    target = 2 * batch["abundances"] - 1
    steps = scheduler.config.num_train_timesteps
    timestep = torch.randint(0, steps, (len(target),), device=target.device)
    noise = torch.randn_like(target)
    if torch.rand(()) < on_policy_fraction:
        with torch.no_grad():
            estimate = first_estimate(model, conditions, steps)
        sample = scheduler.add_noise(estimate, torch.zeros_like(noise), timestep)
    else:
        sample = scheduler.add_noise(target, noise, timestep)
    clean, log_std = model(sample, timestep, *conditions, return_dict=False)
    error = clean.float() - target
    closed_form = batch["moved_evidence"][:, :, 0] - target
    return {
        "loss": laplace_nll(error, log_std.float()) + error.square().mean(),
        "rmse": error.square().mean().sqrt() / 2,
        "coarse_rmse": (coarse.abundances.float() - batch["abundances"]).square().mean().sqrt(),
        "closed_form_rmse": closed_form.square().mean().sqrt() / 2,
    }


def first_estimate(model: torch.nn.Module, conditions: tuple, steps: int) -> torch.Tensor:
    """Clean maps (N, R, H, W) as the sampler has them after its first step, consistency with the data included."""
    coarse, _, evidence = conditions
    start = torch.zeros_like(coarse, dtype=torch.float32)
    clean, log_std = model(start, steps - 1, *conditions, return_dict=False)
    data, data_log_std = evidence[:, :, 0], (evidence[:, :, 1] - 1.5) * 1.5 * math.log(10) + math.log(2)
    weight = torch.sigmoid(2 * (log_std.float() - data_log_std))  # of the data, by the two expected errors
    return weight * data + (1 - weight) * clean.float()


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--encoder", type=Path, required=True, help="folder of the trained HybridSTU")
    parser.add_argument(
        "--on_policy_fraction", type=float, default=0.5, help="share of batches from the sampler itself"
    )
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    frozen = HybridSTU.from_pretrained(args.encoder).requires_grad_(False).eval()
    network = ResUNet2D.from_pretrained(args.init_from) if args.init_from else ResUNet2D()
    ddpm = training_scheduler(network.config.num_train_timesteps)
    train(
        args,
        network,
        partial(loss_function, encoder=frozen, scheduler=ddpm, on_policy_fraction=args.on_policy_fraction),
    )
