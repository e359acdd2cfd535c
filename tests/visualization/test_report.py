"""The HTML page and the colour picture of scenes that stay in their file."""

import html.parser
import re
from types import SimpleNamespace

import numpy as np

from hsunmix.cli.results import SceneMaps, summarize, write_results
from hsunmix.data import Cube, FunctionSource
from hsunmix.visualization import color_composite, save_figures, scene_preview, write_report

SUMMARY = {
    "cube": {
        "path": "/data/a <b> & c.hdr",
        "product": "",
        "shape": [60, 50, 30],
        "scale": 10000.0,
        "bad_bands": 4,
        "nodata_pixels": 12,
        "wavelength_range_nm": [400.0, 2400.0],
    },
    "num_endmembers": 2,
    "endmembers": [
        {"name": "soil <dry>", "mean_abundance": 0.25, "maximum": 0.9},
        {"name": "tree", "mean_abundance": 0.75, "maximum": 1.0},
    ],
    "mixing_model": "linear",
    "brightness_mode": "free",
    "brightness_5_50_95_percentiles": [0.5, 1.0, 1.5],
    "quality": {"good": 2900, "nodata": 12, "saturated": 3, "poorly explained": 85},
    "residual_rms": 0.0123,
    "residual_over_noise": 6.2,
    "unexplained": "the residual is 6.2 times the noise: a material may be missing",
    "noise_std_median": 0.002,
    "snr_db": None,
}


class Checker(html.parser.HTMLParser):
    """Collects text and sources; every tag must be closed in order."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self):
        super().__init__()
        self.open, self.text, self.sources = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_holds_everything(tmp_path):
    maps = np.random.default_rng(0).dirichlet(np.ones(2), (60, 50))
    save_figures(tmp_path, maps, np.random.default_rng(0).random((2, 30)), residual=maps[:, :, 0])
    settings = {"steps": None, "seed": 3, "mask_bands": "water"}
    command = ["unmix", "a <b> & c.hdr", "-o", "out", "--resume"]
    path = write_report(tmp_path, SUMMARY, settings, {"hsunmix": "0.1", "torch": "2"}, command)
    page = Checker()
    page.feed(path.read_text(encoding="utf-8"))
    assert page.open == []
    text = " ".join(" ".join(page.text).split())
    for part in ("a <b> & c.hdr", "soil <dry>", "25.0 %", "85 pixels (2.84 %)", "4 of 30", "varies over the scene"):
        assert part in text
    assert "hsunmix unmix 'a <b> & c.hdr' -o out Settings" in text  # --resume is left out
    assert len(page.sources) == 3 and all(source.startswith("data:image/png;base64,") for source in page.sources)


def sections(path):
    """Text of each part of the page by its title."""
    page = Checker()
    page.feed(path.read_text(encoding="utf-8"))
    titles = ("What was read", "What was left out", "How to make it again")
    text = " ".join(" ".join(page.text).split())
    places = [text.index(title) for title in titles]
    return {title: text[begin:end] for title, begin, end in zip(titles, places, [*places[1:], None])}


def test_only_what_was_left_out_is_called_so(tmp_path):
    parts = sections(write_report(tmp_path, SUMMARY, {}, {"hsunmix": "0.1"}, ["unmix"]))
    assert parts["What was left out"].split(" ", 4)[4] == "bands 4 of 30 pixels without data 12 of 3000 "
    for item in ("a <b> & c.hdr", "60 x 50 pixels, 30 bands", "400 to 2400 nm", "divided by 10000", "not said"):
        assert item in parts["What was read"]


def test_what_intervals_and_names_of_a_library_mean(tmp_path):
    plain = write_report(tmp_path, SUMMARY, {"library": None}, {"hsunmix": "0.1"}, ["unmix"]).read_text("utf-8")
    assert "if the spectra found are right" in plain and "nearest spectra" not in plain
    for settings in ({"library": "/data/usgs<1>.hdr"}, {"library": None, "named by": "usgs<1>.hdr"}):
        page = write_report(tmp_path, SUMMARY, settings, {"hsunmix": "0.1"}, ["unmix"]).read_text("utf-8")
        assert "nearest spectra in the library usgs&lt;1&gt;.hdr" in page and "doesn't identify" in page


def a_result(folder):
    """What `hsunmix unmix` writes of a scene that misses three pixels and three bands, and its summary."""
    spectra = np.random.default_rng(0).uniform(0.1, 1.0, (2, 12)).astype(np.float32)
    noise = np.full(12, 0.01)
    spectra[:, [4, 5, 11]] = noise[[4, 5, 11]] = np.nan
    spectra /= np.nanmax(spectra, axis=1, keepdims=True)
    abundances = np.random.default_rng(1).dirichlet(np.ones(2), (6, 5)).astype(np.float32)
    brightness = np.linspace(0.2, 1.8, 30, dtype=np.float32).reshape(6, 5)
    data = brightness[..., None] * (abundances @ np.nan_to_num(spectra))
    nodata = np.zeros((6, 5), bool)
    nodata[0, :3] = True
    for values in (data, abundances, brightness):
        values[nodata] = np.nan
    cube = Cube(data, wavelengths=np.linspace(400, 1500, 12), path=folder / "scene.hdr")
    quality = nodata.astype(np.uint8)
    maps = SceneMaps(abundances, None, brightness, np.where(nodata, np.nan, 0.01), quality)
    known = {"endmembers": spectra, "endmember_uncertainty": None, "coarse_endmembers": spectra, "noise": noise}
    scene = SimpleNamespace(
        brightness_model=SimpleNamespace(mode="free"), mixing_model="linear", number_probabilities={2: 0.8, 3: 0.2}
    )
    write_results(folder, cube, maps, known, ["soil", "water"])
    return summarize(cube, maps, known, ["soil", "water"], scene)


def test_free_brightness_is_shown_and_explained(tmp_path):
    summary = a_result(tmp_path)
    page = write_report(tmp_path, summary, {}, {"hsunmix": "0.1"}, ["unmix"]).read_text("utf-8")
    assert "how bright each pixel is" in page and "scaled to the same maximum" in page
    (tmp_path / "brightness.png").unlink()
    page = write_report(tmp_path, summary, {}, {"hsunmix": "0.1"}, ["unmix"]).read_text("utf-8")
    assert "how bright each pixel is" not in page and "scaled to the same maximum" not in page


def test_bands_and_pixels_that_were_left_out(tmp_path):
    summary = a_result(tmp_path)
    page = write_report(tmp_path, summary, {}, {"hsunmix": "0.1"}, ["unmix"])
    assert "bands 3 of 12: 800-900, 1500 nm pixels without data 3 of 30" in sections(page)["What was left out"]
    with np.load(tmp_path / "results.npz") as arrays:
        kept = {key: value for key, value in arrays.items() if key != "wavelengths"}
    np.savez(tmp_path / "results.npz", **kept)
    page = write_report(tmp_path, summary, {}, {"hsunmix": "0.1"}, ["unmix"])
    assert "bands 3 of 12: bands 5-6, 12 pixels" in sections(page)["What was left out"]


def test_wide_pictures_keep_a_readable_size(tmp_path):
    spectra = np.random.default_rng(0).random((4, 30))
    save_figures(tmp_path, np.full((20, 40, 4), 0.25), spectra, coarse_endmembers=spectra * 1.5)
    page = write_report(tmp_path, SUMMARY, {}, {"hsunmix": "0.1"}, ["unmix"]).read_text("utf-8")
    sizes = [tuple(map(int, match)) for match in re.findall(r"width:(\d+)px;min-width:(\d+)px", page)]
    assert len(sizes) == 2 and sizes[1][0] == round(96 * 13.6) and all(least > 500 for _, least in sizes)


def test_the_same_page_every_time(tmp_path):
    first = write_report(tmp_path, SUMMARY, {}, {"hsunmix": "0.1"}, ["unmix"]).read_bytes()
    assert write_report(tmp_path, SUMMARY, {}, {"hsunmix": "0.1"}, ["unmix"]).read_bytes() == first


def test_preview_of_a_scene_in_its_file():
    data = np.random.default_rng(0).random((200, 90, 6)).astype(np.float32)
    data[150, 30] = np.nan
    wavelengths = np.array([460.0, 550.0, 640.0, 900.0, 1600.0, 2200.0])
    largest = []

    def read(rows, columns):
        largest.append(rows.stop - rows.start)
        return data[rows, columns]

    cube = Cube(FunctionSource("scene", data.shape, read), wavelengths=wavelengths)
    image, bands = scene_preview(cube, step=3)
    np.testing.assert_array_equal(image, color_composite(data[::3, ::3], wavelengths))
    assert bands == "true colour: 640 nm, 550 nm, 460 nm" and max(largest) <= 66
