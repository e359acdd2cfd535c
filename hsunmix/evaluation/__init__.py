"""Scores against known truth, and the test inputs (noise, perturbed endmembers) that tables are made from."""

from .metrics import (
    abundance_rmse,
    add_noise,
    evaluate,
    interval_coverage,
    match_endmembers,
    mse,
    perturb_endmembers,
    psnr,
    rmse,
    sparsification,
    spectral_angle,
    spectral_angles,
)

__all__ = [
    "abundance_rmse",
    "add_noise",
    "evaluate",
    "interval_coverage",
    "match_endmembers",
    "mse",
    "perturb_endmembers",
    "psnr",
    "rmse",
    "sparsification",
    "spectral_angle",
    "spectral_angles",
]
