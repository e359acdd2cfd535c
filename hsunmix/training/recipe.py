"""The whole way in one configuration file: stages in order, each one run of a training script.

A recipe is YAML::

    common: {size: 64, train_batch_size: 4}            # options of every stage
    stages:
      - {name: encoder, script: hybrid_stu, max_train_steps: 2000}
      - {name: spectra, script: endmember_diffusion, size: 32}
      - {name: maps, script: abundance_diffusion, encoder: encoder, endmember_unet: spectra}
    pipelines:                                         # the last one is the result
      maps: {encoder: encoder, unet: maps, endmember_unet: spectra}

Where an option expects a trained network (`encoder`, `unet`, `endmember_unet`, `init_from`), the name of an earlier
stage stands for what it has trained; `joint/unet` is one of the three networks of a joint stage. In a pipeline a list
of names stands for the mean of their weights.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..environment import child_environment
from ..hub import NETWORKS
from ..visualization import plot_validation
from ..visualization.report import save_figure
from .assemble import assemble
from .scripts import SCRIPTS
from .validation import as_markdown, validate, validation_scenes

CONFIGS = Path(__file__).parent / "configs"
_TRAINED = (*NETWORKS, "init_from")  # options that name a trained network


@dataclass
class Recipe:
    """Stages of a training.

    Attributes:
        name: of the configuration.
        stages: `name`, `script` and options of each, in order.
        pipelines: names of trained stages, or lists of them, for `encoder`, `unet`, `endmember_unet`; the last is the
            result.
        validation_scenes: held-out scenes per SNR on which every pipeline is measured.
    """

    name: str
    stages: list[dict[str, Any]]
    pipelines: dict[str, dict[str, str | list[str]]]
    validation_scenes: int


def load_recipe(config: str | Path) -> Recipe:
    """Read a recipe.

    Args:
        config: "tiny", "cpu", "base", or a .yaml file.

    Returns:
        The recipe.

    Raises:
        ValueError: if there is no such recipe, or it makes no sense; the message names the stage.
    """
    import yaml

    path = Path(config) if Path(config).suffix in (".yaml", ".yml") else CONFIGS / f"{config}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.yaml")))
        raise ValueError(f"There is no configuration {str(config)!r}: give a .yaml file or one of {known}.")
    content = yaml.safe_load(path.read_text())
    if not isinstance(content, dict) or not content.get("stages") or not content.get("pipelines"):
        raise ValueError(f"{path} is no recipe: it needs `stages` and `pipelines`.")
    common, trained = content.get("common") or {}, set()
    stages = [common | stage for stage in content["stages"]]
    for stage in stages:
        label = f"Stage {stage.get('name')!r} of {path.name}"
        if not stage.get("name") or stage.get("script") not in SCRIPTS:
            raise ValueError(f"{label} needs a `name` and a `script` out of {', '.join(SCRIPTS)}.")
        for option in _TRAINED:
            if option in stage and str(stage[option]).split("/")[0] not in trained:
                raise ValueError(f"{label}: `{option}` is {stage[option]!r}, which no earlier stage trains.")
        trained.add(stage["name"])
    for name, parts in content["pipelines"].items():
        unknown = [one for part in parts.values() for one in _listed(part) if one.split("/")[0] not in trained]
        if set(parts) != set(NETWORKS) or unknown:
            raise ValueError(f"Pipeline {name!r} of {path.name} must name a stage for each of the three networks.")
    return Recipe(path.stem, stages, content["pipelines"], int(content.get("validation_scenes", 4)))


def run_recipe(
    recipe: Recipe,
    library: Sequence[str],
    maps: Sequence[str],
    output_dir: Path,
    num_processes: int = 1,
    mixed_precision: str | None = None,
    seed: int = 0,
) -> Path:
    """Train all stages that are not done yet, put the pipelines together and measure them on held-out materials.

    A run that was stopped goes on where it was when the same command is given again.

    Args:
        recipe: from `load_recipe`.
        library: spectral libraries.
        maps: maps of real scenes (`make_maps.py`).
        output_dir: one folder per stage, `pipeline` (the result), `validation.json`,
            `validation.md`, `validation.png` (the curves of all stages).
        num_processes: processes, one per GPU.
        mixed_precision: "no", "bf16" or "fp16" for all stages; that of the recipe when `None`.
        seed: of the whole training.

    Returns:
        Folder of the trained pipeline.

    Raises:
        ValueError: if a stage in `output_dir` was trained with other options.
        RuntimeError: if a stage fails; its own message has been printed.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    for stage in recipe.stages:
        folder = output_dir / stage["name"]
        begun, done = folder / "options.json", folder / "done"
        command = stage_command(stage, library, maps, output_dir, num_processes, mixed_precision, seed)
        options = command[command.index("-m") + 2 :]
        if begun.exists() and json.loads(begun.read_text()) != options:
            raise ValueError(f"{folder} was trained with other options: remove it, or give another output folder.")
        if done.exists():
            continue
        folder.mkdir(exist_ok=True)
        begun.write_text(json.dumps(options, indent=1))
        device = {} if torch.cuda.is_available() else {"ACCELERATE_USE_CPU": "true"}
        finished = subprocess.run(command, env=child_environment(**device))
        if finished.returncode:
            raise RuntimeError(f"Stage {stage['name']!r} failed. The same command goes on from its last checkpoint.")
        done.touch()

    scores: list[dict[str, Any]] = []
    scenes = validation_scenes(library, recipe.validation_scenes)
    for name, parts in recipe.pipelines.items():
        pipe = assemble(**{part: [output_dir / one for one in _listed(stages)] for part, stages in parts.items()})
        scores += validate(pipe, name, scenes, tracks=("given", "perturbed", "unmoved"))
    pipe.save_pretrained(output_dir / "pipeline")
    (output_dir / "validation.json").write_text(json.dumps(scores, indent=1))
    (output_dir / "validation.md").write_text(as_markdown(scores) + "\n")
    records = {stage["name"]: _records(output_dir / stage["name"]) for stage in recipe.stages}
    save_figure(plot_validation(records), output_dir / "validation.png")
    facts = {
        "recipe": recipe.name,
        "stages": recipe.stages,
        "seed": seed,
        "data": {Path(path).name: _checksum(Path(path)) for path in [*library, *maps]},
    }
    (output_dir / "pipeline" / "training.json").write_text(json.dumps(facts, indent=1))
    return output_dir / "pipeline"


def _listed(stages: str | list[str]) -> list[str]:
    return [str(one) for one in (stages if isinstance(stages, list) else [stages])]


def _records(folder: Path) -> list[dict[str, float]]:
    """What a stage has measured, in the order of steps; of a step that was repeated after a crash the last."""
    lines = (folder / "validation.jsonl").read_text().splitlines()
    last = {record["step"]: record for record in map(json.loads, lines)}
    return [last[step] for step in sorted(last)]


def stage_command(
    stage: dict[str, Any],
    library: Sequence[str],
    maps: Sequence[str],
    output_dir: Path,
    num_processes: int,
    mixed_precision: str | None,
    seed: int,
) -> list[str]:
    """The command line of one stage, as a user would type it."""
    options: dict[str, Any] = {"library": list(library), "maps": list(maps), "seed": seed, **stage}
    options |= {"output_dir": output_dir / stage["name"], "resume_from_checkpoint": "latest"}
    if mixed_precision is not None:
        options["mixed_precision"] = mixed_precision
    launch = ["-m", "accelerate.commands.launch", "--num_processes", str(num_processes)]
    launch += ["--mixed_precision", str(options.get("mixed_precision", "no"))]
    launch += ["--num_machines", "1", "--dynamo_backend", "no"]
    if num_processes > 1:  # on the CPU too: `--cpu` would silently run a single process
        launch.append("--multi_gpu")
    words = [sys.executable, *launch, "-m", "hsunmix.training", options.pop("script")]
    options.pop("name")
    for name, value in options.items():
        if name in _TRAINED:
            value = output_dir / str(value)
        if value is True:
            words.append(f"--{name}")
        elif value != []:
            words += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return words


def _checksum(path: Path) -> str:
    """SHA-256 of a file, and of the data file beside an ENVI header."""
    digest = hashlib.sha256(path.read_bytes())
    for suffix in (".sli", ".img", ".dat", ""):
        beside = path.with_suffix(suffix)
        if path.suffix == ".hdr" and beside.is_file():
            digest.update(beside.read_bytes())
            break
    return digest.hexdigest()
