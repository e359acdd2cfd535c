"""The HTML page and the colour picture of scenes that stay in their file."""

import html.parser

import numpy as np

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
