"""Lets `DiffusionPipeline.from_pretrained(..., custom_pipeline="pipelines/semi_blind_unmixing")` find hsunmix's class.

A re-export, not a copy: what it loads is the installed `hsunmix.SemiBlindUnmixingPipeline` itself.
"""

from hsunmix.pipelines import SemiBlindUnmixingPipeline

__all__ = ["SemiBlindUnmixingPipeline"]
