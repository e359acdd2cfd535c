"""Train the networks that rank candidate endmember sets, and that weigh them, alone and beside approximate spectra.

`python training/train_candidate_networks.py --library usgs.hdr --scenes 600 --output_dir runs/candidates`; about five
seconds a scene on one core, then some minutes. What was simulated is kept in `pools`, and a run that was interrupted
goes on. `--scorer` keeps a network that ranks, and trains only the others. Writes `scorer.safetensors`,
`blender.safetensors` and `corrector.safetensors`, and prints what they reach on one scene in five, left out of a
training before the last. The `corrector` of the package: 745 scenes, `--repeats 4 --epochs 12`.
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
    parser.add_argument("--epochs", type=int, default=15, help="of the networks that weigh")
    parser.add_argument(
        "--repeats", type=int, default=1, help="sets of errors that the approximate spectra of a scene get"
    )
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
    tasks = blending_tasks(pools, scorer)
    for seed in range(1, args.repeats):
        tasks += [task for task in blending_tasks(pools, scorer, seed) if task.given]
    unseen_tasks = blending_tasks(unseen, scorer, seed=args.repeats)
    for name, correcting in (("blender", False), ("corrector", True)):
        # the blender also weighs given spectra that are not corrected; the corrector learns from these tasks as well
        own = [task for task in tasks if (task.given if correcting else not task.corrected)]
        seen = [task for task in own if task.scene % 5]
        used = [task for task in unseen_tasks if task.corrected == correcting]
        for kind, (before, after) in blending_gain(fit_blender(seen, args.epochs), used).items():
            angles, errors = (f"{one:.4f} to {other:.4f}" for one, other in zip(before, after, strict=True))
            print(f"{name}, unseen scenes, {kind}: angle {angles} rad, abundance RMSE {errors}")
        fit_blender(own, args.epochs).save(args.output_dir / f"{name}.safetensors")
    print(f"written to {args.output_dir}")
