"""Train ResUNet2D, the diffusion network over abundance maps (DDPM), on what the frozen encoder makes of noisy scenes.

Run as `accelerate launch training/train_abundance_diffusion.py --encoder runs/encoder --output_dir runs/maps`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from common import argument_parser, noised_sample, train, training_scheduler
from diffusers import DDPMScheduler

from hsunmix.models import HybridSTU, ResUNet2D, laplace_nll
from hsunmix.pipelines.chain import LEAST_PRIOR_STD


def loss_function(
    model: torch.nn.Module, batch: dict, encoder: HybridSTU, scheduler: DDPMScheduler, on_policy_fraction: float
) -> dict[str, torch.Tensor]:
    """Error of the predicted clean maps at a random noise level, and the likelihood of the error expected."""
    encoder.to(batch["cube"].device)
    with torch.no_grad():
        coarse = encoder(batch["cube"], batch["coarse_endmembers"], batch["evidence"], batch["wavelengths"])
    conditions = (coarse.abundances, coarse.log_std, batch["refined_evidence"])
    target = 2 * batch["abundances"] - 1

    def first_estimate(timestep: int) -> torch.Tensor:
        clean, log_std = model(torch.zeros_like(target), timestep, *conditions, return_dict=False)
        return 2 * consistent_maps((clean.float() + 1) / 2, log_std.float().exp() / 2, batch) - 1

    sample, timestep = noised_sample(scheduler, target, on_policy_fraction, first_estimate)
    clean, log_std = model(sample, timestep, *conditions, return_dict=False)
    error = clean.float() - target
    closed_form = batch["refined_evidence"][:, :, 0] - target
    return {
        "loss": laplace_nll(error, log_std.float()) + error.square().mean(),
        "rmse": error.square().mean().sqrt() / 2,
        "coarse_rmse": (coarse.abundances.float() - batch["abundances"]).square().mean().sqrt(),
        "closed_form_rmse": closed_form.square().mean().sqrt() / 2,
    }


def consistent_maps(clean: torch.Tensor, std: torch.Tensor, batch: dict, guidance_scale: float = 0.5) -> torch.Tensor:
    """The sampler's A-step for a batch: abundance maps (N, R, H, W) with their expected errors, pulled onto the data.

    Bounds are put on afterwards instead of in the solve, which makes it differentiable.
    """
    brightness = batch["brightness"].double()[..., None].clamp_min(1e-6)  # [N, P, 1]
    abundances, std = (x.flatten(2).transpose(1, 2).double() for x in (clean.clamp(0, 1), std))  # [N, P, R]
    abundances = abundances / abundances.sum(-1, keepdim=True).clamp_min(1e-6)
    precision = (brightness * (std.square() + LEAST_PRIOR_STD**2).sqrt()).square().reciprocal() / guidance_scale
    trust = precision / batch["confidence"].double()[..., None]
    system = batch["gram"].double()[:, None] + torch.diag_embed(trust)  # [N, P, R, R]
    scaled = torch.linalg.solve(system, batch["rhs"].double() + trust * brightness * abundances).clamp_min(0)
    maps = scaled / scaled.sum(-1, keepdim=True).clamp_min(1e-9)
    return maps.transpose(1, 2).unflatten(2, clean.shape[2:]).float()


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--encoder", type=Path, required=True, help="folder of the trained HybridSTU")
    parser.add_argument(
        "--on_policy_fraction", type=float, default=0.6, help="share of batches from the sampler itself"
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
