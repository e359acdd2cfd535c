"""Measure a pipeline on simulated scenes of materials that were held out of training, by track and noise level.

Run as `python training/validate_pipeline.py --library usgs.hdr --scenes 10`; prints the table.
"""

from __future__ import annotations

import argparse

from hsunmix import SemiBlindUnmixingPipeline, bundled_checkpoint
from hsunmix.training import as_markdown, validate, validation_scenes

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=None, help="folder or Hub repository; the bundled one by default")
    parser.add_argument("--library", nargs="*", default=[], help="ENVI spectral libraries")
    parser.add_argument("--scenes", type=int, default=10)
    parser.add_argument("--snr", type=float, nargs="+", default=[10.0, 20.0, 30.0], help="dB")
    parser.add_argument("--by_number", action="store_true", help="a row for each number of endmembers")
    args = parser.parse_args()
    pipe = SemiBlindUnmixingPipeline.from_pretrained(args.checkpoint or bundled_checkpoint("base"))
    scenes = validation_scenes(args.library, args.scenes)
    print(as_markdown(validate(pipe, args.checkpoint or "base", scenes, args.snr, args.by_number)))
