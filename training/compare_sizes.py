"""Train ResUNet2D in several sizes on the same scenes and draw how the error falls with size and with scenes seen.

`python training/compare_sizes.py --base 16 32 --library usgs.hdr --max_train_steps 1200 --output_dir runs/sizes`; a
size is the width of its finest resolution, the others are two, three and four times as wide. Encoder and endmember
network are those of the bundled checkpoint. Further options are those of `train_abundance_diffusion.py`. A run that
was interrupted goes on. Writes `sizes.json` and `sizes.png`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hsunmix import bundled_checkpoint
from hsunmix.data import write_json
from hsunmix.models import ResUNet2D
from hsunmix.training.scripts import train_abundance_diffusion
from hsunmix.visualization import plot_error_by_scenes
from hsunmix.visualization.report import save_figure


def measure(width: int, folder: Path, options: list[str], batch: int) -> dict:
    """Train one size, unless that is done, and return its number of weights and validation errors."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "model.json"
    config.write_text(json.dumps({"block_out_channels": [width * k for k in (1, 2, 3, 4)]}))
    networks = Path(bundled_checkpoint("base"))
    fixed = {
        "model_config": config,
        "output_dir": folder,
        "encoder": networks / "encoder",
        "endmember_unet": networks / "endmember_unet",
        "train_batch_size": batch,
        "resume_from_checkpoint": "latest",
    }
    if not (folder / "done").exists():
        train_abundance_diffusion([*options, *(str(x) for key, value in fixed.items() for x in (f"--{key}", value))])
        (folder / "done").touch()
    records = [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]
    return {
        "width": width,
        "parameters": sum(p.numel() for p in ResUNet2D.from_pretrained(folder).parameters()),
        "scenes": [batch * record["step"] for record in records],
        "rmse": [record["rmse"] for record in records],
        "closed_form_rmse": records[-1]["closed_form_rmse"],
        "seconds": records[-1]["seconds"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=int, nargs="+", default=[8, 16, 32], help="widths of the finest resolution")
    parser.add_argument("--train_batch_size", type=int, default=4, help="scenes in a step")
    parser.add_argument("--output_dir", type=Path, required=True)
    args, options = parser.parse_known_args()
    sizes = [measure(w, args.output_dir / f"width-{w}", options, args.train_batch_size) for w in sorted(args.base)]
    write_json(args.output_dir / "sizes.json", {"sizes": sizes})
    save_figure(plot_error_by_scenes(sizes), args.output_dir / "sizes.png")
    for size in sizes:
        print(f"{size['parameters']:>9,} weights: abundance RMSE {size['rmse'][-1]:.4f}, {size['seconds']:.0f} s")
    print(f"least squares: {sizes[0]['closed_form_rmse']:.4f}")
