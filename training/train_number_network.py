"""Train the network that says how many endmembers a scene has.

`python training/train_number_network.py --library usgs.hdr --maps maps/*.npz --output_dir runs/number`; a tenth of a
second a scene on one core, then a minute. What was simulated is kept, and a run that was interrupted goes on. Writes
`number.safetensors` and prints what it reaches on scenes of held-out materials.
"""

import argparse
from pathlib import Path

from hsunmix.training.number import NumberScenes, describe_scenes, fit_number, within_one

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", nargs="*", default=[], help="ENVI spectral libraries")
    parser.add_argument("--maps", nargs="*", default=[], help="maps of real scenes from make_maps.py")
    parser.add_argument("--scenes", type=int, default=6000)
    parser.add_argument("--held_out_scenes", type=int, default=400)
    parser.add_argument("--first_seed", type=int, default=300_000)
    parser.add_argument("--output_dir", type=Path, required=True)
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    seeds = range(args.first_seed, args.first_seed + args.scenes)
    training = NumberScenes(args.library, args.maps)
    features, counts = describe_scenes(training, seeds, args.output_dir / "scenes.pt")
    networks = fit_number(features, counts)
    networks.save(args.output_dir / "number.safetensors")
    seeds = range(10 * args.first_seed, 10 * args.first_seed + args.held_out_scenes)
    held_out = NumberScenes(args.library, held_out=True)
    features, counts = describe_scenes(held_out, seeds, args.output_dir / "held_out.pt")
    print(f"within one of the truth on scenes of held-out materials: {within_one(networks, features, counts):.3f}")
    print(f"written to {args.output_dir}")
