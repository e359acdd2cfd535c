import math

import pytest
import torch

from hsunmix.simulation import (
    PARAMETRIC_FAMILIES,
    SENSOR_PRESETS,
    LibrarySpectra,
    Sensor,
    even_sensor,
    is_held_out,
    parametric_spectra,
    preset_sensor,
    random_sensor,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_parametric_spectra_are_reflectances_of_all_families():
    wavelengths = torch.linspace(380, 2500, 180)
    spectra, families = parametric_spectra(300, wavelengths, generator(), return_families=True)
    assert spectra.shape == (300, 180)
    assert torch.isfinite(spectra).all() and spectra.min() > 0 and spectra.max() <= 1.05
    assert set(families) == set(PARAMETRIC_FAMILIES)
    assert torch.equal(spectra, parametric_spectra(300, wavelengths, generator()))


def test_leaves_have_a_red_edge_and_water_is_dark_in_the_infrared():
    wavelengths = torch.tensor([550.0, 670.0, 800.0, 1650.0])
    spectra, families = parametric_spectra(400, wavelengths, generator(1), return_families=True)
    leaf = spectra[[f == "leaf" for f in families]]
    water = spectra[[f == "water" for f in families]]
    assert (leaf[:, 2] > 2 * leaf[:, 1]).all()
    assert (water[:, 3] < water[:, 0]).all() and water[:, 3].max() < 0.1


def test_presets():
    assert {name: preset_sensor(name).num_bands for name in SENSOR_PRESETS} == {
        "emit": 285,
        "aviris": 224,
        "enmap": 218,
        "prisma": 234,
        "vnir": 156,
    }
    with pytest.raises(ValueError, match="`name`"):
        preset_sensor("landsat")


@pytest.mark.parametrize("limits", [(30, 450), (30, 40), (200, 230), (10, 10)])
def test_random_sensors_keep_their_limits(limits):
    for seed in range(60):
        sensor = random_sensor(generator(seed), *limits)
        assert limits[0] <= sensor.num_bands <= limits[1]
        assert (sensor.wavelengths.diff() > 0).all() and (sensor.fwhm > 0).all()
        assert 350 < sensor.wavelengths[0] and sensor.wavelengths[-1] < 2520


def test_random_sensors_differ_in_range_and_missing_bands():
    sensors = [random_sensor(generator(seed)) for seed in range(60)]
    assert any(s.wavelengths[-1] < 1060 for s in sensors) and any(s.wavelengths[0] > 850 for s in sensors)
    gaps = [float(s.wavelengths.diff().max() / s.wavelengths.diff().median()) for s in sensors]
    assert max(gaps) > 5 and min(gaps) < 1.5
    with pytest.raises(ValueError, match="`min_bands`"):
        random_sensor(generator(), 50, 20)


def test_without_water_vapour():
    wavelengths = even_sensor(400, 2500, 211).without_water_vapour().wavelengths
    for low, high in ((1340, 1460), (1790, 1970)):
        assert not ((wavelengths >= low) & (wavelengths <= high)).any()


def test_held_out_names():
    assert is_held_out("Alunite GDS84 Na03") and is_held_out("Kaolinite CM9") and is_held_out("urban|asphalt: x")
    assert is_held_out("Praseodymium_Oxide GDS35") and not is_held_out("Quartz GDS31") and not is_held_out("")


def test_library_drops_and_fills_missing_values():
    wavelengths = torch.linspace(400, 2400, 21)
    line = torch.linspace(0.1, 0.5, 21)
    spectra = line.repeat(5, 1)
    spectra[0, 7:9] = -1.23e34
    spectra[1, 0] = math.nan
    spectra[2, :12] = -1.23e34  # too little left
    spectra[3, 20] = 7.0
    names = ["gap", "edge", "bad", "high", "Calcite good"]
    library = LibrarySpectra(spectra, wavelengths, names, exclude_held_out=True)
    assert library.names == ["gap", "edge", "high"]
    torch.testing.assert_close(library.spectra[0], line)
    torch.testing.assert_close(library.spectra[1, 1:], line[1:])
    assert library.spectra[1, 0] == line[1] and library.spectra[2, 20] == line[19]


def test_library_sorts_wavelengths():
    wavelengths = torch.tensor([500.0, 400.0, 600.0, 600.0])
    library = LibrarySpectra(torch.tensor([[0.2, 0.1, 0.3, 0.3]]), wavelengths)
    assert library.wavelengths.tolist() == [400, 500, 600]
    torch.testing.assert_close(library.spectra[0], torch.tensor([0.1, 0.2, 0.3]))


def test_resampling_keeps_lines_and_constants():
    wavelengths = torch.linspace(400, 2500, 500)
    library = LibrarySpectra(torch.stack([1e-4 * wavelengths, torch.full((500,), 0.4)]), wavelengths)
    narrow = Sensor(torch.linspace(420, 2480, 77), torch.full((77,), 1.0))
    wide = Sensor(torch.linspace(420, 2480, 77), torch.full((77,), 15.0))
    for sensor in (narrow, wide):
        result = library.sample([0, 1, 1], sensor)
        torch.testing.assert_close(result[0], 1e-4 * sensor.wavelengths, rtol=0, atol=1e-4)
        torch.testing.assert_close(result[1:], torch.full((2, 77), 0.4))


def test_wide_bands_blur_narrow_features():
    wavelengths = torch.linspace(400, 1000, 601)
    spectrum = 0.5 - 0.4 * torch.exp(-0.5 * ((wavelengths - 700) / 5) ** 2)
    library = LibrarySpectra(spectrum[None], wavelengths)
    depths = [
        float(library.sample([0], Sensor(torch.tensor([700.0]), torch.tensor([fwhm])))) for fwhm in (1.0, 10.0, 40.0)
    ]
    assert depths[0] == pytest.approx(0.1, abs=1e-3)
    sigma = 10 / 2.3548  # two Gaussians convolved
    assert depths[1] == pytest.approx(0.5 - 0.4 * 5 / math.hypot(5, sigma), abs=2e-3)
    assert depths[2] > depths[1]


def test_resampling_weights_are_kept_for_the_latest_sensors_only():
    library = LibrarySpectra(torch.full((2, 50), 0.3), torch.linspace(400, 2500, 50))
    for count in range(20, 50):
        library.sample([0], even_sensor(400, 2500, count))
    assert len(library._weights) <= 8


def test_coverage():
    library = LibrarySpectra(torch.full((1, 50), 0.3), torch.linspace(401, 899, 50))
    assert library.covers(preset_sensor("vnir")) and not library.covers(preset_sensor("emit"))


@pytest.mark.parametrize(
    "arguments,message",
    [
        (dict(wavelengths=None), "`wavelengths`"),
        (dict(wavelengths=torch.linspace(0.4, 2.5, 10)), "nm"),
        (dict(wavelengths=torch.linspace(400, 2500, 9)), "`spectra`"),
        (dict(names=["one"]), "`names`"),
        (dict(spectra=torch.full((2, 10), -1.0)), "no usable"),
    ],
)
def test_library_errors(arguments, message):
    defaults = dict(spectra=torch.full((2, 10), 0.5), wavelengths=torch.linspace(400, 2500, 10))
    with pytest.raises(ValueError, match=message):
        LibrarySpectra(**{**defaults, **arguments})
