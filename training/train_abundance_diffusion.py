"""Run as `accelerate launch training/train_abundance_diffusion.py --output_dir ...`; `--help` lists the options."""

from hsunmix.training.scripts import train_abundance_diffusion

if __name__ == "__main__":
    train_abundance_diffusion()
