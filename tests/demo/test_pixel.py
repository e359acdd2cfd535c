"""What a click shows, and what the page says about a result."""

import html
import json
import re
import shlex
import zipfile

import numpy as np
import pytest

from hsunmix.cli.main import build_parser, main
from hsunmix.cli.options import SETTINGS
from hsunmix.data import Cube, SpectralLibrary
from hsunmix.demo.pixel import mixture, pixel_panel
from hsunmix.demo.session import Limits, Scene, Sessions
from hsunmix.demo.unmixing import Unmixer
from hsunmix.demo.views import (
    command_html,
    error_html,
    layers,
    maps_html,
    scene_html,
    spectra_html,
    status_html,
    taken_html,
    trust_html,
)
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


def test_names_of_a_library_are_those_of_similar_spectra_and_are_not_called_more(session, result):
    for matches in result.nearest:
        assert matches[0][0] in session.library.names and 0 <= matches[0][1] < np.pi
    page = spectra_html(result)
    assert "soil <small>" in page and "°" in page and "That doesn't identify the material" in page
    assert "That is no proof" in pixel_panel(session.scene, result, 0, 0) and "That is no proof" in maps_html(result)
    session.library = SpectralLibrary(np.ones((1, 4)), ["swir"], np.linspace(2000, 2400, 4))
    other = Unmixer(Pipeline, "base", Limits()).unmix(session, 3, 2, 1, lambda *_: None)
    assert other.nearest is None and "could not be used" in spectra_html(other)
    assert "That is no proof" not in pixel_panel(session.scene, other, 0, 0) + maps_html(other)


def test_similar_and_other_spectra_of_a_library(session):
    bright = session.scene.cube.data[np.isfinite(session.scene.cube.data).all(2)]
    found = bright[np.argsort(bright.sum(1))[-3:]]  # what the fake pipeline takes for endmembers
    session.library = SpectralLibrary(np.stack([found[0], -found[1] + 1]), ["<soil>", "other"], NM)
    result = Unmixer(Pipeline, "base", Limits()).unmix(session, 3, 2, 1, lambda *_: None)
    assert result.names == ["material 1 (like <soil>)", "material 2", "material 3"]
    assert "material 2</th>" in spectra_html(result)


def test_likely_ranges_hold_on_a_condition(session, result):
    for page in (pixel_panel(session.scene, result, 0, 0), maps_html(result), trust_html(result)):
        assert "if the spectra found are right" in page.lower()
    assert "if these are the materials" in spectra_html(result)


def test_what_was_taken_is_listed(session):
    mask = np.ones(30, bool)
    mask[[0, 1, 2, 9]] = False
    cube = Cube(session.scene.cube.data, NM, band_mask=mask)
    text = re.sub("<[^>]+>", " ", taken_html(Scene("<b>scene</b>.npy", cube)))
    for part in ("&lt;b&gt;scene", "6 x 8 pixels", "30 (400 to 1000 nm)", "4: 400 to 441, 586 nm", "without data  1 "):
        assert part in text
    assert "numbers" not in text
    text = taken_html(Scene("a", cube.replaced(scale=1e4), file_scale=1e4))
    assert "divided by 10000 (as the file says)" in text


@pytest.mark.parametrize("count", [None, 4])
@pytest.mark.parametrize(("steps", "runs", "checkpoint"), [(2, 1, "base"), (5, 3, "you/yours@v1")])
@pytest.mark.parametrize("scale", [None, 1.0, 2.5])
def test_the_command_asks_for_what_the_page_did(session, count, steps, runs, checkpoint, scale):
    pipeline = Pipeline()
    result = Unmixer(lambda: pipeline, checkpoint, Limits()).unmix(session, count, steps, runs, lambda *_: None, scale)
    args = build_parser().parse_args(result.command)
    call = pipeline.calls[-1]
    assert args.cube.name == str(result.scene.cube.path or "scene") and args.checkpoint == checkpoint
    assert (args.num_endmembers, args.steps, args.ensemble) == (count, steps, runs)
    assert args.num_endmembers == call.num_endmembers and args.steps == call.num_inference_steps
    assert args.ensemble == call.ensemble_size and args.uncertainty == call.output_uncertainty
    assert args.scale == call.reflectance_scale == scale
    assert args.seed == call.generator.initial_seed()
    others = ("endmembers", "fixed_endmembers", "library", "wavelengths", "strength")
    assert all(getattr(args, name) is None for name in others)
    assert (args.mask_bands, args.brightness, args.dtype) == ("water", "auto", "float32")
    with zipfile.ZipFile(result.files["envi"]) as archive:
        settings = json.loads(archive.read("summary.json"))["settings"]
        assert {key: settings[key] for key in SETTINGS} == {key: getattr(args, key) for key in SETTINGS}
        report = archive.read("report.html").decode()
    for page in (report, command_html(result)):
        assert shlex.join(["hsunmix", *result.command]) in html.unescape(re.sub("<[^>]+>", "", page))


def test_the_command_gives_the_result_of_the_page(tmp_path, monkeypatch):
    """With the real networks, on integers whose scale is guessed, in a file that says nothing about them."""
    import hsunmix

    rng = np.random.default_rng(0)
    mixed = rng.dirichlet(np.ones(3), (24, 20)) @ rng.uniform(0.05, 0.9, (3, 40)).cumsum(1) / 20
    (tmp_path / "received" / "0").mkdir(parents=True)
    path = tmp_path / "received" / "0" / "scene.npy"
    np.save(path, (1e4 * mixed + rng.normal(0, 50, mixed.shape)).round().astype(np.int16))
    session = Sessions(tmp_path / "page", Limits()).get("a")

    def load():
        return hsunmix.SemiBlindUnmixingPipeline.from_pretrained(hsunmix.bundled_checkpoint("base"))

    unmixer = Unmixer(load, "base", Limits())
    unmixer.open_files(session, [str(path)], tmp_path / "received", None)
    result = unmixer.unmix(session, None, 3, 2, lambda *_: None)
    monkeypatch.chdir(path.parent)
    assert main([*result.command, "--quiet"]) == 0
    with np.load("out/results.npz") as other:
        np.testing.assert_allclose(other["endmembers"], result.spectra["endmembers"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(other["abundances"], result.maps.abundances, atol=1e-4)
        np.testing.assert_allclose(other["abundance_uncertainty"], result.maps.uncertainty, atol=1e-4)


def test_downloads_hold_everything_and_no_folder_of_the_server(session, result):
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
