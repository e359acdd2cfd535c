"""The cards of bundled checkpoints: a template, the facts of training, and results, all of it from files.

`model_cards/NAME.json` holds the facts, `model_cards/template.md` the words, `model_cards/results/*.json` what the
commands of `model_cards/README.md` have measured. No number is typed into a card, and results of other weights than
those of the checkpoint are refused. Format: the model cards of Mitchell et al., FAT* 2019, as the Hub reads them.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCardData
from safetensors.torch import load_file

from ..endmembers.networks import bundled_sha256
from ..evaluation import benchmark, comparison, summary
from ..evaluation.benchmark import Score
from ..evaluation.comparison import MethodScore
from ..hub import NETWORKS
from .bundled import MARK, TAGS, WEIGHTS

BENCHMARKS = ("real", "synthetic", "simulated", "library")  # results/NAME.json of `hsunmix benchmark`
GRID = "grid"  # the same, of so many cells that tables hold their summary only


@dataclass
class Measurements:
    """What was measured of one checkpoint.

    Attributes:
        scenes: runs of `hsunmix benchmark`.
        methods: runs of other methods beside them.
        grid: runs of `hsunmix benchmark` on a grid of simulated scenes.
        grid_methods: runs of other methods beside these.
        held_out: records of `training/validate_pipeline.py`.
        failures: cases of `hsunmix.cards.failures`.
        versions: of the software, as the benchmark recorded them.
    """

    scenes: list[Score]
    methods: list[MethodScore]
    grid: list[Score]
    grid_methods: list[MethodScore]
    held_out: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    versions: dict[str, str]

    @property
    def all_scenes(self) -> list[Score]:
        """Runs of all benchmarks, the grid's last."""
        return self.scenes + self.grid


def read_measurements(folder: Path, checkpoint: Path) -> Measurements:
    """All results of a checkpoint.

    Args:
        folder: `model_cards/results`.
        checkpoint: folder of the weights that they must be of.

    Returns:
        The measurements.

    Raises:
        ValueError: one of them is of other weights.
        OSError: one is missing.
    """
    digests = {name: hashlib.sha256((checkpoint / name / WEIGHTS).read_bytes()).hexdigest() for name in NETWORKS}
    digests |= bundled_sha256()
    content = {}
    for name in (*BENCHMARKS, GRID, "held_out", "failures"):
        path = folder / f"{name}.json"
        content[name] = json.loads(path.read_text(encoding="utf-8"))
        if content[name]["weights"] != digests:
            raise ValueError(f"{path} was measured with other weights than {checkpoint} has: measure again.")
    return Measurements(
        scenes=[Score(**run) for name in BENCHMARKS for run in content[name]["runs"]],
        methods=[MethodScore(**run) for name in BENCHMARKS for run in content[name].get("methods", ())],
        grid=[Score(**run) for run in content[GRID]["runs"]],
        grid_methods=[MethodScore(**run) for run in content[GRID].get("methods", ())],
        held_out=content["held_out"]["runs"],
        failures=content["failures"]["runs"],
        versions=content["real"]["versions"],
    )


def summary_table(found: Measurements) -> str:
    """Markdown: refined against coarse maps and other methods, a line for each kind of scene, the grid's too."""
    return summary.as_markdown(found.all_scenes, comparison.rows(found.all_scenes, found.methods + found.grid_methods))


def scene_table(found: Measurements) -> str:
    """Markdown: every scene, track and noise level of the benchmark."""
    return benchmark.as_markdown(found.scenes)


def method_table(found: Measurements) -> str:
    """Markdown: other methods beside hsunmix, where the benchmark ran them."""
    return comparison.as_markdown(comparison.rows(found.scenes, found.methods))


def cost_table(found: Measurements) -> str:
    """Markdown: time and memory of hsunmix and of the other methods."""
    return comparison.cost_table(comparison.rows(found.scenes, found.methods))


def rank_correlations(found: Measurements) -> str:
    """Markdown: how well uncertainty ranks the pixels by their error; medians over the scenes by track and noise."""
    cells = {key: cell for key, cell in benchmark.cells(found.scenes).items() if cell[0].rank_correlation is not None}
    levels = sorted({key[2] for key in cells}, key=lambda level: -1e9 if level is None else -level)
    lines = ["| track | " + " | ".join(benchmark.noise_name(level) for level in levels) + " |"]
    lines.append("|---" * (1 + len(levels)) + "|")
    for track in dict.fromkeys(key[1] for key in cells):
        entries = []
        for level in levels:
            values = [
                benchmark.median(cell, "rank_correlation") for key, cell in cells.items() if key[1:] == (track, level)
            ]
            entries.append(f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else "")
        lines.append("| " + " | ".join([track, *entries]) + " |")
    return "\n".join(lines)


def held_out_table(found: Measurements) -> str:
    """Markdown: medians over the simulated scenes of held-out materials."""
    from ..training import validation

    return re.sub(r"^\| [^|]+ (?=\|)", "", validation.as_markdown(found.held_out).replace("|---", "", 1), flags=re.M)


def eval_results(found: Measurements) -> list[EvalResult]:
    """The results as the Hub's `model-index` wants them: held-out scenes, and the blind track of the benchmark."""
    results = []
    for record in found.held_out:
        about = (
            f"held-out materials, {record['scenes']} simulated scenes",
            f"{record['track']}, {record['snr_db']:g} dB",
        )
        results += _metrics(
            "hsunmix-held-out", *about, record["refined_rmse"], record["refined_sad"], record["coverage"]
        )
    for (scene, track, level), cell in benchmark.cells(found.scenes).items():
        if track == "blind":
            about = (scene, f"blind, {benchmark.noise_name(level)}, median of {len(cell)} runs")
            medians = (benchmark.median(cell, name) for name in ("refined_rmse", "refined_sad", "coverage"))
            results += _metrics(scene.replace(" ", "-"), *about, *medians)
    return results


def _metrics(key: str, name: str, config: str, rmse: float, sad: float, coverage: float) -> list[EvalResult]:
    shared = {"task_type": "image-segmentation", "task_name": "hyperspectral unmixing"}
    shared |= {"dataset_type": key, "dataset_name": name, "dataset_config": config}
    metrics = [("rmse", "abundance RMSE", rmse), ("sad", "mean spectral angle (radians)", sad)]
    metrics.append(("coverage", "share of abundances in their 90 % intervals", coverage))
    return [
        EvalResult(**shared, metric_type=kind, metric_name=title, metric_value=round(value, 4))
        for kind, title, value in metrics
        if not (kind == "sad" and config.startswith("given"))
    ]


def weaknesses(found: Measurements) -> str:
    """Markdown list of the cells in which the pipeline is not the best choice, or not as sure as it says."""
    cells = benchmark.cells(found.all_scenes)
    lines = []
    for base, name in (("coarse_rmse", "the coarse maps"), ("nnls_rmse", "exact least squares")):
        worse = {}
        for key, cell in cells.items():
            before, after = benchmark.median(cell, base), benchmark.median(cell, "refined_rmse")
            if after > 1.01 * before and after - before > 0.0002:
                worse[key] = f"{_title(key)} ({before:.4f} against {after:.4f})"
        lines.append(f"- Refined maps are worse than {name} by more than 1 % in {len(worse)} of {len(cells)} cells")
        lines[-1] += ": " + "; ".join(worse.values()) + "." if worse else "."
    for low, high, name in ((0.0, 0.85, "fewer than 85 %"), (0.97, 1.01, "more than 97 %")):
        off = [_title(key) for key, cell in cells.items() if low <= benchmark.median(cell, "coverage") < high]
        lines.append(f"- The 90 % intervals hold {name} of the abundances in {len(off)} of {len(cells)} cells")
        lines[-1] += ": " + "; ".join(off) + "." if off and low == 0 else "."
    blind = [cell for key, cell in cells.items() if key[1] == "blind"]
    turned = [1 - benchmark.median(cell, "refined_sad") / benchmark.median(cell, "coarse_sad") for cell in blind]
    lines.append(
        f"- Endmembers that were extracted from the scene: refinement changes their angle to the truth by "
        f"{-100 * max(turned):.1f} to {-100 * min(turned):+.1f} %."
    )
    return "\n".join(lines)


def _title(key: benchmark.Cell) -> str:
    return f"{key[0]} {key[1]} {benchmark.noise_name(key[2])}"


def render(folder: Path, checkpoint: Path, pictures: str = "") -> str:
    """The card of a bundled checkpoint.

    Args:
        folder: `model_cards`.
        checkpoint: folder of the weights.
        pictures: where the card finds its pictures, relative to it.

    Returns:
        Metadata with `model-index`, and text.

    Raises:
        ValueError: the results are of other weights.
        OSError: a file is missing.
        KeyError: the template asks for what is not there.
    """
    facts = json.loads((folder / f"{checkpoint.name}.json").read_text(encoding="utf-8"))
    found = read_measurements(folder / "results", checkpoint)
    energy = facts["energy"]
    kilowatt_hours = facts["hours"] * energy["watts"] * energy["overhead"] / 1000
    values = {key: value for key, value in facts.items() if isinstance(value, str | int | float)}
    values |= {f"energy_{key}": value for key, value in energy.items()}
    values |= {
        "mark": f"{MARK} -->",
        "package_version": found.versions["hsunmix"],
        "scene_cells": len(benchmark.cells(found.all_scenes)),
        "networks": _networks(checkpoint, facts["networks"]),
        "data": _data(facts["data"]),
        "kilowatt_hours": f"{kilowatt_hours:.2g}",
        "carbon_grams": f"{kilowatt_hours * energy['grams_co2_per_kwh']:.2g}",
        "price": f"{facts['hours'] * energy['price_per_hour']:.2f}",
        "versions": ", ".join(f"{name} {version}" for name, version in found.versions.items()),
        "held_out_scenes": found.held_out[0]["scenes"],
        "held_out_table": held_out_table(found),
        "scene_table": scene_table(found),
        "summary_table": summary_table(found),
        "weaknesses": weaknesses(found),
        "failures": _failures(found.failures, pictures),
    }
    body = Template((folder / "template.md").read_text(encoding="utf-8")).substitute(values)
    data = ModelCardData(
        library_name="diffusers",
        license=facts["license"],
        tags=list(TAGS),
        model_name=facts["title"],
        eval_results=eval_results(found),
    )
    return f"---\n{data.to_yaml()}\n---\n\n{body}"


def _networks(checkpoint: Path, training: dict[str, dict[str, str]]) -> str:
    rows = [
        "| component | class | parameters | steps | what it saw | SHA-256 of the weights |",
        "|---|---|---|---|---|---|",
    ]
    index = json.loads((checkpoint / "model_index.json").read_text(encoding="utf-8"))
    for name in NETWORKS:
        path = checkpoint / name / WEIGHTS
        parameters = sum(tensor.numel() for tensor in load_file(path).values())
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        about = training[name]
        rows.append(
            f"| `{name}` | `{index[name][1]}` | {parameters:,} | {about['steps']} | {about['saw']} | `{digest}` |"
        )
    return "\n".join(rows)


def _data(files: list[dict[str, str]]) -> str:
    rows = ["| file | what | SHA-256 |", "|---|---|---|"]
    return "\n".join(rows + [f"| `{file['file']}` | {file['what']} | `{file['sha256']}` |" for file in files])


def _failures(cases: list[dict[str, Any]], pictures: str) -> str:
    text = []
    for case in cases:
        numbers = ", ".join(f"{name} {value:.3f}" for name, value in case["rmse"].items())
        text.append(
            f"![{case['title']}]({pictures}{case['picture']})\n\n*{case['title']}.* {case['what']} RMSE: {numbers}."
        )
    return "\n\n".join(text)


def peer_table(found: Measurements, peers: Path) -> str:
    """Markdown: the best of the other methods where they were measured, and what was measured here.

    Args:
        found: the results.
        peers: JSON file of records `scene`, `track`, `snr_db`, `method`, `rmse` and `sad` (radians, or `None`).

    Returns:
        The table.

    Raises:
        KeyError: a cell of the file was not measured here.
    """
    cells = benchmark.cells(found.scenes)
    lines = [
        "| scene | track | SNR | best other method | RMSE / SAD | hsunmix RMSE / SAD |",
        "|---|---|---|---|---|---|",
    ]
    for peer in json.loads(peers.read_text(encoding="utf-8")):
        cell = cells[peer["scene"], peer["track"], peer["snr_db"]]
        other = f"{peer['rmse']:.3f}" + ("" if peer["sad"] is None else f" / {peer['sad']:.3f}")
        ours = f"{benchmark.median(cell, 'refined_rmse'):.3f} / {benchmark.median(cell, 'refined_sad'):.3f}"
        about = [peer["scene"], peer["track"], benchmark.noise_name(peer["snr_db"]), peer["method"]]
        lines.append("| " + " | ".join([*about, other, ours]) + " |")
    return "\n".join(lines)


def fill_readme(text: str, found: Measurements, peers: Path) -> str:
    """README with its tables of results replaced, each between its HTML comments.

    Args:
        text: README.md.
        found: the results.
        peers: of `peer_table`.

    Returns:
        The new text.

    Raises:
        ValueError: a marker is missing.
    """
    tables = {
        "summary": summary_table(found),
        "peers": peer_table(found, peers),
        "methods": method_table(found),
        "cost": cost_table(found),
        "scenes": scene_table(found),
        "ranks": rank_correlations(found),
        "held-out": held_out_table(found),
    }
    for name, table in tables.items():
        begin, end = f"<!-- results: {name} -->\n", f"<!-- end of results: {name} -->"
        before, found_begin, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found_begin and found_end):
            raise ValueError(f"README.md lacks the comments `{begin.strip()}` and `{end.strip()}`.")
        text = f"{before}{begin}{table}\n{end}{after}"
    return text
