"""Train ResUNet1D, the diffusion network over endmember spectra (DDPM), on spoiled spectra and the data around them.

Run as `accelerate launch training/train_endmember_diffusion.py --output_dir runs/spectra --size 32`.
"""

from __future__ import annotations

from functools import partial

import torch
from common import argument_parser, noised_sample, train, training_scheduler
from diffusers import DDPMScheduler

from hsunmix.models import ResUNet1D, laplace_nll, spectral_angle_loss
from hsunmix.physics import spectral_angle


def loss_function(
    model: torch.nn.Module, batch: dict, scheduler: DDPMScheduler, on_policy_fraction: float
) -> dict[str, torch.Tensor]:
    """MSE + SAM of the predicted clean spectra at a random noise level, and the likelihood of the error expected."""
    coarse, truth = batch["coarse_endmembers"], batch["endmembers"]
    scale = coarse.amax(-1, keepdim=True).clamp_min(1e-3)
    gain = (coarse * truth).sum(-1, keepdim=True) / truth.square().sum(-1, keepdim=True)
    truth = truth * gain / scale  # the scale of an endmember is not the network's business
    coarse, moved, moved_std = (x / scale for x in (coarse, batch["moved_endmembers"], batch["moved_std"]))
    conditions = (coarse, moved, moved_std, batch["statistics"], batch["wavelengths"])
    target = 2 * truth - 1

    def first_estimate(timestep: int) -> torch.Tensor:
        return model(torch.zeros_like(target), timestep, *conditions, return_dict=False)[0].float()

    sample, timestep = noised_sample(scheduler, target, on_policy_fraction, first_estimate)
    clean, log_std = model(sample, timestep, *conditions, return_dict=False)
    error = clean.float() - target
    predicted = (clean.float() + 1) / 2
    angle = spectral_angle_loss(predicted, truth)
    return {
        "loss": laplace_nll(error, log_std.float()) + error.square().mean() + 0.5 * angle,
        "sad": angle,
        "coarse_sad": spectral_angle(coarse, truth).mean(),
        "moved_sad": spectral_angle(moved, truth).mean(),
    }


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--on_policy_fraction", type=float, default=0.6, help="share of batches from the sampler itself"
    )
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    network = ResUNet1D.from_pretrained(args.init_from) if args.init_from else ResUNet1D()
    ddpm = training_scheduler(network.config.num_train_timesteps)
    train(args, network, partial(loss_function, scheduler=ddpm, on_policy_fraction=args.on_policy_fraction))
