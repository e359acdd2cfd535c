"""Measure what `hsunmix adapt` gains on scenes with a reference, which is used only to score.

Run as `python training/validate_adaptation.py samson.hdr jasper_ridge.hdr --snr 20 --seeds 5`, with a reference
(`NAME_reference.npz`) beside each scene; some minutes for each scene, noise level and seed. Only the number of
endmembers is known.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from hsunmix import SemiBlindUnmixingPipeline, bundled_checkpoint
from hsunmix.evaluation.benchmark import Score, load_reference_scene, noise_name, run
from hsunmix.evaluation.metrics import add_noise
from hsunmix.training import adapt_to_scene


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
            pairs: list[list[Score]] = []
            for seed in range(args.seeds):
                with tempfile.TemporaryDirectory() as folder:
                    adapt_to_scene(
                        pipe,
                        add_noise(scene.cube, level),
                        Path(folder),
                        args.train_steps,
                        seed=seed,
                        quiet=True,
                        num_endmembers=len(scene.endmembers),
                        wavelengths=scene.wavelengths,
                        reflectance_scale=1.0,
                    )
                    adapted = load(folder)
                    pairs.append([run(one, [scene], ("blind",), (level,), (seed,))[0] for one in (pipe, adapted)])
                rmse = [one.refined_rmse for one in pairs[-1]]
                coverage = " | ".join(f"{one.coverage:.0%}" for one in pairs[-1])
                print(
                    f"| {scene.name} | {noise_name(level)} | {seed} | {rmse[0]:.4f} | {rmse[1]:.4f} "
                    f"| {rmse[1] / rmse[0] - 1:+.1%} | {coverage} |",
                    flush=True,
                )
            before, after = np.median([[one.refined_rmse for one in pair] for pair in pairs], axis=0)
            change = f"{after / before - 1:+.1%}"
            print(f"| {scene.name} | {noise_name(level)} | median | {before:.4f} | {after:.4f} | {change} |  |  |")
