"""Train the networks that rank candidate endmember sets, and that weigh them and approximate spectra.

`python training/train_candidate_networks.py --library usgs.hdr --scenes 600 --output_dir runs/candidates`; about five
seconds a scene on one core, then some minutes. What was simulated is kept in `pools`, and a run that was interrupted
goes on. `--scorer` keeps a network that ranks, and trains only the other. Writes `scorer.safetensors` and
`blender.safetensors`, and prints what they reach on one scene in five, left out of a training before the last.
"""

import argparse
from pathlib import Path

from hsunmix.endmembers.networks import SmallNetworks
from hsunmix.training.examples import load_libraries
from hsunmix.training.selection import (
    blending_gain,
    blending_tasks,
    fit_blender,
    fit_scorer,
    regret,
    simulated_pools,
)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--library", nargs="*", default=[], help="ENVI spectral libraries, held-out materials left out"
    )
    parser.add_argument("--scenes", type=int, default=600)
    parser.add_argument("--first_seed", type=int, default=200_000)
    parser.add_argument("--size", type=int, default=56, help="rows and columns of a scene")
    parser.add_argument("--epochs", type=int, default=15, help="of the network that weighs")
    parser.add_argument("--scorer", type=Path, help="safetensors file of the network that ranks")
    parser.add_argument("--output_dir", type=Path, required=True)
    args = parser.parse_args()
    folder = args.output_dir / "pools"
    pools = simulated_pools(load_libraries(args.library), args.scenes, folder, args.first_seed, args.size)
    seen = [pool for i, pool in enumerate(pools) if i % 5]
    unseen = pools[::5]
    if args.scorer is None:
        print(f"angle of the set ranked first over the best, unseen scenes: {regret(fit_scorer(seen), unseen):.3f}")
        fit_scorer(pools).save(args.output_dir / "scorer.safetensors")
    scorer = SmallNetworks.load(args.scorer or args.output_dir / "scorer.safetensors")
    blender = fit_blender(blending_tasks(seen, scorer), args.epochs)
    for kind, (before, after) in blending_gain(blender, blending_tasks(unseen, scorer, seed=1)).items():
        print(f"angle on unseen scenes, {kind}: {before:.4f} to {after:.4f} rad")
    fit_blender(blending_tasks(pools, scorer), args.epochs).save(args.output_dir / "blender.safetensors")
    print(f"written to {args.output_dir}")
