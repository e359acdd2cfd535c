"""Pictures of cubes and of unmixing results, as matplotlib figures that need no display."""

from .composite import color_composite, plot_composite, plot_preview, scene_preview
from .curves import plot_error_by_noise, plot_error_by_scenes, plot_sparsification, plot_validation
from .html import write_report
from .maps import plot_abundances, plot_brightness, plot_residual
from .report import save_figures
from .spectra import plot_endmembers, plot_pixel

__all__ = [
    "color_composite",
    "plot_abundances",
    "plot_brightness",
    "plot_composite",
    "plot_endmembers",
    "plot_error_by_noise",
    "plot_error_by_scenes",
    "plot_pixel",
    "plot_preview",
    "plot_residual",
    "plot_sparsification",
    "plot_validation",
    "save_figures",
    "scene_preview",
    "write_report",
]
