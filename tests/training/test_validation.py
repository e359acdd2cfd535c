import numpy as np

from hsunmix.training.validation import _interval_of_median


def test_interval_of_the_median():
    """It holds the median, shrinks to a point where all values agree, and covers what it should of many samples."""
    rng = np.random.default_rng(0)
    assert _interval_of_median(np.full(9, 0.3)) == [0.3, 0.3]
    low, high = _interval_of_median(np.array([0.0, 0.1, 0.2, 0.3, 5.0]))
    assert 0.0 <= low < 0.2 < high <= 5.0
    intervals = np.array([_interval_of_median(rng.standard_normal(24), 500) for _ in range(200)])
    assert 0.88 < ((intervals[:, 0] < 0) & (intervals[:, 1] > 0)).mean() <= 0.99
