"""The diffusion pipeline for semi-blind unmixing."""

from .output import SemiBlindUnmixingOutput
from .processor import HyperspectralProcessor
from .semi_blind_unmixing import SemiBlindUnmixingPipeline

__all__ = ["HyperspectralProcessor", "SemiBlindUnmixingOutput", "SemiBlindUnmixingPipeline"]
