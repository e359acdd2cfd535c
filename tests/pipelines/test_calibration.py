"""Standard deviations of abundances, and the intervals that are made of them."""

from dataclasses import fields
from statistics import NormalDist

import numpy as np
import pytest
import torch

from hsunmix import SemiBlindUnmixingOutput
from hsunmix.physics import MIXING_MODELS
from hsunmix.pipelines.calibration import calibration, near_bounds


def test_abundances_close_to_a_bound_are_surer():
    abundances = torch.tensor([[0.0, 0.05, 0.1, 0.5, 0.95, 1.0]])
    std = near_bounds(torch.full_like(abundances, 0.1), abundances)
    torch.testing.assert_close(std, torch.tensor([[0.06, 0.08, 0.1, 0.1, 0.08, 0.06]]))
    assert near_bounds(torch.tensor([[9.0]]), torch.tensor([[0.5]])) == 1


@pytest.mark.parametrize("extracted", [False, True])
@pytest.mark.parametrize("corrected", [False, True])
def test_every_mixing_model_is_calibrated(extracted, corrected):
    assert all(min(calibration(extracted, corrected, model)) > 0 for model in MIXING_MODELS)


@pytest.mark.parametrize("kind", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_intervals_reach_to_a_bound_that_is_near(kind):
    reach = NormalDist().inv_cdf(0.95)
    abundances = kind([[[[0.1, 0.14, 0.2, 0.5, 0.8, 0.9]]]])
    unused = {field.name: None for field in fields(SemiBlindUnmixingOutput)}
    known = {"abundances": abundances, "abundance_uncertainty": 0 * abundances + 0.1 / reach}
    lower, upper = SemiBlindUnmixingOutput(**unused | known).abundance_interval(0.9)
    np.testing.assert_allclose(lower[0, 0, 0], [0, 0, 0.1, 0.4, 0.7, 0.8], atol=1e-6)
    np.testing.assert_allclose(upper[0, 0, 0], [0.2, 0.24, 0.3, 0.6, 0.9, 1], atol=1e-6)
