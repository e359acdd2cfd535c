"""In which denoising steps the networks have anything new to say; the others keep their last prediction.

Early in the schedule the latents say next to nothing: step for step the networks are shown the same coarse maps, and
say the same. Late in it the latents are hardly more than what they have said, pulled onto the data; they take that for
another measurement and follow the noise (asked in all of 50 steps, they leave 1 to 9 % more error than in two, on
held-out scenes). DDIM over one prediction is exact: two steps are one longer one. (Caches of predictions are common
with diffusion models, as in DeepCache: Ma et al., CVPR 2024; there they are kept for speed alone.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ..models.layers import schedule_at

_COARSE_STD = 0.12  # of the latents' clean sample, as the encoder expects it on an ordinary scene
_LEAST_TURN, _MOST_TURN = 0.04, 0.3  # radians, see `plan_steps`


class Step(NamedTuple):
    """One denoising step.

    Attributes:
        t: timestep of the abundance scheduler.
        endmember_t: timestep of the endmember scheduler.
        asks: the networks predict; else their last prediction is kept.
    """

    t: Any
    endmember_t: Any
    asks: bool


def plan_steps(timesteps: Sequence[Any], endmember_timesteps: Sequence[Any], num_train_timesteps: int) -> list[Step]:
    """The steps to come; the networks are asked in the first, and where latents count for more than when last asked.

    Latents count as measurements of the clean maps with standard deviation `noise / signal`, coarse maps with theirs,
    and the networks start from the best linear estimate (`hsunmix.models.layers.fuse`). The arc tangent of the ratio
    of the two is how far this estimate has turned from the coarse maps (0) to the latents (pi / 2). Beyond
    `_MOST_TURN` the latents are an echo of earlier predictions.

    Args:
        timesteps: of the abundance scheduler, one or more.
        endmember_timesteps: of the endmember scheduler, as many.
        num_train_timesteps: length of the noise schedule.

    Returns:
        The steps, in order.
    """
    at = torch.tensor([float(t) for t in timesteps])
    signal, noise = schedule_at(at, num_train_timesteps, at)
    angles = torch.atan(_COARSE_STD * signal / noise).tolist()
    steps, last = [], angles[0]
    for i, (t, endmember_t, angle) in enumerate(zip(timesteps, endmember_timesteps, angles, strict=True)):
        asks = i == 0 or (angle - last >= _LEAST_TURN and angle <= _MOST_TURN)
        steps.append(Step(t, endmember_t, asks))
        last = angle if asks else last
    return steps
