"""Unmix real scenes into abundance and brightness maps, from which training scenes with other spectra are mixed.

Run as `python training/make_maps.py CUBE.hdr ... --output_dir maps`; `--maps maps/*.npz` gives them to the training.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from hsunmix.data import read_cube
from hsunmix.endmembers import extract_endmembers
from hsunmix.physics import nnls, split_brightness
from hsunmix.pipelines.processor import HyperspectralProcessor


def unmix(path: Path, num_endmembers: int, seed: int) -> dict[str, np.ndarray]:
    """Maps of one scene in closed form: `abundances` (H, W, R) of endmembers of equal maximum, `brightness` (H, W)."""
    cube = read_cube(path)
    prepared = HyperspectralProcessor().preprocess(cube.data, cube.wavelengths)[0]
    grid = prepared.to_map(prepared.pixels).nan_to_num()  # [H, W, K]
    generator = torch.Generator().manual_seed(seed)
    found = extract_endmembers(grid, num_endmembers, prepared.noise_std, prepared.valid, generator).endmembers
    endmembers = found / found.amax(1, keepdim=True)
    abundances, brightness = split_brightness(nnls(grid.flatten(0, 1), endmembers))
    return {
        "abundances": abundances.reshape(*grid.shape[:2], -1).float().numpy(),
        "brightness": brightness.reshape(grid.shape[:2]).float().numpy(),
    }


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
        np.savez_compressed(args.output_dir / f"{path.stem}_{r}.npz", **unmix(path, r, args.seed))
