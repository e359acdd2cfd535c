"""`accelerate launch -m hsunmix.training NAME ...` runs a training script by name."""

import sys

from .scripts import SCRIPTS

if len(sys.argv) < 2 or sys.argv[1] not in SCRIPTS:
    sys.exit(f"usage: python -m hsunmix.training {{{','.join(SCRIPTS)}}} [options]")
SCRIPTS[sys.argv[1]](sys.argv[2:])
