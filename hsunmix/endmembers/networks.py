"""Small networks that judge candidates by numbers that describe them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

_LIMIT = 5.0  # of a description, in units of its spread in training: nothing is known further out


class SmallNetworks(torch.nn.Module):
    """A few small networks that map descriptions to scores; their mean counts.

    Args:
        num_features: length F of a description.
        members: number of networks.
        hidden: widths of their hidden layers.
        dropout: after each of those, in training.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, num_features: int, members: int = 4, hidden: tuple[int, ...] = (32,), dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("std", torch.ones(num_features))
        self.members = torch.nn.ModuleList(_network((num_features, *hidden), dropout) for _ in range(members))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Scores (M, ...) by the M members, from descriptions (..., F)."""
        scaled = ((features.to(self.mean) - self.mean) / self.std).clamp(-_LIMIT, _LIMIT)
        return torch.stack([member(scaled)[..., 0] for member in self.members])

    def save(self, path: Path) -> None:
        """Write the weights as safetensors."""
        save_file(self.state_dict(), path)

    @classmethod
    def load(cls, path: Path) -> SmallNetworks:
        """Read what `save` has written."""
        state = load_file(path)
        widths = [len(value) for key, value in state.items() if key.startswith("members.0.") and value.ndim == 2]
        members = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("members."))
        networks = cls(len(state["mean"]), members, tuple(widths[:-1]))
        networks.load_state_dict(state)
        return networks.eval()


def _network(widths: tuple[int, ...], dropout: float) -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = []
    for before, after in zip(widths, widths[1:], strict=False):
        layers += [torch.nn.Linear(before, after), torch.nn.SiLU(), torch.nn.Dropout(dropout)]
    return torch.nn.Sequential(*layers, torch.nn.Linear(widths[-1], 1))


def bundled_sha256() -> dict[str, str]:
    """Fingerprints of the small networks that come with the package, by name: results depend on them."""
    files = sorted(Path(__file__).parent.glob("*.safetensors"))
    return {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
