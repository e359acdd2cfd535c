"""Training losses: spectral angle (SAM), MSE, and the likelihood that teaches a network its own error."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ..physics import spectral_angle


def spectral_angle_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean spectral angle along the last axis, radians (SAM; Kruse et al., 1993).

    Args:
        prediction: (..., B) spectra.
        target: (..., B) spectra.

    Returns:
        Scalar.
    """
    return spectral_angle(prediction, target).mean()


def laplace_nll(error: torch.Tensor, log_std: torch.Tensor, beta: float = 0.5) -> torch.Tensor:
    """Laplace negative log-likelihood of `error` under a predicted standard deviation.

    Weighted by the (detached) scale to the power `beta`, so that pixels with small errors don't own the gradient
    (Seitzer et al., ICLR 2022).

    Args:
        error: (...) prediction minus truth.
        log_std: (...) natural logarithm of the predicted standard deviation.
        beta: 0 is the plain likelihood, 1 weighs like an absolute error.

    Returns:
        Scalar.
    """
    log_scale = log_std - 0.5 * torch.log(torch.tensor(2.0, device=log_std.device))
    likelihood = error.abs() * torch.exp(-log_scale) + log_scale
    return (likelihood * torch.exp(beta * log_scale.detach())).mean()


def unmixing_loss(
    abundances: torch.Tensor,
    target: torch.Tensor,
    endmembers: torch.Tensor,
    spectral_weight: float = 0.1,
) -> torch.Tensor:
    """MSE of the abundances plus SAM of the pixels that they rebuild with the true endmembers.

    Args:
        abundances: (N, R, H, W) predicted.
        target: (N, R, H, W) true.
        endmembers: (N, R, B) true endmembers, in the scale in which the abundances are counted.
        spectral_weight: weight of the spectral angle (radians) against the MSE.

    Returns:
        Scalar.
    """
    rebuilt = torch.einsum("nrhw,nrb->nhwb", abundances, endmembers)
    truth = torch.einsum("nrhw,nrb->nhwb", target, endmembers)
    return F.mse_loss(abundances, target) + spectral_weight * spectral_angle_loss(rebuilt, truth)
