"""`hsunmix demo`: simulate a scene, unmix it, show what refinement gains."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .common import choose_device, distinct, first, load_pipeline, output_folder, say

DESCRIPTION = """\
Simulate a scene whose truth is known (spectra made up, 20 dB of noise), unmix it, and compare the coarse estimate
with the refined one. The materials are known only roughly, as from a field campaign: every spectrum that the method
gets is 5 degrees off (--blind: it gets none, only their number). Writes pictures of both beside the truth.
"""

EXAMPLES = """\
examples:
  hsunmix demo
  hsunmix demo --seed 7 --snr 15 -r 5 -o demo7
  hsunmix demo --blind
"""


def add_parser(commands: Any, **options: Any) -> argparse.ArgumentParser:
    """Add the subcommand to the command's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "demo", help="unmix a simulated scene and show the gain", description=DESCRIPTION, epilog=EXAMPLES, **options
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, default=Path("hsunmix_demo"), help="folder (default: hsunmix_demo)"
    )
    parser.add_argument("-r", "--num-endmembers", metavar="N", type=int, default=4, help="materials (default: 4)")
    parser.add_argument("--size", metavar="N", type=int, default=64, help="rows and columns (default: 64)")
    parser.add_argument("--snr", metavar="DB", type=float, default=20.0, help="signal to noise (default: 20)")
    parser.add_argument("--blind", action="store_true", help="only the number of materials is known")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of scene and sampler (default: 0)")
    parser.add_argument("--steps", metavar="N", type=int, help="denoising steps")
    parser.add_argument("--checkpoint", metavar="DIR_OR_REPO", default="base", help="default: base")
    parser.add_argument("--device", metavar="NAME", default="auto", help="cpu, cuda, mps (default: the fastest)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Simulate, unmix, score, draw."""
    import torch

    from hsunmix.evaluation import perturb_endmembers

    folder = output_folder(args.output, (), overwrite=True)
    device = choose_device(args.device)
    scene = simulate_scene(args.num_endmembers, args.size, args.snr, args.seed)
    pipe = load_pipeline(args.checkpoint, device, args.quiet)
    height, width, bands = scene["cube"].shape
    low, high = scene["wavelengths"].min(), scene["wavelengths"].max()
    say(
        f"simulated scene: {height} x {width} pixels, {bands} bands ({low:.0f} to {high:.0f} nm), "
        f"{args.num_endmembers} endmembers, {args.snr:g} dB, seed {args.seed}; "
        + ("nothing known but their number" if args.blind else "known spectra are 5 degrees (0.087 rad) off")
    )
    known = {} if args.blind else {"endmembers": perturb_endmembers(scene["endmembers"], 5.0, args.seed)}
    output = pipe(
        scene["observed"],
        wavelengths=scene["wavelengths"],
        num_endmembers=args.num_endmembers,
        **known,
        num_inference_steps=args.steps,
        generator=torch.Generator("cpu").manual_seed(args.seed),
    )
    result = first(output)
    coarse = score(result["coarse_endmembers"], result["coarse_abundances"], scene)
    refined = score(result["endmembers"], result["abundances"], scene)
    say(table(coarse, refined))
    draw(folder, scene, result, coarse["order"], refined["order"])
    say(f"pictures in {folder}: abundances.png, endmembers.png, residual.png, composite.png")
    return 0


def simulate_scene(num_endmembers: int, size: int, snr: float, seed: int) -> dict[str, Any]:
    """The demo's scene (`size` x `size` pixels, `snr` in dB) as arrays: truth and what the method sees."""
    import torch

    from hsunmix.simulation import SceneSimulator, preset_sensor

    simulator = SceneSimulator(min_angle_degrees=12.0)
    scene = simulator(
        torch.Generator().manual_seed(seed),
        num_endmembers=num_endmembers,
        height=size,
        width=size,
        snr_db=snr,
        mixing="linear",
        brightness="fixed",
        noise="white",
        dead_pixels=False,
        max_purity=None,
        sensor=preset_sensor("enmap").without_water_vapour(),
    )
    return scene_arrays(scene)


# Families of the parametric spectra as a reader would call them.
_MATERIALS = {
    "mineral": "mineral",
    "ferric_mineral": "iron mineral",
    "soil": "soil",
    "leaf": "green leaf",
    "dry_vegetation": "dry vegetation",
    "water": "water",
    "flat": "concrete or asphalt",
    "painted": "paint or plastic",
}


def scene_arrays(scene: Any) -> dict[str, Any]:
    """A simulated scene as numpy arrays; `cube` is clean and `observed` noisy, as `evaluate` expects."""
    fields = ("endmembers", "abundances", "brightness", "noise_std", "wavelengths", "fwhm")
    arrays = {key: getattr(scene, key) for key in fields} | {"cube": scene.clean, "observed": scene.cube}
    known = {key: value.cpu().numpy() for key, value in arrays.items() if value is not None}
    names = [_MATERIALS.get(name.removeprefix("parametric "), name) for name in scene.names]
    return known | {"names": distinct(names)}


def score(endmembers: Any, abundances: Any, scene: dict[str, Any]) -> dict[str, Any]:
    """Scores of a result, each pixel's brightness fitted to what was observed."""
    import numpy as np

    from hsunmix.evaluation import evaluate

    rebuilt = abundances @ endmembers
    brightness = (rebuilt * scene["observed"]).sum(axis=2) / np.maximum(np.square(rebuilt).sum(axis=2), 1e-12)
    return evaluate(endmembers, abundances, scene, brightness)


def table(coarse: dict[str, Any], refined: dict[str, Any]) -> str:
    """Coarse against refined in three lines."""
    lines = [f"{'':24}{'coarse':>10}{'refined':>10}{'change':>10}"]
    for label, key in (("abundance RMSE", "abundance_rmse"), ("spectral angle (rad)", "sad")):
        before, after = coarse[key], refined[key]
        lines.append(f"{label:24}{before:10.4f}{after:10.4f}{100 * (after / before - 1):+8.0f} %")
    before, after = coarse["psnr"], refined["psnr"]
    lines.append(f"{'PSNR (dB)':24}{before:10.2f}{after:10.2f}{after - before:+7.2f} dB")
    return "\n".join(lines)


def draw(
    folder: Path, scene: dict[str, Any], result: dict[str, Any], coarse_order: list[int], refined_order: list[int]
) -> None:
    """Pictures with truth, coarse and refined lined up."""
    import numpy as np

    from hsunmix.visualization import save_figures

    peak = scene["endmembers"].max(axis=1, keepdims=True)

    def aligned(spectra: Any, order: list[int]) -> Any:  # only the shape is comparable: each scaled to its reference
        chosen = np.asarray(spectra)[order]
        return chosen * peak / np.maximum(chosen.max(axis=1, keepdims=True), 1e-12)

    save_figures(
        folder,
        result["abundances"][:, :, refined_order],
        aligned(result["endmembers"], refined_order),
        scene["wavelengths"],
        scene["names"],
        residual=result["residual"],
        cube=scene["observed"],
        coarse_abundances=result["coarse_abundances"][:, :, coarse_order],
        coarse_endmembers=aligned(result["coarse_endmembers"], coarse_order),
        reference_abundances=scene["abundances"],
        reference_endmembers=scene["endmembers"],
        title="simulated scene",
    )
