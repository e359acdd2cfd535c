"""Put three trained networks and their schedulers together as a pipeline folder.

Run as `python training/assemble_pipeline.py --encoder A --unet B --endmember_unet C --output_dir pipeline`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hsunmix.training import assemble

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("encoder", "unet", "endmember_unet", "output_dir"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    assemble(args.encoder, args.unet, args.endmember_unet).save_pretrained(args.output_dir)
