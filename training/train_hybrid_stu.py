"""Run as `accelerate launch training/train_hybrid_stu.py --output_dir ...`; `--help` lists the options."""

from hsunmix.training.scripts import train_hybrid_stu

if __name__ == "__main__":
    train_hybrid_stu()
