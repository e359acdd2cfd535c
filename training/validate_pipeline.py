"""Measure a pipeline on simulated scenes of materials that were held out of training, by track and noise level.

Run as `python training/validate_pipeline.py --library usgs.hdr --scenes 10`; prints the table,
and with `--output validation.json` writes the numbers, from which the model card is made.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hsunmix import SemiBlindUnmixingPipeline, bundled_checkpoint
from hsunmix.cli.common import measurement
from hsunmix.data import write_json
from hsunmix.training import as_markdown, validate, validation_scenes

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=None, help="folder or Hub repository; the bundled one by default")
    parser.add_argument("--library", nargs="*", default=[], help="ENVI spectral libraries")
    parser.add_argument("--scenes", type=int, default=10)
    parser.add_argument("--snr", type=float, nargs="+", default=[10.0, 20.0, 30.0], help="dB")
    parser.add_argument("--by_number", action="store_true", help="a row for each number of endmembers")
    parser.add_argument(
        "--track",
        nargs="+",
        choices=("given", "perturbed", "unmoved"),
        default=["given", "perturbed"],
        help="endmembers exact; 5 degrees off; 5 degrees off and left there, to see what the maps alone gain",
    )
    parser.add_argument(
        "--no-facets", action="store_false", dest="facets", help="don't move endmembers to the facets of the pixels"
    )
    parser.add_argument("--steps", type=int, nargs="+", help="denoising steps, one table after another")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    args = parser.parse_args()
    pipe = SemiBlindUnmixingPipeline.from_pretrained(args.checkpoint or bundled_checkpoint("base"))
    scenes = validation_scenes(args.library, args.scenes)
    name = Path(args.checkpoint or "base").name
    records = []
    for steps in args.steps or [None]:
        label = name if steps is None else f"{name}, {steps} steps"
        settings = {"num_inference_steps": steps, "facets": args.facets}
        records += validate(pipe, label, scenes, args.snr, args.by_number, args.track, **settings)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.output, measurement(pipe, args, records))
    print(as_markdown(records))
