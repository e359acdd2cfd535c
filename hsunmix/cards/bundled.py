"""Which weights are those of a bundled checkpoint, so that its measured card holds for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..hub import NETWORKS

MARK = "<!-- rendered by hsunmix"  # a README with this in it is replaced by a push
TAGS = ("hyperspectral", "unmixing", "diffusion", "remote-sensing")
WEIGHTS = "diffusion_pytorch_model.safetensors"


def bundled_card(pipe: Any) -> Path | None:
    """The bundled checkpoint whose card holds for a pipeline.

    Weights must be those of the checkpoint, in the pipeline's number format, and the sampler's defaults too.

    Args:
        pipe: a pipeline (or a network, for which there is no such card).

    Returns:
        The folder of the checkpoint, or None.
    """
    root = Path(__file__).parent.parent / "checkpoints"
    for folder in sorted(path.parent for path in root.glob("*/README.md")):
        if all(hasattr(pipe, name) for name in NETWORKS) and _is_checkpoint(pipe, folder):
            return folder
    return None


def _is_checkpoint(pipe: Any, folder: Path) -> bool:
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    defaults = {key: value for key, value in index.items() if isinstance(value, int | float)}
    if any(pipe.config.get(key) != value for key, value in defaults.items()):
        return False
    for name in NETWORKS:
        state, saved = getattr(pipe, name).state_dict(), load_file(folder / name / WEIGHTS)
        if state.keys() != saved.keys():
            return False
        if any(not torch.equal(value.cpu(), saved[key].to(value.dtype)) for key, value in state.items()):
            return False
    return True
