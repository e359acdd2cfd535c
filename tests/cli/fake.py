"""A pipeline without networks, for tests of what the command reads and writes."""

from dataclasses import make_dataclass
from types import SimpleNamespace

import numpy as np

from hsunmix.data import as_cube

FIELDS = (
    "abundances endmembers abundance_uncertainty endmember_uncertainty coarse_abundances coarse_endmembers brightness "
    "residual noise brightness_mode scene"
).split()
Output = make_dataclass("Output", FIELDS)


class FakePipeline:
    """Takes the brightest pixels for endmembers."""

    def __init__(self):
        self.calls = []

    def __call__(self, cube, **kwargs):
        self.calls.append(SimpleNamespace(cube=cube, **kwargs))
        cube = as_cube(cube, kwargs.get("wavelengths"))
        given = next((kwargs[key] for key in ("endmembers", "fixed_endmembers") if kwargs.get(key) is not None), None)
        count = kwargs.get("num_endmembers") or (3 if given is None else len(given))
        height, width, bands = cube.shape
        pixels = cube.data[~cube.nodata_mask]
        spectra = pixels[np.argsort(pixels[:, cube.band_mask].sum(1))[-count:]] if given is None else given
        if kwargs.get("library") is not None:
            spectra = kwargs["library"][:count]
        spectra = np.where(cube.band_mask, spectra, np.nan)
        maps = np.random.default_rng(0).dirichlet(np.ones(count), (height, width)).astype(np.float32)
        maps[cube.nodata_mask] = np.nan
        unsure = kwargs.get("output_uncertainty")
        missing = np.where(cube.nodata_mask, np.nan, 1).astype(np.float32)
        values = {
            "abundances": maps,
            "endmembers": spectra,
            "abundance_uncertainty": maps * 0.1 if unsure else None,
            "endmember_uncertainty": spectra * 0.1 if unsure else None,
            "coarse_abundances": maps,
            "coarse_endmembers": spectra,
            "brightness": missing,
            "residual": 0.01 * missing,
            "noise": np.where(cube.band_mask, 0.01, np.nan),
            "scene": SimpleNamespace(
                scale=1.0,
                number_probabilities={3: 0.7, 4: 0.2, 5: 0.1},
                brightness_model=SimpleNamespace(mode="fixed"),
                mixing_model="linear",
            ),
            "brightness_mode": "fixed",
        }
        return Output(**{key: None if value is None else [value] for key, value in values.items()})
