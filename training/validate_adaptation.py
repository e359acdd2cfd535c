"""Measure what `hsunmix adapt` gains on scenes with a reference, which is used only to score.

Run as `python training/validate_adaptation.py samson.hdr jasper_ridge.hdr --snr 20 --seeds 5`, with a reference
(`NAME_reference.npz`) beside each scene; some minutes for each scene, noise level and seed. Only the number of
endmembers is known.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hsunmix import SemiBlindUnmixingPipeline, bundled_checkpoint
from hsunmix.data import read_library
from hsunmix.evaluation import add_noise, evaluate, interval_coverage
from hsunmix.evaluation.benchmark import ReferenceScene, load_reference_scene, noise_name
from hsunmix.training import adapt_to_scene


def measure(
    pipe: SemiBlindUnmixingPipeline, scene: ReferenceScene, observed: np.ndarray, seed: int, **known: Any
) -> tuple[float, float]:
    """Abundance RMSE, and the share of the abundances that lie in their 90 % intervals."""
    generator = torch.Generator().manual_seed(seed)
    out: Any = pipe(observed, **known, output_uncertainty=True, generator=generator)
    truth = {"cube": scene.cube, "endmembers": scene.endmembers, "abundances": scene.abundances}
    scores = evaluate(out.endmembers[0], out.abundances[0], truth)
    lower, upper = (bound[0][:, :, scores["order"]] for bound in out.abundance_interval(0.9))
    return scores["abundance_rmse"], interval_coverage(lower, upper, scene.abundances)["coverage"]


def load(folder: str) -> SemiBlindUnmixingPipeline:
    """A pipeline without progress bars."""
    pipe = SemiBlindUnmixingPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="+", type=Path, help="cubes with a reference beside them")
    parser.add_argument("--checkpoint", default=None, help="folder or Hub repository; the bundled one by default")
    parser.add_argument("--snr", nargs="+", default=["inf", "20"], help="dB; inf = clean")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--train_steps", type=int, default=300)
    args = parser.parse_args()
    pipe = load(args.checkpoint or bundled_checkpoint("base"))
    print(
        "| scene | SNR | seed | before | adapted | change | in 90 % interval before | adapted |\n" + "|---" * 8 + "|"
    )
    for path in args.scenes:
        scene = load_reference_scene(path)
        for level in (None if value == "inf" else float(value) for value in args.snr):
            observed = add_noise(scene.cube, level)
            facts: dict[str, Any] = {"wavelengths": scene.wavelengths, "reflectance_scale": 1.0}
            count = len(scene.endmembers)
            pairs = []
            for seed in range(args.seeds):
                before = measure(pipe, scene, observed, seed, num_endmembers=count, **facts)
                with tempfile.TemporaryDirectory() as folder:
                    adapt_to_scene(
                        pipe,
                        observed,
                        Path(folder),
                        args.train_steps,
                        seed=seed,
                        quiet=True,
                        num_endmembers=count,
                        **facts,
                    )
                    found = read_library(Path(folder) / "endmembers.hdr")
                    own = {"endmembers": found, "correct_endmembers": False}
                    after = measure(load(folder), scene, observed, seed, **own, **facts)
                pairs.append((before[0], after[0]))
                print(
                    f"| {scene.name} | {noise_name(level)} | {seed} | {before[0]:.4f} | {after[0]:.4f} "
                    f"| {after[0] / before[0] - 1:+.1%} | {before[1]:.0%} | {after[1]:.0%} |",
                    flush=True,
                )
            medians = np.median(pairs, axis=0)
            change = f"{medians[1] / medians[0] - 1:+.1%}"
            print(
                f"| {scene.name} | {noise_name(level)} | median | {medians[0]:.4f} | {medians[1]:.4f} "
                f"| {change} |  |  |"
            )
