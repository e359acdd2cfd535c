"""Semi-blind hyperspectral unmixing with diffusion models.

The pipeline is imported on first use, so that `import hsunmix` stays light.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pipelines import SemiBlindUnmixingOutput, SemiBlindUnmixingPipeline

__version__ = "0.1.0"
__all__ = ["SemiBlindUnmixingOutput", "SemiBlindUnmixingPipeline", "bundled_checkpoint"]


def bundled_checkpoint(name: str = "base") -> str:
    """Folder of pretrained weights that come with the package, for `SemiBlindUnmixingPipeline.from_pretrained`.

    Args:
        name: name of the checkpoint.

    Returns:
        Path of the folder.

    Raises:
        ValueError: if no checkpoint of that name is bundled.
    """
    root = Path(__file__).parent / "checkpoints"
    found = sorted(path.parent.name for path in root.glob("*/model_index.json"))
    if name not in found:
        raise ValueError(f"`name` {name!r} is not a bundled checkpoint: there are {', '.join(found) or 'none'}.")
    return str(root / name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("SemiBlindUnmixingOutput", "SemiBlindUnmixingPipeline"):
        return getattr(import_module(".pipelines", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
