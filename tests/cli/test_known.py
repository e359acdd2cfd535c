"""Names that spectra of the user lend to the result."""

import numpy as np

from hsunmix.cli.known import name_endmembers
from hsunmix.data import SpectralLibrary


def test_only_similar_spectra_of_a_library_lend_their_names():
    bands = np.linspace(0.0, 1.0, 30)
    library = SpectralLibrary(np.stack([0.1 + bands, 1.1 - bands, 0.5 + 0 * bands]), ["rising", "falling", "flat"])
    found = np.stack([0.3 * (1.1 - bands), 0.1 + bands**4, np.where(bands > 0.9, 1.0, 0.02)])
    found[:, 3] = np.nan  # a masked band
    names = name_endmembers({"endmembers": found, "coarse_endmembers": found}, {"library": library})
    assert names == ["falling", "endmember 2", "endmember 3"]
    assert name_endmembers({"endmembers": found}, {}) == ["endmember 1", "endmember 2", "endmember 3"]
