"""How far the predicted maps are to be followed beyond the data: Stein's unbiased estimate of the risk.

The A-step weighs prediction and data pixel by pixel, as their errors say. But the network has seen the data too, and
where it knows the kind of scene, its prediction holds all that they say: every further step towards them only brings
noise back. Whether it does, no single pixel can tell; a whole scene can. For maps `m(y)`, least squares `n(y)` that
are unbiased under the noise, and the truth `t`, `E (n - t) m = cov(n, m)` (Stein, Annals of Statistics 1981), and the
covariance is measured by unmixing the scene once more with a little noise added (Monte Carlo SURE: Ramani et al., IEEE
TIP 2008). So the share of the prediction that makes the expected error least is known without the truth. It is not
the share that fits best: what fits the noise is counted against it.

Model errors make least squares biased too, and how that bias lies to the step from data to prediction is unknown. How
large it is, the residual tells; as much as it could do at a correlation of one half is taken off the gain. Not so
where endmembers vary: what is left of that counts as noise in the least squares, of which the added noise moves a part
only. The prediction, which knows that maps are smooth, steps away from it, so that the gain is underestimated already.

The same estimate says how large the errors are that the noise leaves in the maps. The posterior of a pixel knows how
wrong networks are at most scenes, not how wrong they are here, and expects more where there is little noise.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from diffusers.utils.torch_utils import randn_tensor

from ..physics import abundance_std, split_brightness
from .chain import Chain, noisiness, scene_chains
from .scene import SceneModel

_ADDED = 0.1  # noise that is added, in units of that of the cube; with more, the networks no longer are linear in it
_CORRELATION = 0.5  # of model errors with the step towards the prediction, at worst
_LEAST_SHARE = 0.4  # of the errors that the posterior expects
_NOISE_ERROR = 0.03  # of its estimated variance
_SPREAD = 0.05  # of the shares of the squared errors of several endmembers
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


def weigh(chain: Chain, twin: Chain) -> tuple[float, float]:
    """How far to follow the prediction, and how much is left then of the errors that the posterior expects.

    Args:
        chain: that has been run.
        twin: from `noisier`, run likewise.

    Returns:
        `Chain.predicted_share`, the share of the prediction in the maps, the rest being those after the A-step, that
        makes the expected error least, from 0 to 1; and `Chain.posterior_share`, from .4 to 1.
    """
    evidence = chain.evidence
    std = abundance_std(evidence.gram) * evidence.noise_confidence.rsqrt()
    std = std / evidence.brightness.double().clamp_min(1e-3)[:, None]  # [N, R], by the noise of the sensor
    counted = std < _NOISY * std.median(0).values

    def mean(values: torch.Tensor, dim: int | None = 0) -> torch.Tensor:
        return torch.where(counted, values, 0).sum(dim) / counted.sum(dim).clamp_min(1)

    unbiased = evidence.unbounded.double()
    moved = (twin.evidence.unbounded - unbiased) / _ADDED  # in units of what was added, as all that is the twin's
    refined, refined_twin = (split_brightness(one.scaled_abundances)[0].double() for one in (chain, twin))
    step = chain.predicted - refined  # [N, R]
    step_moved = (twin.predicted - refined_twin - step) / _ADDED

    size = mean(step.square(), None).clamp_min(1e-12)
    # where endmembers vary, what that leaves counts as noise, and only makes the gain look smaller
    noisy = 1.0 if chain.mixing_model == "variable" else noisiness(evidence, chain.cube.noise_std)
    bias = mean(std.square(), None) * (1 / noisy - 1)
    gain = mean((unbiased - refined) * step - step_moved * moved, None)
    share = float(((gain - _CORRELATION * (bias * size).sqrt()) / size).clamp(0, 1))
    if chain.mixing_model != "linear":  # least squares are off by more than noise, which the twin changes as well
        return share, 1.0

    off = unbiased - refined - share * step  # from the maps in the result
    followed = (refined_twin - refined) / _ADDED + share * step_moved
    risk = off.square() - moved.square() + 2 * followed * moved  # [N, R], in the mean over the pixels
    expected = mean(chain.posterior_std().square()).clamp_min(1e-12)  # [R]
    spread = (mean(risk.square()) - mean(risk).square()) / counted.sum(0).clamp_min(1)
    error = (spread + (_NOISE_ERROR * mean(moved.square())).square()).sqrt() / expected
    weights = expected / (error.square() + _SPREAD**2)
    surely = weights @ (mean(risk) / expected + error) / weights.sum()
    return share, float(surely.clamp(_LEAST_SHARE**2, 1).sqrt())
