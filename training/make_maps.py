"""Unmix real scenes into abundance and brightness maps, from which training scenes with other spectra are mixed.

Run as `python training/make_maps.py CUBE.hdr ... --output_dir maps`; `--maps maps/*.npz` gives them to the training.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from hsunmix.training import make_real_maps

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cubes", nargs="+", type=Path, help="ENVI, MATLAB or NumPy cubes; none that you score on")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--min_endmembers", type=int, default=2)
    parser.add_argument("--max_endmembers", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    jobs = [(path, r) for path in args.cubes for r in range(args.min_endmembers, args.max_endmembers + 1)]
    for path, r in tqdm(jobs, desc="scenes"):
        np.savez_compressed(args.output_dir / f"{path.stem}_{r}.npz", **make_real_maps(path, r, args.seed))
