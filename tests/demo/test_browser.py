"""The page in a real headless Chromium: upload, run, click, download; errors; two visitors at once."""

import io
import os
import re
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io

sync_api = pytest.importorskip("playwright.sync_api")
pytest.importorskip("gradio")

from hsunmix.data import read_cube  # noqa: E402

from .pages import serve_page  # noqa: E402

SHARED = Path(os.environ.get("HSUNMIX_SHARED_DATA", Path(__file__).resolve().parents[2] / ".." / "shared" / "data"))
SAMSON = SHARED / "scenes" / "samson.hdr"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-sync".split()
)
PANELS = {"Spectra": "spectra", "Quality": "trust", "Maps": "maps"}
WAIT = 120_000  # ms: a run takes 5 s alone, more on a machine that is busy

needs_samson = pytest.mark.skipif(not SAMSON.is_file(), reason="shared data not there")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")


@pytest.fixture(scope="module")
def server():
    server = serve_page()
    yield server
    server.close()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(server, browser):
    """Opens the page in a browser that shares nothing with others; whatever it asks of other servers is a failure."""
    contexts, foreign = [], []

    def open_page(**options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(WAIT)
        page.on("request", lambda request: _note(request.url))
        page.goto(server.url)
        page.wait_for_selector("#hs-run")
        return page

    def _note(url):
        if not url.startswith((server.url, "data:", "blob:")):
            foreign.append(url)

    yield open_page
    for context in contexts:
        context.close()
    assert not foreign


def send(page, *files):
    page.locator("#hs-files input[type=file]").set_input_files([str(file) for file in files])


def status(page, pattern):
    page.locator("#hs-status", has_text=re.compile(pattern)).wait_for()
    return page.locator("#hs-status").inner_text()


def run(page):
    page.locator("#hs-run").click()
    return status(page, r"materials in \d+ s")


def click_pixel(page, row, column):
    """Click the middle of a pixel (counted from 0) and return what the panel says."""
    box = page.locator(".hs-scene")
    box.scroll_into_view_if_needed()
    size, rows, columns = box.bounding_box(), box.get_attribute("data-rows"), box.get_attribute("data-columns")
    x, y = (column + 0.5) / int(columns) * size["width"], (row + 0.5) / int(rows) * size["height"]
    box.click(position={"x": x, "y": y})
    page.locator("#hs-pixel", has_text=f"Pixel in row {row + 1}, column {column + 1}").wait_for()
    return page.locator("#hs-pixel").inner_text()


def shares(panel):
    """Material number and share in percent, as the panel lists them."""
    return {int(number): int(share) for number, share in re.findall(r"material (\d+)\s+(\d+) %", panel)}


def download(page, kind):
    with page.expect_download() as started:
        page.locator(f"#hs-{kind}").click()
    return Path(started.value.path()).read_bytes(), started.value.suggested_filename


@needs_samson
def test_samson_as_envi(visit, tmp_path):
    page = visit()
    send(page, SAMSON, SAMSON.with_suffix(".img"))
    status(page, "samson.hdr is ready")
    taken = page.locator("#hs-taken").inner_text()
    for part in ("samson.hdr", "95 x 95 pixels", "156 (401 to 899 nm)", "divided by 10000 (as the file says)"):
        assert part in taken
    assert page.locator("#hs-pixel .hs-mixture").count() == 0
    assert "3 materials" in run(page)
    assert page.locator("#hs-maps figure img").count() == 3
    panel = click_pixel(page, 56, 28)
    assert sum(shares(panel).values()) == pytest.approx(100, abs=2) and "likely range" in panel
    content, name = download(page, "envi")
    assert name == "hsunmix_envi.zip"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(tmp_path)
    maps = read_cube(tmp_path / "abundances.hdr").data
    assert maps.shape == (95, 95, 3)
    expected = {index + 1: round(100 * float(value)) for index, value in enumerate(maps[56, 28])}
    assert shares(panel) == expected
    content, name = download(page, "report")
    assert name == "hsunmix_report.html" and b"samson.hdr" in content and str(tmp_path.parent).encode() not in content


@needs_samson
def test_a_bad_file_and_then_samson_as_matlab(visit, tmp_path):
    cube, name = read_cube(SAMSON), f"samson_{80 * '1'}"  # as long as those of agencies
    pixels = cube.data.transpose(2, 1, 0).reshape(156, -1)  # as it is distributed: bands x pixels, down the columns
    scipy.io.savemat(tmp_path / f"{name}.mat", {"V": pixels, "nRow": 95, "nCol": 95})
    (tmp_path / "broken.mat").write_bytes(b"no MATLAB file")
    page = visit(viewport={"width": 390, "height": 844})
    send(page, tmp_path / "broken.mat")
    assert "broken.mat: not a readable MATLAB file" in status(page, "That did not work")
    assert not page.locator("#hs-taken").is_visible()
    assert page.locator("#hs-status [role=alert]").count() == 1 and not page.locator("#hs-run").is_enabled()
    send(page, SAMSON)
    assert "only the header" in status(page, "samson.hdr is")
    send(page, tmp_path / f"{name}.mat")
    status(page, f"{name}.mat is ready")
    assert "wavelengths not known" in page.locator("#hs-taken").inner_text()
    run(page)
    assert sum(shares(click_pixel(page, 3, 90)).values()) == pytest.approx(100, abs=2)
    page.locator(".hs-scene").press("ArrowDown")
    page.locator(".hs-scene").press("Enter")
    page.locator("#hs-pixel", has_text="Pixel in row 5, column 91").wait_for()
    for tab, panel in PANELS.items():  # none of them hides in a menu on a telephone
        page.get_by_role("tab", name=tab).click()
        page.locator(f"#hs-{panel}").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    content, name = download(page, "geotiff")
    assert name == "hsunmix_geotiff.zip" and "abundances.tif" in zipfile.ZipFile(io.BytesIO(content)).namelist()


def test_two_visitors_at_once(server, visit, tmp_path):
    other = np.random.default_rng(0).uniform(0.1, 0.6, (2, 12, 9, 3)).mean(0)
    np.save(tmp_path / "secret_scene.npy", other @ np.random.default_rng(1).uniform(0.1, 0.9, (3, 40)))
    first, second = visit(), visit()
    first.get_by_role("button", name="3 materials").click()
    send(second, tmp_path / "secret_scene.npy")
    status(first, "example")
    status(second, "secret_scene.npy")
    first.locator("#hs-run").click()
    second.locator("#hs-run").click()
    status(first, "materials in")
    status(second, "materials in")
    assert "truth" in click_pixel(first, 40, 50) and "truth" not in click_pixel(second, 4, 8)
    assert "64 rows, 64 columns" in first.locator("#hs-scene").inner_text()
    assert "secret_scene" not in first.content() and "example:" not in second.locator("#hs-scene").inner_text()
    assert "12 rows, 9 columns" in second.locator("#hs-scene").inner_text()
    with zipfile.ZipFile(io.BytesIO(download(second, "envi")[0])) as archive:
        assert b"samples = 9" in archive.read("abundances.hdr")
    folder = server.visitors
    assert len(list(folder.iterdir())) == 2
    second.context.close()
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) > 1 and time.monotonic() < deadline:
        first.wait_for_timeout(200)
    assert len(list(folder.iterdir())) == 1
    assert "Pixel in row 2" in click_pixel(first, 1, 1)
