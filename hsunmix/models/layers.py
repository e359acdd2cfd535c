"""Building blocks of the networks: normalisation, residual blocks with timestep, exchange between endmembers."""

from __future__ import annotations

from functools import partial

import torch
import torch.utils.checkpoint
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import nn


def quieten(layer: nn.Module) -> None:
    """Initialise the last layer of a residual branch near zero, so that the branch starts as almost nothing."""
    for name, parameter in layer.named_parameters():
        if name == "bias":
            nn.init.zeros_(parameter)
        else:
            nn.init.normal_(parameter, std=1e-3)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each position (Ba et al., 2016).

    Unlike group normalisation it never mixes positions: a tile of a scene sees what the whole scene would see, and a
    single pixel is as good an input as a large image.

    Args:
        channels: size of axis 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (N, C, ...) over C."""
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class ResidualBlock(nn.Module):
    """`x + conv(act(film(norm(conv(act(norm(x)))))))`, in one or two dimensions, with a timestep (He et al., 2016).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        time_channels: size of the timestep embedding; `None` for a block without timestep.
        dims: 1 for spectra, 2 for maps.
        kernel_size: odd size of both convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        time_channels: int | None = None,
        dims: int = 2,
        kernel_size: int = 3,
    ) -> None:
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv1d
        self.norm1 = ChannelNorm(in_channels)
        self.conv1 = conv(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.norm2 = ChannelNorm(out_channels)
        self.conv2 = conv(out_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.time = nn.Linear(time_channels, 2 * out_channels) if time_channels else None
        self.skip = conv(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        quieten(self.conv2)

    def forward(self, x: torch.Tensor, time: torch.Tensor | None = None) -> torch.Tensor:
        """Map (N, C_in, ...) to (N, C_out, ...); `time` is (N, time_channels) where the block has a timestep."""
        h = self.norm2(self.conv1(nn.functional.silu(self.norm1(x))))
        if self.time is not None and time is not None:
            scale, shift = self.time(nn.functional.silu(time))[(...,) + (None,) * (x.ndim - 2)].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        return self.skip(x) + self.conv2(nn.functional.silu(h))


class EndmemberExchange(nn.Module):
    """Lets the endmembers of a scene see each other: adds a projection of their mean (Zaheer et al., Deep Sets, 2017).

    Equivariant to any permutation of the endmembers, and free of their number.

    Args:
        channels: channels of the features.
        dims: 1 for spectra, 2 for maps.
    """

    def __init__(self, channels: int, dims: int = 2) -> None:
        super().__init__()
        self.project = (nn.Conv2d if dims == 2 else nn.Conv1d)(channels, channels, 1)
        quieten(self.project)

    def forward(self, x: torch.Tensor, num_endmembers: int) -> torch.Tensor:
        """Exchange between the rows of (N * R, C, ...) that belong to one scene."""
        grouped = x.unflatten(0, (-1, num_endmembers))  # [N, R, C, ...]
        mean = self.project(nn.functional.silu(grouped.mean(1)))  # [N, C, ...]
        return (grouped + mean[:, None]).flatten(0, 1)


class TimeEmbedding(nn.Module):
    """Sinusoidal timestep embedding and its two-layer perceptron (Ho et al., 2020), from diffusers.

    Args:
        channels: size of the sinusoidal code; the output has four times as many.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = 4 * channels
        self.sinusoid = Timesteps(channels, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.mlp = TimestepEmbedding(channels, self.out_channels)

    def forward(self, timestep: torch.Tensor | float | int, rows: int, like: torch.Tensor) -> torch.Tensor:
        """Embed a scalar, (N,) or (rows,) timestep as (rows, 4 * channels), with dtype and device of `like`."""
        timestep = torch.as_tensor(timestep, device=like.device).reshape(-1)
        if rows % timestep.numel():
            raise ValueError(f"`timestep` has {timestep.numel()} values, which does not fit {rows} maps.")
        timestep = timestep.repeat_interleave(rows // timestep.numel())
        return self.mlp(self.sinusoid(timestep).to(like.dtype))


class UNetTrunk(nn.Module):
    """A residual UNet over maps (2-D) or spectra (1-D) in which endmembers ride in the batch axis (Ronneberger, 2015).

    Any size goes in, down to one: inputs are replicated at the border up to a multiple of `2 ** (levels - 1)` and the
    output is cut back.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        block_out_channels: width of each level, the finest first.
        layers_per_block: residual blocks on each side of each level.
        time_channels: size of the timestep embedding.
        dims: 1 for spectra, 2 for maps.
        kernel_size: odd size of the convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        block_out_channels: tuple[int, ...],
        layers_per_block: int,
        time_channels: int,
        dims: int,
        kernel_size: int = 3,
    ) -> None:
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv1d
        self.dims = dims
        self.gradient_checkpointing = False  # set, with the function, by `enable_gradient_checkpointing`
        self._gradient_checkpointing_func = partial(torch.utils.checkpoint.checkpoint, use_reentrant=False)
        widths = tuple(block_out_channels)
        self.conv_in = conv(in_channels, widths[0], kernel_size, padding=kernel_size // 2)

        def blocks(first: int, width: int) -> nn.ModuleList:
            sizes = [first] + [width] * layers_per_block
            return nn.ModuleList(
                ResidualBlock(a, b, time_channels, dims, kernel_size) for a, b in zip(sizes, sizes[1:], strict=False)
            )

        previous = (widths[0], *widths[:-1])
        self.down_blocks = nn.ModuleList(blocks(a, b) for a, b in zip(previous, widths, strict=True))
        self.exchanges = nn.ModuleList(EndmemberExchange(width, dims) for width in widths)
        self.downsamplers = nn.ModuleList(conv(w, w, 2, stride=2) for w in widths[:-1])
        self.mid_block = ResidualBlock(widths[-1], widths[-1], time_channels, dims, kernel_size)
        self.upsamplers = nn.ModuleList(conv(b, a, 1) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.up_blocks = nn.ModuleList(blocks(2 * w, w) for w in widths[:-1])
        self.norm_out = ChannelNorm(widths[0])
        self.conv_out = conv(widths[0], out_channels, kernel_size, padding=kernel_size // 2)
        quieten(self.conv_out)

    def forward(self, x: torch.Tensor, time: torch.Tensor, num_endmembers: int) -> torch.Tensor:
        """Map (N * R, C_in, ...) and (N * R, time_channels) to (N * R, C_out, ...)."""
        size = x.shape[2:]
        multiple = 2 ** len(self.downsamplers)
        padding = [p for n in reversed(size) for p in (0, -n % multiple)]
        if any(padding):
            x = nn.functional.pad(x, padding, mode="replicate")
        if self.dims == 2:
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.conv_in(x)
        skips = []
        for level, blocks in enumerate(self.down_blocks):
            x = self._run(blocks, x, time)
            x = self.exchanges[level](x, num_endmembers)
            if level < len(self.downsamplers):
                skips.append(x)
                x = self.downsamplers[level](x)
        x = self.mid_block(x, time)
        for level in reversed(range(len(self.up_blocks))):
            x = nn.functional.interpolate(self.upsamplers[level](x), scale_factor=2, mode="nearest")
            x = self._run(self.up_blocks[level], torch.cat([x, skips[level]], dim=1), time)
        x = self.conv_out(nn.functional.silu(self.norm_out(x)))
        for axis, length in enumerate(size, start=2):
            x = x.narrow(axis, 0, length)
        return x

    def _run(self, blocks: nn.Module, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        assert isinstance(blocks, nn.ModuleList)
        for block in blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = self._gradient_checkpointing_func(block, x, time)
            else:
                x = block(x, time)
        return x


NOISE_SCHEDULE = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample", "clip_sample": False}
"""Options of diffusers' schedulers for the schedule of `schedule_at`, on which the networks predict clean samples."""


def schedule_at(timestep: torch.Tensor | float | int, num_train_timesteps: int, like: torch.Tensor) -> tuple:
    """Signal and noise level of the cosine schedule (Nichol and Dhariwal, 2021) that the networks are trained on.

    Args:
        timestep: scalar or (N,).
        num_train_timesteps: length of the schedule.
        like: tensor (N, ...) whose device and number of axes the result takes.

    Returns:
        `(signal, noise)`, each broadcastable against `like`, with `signal^2 + noise^2 = 1`; float32.
    """
    t = torch.as_tensor(timestep, device=like.device, dtype=torch.float32).reshape(-1)
    angle = ((t + 1) / num_train_timesteps + 0.008) / 1.008 * (torch.pi / 2)
    angle = angle.clamp(1e-3, torch.pi / 2 - 1e-4)[(...,) + (None,) * (like.ndim - 1)]
    return angle.cos(), angle.sin()


def fuse(
    sample: torch.Tensor, signal: torch.Tensor, noise: torch.Tensor, coarse: torch.Tensor, coarse_std: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Best linear estimate of the clean sample from two independent measurements of it.

    The noisy sample measures it with standard deviation `noise / signal`, the coarse estimate with `coarse_std`. The
    network then predicts the remaining error in units of the fused standard deviation: preconditioning in the
    manner of EDM (Karras et al., 2022), with the known reliability of the condition counted in.

    Args:
        sample: noisy sample `signal * x + noise * n`.
        signal: from `schedule_at`.
        noise: from `schedule_at`.
        coarse: coarse estimate of x.
        coarse_std: its standard deviation, positive.

    Returns:
        `(estimate, std)` in float32.
    """
    precision = coarse_std.float().square().reciprocal()
    total = precision + (signal / noise).square()
    estimate = (precision * coarse.float() + signal / noise.square() * sample.float()) / total
    return estimate, total.rsqrt()
