"""Train ResUNet2D, the diffusion network over abundance maps (DDPM), on what the frozen encoder makes of noisy scenes.

Run as `accelerate launch training/train_abundance_diffusion.py --encoder runs/encoder --output_dir runs/maps`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from common import argument_parser, train
from diffusers import DDPMScheduler

from hsunmix.models import HybridSTU, ResUNet2D, laplace_nll


def loss_function(
    model: torch.nn.Module, batch: dict, encoder: HybridSTU, scheduler: DDPMScheduler
) -> dict[str, torch.Tensor]:
    """Error of the predicted clean maps at a random noise level, and the likelihood of the error expected."""
    encoder.to(batch["cube"].device)
    with torch.no_grad():
        coarse = encoder(batch["cube"], batch["coarse_endmembers"], batch["evidence"], batch["wavelengths"])
    target = 2 * batch["abundances"] - 1
    timestep = torch.randint(0, scheduler.config.num_train_timesteps, (len(target),), device=target.device)
    noise = torch.randn_like(target)
    sample = scheduler.add_noise(target, noise, timestep)
    clean, log_std = model(
        sample, timestep, coarse.abundances, coarse.log_std, batch["moved_evidence"], return_dict=False
    )
    error = clean.float() - target
    closed_form = batch["moved_evidence"][:, :, 0] - target
    return {
        "loss": laplace_nll(error, log_std.float()) + error.square().mean(),
        "rmse": error.square().mean().sqrt() / 2,
        "coarse_rmse": (coarse.abundances.float() - batch["abundances"]).square().mean().sqrt(),
        "closed_form_rmse": closed_form.square().mean().sqrt() / 2,
    }


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--encoder", type=Path, required=True, help="folder of the trained HybridSTU")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    frozen = HybridSTU.from_pretrained(args.encoder).requires_grad_(False).eval()
    network = ResUNet2D.from_pretrained(args.init_from) if args.init_from else ResUNet2D()
    ddpm = DDPMScheduler(
        num_train_timesteps=network.config.num_train_timesteps,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        clip_sample=False,
    )
    train(args, network, partial(loss_function, encoder=frozen, scheduler=ddpm))
