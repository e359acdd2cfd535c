"""How the error on held-out materials falls while the networks are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .style import FAINT, PALETTE, new_figure

__all__ = ["plot_validation"]

_ERRORS = {"rmse": "abundance RMSE", "sad": "spectral angle (rad)"}
_STARTS = {"closed_form": "least squares", "moved": "closed-form step", "coarse": "start"}


def plot_validation(stages: Mapping[str, Sequence[Mapping[str, float]]]) -> Any:
    """Curves of the stages of a training, one panel each; grey lines are what the network starts from.

    Args:
        stages: for each stage the records of its `validation.jsonl`: `step`, and `rmse` or `sad` (radians) or both.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: a stage has no records.
    """
    empty = [name for name, records in stages.items() if not records]
    if empty or not stages:
        raise ValueError(f"`stages` has no records of {', '.join(empty) or 'any stage'}: train it first.")
    figure = new_figure(3.2 * len(stages), 2.8)
    for axes, (name, records) in zip(np.atleast_1d(figure.subplots(1, len(stages))), stages.items(), strict=True):
        quantity = next(key for key in _ERRORS if key in records[-1])
        steps = [record["step"] for record in records]
        axes.plot(steps, [record[quantity] for record in records], "o-", color=PALETTE[0], markersize=3)
        for style, (key, label) in zip(("--", ":", "-."), _STARTS.items(), strict=True):
            start = records[-1].get(f"{key}_{quantity}")
            if start is not None:
                axes.axhline(start, color=FAINT, linestyle=style, label=label)
        axes.set(title=name, xlabel="step", ylabel=_ERRORS[quantity])
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=7, frameon=False, loc="center right")
    return figure
