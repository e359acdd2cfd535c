"""Arguments that all training scripts share, named as in the examples of diffusers."""

from __future__ import annotations

import argparse
from pathlib import Path


def argument_parser(description: str) -> argparse.ArgumentParser:
    """Arguments that every training script has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--library", nargs="*", default=[], help="ENVI spectral libraries; built-in parametric spectra are added")
    add("--output_dir", type=Path, required=True, help="where checkpoints and the trained network go")
    add("--init_from", type=Path, default=None, help="folder of a trained network to start from")
    add("--model_config", type=Path, default=None, help="config.json of the network, where it is to differ in size")
    add("--maps", nargs="*", default=[], help="maps of real scenes from make_maps.py, mixed into the simulated ones")
    add("--labelled", nargs="*", default=[], help="cubes with NAME_reference.npz beside them, for supervised patches")
    add("--labelled_fraction", type=float, default=0.5, help="share of batches from labelled scenes, if there are any")
    add("--endmember_unet", type=Path, default=None, help="trained ResUNet1D: maps are refined with its endmembers")
    add("--seed", type=int, default=0)
    add("--size", type=int, default=64, help="rows and columns of a simulated scene")
    add("--max_endmembers", type=int, default=7)
    add("--given_fraction", type=float, default=0.4, help="share of scenes whose endmembers are known exactly")
    add("--extracted_fraction", type=float, default=0.2, help="share of scenes whose endmembers are extracted")
    add("--corrected_fraction", type=float, default=0.0, help="share of these that are as near as the pipeline's own")
    add("--misfit_fraction", type=float, default=0.0, help="share of quiet scenes that no mixture explains wholly")
    add("--plain_fraction", type=float, default=0.4, help="share of scenes of sharp regions that have no texture")
    add("--train_batch_size", type=int, default=4, help="scenes per process and step")
    add("--echoes", type=int, default=1, help="steps on every batch, each flipped or turned differently (Choi, 2019)")
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
    add("--report_to", choices=("none", "tensorboard"), default="none", help="where to log the losses")
    add("--quiet", action="store_true", help="no progress bar")
    add("--push_to_hub", action="store_true", help="upload the trained network")
    add("--hub_model_id", default=None, help="repository for --push_to_hub, 'user/name'")
    parser.set_defaults(refined=True)  # a script's own business: whether its examples hold refined endmembers too
    return parser
