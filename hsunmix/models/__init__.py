"""The three networks, none of which has the number of bands or of endmembers as a size."""

from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES

from .hybrid_stu import HybridSTU, HybridSTUOutput
from .losses import laplace_nll, spectral_angle_loss, unmixing_loss
from .resunet_1d import ResUNet1D, ResUNet1DOutput
from .resunet_2d import ResUNet2D, ResUNet2DOutput

__all__ = [
    "HybridSTU",
    "HybridSTUOutput",
    "ResUNet1D",
    "ResUNet1DOutput",
    "ResUNet2D",
    "ResUNet2DOutput",
    "laplace_nll",
    "spectral_angle_loss",
    "unmixing_loss",
]

# Networks of modules that aren't named here are refused by `DiffusionPipeline.from_pretrained("user/repo", ...)`.
for _network in (HybridSTU, ResUNet1D, ResUNet2D):
    LOADABLE_CLASSES[_network.__module__] = {"ModelMixin": ["save_pretrained", "from_pretrained"]}
