"""Run as `accelerate launch training/train_joint.py --output_dir ...`; `--help` lists the options."""

from hsunmix.training.scripts import train_joint

if __name__ == "__main__":
    train_joint()
