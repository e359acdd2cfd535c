"""Simulated scenes with known truth, for training, tests and benchmarks."""

from .abundances import ABUNDANCE_KINDS, cap_purity, random_abundances
from .benchmark import benchmark_scene
from .library import HELD_OUT_MATERIALS, LibrarySpectra, is_held_out
from .mixing import MIXING_MODELS
from .noise import NOISE_KINDS
from .scenes import Scene, SceneSimulator
from .sensors import SENSOR_PRESETS, Sensor, even_sensor, preset_sensor, random_sensor
from .spectra import PARAMETRIC_FAMILIES, parametric_spectra

__all__ = [
    "ABUNDANCE_KINDS",
    "HELD_OUT_MATERIALS",
    "MIXING_MODELS",
    "NOISE_KINDS",
    "PARAMETRIC_FAMILIES",
    "SENSOR_PRESETS",
    "LibrarySpectra",
    "Scene",
    "SceneSimulator",
    "Sensor",
    "benchmark_scene",
    "cap_purity",
    "even_sensor",
    "is_held_out",
    "parametric_spectra",
    "preset_sensor",
    "random_abundances",
    "random_sensor",
]
