"""How far the predicted maps are to be followed beyond the data: Stein's unbiased estimate of the risk.

The A-step weighs prediction and data pixel by pixel, as their errors say. But the network has seen the data too, and
where it knows the kind of scene, its prediction holds all that they say: every further step towards them only brings
noise back. Whether it does, no single pixel can tell; a whole scene can. For maps `m(y)`, least squares `n(y)` that
are unbiased under the noise, and the truth `t`, `E (n - t) m = cov(n, m)` (Stein, Annals of Statistics 1981), and the
covariance is measured by unmixing the scene once more with a little noise added (Monte Carlo SURE: Ramani et al., IEEE
TIP 2008). So the share of the prediction that makes the expected error least is known without the truth. It is not
the share that fits best: what fits the noise is counted against it.

Model errors make least squares biased too, and how that bias lies to the step from data to prediction is unknown. How
large it is, the residual tells; as much as it could do at a correlation of one half is taken off the gain.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from diffusers.utils.torch_utils import randn_tensor

from ..physics import abundance_std, split_brightness
from .chain import Chain, scene_chains
from .scene import SceneModel

_ADDED = 0.1  # noise that is added, in units of that of the cube; with more, the networks no longer are linear in it
_CORRELATION = 0.5  # of model errors with the step towards the prediction, at worst
_NOISY = 3.0  # times the median of the standard deviation: noisier pixels say too little


def noisier(chain: Chain, generator: torch.Generator | None) -> Chain:
    """The same chain on a cube with a little more noise; it follows the endmembers of the first.

    Args:
        chain: that has been run.
        generator: source of the noise.

    Returns:
        A chain that is still to be run.
    """
    cube, pixels = chain.cube, chain.observed
    noise = randn_tensor(pixels.shape, generator=generator, device=pixels.device, dtype=pixels.dtype)
    noisy = replace(cube, pixels=pixels + _ADDED * cube.noise_std * noise)
    return scene_chains(noisy, SceneModel.of_chains([chain], {}, None))[0]


def predicted_share(chain: Chain, twin: Chain) -> float:
    """Share of the prediction in the maps, the rest being those after the A-step, that makes the expected error least.

    Args:
        chain: that has been run.
        twin: from `noisier`, run likewise.

    Returns:
        A number from 0 to 1.
    """
    evidence = chain.evidence
    std = abundance_std(evidence.gram) * evidence.noise_confidence.rsqrt()
    std = std / evidence.brightness.double().clamp_min(1e-3)[:, None]  # [N, R], by the noise of the sensor
    counted = std < _NOISY * std.median(0).values
    refined, refined_twin = (split_brightness(one.scaled_abundances)[0].double() for one in (chain, twin))
    step = chain.predicted - refined  # [N, R]
    size = step[counted].square().mean().clamp_min(1e-12)
    moved = twin.predicted - refined_twin - step
    unbiased = evidence.unbounded.double()
    followed = (moved * (twin.evidence.unbounded - unbiased))[counted].mean() / _ADDED**2
    noise, effective = (x.double().square().mean() for x in (chain.cube.noise_std, evidence.noise_std))
    bias = std[counted].square().mean() * (effective / noise - 1).clamp_min(0)
    gain = ((unbiased - refined) * step)[counted].mean() - followed - _CORRELATION * (bias * size).sqrt()
    return float((gain / size).clamp(0, 1))
