"""Standard deviations of abundances, and the intervals that are made of them."""

from dataclasses import fields
from statistics import NormalDist

import numpy as np
import pytest
import torch

from hsunmix import SemiBlindUnmixingOutput
from hsunmix.physics import MIXING_MODELS, abundance_std, fraction_variance, split_brightness
from hsunmix.pipelines.calibration import away_from_bounds, calibration, left_by_facets, near_bounds
from hsunmix.pipelines.chain import Chain

from .tiny import tiny_pipeline, tiny_scene


def test_abundances_close_to_a_bound_are_surer():
    abundances = torch.tensor([[0.0, 0.05, 0.1, 0.5, 0.95, 1.0]])
    std = near_bounds(torch.full_like(abundances, 0.1), abundances)
    torch.testing.assert_close(std, torch.tensor([[0.06, 0.08, 0.1, 0.1, 0.08, 0.06]]))
    torch.testing.assert_close(away_from_bounds(std, abundances), torch.full_like(abundances, 0.1))
    assert near_bounds(torch.tensor([[9.0]]), torch.tensor([[0.5]])) == 1


ORIGINS = ["given", "approximate", "library", "corrected", "extracted"]


@pytest.mark.parametrize("origin", ORIGINS)
def test_every_mixing_model_is_calibrated_and_none_with_constant_endmembers_is_surer_than_the_linear_one(origin):
    for noisiness in (0.0, 0.5, 1.0):
        linear = calibration(origin, "linear", noisiness)
        for model in MIXING_MODELS:
            factors = calibration(origin, model, noisiness)
            assert factors[0] > 0 and (factors[1] > 0 or origin == "given")
            assert model == "variable" or all(one >= other for one, other in zip(factors, linear, strict=True))


@pytest.mark.parametrize("model", MIXING_MODELS)
def test_nothing_is_surer_than_the_right_spectra_and_less_sure_than_approximate_ones_under_noise(model):
    scales = {origin: calibration(origin, model, 1.0)[0] for origin in ORIGINS}
    right = min(scales["given"], scales["library"])
    assert all(right <= scale <= 1.05 * scales["approximate"] for scale in scales.values())
    assert calibration("given", model, 1.0)[1] == 0, "exact spectra leak nothing"


@pytest.mark.parametrize("origin", ["extracted", "corrected"])
def test_model_errors_make_less_sure_but_where_variation_is_counted_already(origin):
    def scale(model, noisiness):
        return calibration(origin, model, noisiness)[0]

    assert scale("linear", 0.0) > scale("linear", 0.5) > scale("linear", 1.0) > 1
    assert scale("variable", 0.0) < scale("variable", 0.5) < scale("variable", 1.0)


@pytest.mark.parametrize("mixing_model", ["linear", "variable"])
def test_uncertainty_is_the_posterior_times_the_factors_and_smaller_near_the_bounds(mixing_model):
    cube, wavelengths, endmembers = tiny_scene()
    pipe = tiny_pipeline()
    chains = []
    own = Chain.abundance_std

    def kept(chain):
        chains.append(chain)
        chain.posterior_share = 0.5
        return own(chain)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chain, "abundance_std", kept)
        call = {"fixed_endmembers": endmembers, "mixing_model": mixing_model, "output_uncertainty": True}
        uncertainty = pipe(cube, wavelengths, **call).abundance_uncertainty[0]
    (chain,) = chains
    abundances, brightness = split_brightness(chain.scaled_abundances.double())
    confidence = chain.confidence[:, None]
    std = abundance_std(chain.evidence.gram, chain.precision / confidence) * confidence.rsqrt()
    factor = calibration("given", mixing_model, chain.stages[-1].noisiness)[0]  # exact endmembers leak nothing
    expected = near_bounds(factor * chain.posterior_share * std / brightness[:, None], abundances)
    np.testing.assert_allclose(uncertainty.reshape(expected.shape), expected, rtol=1e-3)


@pytest.mark.parametrize("origin", ["extracted", "corrected"])
def test_facets_leave_the_more_open_the_more_noise_blurs_them_and_no_more_than_alternatives_do(origin):
    shares = [left_by_facets(origin, error) for error in (0.0, 0.003, 0.03, 1.0)]
    assert shares[0] == 0 < shares[1] and shares[2] == pytest.approx(10 * shares[1]) and shares[2] < shares[3] == 1


@pytest.mark.parametrize("mixing_model", ["linear", "variable"])
@pytest.mark.parametrize("known", [False, True], ids=["extracted", "corrected"])
def test_alternatives_to_the_endmembers_count_as_far_as_facets_leave_them_open(mixing_model, known):
    cube, wavelengths, endmembers = tiny_scene()
    chains, own = [], Chain.abundance_std

    def kept(chain):
        chains.append(chain)
        return own(chain)

    def uncertainty(pipe, **call):
        call = {"num_endmembers": len(endmembers), "mixing_model": mixing_model, "output_uncertainty": True} | call
        return pipe(cube, wavelengths, generator=torch.manual_seed(0), **call)

    pipe = tiny_pipeline()
    call = {"endmembers": endmembers} if known else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chain, "abundance_std", kept)
        out = uncertainty(pipe, **call)
        uncertainty(pipe, facets=False, **call)
    with_them, without = chains
    origin = "corrected" if known else "extracted"
    assert with_them.origin == without.origin == origin and with_them.alternatives is not None
    scale, leak = calibration(origin, mixing_model, with_them.stages[-1].noisiness)
    posterior = with_them.posterior_share * with_them.posterior_std()
    leaking = leak * with_them.error_share.double()[:, None] * with_them._counted_evidence().leakage
    if mixing_model == "linear":
        variance = fraction_variance(with_them.endmembers, with_them.alternatives)
        leaking = left_by_facets(origin, float(posterior.square().mean().sqrt())) * variance
        assert leaking.any()
    abundances = split_brightness(with_them.scaled_abundances)[0].double()
    variance = (scale * posterior).square() + abundances.square() @ leaking
    expected = near_bounds(variance.sqrt(), abundances)
    np.testing.assert_allclose(out.abundance_uncertainty[0].reshape(expected.shape), expected, rtol=1e-3)
    counted, uncounted = (chain.stages[-1].misplaced.any() for chain in chains)
    assert counted == (mixing_model == "linear") and not uncounted
    again = pipe(cube, scene=out.scene[0], output_uncertainty=True)
    np.testing.assert_allclose(again.abundance_uncertainty, out.abundance_uncertainty, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_intervals_reach_to_a_bound_that_is_near(kind):
    reach = NormalDist().inv_cdf(0.95)
    abundances = kind([[[[0.1, 0.14, 0.2, 0.5, 0.8, 0.86]]]])
    unused = {field.name: None for field in fields(SemiBlindUnmixingOutput)}
    known = {"abundances": abundances, "abundance_uncertainty": 0 * abundances + 0.1 / reach}
    lower, upper = SemiBlindUnmixingOutput(**unused | known).abundance_interval(0.9)
    np.testing.assert_allclose(lower[0, 0, 0], [0, 0, 0.1, 0.4, 0.7, 0.76], atol=1e-6)
    np.testing.assert_allclose(upper[0, 0, 0], [0.2, 0.24, 0.3, 0.6, 0.9, 1], atol=1e-6)
