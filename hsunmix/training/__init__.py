"""Training: examples from the simulator and from real scenes, losses, the loop on Accelerate, recipes, adaptation."""

from .adaptation import SceneExamples, adapt_to_scene, adaptation_loss
from .assemble import assemble
from .examples import ExampleConfig, SimulatedExamples, load_libraries
from .joint import JointModel, joint_loss
from .losses import abundance_loss, coarse_loss, endmember_loss
from .real_maps import RealMaps, make_real_maps
from .recipe import Recipe, load_recipe, run_recipe
from .validation import as_markdown, validate, validation_scenes

__all__ = [
    "ExampleConfig",
    "JointModel",
    "RealMaps",
    "Recipe",
    "SceneExamples",
    "SimulatedExamples",
    "abundance_loss",
    "adapt_to_scene",
    "adaptation_loss",
    "as_markdown",
    "assemble",
    "coarse_loss",
    "endmember_loss",
    "joint_loss",
    "load_libraries",
    "load_recipe",
    "make_real_maps",
    "run_recipe",
    "validate",
    "validation_scenes",
]
