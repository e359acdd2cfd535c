"""Put three trained networks and their schedulers together as a pipeline folder.

Run as `python training/assemble_pipeline.py --encoder A --unet B --endmember_unet C --output_dir pipeline`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from diffusers import DDIMScheduler

from hsunmix import SemiBlindUnmixingPipeline
from hsunmix.models import HybridSTU, ResUNet1D, ResUNet2D


def make_scheduler(num_train_timesteps: int) -> DDIMScheduler:
    """DDIM on the cosine schedule of training, from pure noise down to nothing left."""
    return DDIMScheduler(
        num_train_timesteps=num_train_timesteps,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )


def assemble(encoder: Path, unet: Path, endmember_unet: Path, **settings: float) -> SemiBlindUnmixingPipeline:
    """Build the pipeline from folders of trained networks; `settings` are its configuration."""
    coarse, maps = HybridSTU.from_pretrained(encoder), ResUNet2D.from_pretrained(unet)
    spectra = ResUNet1D.from_pretrained(endmember_unet)
    for network in (coarse, maps, spectra):
        network.register_to_config(_name_or_path="")  # no folder of the training machine in what is published
    return SemiBlindUnmixingPipeline(
        encoder=coarse,
        unet=maps,
        endmember_unet=spectra,
        scheduler=make_scheduler(maps.config.num_train_timesteps),
        endmember_scheduler=make_scheduler(spectra.config.num_train_timesteps),
        **settings,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("encoder", "unet", "endmember_unet", "output_dir"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    assemble(args.encoder, args.unet, args.endmember_unet).save_pretrained(args.output_dir)
