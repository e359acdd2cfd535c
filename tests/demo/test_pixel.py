"""What a click shows, and what the page says about a result."""

import re

import numpy as np
import pytest

from hsunmix.data import Cube, SpectralLibrary
from hsunmix.demo.pixel import mixture, pixel_panel
from hsunmix.demo.session import Limits, Scene, Sessions
from hsunmix.demo.unmixing import Unmixer
from hsunmix.demo.views import error_html, layers, maps_html, scene_html, spectra_html, status_html, trust_html
from hsunmix.visualization import plot_pixel

from ..cli.fake import FakePipeline

NM = np.linspace(400, 1000, 30)


class Pipeline(FakePipeline):
    def __call__(self, cube, **kwargs):
        output = super().__call__(cube, **kwargs)
        shares, spread = output.abundances[0], output.abundance_uncertainty[0]
        output.abundance_interval = lambda level: ([shares - spread], [shares + spread])
        return output


@pytest.fixture
def session(tmp_path):
    data = np.random.default_rng(1).uniform(0.1, 0.6, (6, 8, 30)).astype(np.float32)
    data[5, 7] = np.nan
    session = Sessions(tmp_path, Limits()).get("a")
    session.scene = Scene("<b>scene</b>.npy", Cube(data, NM, name="scene"))
    session.library = SpectralLibrary(data[0, :4], ["<i>tree</i>", "soil", "water", "roof"], NM)
    return session


@pytest.fixture
def result(session):
    return Unmixer(Pipeline, "base", Limits()).unmix(session, 3, 2, 1, lambda *_: None)


def test_the_panel_names_the_pixel_and_shows_its_mixture(session, result):
    panel = pixel_panel(session.scene, result, 2, 5)
    shares = result.maps.abundances[2, 5]
    assert "Pixel in row 3, column 6<" in panel and "data:image/png;base64," in panel
    shown = [int(value) for value in re.findall(r'class="hs-share">(\d+) %', panel)]
    assert shown == [round(100 * float(value)) for value in sorted(shares, reverse=True)]
    largest = mixture(result, 2, 5)[0]
    assert largest[0] == shares.argmax() and largest[2] == pytest.approx(shares.max())
    assert f"<td>{90 * shares.max():.0f} to {110 * shares.max():.0f} %</td>" in panel


def test_before_the_run_there_is_a_spectrum_only(session):
    panel = pixel_panel(session.scene, None, 0, 0)
    assert "data:image/png" in panel and "hs-mixture" not in panel and "Unmix" in panel


def test_pixels_without_data_and_outside(session, result):
    assert "no data here" in pixel_panel(session.scene, result, 5, 7)
    for row, column in ((6, 0), (0, 8), (-1, 0)):
        with pytest.raises(ValueError, match="There is no pixel in row"):
            pixel_panel(session.scene, result, row, column)


def test_text_of_visitors_is_never_html(session, result):
    pages = [pixel_panel(session.scene, result, 0, 0), maps_html(result), spectra_html(result), trust_html(result)]
    pages += [scene_html(session.scene, result, layer) for layer in layers(result)]
    pages += [error_html("<b>scene</b>.npy: <i>tree</i>"), status_html("<b>scene</b>")]
    for page in pages:
        assert "<i>tree" not in page and "<b>scene" not in page
    assert "&lt;b&gt;scene" in pages[4]


def test_the_picture_shows_shares_and_errors(session, result):
    pictures = [scene_html(session.scene, result, layer) for layer in layers(result)]
    assert len(pictures) == 5 and len(set(pictures)) == 5
    with pytest.raises(ValueError, match="no picture of"):
        scene_html(session.scene, None, layers(result)[1])


def test_nearest_names_come_with_their_angles(session, result):
    chosen = [matches[0] for matches in result.nearest]
    assert all(0 <= angle < np.pi and name in session.library.names for name, angle in chosen)
    page = spectra_html(result)
    assert "soil <small>" in page and "°" in page
    session.library = SpectralLibrary(np.ones((1, 4)), ["swir"], np.linspace(2000, 2400, 4))
    other = Unmixer(Pipeline, "base", Limits()).unmix(session, 3, 2, 1, lambda *_: None)
    assert other.nearest is None and "could not be used" in spectra_html(other)


def test_downloads_hold_everything_and_no_folder_of_the_server(session, result):
    import zipfile

    with zipfile.ZipFile(result.files["envi"]) as archive:
        names = set(archive.namelist())
        summary = archive.read("summary.json").decode()
    assert {"abundances.img", "uncertainty.hdr", "endmembers.sli", "results.npz", "report.html"} <= names
    assert str(session.folder) not in summary
    with zipfile.ZipFile(result.files["geotiff"]) as archive:
        assert "abundances.tif" in archive.namelist()
    assert all(path.is_relative_to(session.folder) for path in result.files.values())


def test_a_pixel_is_drawn_with_what_the_mixture_makes_of_it():
    axes = plot_pixel(np.linspace(0.1, 0.2, 30), NM, np.linspace(0.1, 0.3, 30)).axes[0]
    assert [line.get_label() for line in axes.lines] == ["measured", "mixture found"]
    assert "nm" in axes.get_xlabel() and axes.get_ylabel() == "reflectance"
    with pytest.raises(ValueError, match="`model`"):
        plot_pixel(np.zeros(30), NM, np.zeros(29))
