"""Masks of bands, and georeferences between ENVI and GDAL."""

import numpy as np
import pytest

from hsunmix.data import (
    Cube,
    FunctionSource,
    Georeference,
    SpectralLibrary,
    open_cube,
    outside_intervals,
    parse_intervals,
)

from .files import make_cube, write_envi_raw

CENTERS = np.array([420.0, 560.0, 1309.0, 1310.0, 1400.0, 2050.0, 2441.0])


def test_water_vapour_is_left_out():
    assert outside_intervals(CENTERS).tolist() == [True, True, True, False, False, False, False]
    cube = Cube(make_cube(), wavelengths=CENTERS, band_mask=[1, 0, 1, 1, 1, 1, 1])
    assert cube.without_bands("water").band_mask.tolist() == [True, False, True, False, False, False, False]
    assert cube.without_bands("file").band_mask.tolist() == [True, False, True, True, True, True, True]
    assert cube.without_bands("none").band_mask.all()
    assert cube.without_bands([(0, 430), (2000, 3000)]).band_mask.tolist() == [0, 0, 1, 1, 1, 0, 0]
    assert Cube(make_cube()).without_bands("water").band_mask.all()


def test_what_the_interpreter_shows(tmp_path):
    cube = open_cube(write_envi_raw(tmp_path, make_cube(), wavelength=CENTERS))
    assert repr(cube) == f"<Cube: 4 x 5 pixels, 7 bands, 420 to 2441 nm, {tmp_path / 'scene.img'}>"
    assert "7 bands (4 bad), 420" in repr(cube.without_bands("water"))

    def unreadable(rows, columns):
        raise AssertionError("read only to be shown")

    assert repr(Cube(FunctionSource("x", (2, 3, 4), unreadable))) == "<Cube: 2 x 3 pixels, 4 bands, no wavelengths>"
    library = SpectralLibrary(np.ones((3, 7)), wavelengths=CENTERS)
    assert repr(library) == "<SpectralLibrary: 3 spectra, 7 bands, 420 to 2441 nm>"


def test_no_band_left():
    with pytest.raises(ValueError, match=r"1 of 7 bands left \(420 to 2441 nm\)"):
        Cube(make_cube(), wavelengths=CENTERS).without_bands([(500, 3000)])
    with pytest.raises(ValueError, match="no wavelengths"):
        Cube(make_cube()).without_bands([(500, 3000)])


def test_intervals_as_a_user_writes_them():
    assert parse_intervals("1310-1490, 2440-") == [(1310, 1490), (2440, np.inf)]
    assert parse_intervals("-430.5") == [(0, 430.5)]
    for text in ("1310", "a-b", "", "-", "1490-1310"):
        with pytest.raises(ValueError, match="interval"):
            parse_intervals(text)


@pytest.mark.parametrize("angle", [0.0, 24.5, -90.0])
@pytest.mark.parametrize("system", ["EPSG:32733", "EPSG:4326", 'PROJCS["WGS 84 / UTM zone 33N",GEOGCS["WGS 84"]]'])
def test_georeference_survives_an_envi_header(angle, system):
    turn = np.radians(angle)
    transform = (30 * np.cos(turn), 30 * np.sin(turn), 4e5, 20 * np.sin(turn), -20 * np.cos(turn), 58e5)
    place = Georeference(transform, system)
    header = place.envi_header()
    back = Georeference.from_envi(header)
    np.testing.assert_allclose(back.transform, transform, atol=1e-9)
    assert back.crs == system


def test_map_info_agrees_with_gdal(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    info = [
        "UTM",
        "3.5",
        "2",
        "389995",
        "5820035",
        "30",
        "20",
        "33",
        "North",
        "WGS-84",
        "units=Meters",
        "rotation=-12",
    ]
    path = write_envi_raw(tmp_path, make_cube().astype(np.float32), map_info=info)
    place = open_cube(path).georeference
    with rasterio.open(tmp_path / "scene.img") as image:
        np.testing.assert_allclose(
            place.transform[:2] + place.transform[3:5], image.transform[:2] + image.transform[3:5]
        )
        assert image.crs.to_epsg() == 32633 and place.crs == "EPSG:32633"
    a, b, c, d, e, f = place.transform  # the reference pixel lies where the header says
    assert a * 2.5 + b * 1 + c == pytest.approx(389995) and d * 2.5 + e * 1 + f == pytest.approx(5820035)


def test_headers_without_a_place():
    for info in (None, ["UTM"], ["UTM", *"abcdef"], "Arbitrary"):
        assert Georeference.from_envi({} if info is None else {"map info": info}) is None
