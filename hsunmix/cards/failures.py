"""Cases in which the pipeline fails, simulated, measured and drawn for the card: `python -m hsunmix.cards.failures`.

They were looked for, not drawn at random: the benchmark says how often, these show how it looks.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..evaluation import evaluate
from ..evaluation.benchmark import closed_form
from ..simulation import SceneSimulator, preset_sensor

CASES: tuple[dict[str, Any], ...] = (
    {
        "picture": "failure_blind.png",
        "title": "Blind at 10 dB, six similar materials, no pure pixel",
        "what": "Extraction finds other spectra than those of the scene, and refinement, which trusts them, makes "
        "clean maps of the wrong materials.",
        "known": False,
        "seed": 1,
        "scene": {"num_endmembers": 6, "snr_db": 10.0, "mixing": "linear", "max_purity": 0.6},
    },
    {
        "picture": "failure_nonlinear.png",
        "title": "Two given materials, 40 dB, a response that is not linear",
        "what": "Post-nonlinear mixing is never chosen by itself. Where the pixel is a curved function of the "
        "mixture, fractions are off although both spectra are exact and there is hardly any noise.",
        "known": True,
        "seed": 5,
        "scene": {"num_endmembers": 2, "snr_db": 40.0, "mixing": "postnonlinear", "max_purity": None},
    },
)


def measure(pipe: Any, case: dict[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Unmix one case.

    Args:
        pipe: the pipeline.
        case: of `CASES`.

    Returns:
        Record for the card with the abundance RMSE of each estimate; the maps (H, W, R) of each, with "truth" first.
    """
    simulator = SceneSimulator(min_angle_degrees=8.0)
    sensor = preset_sensor("enmap").without_water_vapour()
    scene = simulator(
        torch.Generator().manual_seed(case["seed"]),
        height=48,
        width=48,
        brightness="fixed",
        noise="white",
        dead_pixels=False,
        sensor=sensor,
        **case["scene"],
    )
    spectra = scene.endmembers.numpy()
    known = {"fixed_endmembers": spectra} if case["known"] else {"num_endmembers": len(spectra)}
    out = pipe(
        scene.cube.numpy(),
        wavelengths=scene.wavelengths,
        mixing_model="linear",
        brightness="fixed",
        generator=torch.Generator().manual_seed(0),
        **known,
    )
    start = out.coarse_endmembers[0]
    exact = closed_form(scene.cube.numpy(), start, "fixed")
    truth = {"cube": scene.clean.numpy(), "endmembers": spectra, "abundances": scene.abundances.numpy()}
    maps, errors = {"truth": truth["abundances"]}, {}
    for name, endmembers, abundances in (
        ("least squares", start, exact),
        ("coarse", start, out.coarse_abundances[0]),
        ("refined", out.endmembers[0], out.abundances[0]),
    ):
        scores = evaluate(endmembers, abundances, truth)
        errors[name] = scores["abundance_rmse"]
        maps[name] = np.asarray(abundances)[:, :, scores["order"]]
    return {key: case[key] for key in ("picture", "title", "what", "seed")} | {"rmse": errors}, maps


def draw(record: dict[str, Any], maps: dict[str, np.ndarray], path: Path) -> None:
    """One row of maps for the truth and each estimate, fractions from 0 to 1."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = maps["truth"].shape[2]
    figure = Figure(figsize=(1.25 * max(columns, 3) + 1.6, 1.3 * len(maps) + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(maps), columns, squeeze=False)
    for row, (name, abundances) in zip(axes, maps.items(), strict=True):
        for index, axis in enumerate(row):
            image = axis.imshow(abundances[:, :, index], vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        error = f"\nRMSE {record['rmse'][name]:.3f}" if name in record["rmse"] else ""
        row[0].set_ylabel(name + error, fontsize=8)
    for index, axis in enumerate(axes[0]):
        axis.set_title(f"material {index + 1}", fontsize=8)
    figure.colorbar(image, ax=axes, shrink=0.6, label="abundance")
    figure.savefig(path, dpi=80, metadata={"Software": None})


def main() -> None:
    """Run the command."""
    from ..cli.common import load_pipeline, measurement
    from ..data import write_json

    parser = argparse.ArgumentParser(prog="python -m hsunmix.cards.failures", description=__doc__)
    parser.add_argument("--checkpoint", default="base", help="bundled checkpoint, folder or Hub repository")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file for the numbers")
    parser.add_argument("--pictures", type=Path, required=True, help="folder for the pictures")
    args = parser.parse_args()
    pipe = load_pipeline(args.checkpoint, "cpu", quiet=True)
    args.pictures.mkdir(parents=True, exist_ok=True)
    records = []
    for case in CASES:
        record, maps = measure(pipe, case)
        draw(record, maps, args.pictures / case["picture"])
        records.append(record)
    write_json(args.output, measurement(pipe, args, records))


if __name__ == "__main__":
    main()
