"""Maps with their place on the ground, read back by `spectral` and by GDAL."""

import numpy as np
import pytest
import spectral

from hsunmix.data import Cube, Georeference, MapLayer, OrthoGrid, open_cube, write_layer

from .files import make_cube, write_envi_raw

PLACE = Georeference((30.0, 0.0, 400000.0, 0.0, -30.0, 5800000.0), "EPSG:32633")
CLASSES = {"classes": ("good", "nodata", "bad"), "colors": ((1, 2, 3), (4, 5, 6), (7, 8, 9))}


def make_maps(height=300, width=280, count=2):
    maps = np.random.default_rng(0).random((height, width, count)).astype(np.float32)
    maps[2, 3] = np.nan
    return maps


def cube_at(place, height=300, width=280):
    header = place.envi_header() if place else {}
    return Cube(np.ones((height, width, 2), np.float32), georeference=place, metadata=header)


def layer_of(maps, **options):
    names = ["soil, dry", "tree"][: maps.shape[2] if maps.ndim == 3 else 1]
    return MapLayer("abundances", maps, names, "fraction", "fraction of each material", **options)


@pytest.mark.parametrize("kind", ["geotiff", "cog"])
def test_geotiff(tmp_path, kind):
    rasterio = pytest.importorskip("rasterio")
    maps = make_maps(600, 530)
    (path,) = write_layer(tmp_path, layer_of(maps), cube_at(PLACE, 600, 530), kind)
    assert [file.name for file in tmp_path.iterdir()] == ["abundances.tif"]
    with rasterio.open(path) as image:
        np.testing.assert_array_equal(np.moveaxis(image.read(), 0, 2), maps)
        assert image.crs.to_epsg() == 32633 and tuple(image.transform)[:6] == PLACE.transform
        assert image.descriptions == ("soil, dry", "tree") and image.units == ("fraction", "fraction")
        assert np.isnan(image.nodata) and image.profile["tiled"] and image.compression.name == "deflate"
        assert image.tags()["TIFFTAG_IMAGEDESCRIPTION"] == "fraction of each material"
        assert bool(image.overviews(1)) == (kind == "cog")
        assert (image.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG") == (kind == "cog")


@pytest.mark.parametrize("kind", ["geotiff", "cog"])
def test_classes_in_a_geotiff(tmp_path, kind):
    rasterio = pytest.importorskip("rasterio")
    values = np.random.default_rng(0).integers(0, 3, (300, 280)).astype(np.uint8)
    (path,) = write_layer(tmp_path, layer_of(values, **CLASSES), cube_at(PLACE), kind)
    with rasterio.open(path) as image:
        np.testing.assert_array_equal(image.read(1), values)
        assert image.dtypes == ("uint8",) and image.nodata == 1 and image.colormap(1)[2] == (7, 8, 9, 255)
        assert image.tags()["CLASS_2"] == "bad"


def test_envi(tmp_path):
    maps = make_maps()
    header, data = write_layer(tmp_path, layer_of(maps), cube_at(PLACE), "envi")
    image = spectral.open_image(str(header))
    np.testing.assert_array_equal(np.asarray(image.load()), maps)
    assert image.metadata["band names"] == ["soil; dry", "tree"] and image.metadata["data units"] == "fraction"
    assert open_cube(header).georeference == PLACE
    assert data.stat().st_size == 300 * 280 * 2 * 4


def test_classes_in_envi(tmp_path):
    values = np.random.default_rng(0).integers(0, 3, (300, 280)).astype(np.uint8)
    header, _ = write_layer(tmp_path, layer_of(values, **CLASSES), cube_at(PLACE), "envi")
    image = spectral.open_image(str(header))
    np.testing.assert_array_equal(np.asarray(image.open_memmap())[:, :, 0], values)
    assert image.metadata["file type"] == "ENVI Classification"
    assert image.metadata["class names"] == ["good", "nodata", "bad"]
    assert image.metadata["class lookup"] == list("123456789")


def test_envi_is_placed_where_gdal_expects_it(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    _, data = write_layer(tmp_path, layer_of(make_maps()), cube_at(PLACE), "envi")
    with rasterio.open(data) as image:
        assert image.crs.to_epsg() == 32633 and tuple(image.transform)[:6] == PLACE.transform
        assert image.descriptions[1] == "tree"


def test_a_rotated_header_becomes_a_geotiff(tmp_path):
    """AVIRIS-NG flight lines are turned by the angle of the flight."""
    rasterio = pytest.importorskip("rasterio")
    info = "UTM,1,1,736600.089,4078126.75,2.7,2.7,12,North,WGS-84,units=Meters,rotation=-66".split(",")
    cube = open_cube(write_envi_raw(tmp_path, make_cube().astype(np.float32), map_info=info))
    maps = make_maps(4, 5)
    (path,) = write_layer(tmp_path, layer_of(maps), cube, "geotiff")
    with rasterio.open(path) as image, rasterio.open(tmp_path / "scene.img") as original:
        np.testing.assert_allclose(tuple(image.transform), tuple(original.transform), atol=1e-9)
        assert image.crs == original.crs


@pytest.mark.parametrize("kind", ["envi", "geotiff"])
def test_ortho(tmp_path, kind):
    pytest.importorskip("rasterio")
    maps = make_maps(20, 30)
    rows, columns = np.zeros((600, 40), np.int16), np.zeros((600, 40), np.int16)
    rows[290:310, 5:35], columns[290:310, 5:35] = np.mgrid[1:21, 1:31]
    place = Georeference((0.001, 0.0, -117.5, 0.0, -0.001, 34.0), "EPSG:4326")
    cube = Cube(np.ones((20, 30, 2), np.float32), ortho=OrthoGrid(rows, columns, place))
    path = write_layer(tmp_path, layer_of(maps), cube, kind, ortho=True)[0]
    laid = open_cube(path)
    assert laid.shape == (600, 40, 2) and laid.georeference.crs == "EPSG:4326"
    np.testing.assert_allclose(laid.georeference.transform, place.transform)
    np.testing.assert_array_equal(laid.data[290:310, 5:35], maps)
    assert np.isnan(laid.data[:290]).all() and np.isnan(laid.data[300, 0]).all()


def test_what_can_not_be_written(tmp_path):
    cube = cube_at(PLACE)
    with pytest.raises(ValueError, match="`format`"):
        write_layer(tmp_path, layer_of(make_maps()), cube, "jpeg")
    with pytest.raises(ValueError, match="`ortho`.*no lookup table"):
        write_layer(tmp_path, layer_of(make_maps()), cube, "envi", ortho=True)
    with pytest.raises(ValueError, match="band names"):
        MapLayer("abundances", make_maps(), ["one"], "fraction", "")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_layer(tmp_path / "file", layer_of(make_maps()), cube, "envi")


@pytest.mark.parametrize("kind", ["envi", "geotiff", "cog"])
def test_a_failure_leaves_no_file(tmp_path, kind):
    pytest.importorskip("rasterio")

    class Breaking(np.ndarray):
        def __getitem__(self, key):
            if isinstance(key, slice) and key.start:
                raise OSError(28, "No space left on device")
            return super().__getitem__(key)

    with pytest.raises(OSError, match="No space left"):
        write_layer(tmp_path, layer_of(make_maps().view(Breaking)), cube_at(PLACE), kind)
    assert list(tmp_path.iterdir()) == []


def test_without_rasterio(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rasterio", None)
    with pytest.raises(ImportError, match=r"hsunmix\[geo\]"):
        write_layer(tmp_path, layer_of(make_maps()), cube_at(PLACE), "geotiff")
