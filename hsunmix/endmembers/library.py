"""Endmembers from a spectral library: few spectra that together explain the scene.

Preselection by the distance to the signal subspace (MUSIC-CSR: Iordache et al., IEEE TGRS 2014), then greedy forward
selection and exchange by the residual of non-negative least squares.
"""

from __future__ import annotations

import torch

from ..physics import estimate_noise, solve_nonnegative, spectral_angle, unit_rows
from .subspace import SignalSubspace, effective_noise, fit_subspace

_PRESELECT = 120  # spectra kept for their small distance to the signal subspace
_TRIALS = 20  # of these, spectra tried at a time, in the order of what each explains of the residual
_PIXELS = 1500
_SCREENED_PIXELS = 150  # of these, on which spectra are tried
_FINALISTS = 5  # spectra then tried on all
_EXTRA_DIMENSIONS = 3  # of the signal subspace beyond R, for materials that vary, where they are above the noise


def select_from_library(
    pixels: torch.Tensor,
    library: torch.Tensor,
    num_endmembers: int,
    noise_std: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """The R spectra of a library that explain the pixels best, with free brightness.

    Args:
        pixels: (N, B) spectra.
        library: (L, B) spectra at the bands of the cube.
        num_endmembers: R.
        noise_std: (B,) standard deviation of the noise; estimated when `None`.
        generator: source of randomness for the choice of pixels, on the CPU; a fixed seed when `None`.

    Returns:
        (R, B) spectra of the library, unscaled, in the order in which they were found.

    Raises:
        ValueError: if shapes do not fit or the library has fewer than R usable spectra.
    """
    indices = library_indices(pixels, library, num_endmembers, noise_std, generator)
    return library[indices]


def library_indices(
    pixels: torch.Tensor,
    library: torch.Tensor,
    num_endmembers: int,
    noise_std: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """As `select_from_library`, but says which spectra they are.

    Args:
        pixels: (N, B) spectra.
        library: (L, B) spectra at the bands of the cube.
        num_endmembers: R.
        noise_std: (B,) standard deviation of the noise; estimated when `None`.
        generator: source of randomness for the choice of pixels, on the CPU; a fixed seed when `None`.

    Returns:
        (R,) positions in the library, in the order in which they were found.

    Raises:
        ValueError: if shapes do not fit or the library has fewer than R usable spectra.
    """
    if pixels.ndim != 2 or library.ndim != 2 or pixels.shape[1] != library.shape[1]:
        raise ValueError(
            f"`library` has shape {tuple(library.shape)} and `pixels` {tuple(pixels.shape)}: both must have the same "
            "bands; resample the library to the bands of the cube."
        )
    usable = torch.isfinite(library).all(1) & (library.abs().sum(1) > 0)
    if int(usable.sum()) < num_endmembers:
        raise ValueError(
            f"`library` has {int(usable.sum())} usable spectra, fewer than `num_endmembers`={num_endmembers}."
        )
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    if noise_std is None:
        noise_std = estimate_noise(pixels)
    subspace, coordinates = _scene_subspace(pixels, noise_std, num_endmembers)
    basis = subspace.basis  # [K, B]

    where = usable.nonzero()[:, 0]
    spectra = unit_rows(library[where].double() / subspace.noise_std)
    near = (spectra @ basis.T).square().sum(1).argsort(descending=True)[:_PRESELECT]
    subset = torch.randperm(len(pixels), generator=generator)[:_PIXELS].to(pixels.device)
    return where[near[_greedy_exchange(coordinates[subset] @ basis, spectra[near], num_endmembers)]]


def distance_to_scene(pixels: torch.Tensor, spectra: torch.Tensor, noise_std: torch.Tensor) -> torch.Tensor:
    """How far spectra are from anything that the pixels of a scene can be mixed from, beyond what noise explains.

    On simulated scenes of linear mixtures about as large as the error of spectra that are bent at random, since hardly
    anything of a random bend lies in the few dimensions of a scene. Noise turns the directions that pixels show, the
    more, the weaker they show one (first-order perturbation of eigenvectors); what that does to right spectra, twice
    its standard deviation included, is taken off. For directions hardly above the noise that is too little.

    Args:
        pixels: (N, B) spectra of the scene.
        spectra: (R, B) its supposed endmembers.
        noise_std: (B,) standard deviation of the noise.

    Returns:
        (R,) angles to the signal subspace beyond those, radians, in the dtype of `spectra`.
    """
    subspace, scene = _scene_subspace(pixels, noise_std, len(spectra))
    power = scene.square().mean(0)  # (K,)
    coordinates = subspace.project(spectra.double())  # [R, K]
    distance = spectral_angle(subspace.lift(coordinates), spectra.double())
    variance = (noise_std.double() / subspace.noise_std).square().mean()  # of whitened noise
    signal = (power - variance).clamp_min(1e-3 * power)
    others = max(pixels.shape[1] - len(power), 1)
    share = others * variance * power / (len(pixels) * signal.square()).clamp_min(1e-300)
    turned = coordinates.square() @ share.clamp_max(1)  # at most all that lies along a direction
    turned = turned * subspace.noise_std.square().mean() / spectra.double().square().sum(1).clamp_min(1e-300)
    excess = distance.square() - (1 + 2 * (2 / others) ** 0.5) * turned
    return excess.clamp_min(0).sqrt().to(spectra.dtype)


def _scene_subspace(
    pixels: torch.Tensor, noise_std: torch.Tensor, num_endmembers: int
) -> tuple[SignalSubspace, torch.Tensor]:
    """The signal subspace of R endmembers, and of what makes them vary where it is above the noise.

    With the coordinates (N, K) of the pixels in it.
    """
    noise = effective_noise(pixels, noise_std, floor=0.001)
    dim = min(num_endmembers + _EXTRA_DIMENSIONS, pixels.shape[1], len(pixels))
    subspace = fit_subspace(pixels, noise, dim)
    coordinates = subspace.project(pixels.double())
    power = coordinates[:, num_endmembers:].square().mean(0)
    noise_edge = (1 + (pixels.shape[1] / len(pixels)) ** 0.5) ** 2  # Marchenko and Pastur, 1967
    kept = num_endmembers + int((power > 1.5 * noise_edge).sum())
    return SignalSubspace(subspace.basis[:kept], subspace.noise_std), coordinates[:, :kept].contiguous()


def _greedy_exchange(points: torch.Tensor, spectra: torch.Tensor, count: int) -> torch.Tensor:
    """Indices of `count` spectra: forward selection, then exchange of one at a time while the residual falls.

    What a spectrum explains of the residual names the ones to try; where exchange comes to a halt, all are tried.

    Args:
        points: (N, B) pixels.
        spectra: (L, B) of unit norm.
        count: R.
    """
    gram, rhs = spectra @ spectra.T, points @ spectra.T
    few = rhs[torch.linspace(0, len(rhs) - 1, min(_SCREENED_PIXELS, len(rhs)), device=rhs.device).long()]
    ridge = 1e-12 * torch.eye(count, dtype=gram.dtype, device=gram.device)

    def misfits(sets: torch.Tensor, rhs: torch.Tensor) -> torch.Tensor:
        """Squared residual, less the power of the points, of each set of spectra (C, r)."""
        g, h = gram[sets[:, :, None], sets[:, None, :]], rhs[:, sets].transpose(0, 1)  # [C, r, r], [C, N, r]
        b = torch.vmap(solve_nonnegative)(g, h)
        return (b * (b @ g - 2 * h)).sum((1, 2))

    def promising(kept: list[int]) -> torch.Tensor:
        """How much of the residual each spectrum explains by what it has outside the span of those kept."""
        left, free = rhs, gram.diagonal()
        if kept:
            g = gram[kept][:, kept]
            left = rhs - solve_nonnegative(g, rhs[:, kept]) @ gram[kept]  # residual times spectra
            explained = torch.linalg.solve(g + ridge[: len(kept), : len(kept)], gram[kept])
            free = free - (gram[kept] * explained).sum(0)
        return left.clamp_min(0).square().sum(0) / free.clamp_min(1e-9)

    def best_addition(kept: list[int], excluded: list[int], trials: int) -> tuple[float, int]:
        gain = promising(kept)
        gain[excluded] = -1
        candidates = gain.argsort(descending=True)[: min(trials, len(spectra) - len(excluded))]
        sets = torch.cat([candidates.new_tensor(kept).expand(len(candidates), -1), candidates[:, None]], 1)
        finalists = sets[misfits(sets, few).argsort()[:_FINALISTS]]
        value, first = misfits(finalists, rhs).min(0)
        return float(value), int(finalists[first, -1])

    chosen: list[int] = []
    for _ in range(count):
        chosen.append(best_addition(chosen, chosen, _TRIALS)[1])
    best = float(misfits(torch.tensor([chosen], device=gram.device), rhs)[0])
    for trials in (_TRIALS, len(spectra)):
        improved = len(spectra) > count
        while improved:
            improved = False
            for position in range(count):
                kept = chosen[:position] + chosen[position + 1 :]
                value, k = best_addition(kept, chosen, trials)
                if value < best - 1e-9 * abs(best):
                    chosen[position], best, improved = k, value, True
    return torch.tensor(chosen, device=spectra.device)
