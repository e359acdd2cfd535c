"""The page (gradio): what is on it, and what its buttons do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from . import texts
from .pixel import pixel_panel
from .session import Result, Scene, Session, SessionEnded, Sessions
from .unmixing import EXAMPLES, Unmixer
from .views import (
    COLOURS,
    command_html,
    error_html,
    layers,
    library_html,
    maps_html,
    scene_html,
    spectra_html,
    status_html,
    taken_html,
    trust_html,
)

__all__ = ["Page"]

logger = logging.getLogger(__name__)

MOST_MATERIALS, MOST_STEPS, MOST_RUNS = 12, 20, 8
_ASSETS = Path(__file__).parent


class Page:
    """Everything on the page.

    Args:
        unmixer: does the work.
        sessions: of the visitors; its `root` is where gradio puts received files.
    """

    def __init__(self, unmixer: Unmixer, sessions: Sessions) -> None:
        self.unmixer, self.sessions = unmixer, sessions

    def build(self) -> gr.Blocks:
        """The page as gradio knows it."""
        with gr.Blocks(title="hsunmix", analytics_enabled=False) as blocks:
            gr.Markdown(texts.introduction(self.sessions.limits))
            with gr.Row():
                self._add_inputs()
                self._add_settings()
            self.status = gr.HTML(status_html(texts.BEGIN), elem_id="hs-status")
            with gr.Row(visible=False) as self.look:
                with gr.Column(min_width=300):
                    self.layer = gr.Dropdown([COLOURS], value=COLOURS, label="The picture shows", elem_id="hs-layer")
                    script = (_ASSETS / "scene.js").read_text(encoding="utf-8")
                    self.scene = gr.HTML(js_on_load=script, elem_id="hs-scene")
                with gr.Column(min_width=300):
                    self.pixel = gr.HTML(elem_id="hs-pixel")
            with gr.Column(visible=False) as self.results:
                self._add_results()
            self._connect(blocks)
        return blocks.queue(max_size=30, default_concurrency_limit=2)

    def _add_inputs(self) -> None:
        with gr.Column(min_width=300):
            gr.Markdown("### 1. Choose a scene")
            gr.Markdown(texts.FILES)
            self.files = gr.File(file_count="multiple", label="Your scene", height=150, elem_id="hs-files")
            self.taken = gr.HTML(visible=False, elem_id="hs-taken")
            gr.Markdown("or take an example:")
            with gr.Row():
                self.examples = {name: gr.Button(name, size="sm", min_width=120) for name in EXAMPLES}

    def _add_settings(self) -> None:
        with gr.Column(min_width=300):
            gr.Markdown("### 2. Unmix it")
            counts = [
                ("estimate it from the image", 0),
                *((str(count), count) for count in range(2, MOST_MATERIALS + 1)),
            ]
            self.count = gr.Dropdown(
                counts, value=0, label="Number of materials", info=texts.COUNT, elem_id="hs-count"
            )
            with gr.Accordion("More choices", open=False):
                self.steps = gr.Slider(0, MOST_STEPS, 2, step=1, label="Refinement steps", info=texts.STEPS)
                self.ensemble = gr.Slider(1, MOST_RUNS, 1, step=1, label="Runs to average", info=texts.RUNS)
                self.scale = gr.Textbox(
                    label=texts.SCALE_LABEL, info=texts.SCALE, placeholder=texts.SCALE_EMPTY, elem_id="hs-scale"
                )
                gr.Markdown(texts.LIBRARY)
                self.library = gr.File(file_count="multiple", label="Your library", height=150, elem_id="hs-library")
                self.library_taken = gr.HTML(visible=False, elem_id="hs-library-taken")
            self.run = gr.Button("Unmix", variant="primary", interactive=False, elem_id="hs-run")

    def _add_results(self) -> None:
        gr.Markdown("### 3. What was found")
        with gr.Tabs():
            with gr.Tab("Maps"):
                self.maps = gr.HTML(elem_id="hs-maps")
            with gr.Tab("Spectra"):
                self.spectra = gr.HTML(elem_id="hs-spectra")
            with gr.Tab("Quality"):
                self.trust = gr.HTML(elem_id="hs-trust")
        gr.Markdown("### 4. Take it with you")
        gr.Markdown(texts.DOWNLOADS)
        with gr.Row():
            labels = texts.DOWNLOAD_LABELS.items()
            self.downloads = {
                kind: gr.DownloadButton(label, elem_id=f"hs-{kind}", min_width=200) for kind, label in labels
            }
        self.command = gr.HTML(elem_id="hs-command")

    def _connect(self, blocks: gr.Blocks) -> None:
        shown = [self.files, self.taken, self.status, self.look, self.layer, self.scene, self.pixel, self.run]
        shown.append(self.results)
        results = [self.maps, self.spectra, self.trust, self.command, *self.downloads.values()]
        quiet: dict[str, Any] = {
            "api_visibility": "private",
            "show_progress": "minimal",
            "show_progress_on": self.status,
        }
        self.files.upload(self.on_files, [self.files, self.scale], shown, **quiet)
        for name, button in self.examples.items():
            button.click(self._on_example(name), None, shown, **quiet)
        library = [self.library, self.library_taken, self.status]
        self.library.upload(self.on_library, self.library, library, **quiet)
        outputs = [self.taken, self.status, self.layer, self.scene, self.pixel, self.results, *results]
        self.run.click(
            self.on_run, [self.count, self.steps, self.ensemble, self.scale], outputs, api_visibility="private",
            show_progress="full", show_progress_on=self.status, concurrency_limit=1,
        )  # fmt: skip
        self.scene.click(self.on_pixel, None, [self.pixel, self.status], **(quiet | {"show_progress_on": self.pixel}))
        self.layer.input(self.on_layer, self.layer, [self.scene, self.status], **quiet)
        blocks.unload(self.on_leave)

    # What the buttons do. Each gives the components that change and their new values.

    def on_files(self, files: list[str] | None, scale: str | None, request: gr.Request) -> dict[Any, Any]:
        """Files were dropped: make them the scene."""

        def work() -> dict[Any, Any]:
            session = self.sessions.get(_key(request))
            number = texts.scale_number(scale)
            return self._show(self.unmixer.open_files(session, files or [], self.sessions.root, number))

        return {self.files: gr.File(None)} | _safely(work, self.status)

    def _on_example(self, name: str) -> Callable[..., dict[Any, Any]]:
        def on_example(request: gr.Request) -> dict[Any, Any]:
            return _safely(
                lambda: self._show(self.unmixer.open_example(self.sessions.get(_key(request)), name)), self.status
            )

        return on_example

    def on_library(self, files: list[str] | None, request: gr.Request) -> dict[Any, Any]:
        """Files were dropped: make them the library."""

        def work() -> dict[Any, Any]:
            session = self.sessions.get(_key(request))
            self.unmixer.open_library(session, files or [], self.sessions.root)
            assert session.library is not None
            text = f"Library {session.library_name}: {len(session.library)} spectra. Press “Unmix” to use it."
            taken = library_html(session.library_name, len(session.library))
            return {self.status: status_html(text), self.library_taken: gr.HTML(taken, visible=True)}

        return _safely(work, self.status) | {self.library: None}

    def on_run(
        self,
        count: int,
        steps: int,
        ensemble: int,
        scale: str | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict[Any, Any]:
        """Unmix the scene."""

        def work() -> dict[Any, Any]:
            session = self._session(request)
            wanted = _bounded(count, 2, MOST_MATERIALS, "Number of materials") if count else None
            number = _bounded(steps, 0, MOST_STEPS, "Refinement steps")
            runs = _bounded(ensemble, 1, MOST_RUNS, "Runs to average")
            start = time.perf_counter()
            result = self.unmixer.unmix(
                session,
                wanted,
                number,
                runs,
                lambda done, text: progress(done, desc=f"{text[0].upper()}{text[1:]}"),
                texts.scale_number(scale),
            )
            return self._show_result(result, time.perf_counter() - start)

        return _safely(work, self.status)

    def on_pixel(self, event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
        """The picture was clicked."""

        def work() -> dict[Any, Any]:
            session = self._session(request)
            row, column = (_bounded(event._data.get(key), 0, 2**31, key) for key in ("row", "column"))
            assert session.scene is not None
            return {self.pixel: pixel_panel(session.scene, session.result, row, column)}

        return _safely(work, self.status)

    def on_layer(self, layer: str, request: gr.Request) -> dict[Any, Any]:
        """Something else is to be seen in the picture."""

        def work() -> dict[Any, Any]:
            session = self._session(request)
            assert session.scene is not None
            return {self.scene: scene_html(session.scene, session.result, layer)}

        return _safely(work, self.status)

    def on_leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self.sessions.end(_key(request))

    def _session(self, request: gr.Request) -> Session:
        """The visitor's session with a scene.

        Raises:
            ValueError: there is none, or no more.
        """
        session = self.sessions.find(_key(request))
        if session is None or session.scene is None:
            raise ValueError(texts.gone(self.sessions.limits))
        return session

    def _show(self, scene: Scene) -> dict[Any, Any]:
        text = f"{scene.name} is ready. {scene.note} Press “Unmix”."
        return {
            self.files: gr.File(None, label="Another scene"),
            self.taken: gr.HTML(taken_html(scene), visible=True),
            self.status: status_html(" ".join(text.split())),
            self.look: gr.Row(visible=True),
            self.layer: gr.Dropdown([COLOURS], value=COLOURS),
            self.scene: scene_html(scene),
            self.pixel: texts.CLICK,
            self.run: gr.Button(interactive=True),
            self.results: gr.Column(visible=False),
        }

    def _show_result(self, result: Result, seconds: float) -> dict[Any, Any]:
        shares = ", ".join(
            f"{entry['name']} {100 * entry['mean_abundance']:.0f} %" for entry in result.summary["endmembers"]
        )
        text = f"{len(result.names)} materials in {seconds:.0f} s. On average a pixel holds: {shares}."
        files = {self.downloads[kind]: str(path) for kind, path in result.files.items()}
        return files | {
            self.taken: taken_html(result.scene),
            self.status: status_html(text),
            self.layer: gr.Dropdown(layers(result), value=COLOURS),
            self.scene: scene_html(result.scene, result),
            self.pixel: texts.CLICK,
            self.results: gr.Column(visible=True),
            self.maps: maps_html(result),
            self.spectra: spectra_html(result),
            self.trust: trust_html(result),
            self.command: command_html(result),
        }


def _key(request: gr.Request) -> str:
    return str(request.session_hash)


def _bounded(value: Any, least: int, most: int, name: str) -> int:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not least <= value <= most
        or value != int(value)
    ):
        raise ValueError(f"{name} must be a whole number from {least} to {most}.")
    return int(value)


def _safely(work: Callable[[], dict[Any, Any]], status: Any) -> dict[Any, Any]:
    """What `work` gives; an error becomes a message, and the page goes on working."""
    try:
        return work()
    except ValueError as error:
        return {status: error_html(str(error))}
    except SessionEnded:
        return {status: error_html("The page was closed.")}
    except Exception:
        logger.exception("the page failed")
        return {status: error_html(texts.BUG)}
