"""Fit a pretrained pipeline to one unlabelled scene: the same as `hsunmix adapt`, for `accelerate launch`.

`accelerate launch training/adapt_scene.py scene.hdr -r 4 -o adapted`; `--help` lists the options.
"""

import sys

from hsunmix.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["adapt", *sys.argv[1:]]))
