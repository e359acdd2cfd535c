"""Train the network that chooses among candidate endmember sets.

`python training/train_candidate_scorer.py --library usgs.hdr --scenes 600 --output scorer.safetensors`; about five
seconds a scene on one core. What was simulated is kept beside the output, and a run that was interrupted goes on.
"""

import argparse
from pathlib import Path

from hsunmix.training.examples import load_libraries
from hsunmix.training.selection import cross_validated_regret, fit_scorer, simulated_pools


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--library", nargs="*", default=[], help="ENVI spectral libraries, held-out materials left out"
    )
    parser.add_argument("--scenes", type=int, default=600)
    parser.add_argument("--size", type=int, default=56, help="rows and columns of a scene")
    parser.add_argument("--output", type=Path, required=True, help="safetensors file")
    args = parser.parse_args()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    pools = args.output.with_suffix(".npz")
    features, angles = simulated_pools(load_libraries(args.library), args.scenes, pools, size=args.size)
    print(f"angle of the set chosen over the best, unseen scenes: {cross_validated_regret(features, angles):.3f}")
    fit_scorer(features, angles).save(args.output)
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
