"""How often the estimated number of endmembers is at most one off, on the grid of simulated benchmark scenes.

`python training/validate_number.py dc_dictionary240.hdr usgs1995.hdr` prints a table by number, noise and mixing;
three scenes in each cell of number x purity x noise x mixing model x library.
"""

import argparse
from itertools import product

import numpy as np
import torch
from tqdm.auto import tqdm

from hsunmix.data import read_library
from hsunmix.endmembers import estimate_num_endmembers
from hsunmix.simulation import benchmark_scene

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("libraries", nargs="+", help="ENVI spectral libraries")
    parser.add_argument("--numbers", type=int, nargs="+", default=[3, 5, 8])
    parser.add_argument("--snr", type=float, nargs="+", default=[20.0, 30.0, 40.0])
    parser.add_argument("--scenes", type=int, default=3)
    parser.add_argument("--first_seed", type=int, default=500)
    args = parser.parse_args()
    libraries = [torch.as_tensor(read_library(path).spectra) for path in args.libraries]
    seeds = range(args.first_seed, args.first_seed + args.scenes)
    cells = list(product(args.numbers, (1.0, 0.8), args.snr, ("linear", "bilinear", "variable"), libraries, seeds))
    hits = []
    for number, purity, snr, mixing, spectra, seed in tqdm(cells, desc="scenes"):
        scene = benchmark_scene(spectra, None, seed, mixing, snr, num_endmembers=number, max_purity=purity)
        hits.append(abs(estimate_num_endmembers(scene.cube.flatten(0, 1).float()) - number) <= 1)
    print("| at most one off | scenes |\n|---|---|")
    print(f"| all {np.mean(hits):.0%} | {len(hits)} |")
    for axis, name in ((0, "R = {}"), (2, "{:g} dB"), (3, "{}")):
        for value in dict.fromkeys(cell[axis] for cell in cells):
            some = [hit for hit, cell in zip(hits, cells, strict=True) if cell[axis] == value]
            print(f"| {name.format(value)} {np.mean(some):.0%} | {len(some)} |")
