"""Data consistency in closed form: what the measured cube says about abundances and endmembers, given the priors.

Half-quadratic splitting as in DiffPIR (Zhu et al., CVPRW 2023), written for spectral mixing: with `b = s * a`,

    A-step:  min_b  |y - b E|^2_{1/sigma^2} + (sum b - s0)^2 / tau^2 + sum_r p_r (b_r - m_r)^2,   b >= 0
    E-step:  min_E  |Y - b E|^2_{1/sigma^2} + sum (E - M)^2 / rho^2,                              E >= 0

Both touch the cube once (one matrix product for the whole scene); the rest is R x R algebra in float64, so that
nearly collinear endmembers are safe with float32 data.
"""

from __future__ import annotations

from typing import Any

import torch

from .noise import noise_share

# Of the way, at most: all of it, maps of some real starts are an eighth worse. And the power of the share of model
# errors: with less of it, steps under noise of 30 dB make angles larger.
_ROBUST_STEP, _ROBUST_POWER = 0.75, 3
# Of the explained share, nearly 1 in simulated mixtures and less than two thirds in real scenes, which stay so.
_EXPLAINED_POWER = 4


def normal_equations(
    pixels: torch.Tensor, endmembers: torch.Tensor, noise_std: torch.Tensor | float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gram matrix `E W E^T` and right-hand side `Y W E^T` with `W = diag(1 / noise_std^2)`.

    The pixels are first projected on an orthonormal basis of the endmembers, so that float32 data lose only the
    square root of the condition number.

    Args:
        pixels: (N, B) spectra.
        endmembers: (R, B) spectra.
        noise_std: (B,) or scalar standard deviation of the noise.

    Returns:
        `(gram, rhs)`, (R, R) and (N, R), float64.

    Raises:
        ValueError: if the number of bands differs, or there are more endmembers than bands.
    """
    if endmembers.shape[0] > endmembers.shape[-1]:
        raise ValueError(
            f"`endmembers` are {endmembers.shape[0]} spectra, more than the {endmembers.shape[-1]} bands."
        )
    if pixels.shape[-1] != endmembers.shape[-1]:
        raise ValueError(
            f"`endmembers` have {endmembers.shape[-1]} bands, but `pixels` have {pixels.shape[-1]}: "
            "resample the endmembers to the bands of the cube."
        )
    weight = 1 / torch.as_tensor(noise_std, dtype=torch.float64, device=pixels.device).expand(pixels.shape[-1])
    basis, triangle = torch.linalg.qr((endmembers.double() * weight).T)  # [B, R], [R, R]
    coordinates = pixels @ (weight[:, None] * basis).to(pixels.dtype)  # [N, R]
    return triangle.T @ triangle, coordinates.double() @ triangle


def nnls(
    pixels: torch.Tensor, endmembers: torch.Tensor, noise_std: torch.Tensor | float | None = None
) -> torch.Tensor:
    """Exact non-negative least squares of every pixel on the endmembers: `min_b |y - b E|^2, b >= 0`.

    With the brightness free this is the scaled constrained model (SCLSU) when `b` is then divided by its sum.

    Args:
        pixels: (N, B) spectra.
        endmembers: (R, B) spectra.
        noise_std: (B,) standard deviation of the noise that weighs the bands; equal weights when `None`.

    Returns:
        (N, R) non-negative coefficients in the dtype of `pixels`.
    """
    gram, rhs = normal_equations(pixels, endmembers, 1.0 if noise_std is None else noise_std)
    return solve_nonnegative(gram, rhs).to(pixels.dtype)


def fcls(
    pixels: torch.Tensor, endmembers: torch.Tensor, noise_std: torch.Tensor | float | None = None
) -> torch.Tensor:
    """Fully constrained least squares (Heinz and Chang, IEEE TGRS 2001): as `nnls`, with `sum b = 1`.

    The sum is imposed by a weight of 1e8 times the mean diagonal of the Gram matrix.

    Args:
        pixels: (N, B) spectra.
        endmembers: (R, B) spectra.
        noise_std: (B,) standard deviation of the noise; equal weights when `None`.

    Returns:
        (N, R) abundances on the simplex, in the dtype of `pixels`.
    """
    gram, rhs = normal_equations(pixels, endmembers, 1.0 if noise_std is None else noise_std)
    gram, rhs = anchor_brightness(gram, rhs, 1.0, 1e8 * gram.diagonal().mean())
    b = solve_nonnegative(gram, rhs)
    return (b / b.sum(-1, keepdim=True).clamp_min(1e-12)).to(pixels.dtype)


def anchor_brightness(
    gram: torch.Tensor, rhs: torch.Tensor, brightness: torch.Tensor | float, precision: torch.Tensor | float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add the term `precision * (sum b - brightness)^2` to the normal equations.

    Args:
        gram: (R, R) Gram matrix.
        rhs: (N, R) right-hand side.
        brightness: (N,) or scalar expected brightness.
        precision: scalar inverse variance of the brightness around it; 0 leaves it free.

    Returns:
        `(gram, rhs)`, (R, R) and (N, R).
    """
    target = torch.as_tensor(brightness, dtype=rhs.dtype, device=rhs.device)
    return gram + precision, rhs + (precision * target)[..., None]


def solve_nonnegative(
    gram: torch.Tensor, rhs: torch.Tensor, free: torch.Tensor | None = None, max_iterations: int = 200
) -> torch.Tensor:
    """Solve `min_x x^T G x / 2 - h^T x, x >= 0` for many right-hand sides by block principal pivoting.

    Exact up to rounding (Judice and Pires, 1994; Kim and Park, SIAM J. Sci. Comput. 2011).

    Args:
        gram: (R, R) positive semi-definite, shared by all pixels (those with one active set then share one
            factorisation), or (N, R, R), one for each.
        rhs: (N, R).
        free: (N, R) bool, guess of the positive coefficients; from the sign of `rhs` when `None`.
        max_iterations: bound on the number of exchanges.

    Returns:
        (N, R), float64.
    """
    solution: torch.Tensor = _Pivoting.apply(gram, rhs, rhs > 0 if free is None else free, max_iterations)
    return solution


class _Pivoting(torch.autograd.Function):
    """Block principal pivoting; under `torch.vmap` the pixels of all scenes in one go, each with its own matrix."""

    @staticmethod
    def forward(gram: torch.Tensor, rhs: torch.Tensor, free: torch.Tensor, max_iterations: int) -> torch.Tensor:
        return _pivot(gram, rhs, free, max_iterations)

    @staticmethod
    def setup_context(ctx: object, inputs: tuple, output: torch.Tensor) -> None:
        """Nothing is kept: the solution has no gradient."""

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple, gram: torch.Tensor, rhs: torch.Tensor, free: torch.Tensor, max_iterations: int
    ) -> tuple[torch.Tensor, int]:
        gram, rhs, free = (
            x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            for x, dim in zip((gram, rhs, free), in_dims[:3], strict=True)
        )
        if gram.ndim == 3:
            gram = gram[:, None].expand(*rhs.shape, rhs.shape[-1])
        solved = solve_nonnegative(gram.flatten(0, 1), rhs.flatten(0, 1), free.flatten(0, 1), max_iterations)
        return solved.view(rhs.shape), 0


def _pivot(gram: torch.Tensor, rhs: torch.Tensor, free: torch.Tensor, max_iterations: int) -> torch.Tensor:
    rank = rhs.shape[1]
    scale = gram.diagonal(dim1=-2, dim2=-1).clamp_min(1e-300).rsqrt()  # makes the diagonal one
    g = gram * scale[..., :, None] * scale[..., None, :]
    g = g + 1e-12 * torch.eye(rank, dtype=gram.dtype, device=gram.device)
    h = rhs * scale
    tolerance = 1e-10 * h.abs().amax(1, keepdim=True).clamp_min(1e-30)
    solution = torch.zeros_like(h)
    best = torch.full((len(h),), rank + 1, device=h.device)  # fewest infeasibilities so far
    patience = torch.full_like(best, 3)
    index = torch.arange(rank, device=h.device)
    todo = torch.arange(len(h), device=h.device)
    for _ in range(max_iterations):
        x = solve_on_support(g, h, free)
        solution[todo] = x
        dual = (x @ g if g.ndim == 2 else (g @ x[..., None]).squeeze(-1)) - h
        wrong = torch.where(free, x, dual) < -tolerance
        count = wrong.sum(1)
        keep = count.nonzero().squeeze(1)
        if not len(keep):
            break
        todo, h, tolerance, free, wrong, count, best, patience = (
            of_all[keep] for of_all in (todo, h, tolerance, free, wrong, count, best, patience)
        )
        g = g if g.ndim == 2 else g[keep]
        improved = count < best
        patience = torch.where(improved, 3, patience - 1)
        best = torch.minimum(best, count)
        # Murty's rule, which cannot cycle: exchange only the last infeasible variable once patience is spent
        last = (wrong * (index + 1)).argmax(1, keepdim=True)
        wrong = torch.where((patience < 0)[:, None], index == last, wrong)
        free = free ^ wrong
    return solution.clamp_min(0) * scale


def solve_on_support(gram: torch.Tensor, rhs: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
    """Solve `G x = h` on the free variables of every row, the others being zero.

    Unlike that of `solve_nonnegative`, whose free variables this takes, the solution has a gradient.

    Args:
        gram: (R, R), shared by all rows, or (N, R, R), one for each.
        rhs: (N, R).
        free: (N, R) bool.

    Returns:
        (N, R).
    """
    if gram.ndim == 3:
        mask = free.to(gram.dtype)
        system = gram * mask[:, :, None] * mask[:, None, :] + torch.diag_embed(1 - mask)
        return torch.linalg.solve(system, rhs * mask)
    bits = 2 ** torch.arange(free.shape[1], device=free.device)
    _, first, which = _unique_rows((free * bits).sum(1))
    mask = free[first].to(gram.dtype)  # [U, R]
    system = gram * mask[:, :, None] * mask[:, None, :] + torch.diag_embed(1 - mask)
    inverse = torch.linalg.inv(system) * mask[:, :, None] * mask[:, None, :]
    return torch.einsum("nij,nj->ni", inverse[which], rhs)


def _unique_rows(code: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Unique values of `code`, the position of one example of each, and the index of every entry."""
    values, which = code.unique(return_inverse=True)
    first = torch.empty(len(values), dtype=torch.long, device=code.device)
    first[which] = torch.arange(len(code), device=code.device)
    return values, first, which


def abundance_step(
    gram: torch.Tensor, rhs: torch.Tensor, prior: torch.Tensor, precision: torch.Tensor
) -> torch.Tensor:
    """A-step: pull the prior's `b` onto the data, every pixel and endmember with its own trust in the prior. Exact.

    Args:
        gram: (R, R) from `normal_equations`.
        rhs: (N, R) likewise.
        prior: (N, R) scaled abundances `s * a` that the prior expects.
        precision: (N, R) inverse variances of that expectation.

    Returns:
        (N, R) non-negative `b`, float64.
    """
    prior, precision = prior.double(), precision.double()
    return solve_nonnegative(gram + torch.diag_embed(precision), rhs + precision * prior, free=prior > 0)


def regularise(gram: torch.Tensor) -> torch.Tensor:
    """Gram matrices (..., R, R) that can be inverted even for collinear endmembers: 1e-10 of their scale is added."""
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return gram + 1e-10 * gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] * eye


def abundance_std(gram: torch.Tensor, precision: torch.Tensor | None = None) -> torch.Tensor:
    """Standard deviation of `b` under the data and, where given, the prior: `diag((G + diag(p))^-1)^(1/2)`.

    Args:
        gram: (R, R) from `normal_equations` with the true noise level.
        precision: (N, R) prior inverse variances, or `None` for the data alone.

    Returns:
        (R,) without `precision`, else (N, R); float64.
    """
    system = regularise(gram)
    if precision is not None:
        system = system + torch.diag_embed(precision.double())
    return torch.linalg.inv(system).diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()


def endmember_step(
    pixels: torch.Tensor,
    scaled_abundances: torch.Tensor,
    noise_std: torch.Tensor,
    prior: torch.Tensor,
    prior_std: torch.Tensor,
    covariance: torch.Tensor | None = None,
    upper: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """E-step: move the endmembers from the prior onto the data, `b` fixed; one R x R solve per band.

    Args:
        pixels: (N, B) spectra.
        scaled_abundances: (N, R) `b = s * a`.
        noise_std: (B,) standard deviation of noise and model error.
        prior: (R, B) expected endmembers.
        prior_std: (R, B) or broadcastable: how far each may be off; 0 keeps an endmember exactly.
        covariance: (R, R) sum over the pixels of the posterior covariance of `b` (the EM correction, Dempster et al.
            1977, which stops noise in `b` from leaking into the endmembers); none when `None`.
        upper: endmembers are clipped to [0, upper]; only from below when `None`.

    Returns:
        `(endmembers, std)`: (R, B) each, in the dtype of `pixels`; `std` is the posterior standard deviation.
    """
    b = scaled_abundances.double()
    gram = b.T @ b if covariance is None else b.T @ b + covariance.double()
    rhs = (scaled_abundances.to(pixels.dtype).T @ pixels).double()  # [R, B]
    std = prior_std.double().expand(prior.shape).T  # [B, R]
    # in units of the prior's std: (D G D / sigma^2 + I) z = D (h - G m) / sigma^2, so that std = 0 is no special case
    inverse_variance = noise_std.double().square().reciprocal()[:, None]
    scaled_gram = std[:, :, None] * gram * std[:, None, :] * inverse_variance[..., None]
    eye = torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)
    force = std * (rhs - gram @ prior.double()).T * inverse_variance
    posterior = torch.linalg.inv(scaled_gram + eye)  # [B, R, R]
    move = std * (posterior @ force[..., None]).squeeze(-1)
    moved = (prior.double() + move.T).clamp(min=0, max=upper)
    deviation = std * posterior.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    kept = std.T == 0
    return torch.where(kept, prior.double(), moved).to(pixels.dtype), deviation.T.to(pixels.dtype)


def robust_endmember_step(
    pixels: torch.Tensor,
    scaled_abundances: torch.Tensor,
    noise_std: torch.Tensor,
    prior: torch.Tensor,
    prior_std: torch.Tensor,
) -> torch.Tensor:
    """E-step where model errors rule: a part of the way to where most of the pixels would have the endmembers.

    Model errors grow with brightness, so that every pixel counts as if it was as bright as all others; and only the
    half of them counts that the endmembers explain best (least trimmed squares: Rousseeuw, JASA 1984). Least squares
    of all would follow the others, which may hold other materials. Noise, which abundances without negative values
    hold as a bias, would be followed too: the more of the residual it is, the shorter the step.

    Args:
        pixels: (N, B) spectra.
        scaled_abundances: (N, R) `b = s * a`, least squares with `prior`.
        noise_std: (B,) standard deviation of the noise of the sensor.
        prior: (R, B) endmembers.
        prior_std: (R, B) or broadcastable: how far each may be off; 0 keeps an endmember exactly.

    Returns:
        (R, B) endmembers, in the dtype of `pixels`.
    """
    b, prior = scaled_abundances.to(pixels.dtype), prior.to(pixels.dtype)
    residual = pixels - b @ prior
    squares, noise = residual.square().mean(1), noise_std.square().mean()
    brightness = b.sum(1).square().clamp_min(1e-12)
    brightness = brightness.clamp_min(1e-3 * brightness.median())  # darker pixels say nothing
    variance = noise + ((squares - noise) / brightness).median().clamp_min(0) * brightness
    relative = squares / variance
    weight = torch.where(relative <= relative.median(), variance.reciprocal(), 0.0)
    weight = (weight * brightness.mean() / (weight * brightness).mean()).sqrt()[:, None]
    std = (noise_std.square() + (squares.mean() - noise).clamp_min(0)).sqrt()
    moved, _ = endmember_step(weight * pixels, weight * b, std, prior, prior_std)
    return torch.lerp(prior, moved, _ROBUST_STEP * (1 - noise_share(residual, noise_std)) ** _ROBUST_POWER)


def final_endmember_step(
    pixels: torch.Tensor,
    scaled_abundances: torch.Tensor,
    noise_std: torch.Tensor,
    prior: torch.Tensor,
    prior_std: torch.Tensor,
    share: float,
) -> torch.Tensor:
    """E-step where the model holds, of endmembers that are placed within their span: what all pixels say beyond that.

    Of the move as much counts as `mostly_outside` says. Model errors don't average out: it counts times the fourth
    power of `share`, see `explained_share`.

    Args:
        pixels: (N, B) spectra.
        scaled_abundances: (N, R) `b = s * a`, least squares with `prior` or refined.
        noise_std: (B,) standard deviation of noise and model error.
        prior: (R, B) endmembers.
        prior_std: (R, B) or broadcastable: how far each may be off; 0 keeps an endmember exactly.
        share: of what the pixels have in common in the residual that other endmembers explain, 0 to 1.

    Returns:
        (R, B) endmembers, in the dtype of `pixels`.
    """
    moved, _ = endmember_step(pixels, scaled_abundances, noise_std, prior, prior_std)
    move = share**_EXPLAINED_POWER * mostly_outside(moved.double() - prior.double(), prior.double())
    kept = (prior_std == 0).expand(prior.shape)
    return torch.where(kept, prior, (prior + move).clamp_min(0)).to(pixels.dtype)


def mostly_outside(move: torch.Tensor, endmembers: torch.Tensor, few: int = 2) -> torch.Tensor:
    """What counts of a move onto the data of endmembers that are placed within their span.

    Outside of that span what is left of the pixels is theirs, and all of the move there counts. Within, most of it is
    that of pixels beyond the facets, by noise or since these are misplaced, and (R - `few`) / R of the move there
    counts, nothing of so few or less: the facets of two endmembers are placed better than such pixels could place
    them, those of many are not.

    Args:
        move: (R, B), of the endmembers.
        endmembers: (R, B) spectra.
        few: number of endmembers up to which nothing of the move within their span counts.

    Returns:
        (R, B).
    """
    basis = torch.linalg.qr(endmembers.T)[0]  # [B, R]
    return move - min(few / len(endmembers), 1.0) * (move @ basis) @ basis.T
