"""The page over HTTP: what the server gives away, and what it doesn't."""

import io

import numpy as np
import pytest

pytest.importorskip("gradio")

from hsunmix.demo.session import Limits  # noqa: E402

from .pages import Visitor, serve_page  # noqa: E402

SCENE = np.random.default_rng(0).uniform(0.1, 0.6, (5, 7, 30)).astype(np.float32)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def server():
    server = serve_page(Limits(upload=100_000))
    yield server
    server.close()


def text(answer):
    return str(answer["output"])


def test_a_scene_arrives_and_a_click_shows_its_spectrum(server):
    visitor = Visitor(server.url)
    answer = visitor.send_scene(*visitor.upload(("scene.npy", npy(SCENE))))
    assert answer["success"] and "scene.npy is ready" in text(answer)
    assert "scene.npy</b>" in text(answer) and "5 x 7 pixels" in text(answer) and "30 (wavelengths not" in text(answer)
    answer = visitor.press("on_pixel", [], {"row": 3, "column": 2})
    assert "Pixel in row 4, column 3" in text(answer)


@pytest.mark.parametrize("scale", ["10000", " 1e4 ", "ten", "-1"])
def test_what_is_typed_for_the_scale(server, scale):
    visitor = Visitor(server.url)
    paths = visitor.upload(("scene.npy", npy((SCENE * 10_000).astype(np.int16))))
    answer = text(visitor.send_scene(*paths, scale=scale))
    assert ("divided by 10000 (as you said)" in answer) == ("must be a positive number" not in answer)
    assert ("must be a positive number" in answer) == (scale in ("ten", "-1"))


@pytest.mark.parametrize("data", [{"row": 99, "column": 0}, {"row": "0", "column": 0}, {"row": 0.5}, {}])
def test_clicks_that_no_browser_makes(server, data):
    visitor = Visitor(server.url)
    visitor.send_scene(*visitor.upload(("scene.npy", npy(SCENE))))
    answer = visitor.press("on_pixel", [], data)
    assert "That did not work" in text(answer)
    assert "Pixel in row 1" in text(visitor.press("on_pixel", [], {"row": 0, "column": 0}))


def test_paths_of_the_server_are_not_read(server, tmp_path):
    np.save(tmp_path / "secret.npy", SCENE)
    visitor = Visitor(server.url)
    (arrived,) = visitor.upload(("../../../up.npy", npy(SCENE)))
    assert arrived.endswith("/up.npy") and ".." not in arrived
    root = str(arrived).rsplit("/", 2)[0]
    for path in ("/etc/passwd", str(tmp_path / "secret.npy"), f"{root}/../secret.npy", f"{root}/visitors"):
        answer = visitor.send_scene(path)
        assert "5 x 7" not in text(answer) and (not answer["success"] or "has not arrived" in text(answer))
        assert visitor.client.get(f"gradio_api/file={path}").status_code in (403, 404)


def test_another_visitor_sees_nothing(server):
    first, second = Visitor(server.url), Visitor(server.url)
    first.send_scene(*first.upload(("first.npy", npy(SCENE))))
    answer = second.press("on_pixel", [], {"row": 0, "column": 0})
    assert "There is no scene" in text(answer)
    second.send_scene(*second.upload(("second.npy", npy(SCENE[:3]))))
    assert "There is no pixel in row 5" in text(second.press("on_pixel", [], {"row": 4, "column": 0}))
    assert "Pixel in row 5" in text(first.press("on_pixel", [], {"row": 4, "column": 0}))


def test_an_upload_that_is_too_large_is_refused_while_it_arrives(server):
    visitor = Visitor(server.url)
    answer = visitor.client.post("gradio_api/upload", files={"files": ("big.npy", bytes(200_000))})
    assert answer.status_code == 413


def test_the_two_visitors_of_one_file_do_not_take_it_from_each_other(server):
    """Gradio keeps equal files once; a scene that many look at must not vanish under the second."""
    first, second = Visitor(server.url), Visitor(server.url)
    sent = ("same.npy", npy(SCENE))
    paths = first.upload(sent), second.upload(sent)
    assert paths[0] == paths[1]
    assert "5 x 7" in text(first.send_scene(*paths[0])) and "5 x 7" in text(second.send_scene(*paths[1]))


def test_nothing_is_left_when_the_server_stops():
    from hsunmix.demo import app

    roots = []
    original = app.Sessions
    app.Sessions = lambda root, limits: roots.append(root) or original(root, limits)
    try:
        server = serve_page()
        visitor = Visitor(server.url)
        visitor.send_scene(*visitor.upload(("scene.npy", npy(SCENE))))
        assert any(roots[0].iterdir())
        server.close()
    finally:
        app.Sessions = original
    assert not roots[0].exists()
