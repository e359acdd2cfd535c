"""What each network is trained to do: the losses of the three stages, on batches of `SimulatedExamples`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import DDPMScheduler

from ..models import HybridSTU, laplace_nll, spectral_angle_loss, unmixing_loss
from ..models.layers import NOISE_SCHEDULE
from ..physics import solve_nonnegative, solve_on_support, spectral_angle
from ..pipelines.chain import LEAST_PRIOR_STD

Losses = dict[str, torch.Tensor]


def coarse_loss(model: torch.nn.Module, batch: dict) -> Losses:
    """HybridSTU: SAM + MSE, and the likelihood of the error that the network expects of itself.

    Args:
        model: `HybridSTU`.
        batch: of `SimulatedExamples`.

    Returns:
        Scalars by name; `loss` is minimised.
    """
    target = batch["abundances"]
    abundances, log_std = model(
        batch["cube"], batch["coarse_endmembers"], batch["evidence"], batch["wavelengths"], return_dict=False
    )
    error = abundances.float() - target
    likelihood = laplace_nll(error, log_std.float())
    fit = unmixing_loss(abundances.float(), target, batch["endmembers"], spectral_weight=0.05)
    closed_form = (batch["evidence"][:, :, 0] + 1) / 2 - target
    return {
        "loss": likelihood + fit,
        "rmse": error.square().mean().sqrt(),
        "closed_form_rmse": closed_form.square().mean().sqrt(),
    }


def endmember_loss(model: torch.nn.Module, batch: dict, scheduler: DDPMScheduler, on_policy_fraction: float) -> Losses:
    """ResUNet1D: MSE + SAM of the clean spectra at a random noise level, and the likelihood of the error expected.

    Args:
        model: `ResUNet1D`.
        batch: of `SimulatedExamples`.
        scheduler: adds the noise.
        on_policy_fraction: share of batches that show the network what the sampler carries.

    Returns:
        Scalars by name; `loss` is minimised.
    """
    scale, target, conditions = endmember_inputs(batch)

    def first_estimate(timestep: int) -> torch.Tensor:
        return model(torch.zeros_like(target), timestep, *conditions, return_dict=False)[0].float()

    sample, timestep = noised_sample(scheduler, target, on_policy_fraction, first_estimate)
    clean, log_std = model(sample, timestep, *conditions, return_dict=False)
    error = clean.float() - target
    truth = (target + 1) / 2
    angle = spectral_angle_loss((clean.float() + 1) / 2, truth)
    return {
        "loss": laplace_nll(error, log_std.float()) + error.square().mean() + 0.5 * angle,
        "sad": angle,
        "coarse_sad": spectral_angle(conditions[0], truth).mean(),
        "moved_sad": spectral_angle(conditions[1], truth).mean(),
    }


def endmember_inputs(batch: dict) -> tuple[torch.Tensor, torch.Tensor, tuple]:
    """Scale (N, R, 1), target sample (N, R, B) and conditions of ResUNet1D for a batch."""
    coarse, truth = batch["coarse_endmembers"], batch["endmembers"]
    scale = coarse.amax(-1, keepdim=True).clamp_min(1e-3)
    gain = (coarse * truth).sum(-1, keepdim=True) / truth.square().sum(-1, keepdim=True)
    target = 2 * truth * gain / scale - 1  # the scale of an endmember is not the network's business
    spectra = (x / scale for x in (coarse, batch["moved_endmembers"], batch["moved_std"]))
    return scale, target, (*spectra, batch["statistics"], batch["wavelengths"])


def abundance_loss(
    model: torch.nn.Module, batch: dict, encoder: HybridSTU, scheduler: DDPMScheduler, on_policy_fraction: float
) -> Losses:
    """ResUNet2D: error of the clean maps at a random noise level, and the likelihood of the error expected.

    Args:
        model: `ResUNet2D`.
        batch: of `SimulatedExamples`.
        encoder: makes the coarse maps; not trained.
        scheduler: adds the noise.
        on_policy_fraction: share of batches that show the network what the sampler carries.

    Returns:
        Scalars by name; `loss` is minimised.
    """
    encoder.to(batch["cube"].device)
    with torch.no_grad():
        coarse = encoder(batch["cube"], batch["coarse_endmembers"], batch["evidence"], batch["wavelengths"])
    conditions = (coarse.abundances, coarse.log_std, batch["refined_evidence"])
    target = 2 * batch["abundances"] - 1
    sample, timestep = carried_sample(model, conditions, batch, target, scheduler, on_policy_fraction)
    clean, log_std = model(sample, timestep, *conditions, return_dict=False)
    error = clean.float() - target
    closed_form = batch["refined_evidence"][:, :, 0] - target
    return {
        "loss": laplace_nll(error, log_std.float()) + error.square().mean(),
        "rmse": error.square().mean().sqrt() / 2,
        "coarse_rmse": (coarse.abundances.float() - batch["abundances"]).square().mean().sqrt(),
        "closed_form_rmse": closed_form.square().mean().sqrt() / 2,
    }


def carried_sample(
    model: torch.nn.Module,
    conditions: tuple,
    data: dict,
    target: torch.Tensor,
    scheduler: DDPMScheduler,
    on_policy_fraction: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What ResUNet2D is shown at a random noise level, its own first estimate pulled onto the data.

    Args:
        model: `ResUNet2D`.
        conditions: its inputs after sample and timestep.
        data: normal equations as `consistent_maps` takes them.
        target: (N, R, H, W) clean sample; only its shape counts where `on_policy_fraction` is 1.
        scheduler: of the training.
        on_policy_fraction: share of batches that show the network what the sampler carries.

    Returns:
        `(sample, timestep)` as of `noised_sample`.
    """

    def first_estimate(timestep: int) -> torch.Tensor:
        clean, log_std = model(torch.zeros_like(target), timestep, *conditions, return_dict=False)
        return 2 * consistent_maps((clean.float() + 1) / 2, log_std.float().exp() / 2, data) - 1

    return noised_sample(scheduler, target, on_policy_fraction, first_estimate)


def consistent_maps(clean: torch.Tensor, std: torch.Tensor, data: dict, guidance_scale: float = 0.5) -> torch.Tensor:
    """The sampler's A-step for a batch, exactly: abundance maps with their expected errors, pulled onto the data.

    The support of the bounded solution is found first. No small change moves it, and on it the solution is linear in
    data and prediction, which gives the gradient.

    Args:
        clean: (N, R, H, W) predicted abundances.
        std: (N, R, H, W) their expected errors.
        data: normal equations of the scenes, P = H * W pixels: `gram` (N, R, R), `rhs` (N, P, R), `confidence` and
            `brightness` (N, P).
        guidance_scale: weight of the data.

    Returns:
        (N, R, H, W) abundances on the simplex.
    """
    brightness = data["brightness"].double()[..., None].clamp_min(1e-6)  # [N, P, 1]
    abundances, error = (x.flatten(2).transpose(1, 2).double() for x in (clean.clamp(0, 1), std))  # [N, P, R]
    abundances = abundances / abundances.sum(-1, keepdim=True).clamp_min(1e-6)
    precision = (brightness * (error.square() + LEAST_PRIOR_STD**2).sqrt()).square().reciprocal() / guidance_scale
    trust = precision / data["confidence"].double()[..., None]
    system = (data["gram"].double()[:, None] + torch.diag_embed(trust)).flatten(0, 1)  # [N * P, R, R]
    rhs = (data["rhs"].double() + trust * brightness * abundances).flatten(0, 1)  # [N * P, R]
    with torch.no_grad():
        support = solve_nonnegative(system, rhs, free=abundances.flatten(0, 1) > 0) > 0
    scaled = solve_on_support(system, rhs, support).clamp_min(0).view_as(abundances)
    maps = scaled / scaled.sum(-1, keepdim=True).clamp_min(1e-9)
    return maps.transpose(1, 2).unflatten(2, clean.shape[2:]).float()


def noised_sample(
    scheduler: DDPMScheduler,
    target: torch.Tensor,
    on_policy_fraction: float,
    first_estimate: Callable[[int], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a network is shown at a random noise level.

    Part of the batches is noised truth (DDPM: Ho et al., 2020). The others are what the deterministic sampler itself
    carries: half of them its start, nothing but the conditions; half its own first estimate without noise, else the
    network would take its own bias for a measurement and drift.

    Args:
        scheduler: of the training.
        target: (N, ...) clean sample.
        on_policy_fraction: share of batches of the second kind.
        first_estimate: maps the first timestep to the sampler's estimate of the clean sample after its first step.

    Returns:
        `(sample, timestep)`, shapes of `target` and (N,).
    """
    last = scheduler.config.num_train_timesteps - 1
    timestep = torch.randint(0, last, (len(target),), device=target.device)
    noise = torch.randn_like(target)
    draw = float(torch.rand(()))
    if draw >= on_policy_fraction:
        return scheduler.add_noise(target, noise, timestep), timestep
    if draw < on_policy_fraction / 2:
        return torch.zeros_like(target), torch.full_like(timestep, last)
    with torch.no_grad():
        estimate = first_estimate(last)
    return scheduler.add_noise(estimate, torch.zeros_like(noise), timestep), timestep


def training_scheduler(num_train_timesteps: int) -> DDPMScheduler:
    """DDPM on the cosine schedule; the networks predict the clean sample."""
    return DDPMScheduler(num_train_timesteps=num_train_timesteps, **NOISE_SCHEDULE)
