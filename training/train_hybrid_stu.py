"""Train HybridSTU, the network of the coarse abundances, with SAM + MSE losses on simulated scenes.

Run as `accelerate launch training/train_hybrid_stu.py --library usgs.hdr --output_dir runs/encoder`.
"""

from __future__ import annotations

import torch
from common import argument_parser, train

from hsunmix.models import HybridSTU, laplace_nll, unmixing_loss


def loss_function(model: torch.nn.Module, batch: dict) -> dict[str, torch.Tensor]:
    """SAM + MSE, and the likelihood of the error that the network expects of itself."""
    target = batch["abundances"]
    abundances, log_std = model(
        batch["cube"], batch["coarse_endmembers"], batch["evidence"], batch["wavelengths"], return_dict=False
    )
    error = abundances.float() - target
    likelihood = laplace_nll(error, log_std.float())
    fit = unmixing_loss(abundances.float(), target, batch["endmembers"], spectral_weight=0.05)
    closed_form = (batch["evidence"][:, :, 0] + 1) / 2 - target
    return {
        "loss": likelihood + fit,
        "rmse": error.square().mean().sqrt(),
        "closed_form_rmse": closed_form.square().mean().sqrt(),
    }


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    network = HybridSTU.from_pretrained(args.init_from) if args.init_from else HybridSTU()
    train(args, network, loss_function)
