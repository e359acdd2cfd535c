"""Run as `accelerate launch training/train_endmember_diffusion.py --output_dir ...`; `--help` lists the options."""

from hsunmix.training.scripts import train_endmember_diffusion

if __name__ == "__main__":
    train_endmember_diffusion()
