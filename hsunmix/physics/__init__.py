"""Mixing physics: forward models, simplex, noise, and the closed-form data consistency steps (torch only)."""

from .brightness import (
    BRIGHTNESS_THRESHOLD,
    BrightnessModel,
    brightness_fit,
    brightness_level,
    brightness_model,
    in_natural_scale,
)
from .consistency import (
    abundance_std,
    abundance_step,
    anchor_brightness,
    endmember_step,
    fcls,
    final_endmember_step,
    nnls,
    normal_equations,
    robust_endmember_step,
    solve_nonnegative,
    solve_on_support,
)
from .evidence import EVIDENCE_CHANNELS, Evidence, gather_evidence, scatter
from .facets import Alternatives, facet_step, fraction_variance, relative_turn
from .mixing import mix_bilinear, mix_linear, mix_postnonlinear, spectral_angle, unit_rows
from .noise import estimate_noise, explained_share, noise_share
from .nonlinear import (
    MIXING_MODELS,
    LinearPart,
    brightness_of_linear_part,
    choose_mixing_model,
    interaction_evidence,
    left_open,
    linear_part,
    variation_left,
)
from .shared_errors import fit_leak, leaked_abundances, smooth_error
from .simplex import project_simplex, split_brightness
from .variability import Variation, mean_endmembers

__all__ = [
    "Alternatives",
    "BRIGHTNESS_THRESHOLD",
    "BrightnessModel",
    "EVIDENCE_CHANNELS",
    "Evidence",
    "LinearPart",
    "MIXING_MODELS",
    "Variation",
    "abundance_std",
    "abundance_step",
    "anchor_brightness",
    "brightness_fit",
    "brightness_level",
    "brightness_model",
    "brightness_of_linear_part",
    "choose_mixing_model",
    "endmember_step",
    "estimate_noise",
    "explained_share",
    "facet_step",
    "fcls",
    "final_endmember_step",
    "fit_leak",
    "fraction_variance",
    "gather_evidence",
    "in_natural_scale",
    "interaction_evidence",
    "leaked_abundances",
    "left_open",
    "linear_part",
    "mean_endmembers",
    "mix_bilinear",
    "mix_linear",
    "mix_postnonlinear",
    "nnls",
    "noise_share",
    "normal_equations",
    "project_simplex",
    "relative_turn",
    "robust_endmember_step",
    "scatter",
    "smooth_error",
    "solve_nonnegative",
    "solve_on_support",
    "spectral_angle",
    "split_brightness",
    "unit_rows",
    "variation_left",
]
