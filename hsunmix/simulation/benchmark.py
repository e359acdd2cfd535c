"""The simulated scenes of the benchmark: no pure pixel, smooth maps, library spectra, a fixed recipe."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .abundances import cap_purity
from .draws import Draws
from .endmembers import distinct_subset
from .fields import gaussian_blur
from .mixing import mix_pixels
from .noise import random_noise
from .scenes import Scene


def benchmark_scene(
    library_spectra: torch.Tensor,
    wavelengths: torch.Tensor | None,
    generator: torch.Generator | int,
    mixing: str = "linear",
    snr_db: float | None = 30.0,
    num_endmembers: int = 5,
    height: int = 64,
    width: int = 64,
    max_purity: float = 0.8,
    names: Sequence[str] | None = None,
) -> Scene:
    """One benchmark scene.

    Spectra of mean reflectance 0.15 to 0.85, pairwise 10 to 45 degrees apart; abundances softmax(2.5 * Gaussian random
    fields with a 6-pixel filter), pulled to the barycentre where purer than `max_purity`; brightness 1; white noise.

    Args:
        library_spectra: (L, B) reflectance; spectra with invalid values are left out.
        wavelengths: (B,) in nm, passed on to the scene, or None.
        generator: source of randomness, or a seed (on the CPU).
        mixing: "linear"; "bilinear" (generalised bilinear model, gamma ~ U(0, 1) per pixel and pair); "variable"
            (smooth per-pixel scaling 0.75 to 1.25 and a smooth spectral change of 2 degrees mean).
        snr_db: signal to noise ratio over the whole cube, or None for no noise.
        num_endmembers: R.
        height: rows.
        width: columns.
        max_purity: largest abundance.
        names: L names of the library's spectra.

    Returns:
        Scene on the device of the generator.

    Raises:
        ValueError: if the library has no R spectra that satisfy the recipe, or has the wrong shape.
    """
    if not isinstance(generator, torch.Generator):
        generator = torch.Generator().manual_seed(int(generator))
    draws = Draws(generator)
    spectra = torch.as_tensor(library_spectra).to(draws.device, torch.float32)
    if spectra.ndim != 2:
        raise ValueError(f"`library_spectra` must be (L, B), got {tuple(spectra.shape)}.")
    mean = spectra.mean(1)
    usable = torch.isfinite(spectra).all(1) & (spectra >= 0.0).all(1) & (mean >= 0.15) & (mean <= 0.85)
    endmembers, indices = _pick(spectra, usable.nonzero()[:, 0], num_endmembers, draws)

    maps = gaussian_blur(draws.normal(num_endmembers, height + 48, width + 48), 6.0)[:, 24:-24, 24:-24]
    maps = (maps - maps.mean((1, 2), keepdim=True)) / maps.std((1, 2), correction=0, keepdim=True)
    maps = cap_purity((2.5 * maps).softmax(0), max_purity)
    flat = maps.reshape(num_endmembers, -1).T.contiguous()  # (N, R)

    clean = mix_pixels(flat, endmembers, mixing, height, width, draws)
    num_bands = endmembers.shape[1]
    cube, noise_std = clean.clone(), torch.zeros(num_bands, device=draws.device)
    if snr_db is not None:
        power = clean.square().mean() / 10.0 ** (snr_db / 10.0)
        noise, noise_std = random_noise(height, width, num_bands, power, draws, "white")
        cube += noise
    return Scene(
        cube=cube.view(height, width, num_bands),
        clean=clean.view(height, width, num_bands),
        endmembers=endmembers,
        abundances=flat.view(height, width, num_endmembers),
        brightness=torch.ones(height, width, device=draws.device),
        noise_std=noise_std,
        wavelengths=None if wavelengths is None else torch.as_tensor(wavelengths).to(draws.device, torch.float32),
        fwhm=None,
        names=[names[i] if names is not None else f"library {i}" for i in indices],
        mixing=mixing,
        snr_db=float("inf") if snr_db is None else float(snr_db),
    )


def _pick(
    spectra: torch.Tensor, usable: torch.Tensor, num_endmembers: int, draws: Draws
) -> tuple[torch.Tensor, list[int]]:
    """R of the usable spectra in random order, 10 to 45 degrees apart, and their indices in the library."""
    for _ in range(50):
        order = usable[draws.permutation(len(usable))]
        chosen = distinct_subset(spectra[order], num_endmembers, 10.0, 45.0)
        if len(chosen) == num_endmembers:
            indices = order[chosen]
            return spectra[indices], indices.tolist()
    raise ValueError(
        f"`library_spectra` has no {num_endmembers} spectra of mean reflectance 0.15 to 0.85 that are 10 to 45 "
        "degrees apart; give a larger library or ask for a smaller `num_endmembers`."
    )
