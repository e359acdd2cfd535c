"""Errors that pixels share: smooth ones of the prior, and the linear map of endmembers that are off."""

import pytest
import torch

from hsunmix.physics import fit_leak, gather_evidence, leaked_abundances, smooth_error

HEIGHT, WIDTH, RANK, BANDS, NOISE = 48, 60, 3, 40, 0.05


def scene(seed=0, brightness=1.0):
    """Pixels (N, B), endmembers, abundances (N, R), mask (H, W) with a hole, and the per-band noise."""
    g = torch.Generator().manual_seed(seed)
    endmembers = torch.rand(RANK, BANDS, generator=g)
    rows, columns = torch.meshgrid(torch.linspace(0, 1, HEIGHT), torch.linspace(0, 1, WIDTH), indexing="ij")
    maps = torch.stack([0.2 + 0.4 * rows, 0.2 + 0.1 * columns, 0.6 - 0.4 * rows - 0.1 * columns])
    valid = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    valid[10:20, 30:40] = False
    abundances = maps.permute(1, 2, 0)[valid]
    pixels = brightness * abundances @ endmembers
    return pixels + NOISE * torch.randn(pixels.shape, generator=g), endmembers, abundances, valid, g


def rms(x):
    return float(x.square().mean().sqrt())


def correction(evidence, prior, valid):
    return smooth_error(evidence, prior, valid, leaked_abundances(prior, fit_leak(evidence, prior)))


@pytest.mark.parametrize("brightness", [1.0, 0.2])
def test_smooth_error_of_the_prior_is_taken_out(brightness):
    pixels, endmembers, abundances, valid, _ = scene(brightness=brightness)
    evidence = gather_evidence(pixels, endmembers, torch.full((BANDS,), NOISE))
    flat = abundances.mean(0).expand_as(abundances)  # a prior that takes the gradient for noise
    corrected = flat + correction(evidence, flat, valid)
    assert rms(corrected - abundances) < 0.5 * rms(flat - abundances)
    if brightness < 1:  # as dark as that, no pixel by itself could tell
        assert rms(corrected - abundances) < 0.5 * rms(evidence.abundances - abundances)


def test_a_right_prior_is_left_alone():
    pixels, endmembers, abundances, valid, _ = scene()
    evidence = gather_evidence(pixels, endmembers, torch.full((BANDS,), NOISE))
    assert rms(correction(evidence, abundances, valid)) < 0.02 * rms(evidence.abundances - abundances)


def test_absent_materials_stay_absent():
    pixels, endmembers, abundances, valid, _ = scene()
    evidence = gather_evidence(pixels, endmembers, torch.full((BANDS,), NOISE))
    prior = abundances.clone()
    prior[:, 0] = 0
    prior = prior / prior.sum(1, keepdim=True)
    assert (correction(evidence, prior, valid)[:, 0] == 0).all()


def test_order_of_the_endmembers_does_not_matter():
    pixels, endmembers, abundances, valid, g = scene()
    noise, order = torch.full((BANDS,), NOISE), torch.tensor([2, 0, 1])
    prior = (abundances + 0.1 * torch.rand(abundances.shape, generator=g)).softmax(1)
    std = torch.full_like(endmembers, 0.05)
    straight, turned = (gather_evidence(pixels, e, noise, endmember_std=std) for e in (endmembers, endmembers[order]))
    leak, leak_turned = fit_leak(straight, prior), fit_leak(turned, prior[:, order])
    torch.testing.assert_close(leak[order][:, order], leak_turned, rtol=1e-4, atol=1e-6)
    expected = correction(straight, prior, valid)[:, order]
    torch.testing.assert_close(correction(turned, prior[:, order], valid), expected, rtol=1e-3, atol=1e-5)


def test_leak_of_wrong_endmembers_is_found():
    _, endmembers, _, _, g = scene()
    abundances = torch.rand(3000, RANK, generator=g).log().neg()
    abundances = abundances / abundances.sum(1, keepdim=True)
    change = 0.1 * torch.randn(RANK, RANK, generator=g)
    change = change - change.mean(1, keepdim=True)  # the rest would be brightness
    wrong = torch.linalg.solve(torch.eye(RANK) + change, endmembers)  # endmembers = (1 + change) wrong
    std = (wrong - endmembers).abs().mean() * torch.ones_like(endmembers)
    pixels = abundances @ endmembers + 0.01 * torch.randn(3000, BANDS, generator=g)
    evidence = gather_evidence(pixels, wrong, torch.full((BANDS,), 0.01), endmember_std=std)
    leaked = leaked_abundances(abundances, fit_leak(evidence, abundances))
    before, after = evidence.unbounded - abundances, evidence.unbounded - leaked - abundances
    assert rms(after) < 0.5 * rms(before)


def test_exact_endmembers_leak_nothing():
    pixels, endmembers, abundances, _, _ = scene()
    evidence = gather_evidence(pixels, endmembers, torch.full((BANDS,), NOISE))
    assert (fit_leak(evidence, abundances.roll(1, 1)) == 0).all()


def test_a_single_pixel():
    pixels, endmembers, abundances, _, _ = scene()
    evidence = gather_evidence(
        pixels[:1], endmembers, torch.full((BANDS,), NOISE), endmember_std=0.1 * torch.ones_like(endmembers)
    )
    assert torch.isfinite(correction(evidence, abundances[:1], torch.ones(1, 1, dtype=torch.bool))).all()
