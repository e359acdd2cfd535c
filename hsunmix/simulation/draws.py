"""One source of randomness for the simulator: Python scalars and tensors from a single `torch.Generator`."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TypeVar

import torch

T = TypeVar("T")


class Draws:
    """Random scalars and tensors, all determined by the state of one generator.

    Scalars (sizes, probabilities, choices) come from a Python generator that is seeded by one draw of `generator`, so
    that they cost no device synchronisation; tensors are drawn on the generator's own device and moved to `device`.

    Args:
        generator: source of all randomness; its state advances.
        device: where tensors end up; the generator's device when None.
    """

    def __init__(self, generator: torch.Generator, device: torch.device | str | None = None):
        if not isinstance(generator, torch.Generator):
            raise ValueError(f"`generator` must be a torch.Generator, got {type(generator).__name__}.")
        self.generator = generator
        self.device = torch.device(device) if device is not None else generator.device
        seed = torch.randint(2**62, (), generator=generator, device=generator.device)
        self.scalars = random.Random(int(seed))

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal tensor of `shape`."""
        return torch.randn(shape, generator=self.generator, device=self.generator.device).to(self.device)

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        """Uniform tensor of `shape` in [low, high)."""
        draw = torch.rand(shape, generator=self.generator, device=self.generator.device).to(self.device)
        return draw.mul_(high - low).add_(low)

    def integers(self, high: int, *shape: int) -> torch.Tensor:
        """Integer tensor of `shape` in [0, high)."""
        return torch.randint(high, shape, generator=self.generator, device=self.generator.device).to(self.device)

    def permutation(self, count: int) -> torch.Tensor:
        """Random permutation of 0 .. count - 1."""
        return torch.randperm(count, generator=self.generator, device=self.generator.device).to(self.device)

    def device_tensor(self, values: Sequence[float]) -> torch.Tensor:
        """The given numbers as a float32 tensor on the device."""
        return torch.tensor(values, dtype=torch.float32, device=self.device)

    def number(self, low: float, high: float) -> float:
        """Uniform scalar in [low, high]."""
        return low + (high - low) * self.scalars.random()

    def log_number(self, low: float, high: float) -> float:
        """Log-uniform scalar in [low, high]."""
        return math.exp(self.number(math.log(low), math.log(high)))

    def integer(self, low: int, high: int) -> int:
        """Uniform integer in [low, high], both included."""
        return self.scalars.randint(low, high)

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.scalars.random() < probability

    def choice(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """One of `options`, with probabilities in proportion to `weights`."""
        return self.scalars.choices(options, weights=weights)[0]

    def log_gamma(self, shape_parameter: torch.Tensor) -> torch.Tensor:
        """Logarithm of gamma variates with unit scale, one per element (Marsaglia and Tsang, ACM TOMS 2000).

        In logarithms, because a gamma variate of shape 0.05 is often smaller than any float32. Of eight proposals the
        first accepted one counts (the chance that none is accepted is below 1e-10; the mode is taken then).
        """
        d = shape_parameter + 2.0 / 3.0  # gamma(k + 1) by rejection, then gamma(k) = gamma(k + 1) * u^(1/k)
        x = self.normal(8, *shape_parameter.shape)
        log_u = self.uniform(1e-7, 1.0, 8, *shape_parameter.shape).log()
        v = (1.0 + x / (9.0 * d).sqrt()) ** 3
        log_v = v.clamp_min(1e-30).log()
        accepted = (v > 0) & (log_u < 0.5 * x**2 + d * (1.0 - v + log_v))
        first = accepted.to(torch.uint8).argmax(0, keepdim=True)
        log_v = torch.where(accepted.any(0), log_v.gather(0, first)[0], torch.zeros_like(d))
        boost = self.uniform(1e-7, 1.0, *shape_parameter.shape).log() / shape_parameter
        return d.log() + log_v + boost

    def dirichlet(self, count: int, concentration: torch.Tensor) -> torch.Tensor:
        """`count` Dirichlet vectors, (count, R), for a concentration vector of shape (R,)."""
        return self.log_gamma(concentration.expand(count, -1)).softmax(-1)
