"""What visitors may send, and what they may not."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from hsunmix.data import optional, read_cube, read_library, write_cube, write_library
from hsunmix.demo.session import Limits, Session
from hsunmix.demo.unmixing import Unmixer
from hsunmix.demo.uploads import display_name, receive_library, receive_scene
from hsunmix.demo.views import taken_html

from ..data import products

CUBE = np.random.default_rng(0).uniform(0.1, 0.6, (5, 7, 30)).astype(np.float32)
NM = np.linspace(400, 1000, 30)


@pytest.fixture
def received(tmp_path):
    (tmp_path / "received").mkdir()
    return tmp_path / "received"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "visitor").mkdir()
    return tmp_path / "visitor"


def send(received, *files):
    """Put files where gradio puts them: a folder per file, named by its content."""
    paths = []
    for index, file in enumerate(files):
        place = received / f"{index:064x}"
        place.mkdir(exist_ok=True)
        paths.append(str(file.rename(place / file.name)))
    return paths


def envi(tmp_path, name="scene"):
    header = write_cube(tmp_path / name, CUBE, NM)
    return header, header.with_suffix(".img")


def test_a_pair_whose_names_disagree_is_still_a_pair(tmp_path, received, folder):
    header, data = envi(tmp_path)
    paths = send(received, header.rename(tmp_path / "my scene (1).hdr"), data.rename(tmp_path / "other"))
    path = receive_scene(paths, received, folder, Limits())
    assert sorted(file.name for file in folder.iterdir()) == ["my_scene_1_.hdr", "my_scene_1_.img"]
    np.testing.assert_array_equal(read_cube(path).data, CUBE)


@pytest.mark.parametrize(
    ("kept", "message"), [(0, "only the header"), (1, "its header is missing"), ("text", "can't be read here")]
)
def test_half_a_pair_is_explained(tmp_path, received, folder, kept, message):
    if kept == "text":
        files = [tmp_path / "notes.docx"]
        files[0].write_text("x")
    else:
        files = [envi(tmp_path)[kept]]
    with pytest.raises(ValueError, match=message):
        receive_scene(send(received, *files), received, folder, Limits())
    assert not list(folder.iterdir())


def test_two_scenes_at_once(tmp_path, received, folder):
    np.save(tmp_path / "a.npy", CUBE)
    np.save(tmp_path / "b.npy", CUBE)
    with pytest.raises(ValueError, match="One scene at a time.*Got a.npy, b.npy"):
        receive_scene(send(received, tmp_path / "a.npy", tmp_path / "b.npy"), received, folder, Limits())


def test_only_what_gradio_received(tmp_path, received, folder):
    np.save(tmp_path / "secret.npy", CUBE)
    other = received / "visitors" / "0123" / "scene-1"
    other.mkdir(parents=True)
    np.save(other / "scene.npy", CUBE)
    place = received / ("0" * 64)
    place.mkdir()
    (place / "link.npy").symlink_to(tmp_path / "secret.npy")
    for path in (
        tmp_path / "secret.npy",
        other / "scene.npy",
        place / "link.npy",
        received / "0" / ".." / ".." / "secret.npy",
        received / "gone" / "scene.npy",
    ):
        with pytest.raises(ValueError, match="has not arrived"):
            receive_scene([str(path)], received, folder, Limits())
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        (".hidden.npy", "hidden.npy"),
        ("a b;rm -rf.npy", "a_b_rm_-rf.npy"),
        ("<img src=x>.mat", "img_src_x_.mat"),
        ("...", "file"),
        ("x" * 300 + ".npy", "x" * 120 + ".npy"),
    ],
)
def test_names_mean_nothing(name, shown):
    assert display_name(name) == shown


def test_a_header_can_not_name_another_file(tmp_path, received, folder):
    """Keys by which other programs find the data are not followed: the visitor's own data file is read."""
    secret = tmp_path / "secret.img"
    secret.write_bytes(np.full(CUBE.size, 9.0, "<f4").tobytes())
    header, data = envi(tmp_path)
    text = header.read_text() + f"data file = {secret}\nfile name = ../../secret.img\nheader offset = 0\n"
    header.write_text(text)
    path = receive_scene(send(received, header, data), received, folder, Limits())
    assert read_cube(path).data.max() < 1


def test_sizes_are_said(tmp_path, received, folder):
    np.save(tmp_path / "scene.npy", CUBE)
    paths = send(received, tmp_path / "scene.npy")
    with pytest.raises(ValueError, match="The files have 0 MiB; this page takes"):
        receive_scene(paths, received, folder, Limits(upload=1000))
    session = Session(tmp_path / "sessions")
    cases = [
        (Limits(pixels=34), "5 x 7 = 35 pixels; this page takes 34"),
        (Limits(values=1000), "35 pixels x 30 bands"),
    ]
    for limits, message in cases:
        with pytest.raises(ValueError, match=message):
            Unmixer(None, "base", limits).open_files(session, paths, received, None)
    assert session.scene is None


@pytest.mark.parametrize("kind", ["npz", "mat", "mat73"])
def test_what_unpacks_to_more_is_refused_before_it_is_unpacked(tmp_path, received, folder, kind):
    zeros = np.zeros((100, 100, 60))
    path = tmp_path / f"bomb.{kind[:3]}"
    if kind == "npz":
        np.savez_compressed(path, cube=zeros)
    elif kind == "mat":
        scipy.io.savemat(path, {"cube": zeros}, do_compression=True)
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("cube", data=zeros, compression="gzip")
    assert path.stat().st_size < 50_000
    with pytest.raises(ValueError, match="unpacks to 5 MiB; this page takes 1 MiB"):
        receive_scene(send(received, path), received, folder, Limits(values=150_000))


def test_hdf5_that_points_elsewhere_is_refused(tmp_path, received, folder):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["cube"] = CUBE
    with h5py.File(tmp_path / "scene.mat", "w") as file:
        file["cube"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "cube")
    with h5py.File(tmp_path / "raw.mat", "w") as file:
        external = [(str(tmp_path / "secret.h5"), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("cube", (2, 2, 30), "u1", external=external)
    for name in ("scene.mat", "raw.mat"):
        with pytest.raises(ValueError, match="points into another file"):
            receive_scene(send(received, tmp_path / name), received, folder, Limits())


def test_pickles_and_damaged_files_are_errors_without_folders(tmp_path, received):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "noise.mat").write_bytes(b"\x00garbage" * 40)
    header, data = envi(tmp_path)
    data.write_bytes(data.read_bytes()[:100])
    unmixer, session = Unmixer(None, "base", Limits()), Session(tmp_path / "sessions")
    cases = {
        (tmp_path / "objects.npy",): "pickled Python objects",
        (tmp_path / "noise.mat",): "not a readable MATLAB file",
        (header, data): "truncated",
    }
    for files, message in cases.items():
        with pytest.raises(ValueError, match=message) as error:
            unmixer.open_files(session, send(received, *files), received, None)
        assert str(tmp_path) not in str(error.value)


def test_libraries(tmp_path, received, folder):
    header = write_library(tmp_path / "known", CUBE[0], list("abcdefg"), NM)
    path = receive_library(send(received, header, header.with_suffix(".sli")), received, folder, Limits())
    assert read_library(path).names == list("abcdefg")
    (tmp_path / "known.csv").write_text("nm,soil\n400,0.1\n500,0.2\n")
    path = receive_library(send(received, tmp_path / "known.csv"), received, folder, Limits())
    assert read_library(path).names == ["soil"]


def test_integers_are_taken_as_scaled_reflectance_and_the_visitor_is_told(tmp_path, received):
    np.save(tmp_path / "scene.npy", (CUBE * 10_000).astype(np.int16))
    scene = opened(tmp_path, [tmp_path / "scene.npy"], received)
    assert "divided by 10000 (guessed)" in taken_html(scene) and scene.other_scale == 10_000
    np.testing.assert_allclose(scene.cube.data, CUBE, atol=1e-4)


def test_a_scale_that_nobody_can_guess_is_asked_for(tmp_path, received):
    np.save(tmp_path / "scene.npy", CUBE * 1e6)
    with pytest.raises(ValueError, match="More choices.*“Number that stands for reflectance 1”"):
        opened(tmp_path, [tmp_path / "scene.npy"], received)


def as_product(kind, folder):
    """The files of a small scene as an agency delivers it."""
    numbers = (CUBE * 10_000).astype(np.int16)
    if kind == "geotiff":
        tags = {"wavelength": ", ".join(map(str, NM)), "wavelength_units": "nm"}
        return [products.write_tiff(folder / "scene.tif", numbers, tags=tags, scales=[1e-4] * 30)]
    if kind == "enmap":
        image = products.write_enmap(folder, numbers, NM)
        return [image, *folder.glob("*METADATA.XML")]
    if kind == "emit":
        return [products.write_emit(folder / "EMIT_L2A_RFL_001.nc", CUBE, NM, np.ones(30))]
    swir = np.linspace(1600, 1100, 8)
    return [products.write_prisma(folder / "PRS_L2D.he5", numbers[:, :, ::-1], numbers[:, :, :8], (NM[::-1], swir))]


def opened(tmp_path, files, received, limits=None):
    session = Session(tmp_path / "sessions")
    return Unmixer(None, "base", limits or Limits()).open_files(session, send(received, *files), received, None)


@pytest.mark.parametrize("kind", ["geotiff", "enmap", "emit", "prisma"])
def test_files_of_agencies_are_taken_as_the_package_reads_them(tmp_path, received, kind):
    files = as_product(kind, tmp_path)
    expected = read_cube(files[0], bands="water")
    scene = opened(tmp_path, files, received)
    assert scene.name == files[0].name and scene.cube.product == expected.product
    np.testing.assert_array_equal(scene.cube.data, expected.data)
    np.testing.assert_array_equal(scene.cube.wavelengths, expected.wavelengths)
    assert [path for path in (tmp_path / "sessions").rglob("*") if path.is_file()] == []
    with pytest.raises(ValueError, match="35 pixels; this page takes 34"):
        opened(tmp_path, as_product(kind, tmp_path), received, Limits(pixels=34))


def test_half_an_enmap_scene_is_explained(tmp_path, received, folder):
    image, metadata = as_product("enmap", tmp_path)
    clip = products.write_tiff(tmp_path / "clip.tif", np.ones((2, 2, 30), np.int16))
    for files in ([image], [metadata], [clip, metadata]):
        copies = [file.rename(file) for file in files]
        with pytest.raises(ValueError, match="EnMAP scene choose two files at once.*SPECTRAL_IMAGE.TIF and"):
            receive_scene(paths := send(received, *copies), received, folder, Limits())
        for file, path in zip(files, paths):
            Path(path).rename(file)
    assert not list(folder.iterdir())


def test_xml_that_grows_is_refused(tmp_path, received, folder):
    image, metadata = as_product("enmap", tmp_path)
    text = metadata.read_text()
    metadata.write_text('<!DOCTYPE a [<!ENTITY b "' + "c" * 100 + '">]>' + text)
    with pytest.raises(ValueError, match="not the metadata of an EnMAP scene"):
        receive_scene(send(received, image, metadata), received, folder, Limits())


def test_a_tiff_that_is_none_is_refused(tmp_path, received, folder):
    """GDAL opens by content: a list of other files (VRT) under the name of a TIFF would show the server's own."""
    products.write_tiff(tmp_path / "secret.tif", (CUBE * 100).astype(np.int16))
    source = (
        f'<SimpleSource><SourceFilename relativeToVRT="0">{tmp_path / "secret.tif"}</SourceFilename></SimpleSource>'
    )
    (tmp_path / "scene.tif").write_text(
        f'<VRTDataset rasterXSize="7" rasterYSize="5"><VRTRasterBand dataType="Int16" band="1">{source}'
        "</VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(ValueError, match="not a readable GeoTIFF"):
        read_cube(tmp_path / "scene.tif")
    with pytest.raises(ValueError, match="scene.tif: not a readable GeoTIFF"):
        receive_scene(send(received, tmp_path / "scene.tif"), received, folder, Limits())


def test_products_that_unpack_to_more_or_point_elsewhere(tmp_path, received, folder):
    zeros = np.zeros((100, 100, 60), np.int16)
    tall = {"tiled": True, "blockxsize": 512, "blockysize": 512}
    cases = [products.write_tiff(tmp_path / "bomb.tif", zeros, **tall), tmp_path / "bomb.nc", tmp_path / "chunk.nc"]
    with h5py.File(cases[1], "w") as file:
        file.create_dataset("location/glt_x", data=np.zeros((1000, 1000), np.int32), compression="gzip")
    with h5py.File(cases[2], "w") as file:
        options = {"maxshape": (None, None), "chunks": (1000, 1000), "compression": "gzip"}
        file.create_dataset("reflectance", data=np.zeros((1, 1), np.int32), **options)
    for path in cases:
        with pytest.raises(ValueError, match="unpacks to .* MiB; this page takes 1 MiB"):
            receive_scene(send(received, path), received, folder, Limits(values=150_000))
    with h5py.File(tmp_path / "scene.nc", "w") as file:
        file["sensor_band_parameters/wavelengths"] = h5py.ExternalLink("/etc/secret.h5", "x")
    with pytest.raises(ValueError, match="'wavelengths' points into another file"):
        receive_scene(send(received, tmp_path / "scene.nc"), received, folder, Limits())


@pytest.mark.parametrize(("kind", "module"), [("geotiff", "rasterio"), ("emit", "h5py")])
def test_a_missing_library_is_named(tmp_path, received, monkeypatch, kind, module):
    files = as_product(kind, tmp_path)
    monkeypatch.setattr(optional, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    with pytest.raises(ValueError, match=f'{files[0].name}: .* needs {module}: `pip install "hsunmix') as error:
        opened(tmp_path, files, received)
    assert str(tmp_path) not in str(error.value)
