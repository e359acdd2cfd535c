"""The diffusion pipeline for semi-blind unmixing."""

from .output import SemiBlindUnmixingOutput
from .processor import HyperspectralProcessor
from .scene import SceneModel
from .semi_blind_unmixing import SemiBlindUnmixingPipeline

__all__ = ["HyperspectralProcessor", "SceneModel", "SemiBlindUnmixingOutput", "SemiBlindUnmixingPipeline"]
