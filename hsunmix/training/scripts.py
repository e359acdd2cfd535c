"""The training scripts: one for each network and one for all three together.

`training/train_*.py` call these functions; `python -m hsunmix.training NAME` does the same from an installed package.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from ..hub import NETWORKS
from ..models import HybridSTU, ResUNet1D, ResUNet2D
from .arguments import argument_parser
from .assemble import Network
from .joint import JointModel, joint_loss
from .loop import train
from .losses import abundance_loss, coarse_loss, endmember_loss, training_scheduler


def train_hybrid_stu(argv: Sequence[str] | None = None) -> None:
    """Train HybridSTU, the network of the coarse abundances, with SAM + MSE losses on simulated scenes."""
    parser = argument_parser(train_hybrid_stu.__doc__ or "")
    parser.set_defaults(refined=False)
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)
    train(args, _network(HybridSTU, args), coarse_loss)


def train_endmember_diffusion(argv: Sequence[str] | None = None) -> None:
    """Train ResUNet1D, the diffusion network over endmember spectra (DDPM), on spoiled and on extracted spectra."""
    parser = argument_parser(train_endmember_diffusion.__doc__ or "")
    parser.set_defaults(refined=False)
    _add_on_policy(parser)
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)
    network = _network(ResUNet1D, args)
    ddpm = training_scheduler(network.config.num_train_timesteps)
    train(args, network, partial(endmember_loss, scheduler=ddpm, on_policy_fraction=args.on_policy_fraction))


def train_abundance_diffusion(argv: Sequence[str] | None = None) -> None:
    """Train ResUNet2D, the diffusion network over abundance maps (DDPM).

    It is conditioned on what the frozen encoder makes of noisy scenes, and the frozen endmember network of spectra.
    """
    parser = argument_parser(train_abundance_diffusion.__doc__ or "")
    parser.add_argument("--encoder", type=Path, required=True, help="folder of the trained HybridSTU")
    _add_on_policy(parser)
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)
    encoder = HybridSTU.from_pretrained(args.encoder).requires_grad_(False).eval()
    network = _network(ResUNet2D, args)
    ddpm = training_scheduler(network.config.num_train_timesteps)
    loss = partial(abundance_loss, encoder=encoder, scheduler=ddpm, on_policy_fraction=args.on_policy_fraction)
    train(args, network, loss)


def train_joint(argv: Sequence[str] | None = None) -> None:
    """Train all three networks end to end through a few unrolled steps of the sampler, data consistency included."""
    parser = argument_parser(train_joint.__doc__ or "")
    parser.add_argument("--encoder", type=Path, required=True, help="folder of the trained HybridSTU")
    parser.add_argument("--unet", type=Path, required=True, help="folder of the trained ResUNet2D")
    parser.add_argument("--unrolled_steps", type=int, default=2, help="denoising steps that the gradient runs through")
    parser.add_argument("--train", nargs="+", choices=NETWORKS, default=NETWORKS, help="networks that change")
    parser.add_argument("--relative_loss", action="store_true", help="errors of a scene count by their logarithm")
    parser.set_defaults(
        learning_rate=1e-4, train_batch_size=2, refined=False, extracted_fraction=0.35, corrected_fraction=0.75
    )
    args = parser.parse_args(argv)
    if args.endmember_unet is None:
        parser.error("--endmember_unet is required: the folder of the trained ResUNet1D")
    if args.model_config is not None:
        parser.error("--model_config is for networks that begin from nothing: those of a joint training are given")
    if args.push_to_hub:
        parser.error("--push_to_hub uploads single networks: assemble the pipeline and upload that")
    torch.manual_seed(args.seed)
    model = JointModel.from_pretrained(args.encoder, args.unet, args.endmember_unet)
    args.endmember_unet = None  # it runs inside the loss
    for name in set(NETWORKS) - set(args.train):
        getattr(model, name).requires_grad_(False)
    train(args, model, partial(joint_loss, num_steps=args.unrolled_steps, relative=args.relative_loss))


SCRIPTS: dict[str, Callable[[Sequence[str] | None], None]] = {
    "hybrid_stu": train_hybrid_stu,
    "endmember_diffusion": train_endmember_diffusion,
    "abundance_diffusion": train_abundance_diffusion,
    "joint": train_joint,
}
"""Training scripts by name."""


def _network(kind: type[Network], args: argparse.Namespace) -> Network:
    """The network to train: a trained one, one of the size that a configuration says, or one of the default size."""
    if args.init_from and args.model_config:
        raise ValueError("`--init_from` brings its own configuration: leave out `--model_config`.")
    if args.init_from:
        return kind.from_pretrained(args.init_from)
    if args.model_config:
        return kind.from_config(json.loads(args.model_config.read_text(encoding="utf-8")))
    return kind()


def _add_on_policy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--on_policy_fraction", type=float, default=0.6, help="share of batches that show what the sampler carries"
    )
