"""Shows the page: a server, the folder for what visitors give, and the sweeping of that folder."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

import gradio as gr

from .page import Page
from .session import Sessions
from .unmixing import Unmixer

__all__ = ["Server", "serve"]

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 15.0
_FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]  # none that a browser has to fetch


def _theme() -> gr.themes.Base:
    """Gradio's own, with fonts of the system, and with captions that can be read (4.5 : 1 and more)."""
    theme = gr.themes.Default(font=_FONT, font_mono=["ui-monospace", "monospace"])
    quiet = ("body_text_color_subdued", "block_info_text_color", "block_label_text_color", "block_title_text_color")
    shades = {name: "*neutral_600" for name in quiet} | {f"{name}_dark": "*neutral_300" for name in quiet}
    return theme.set(**shades)


class Server:
    """A page that is being shown.

    Attributes:
        url: where.
        visitors: folder with one folder per visitor.
    """

    def __init__(self, blocks: gr.Blocks, sessions: Sessions, url: str, environment: str | None) -> None:
        self.url, self.visitors = url, sessions.folder
        self._environment = environment
        self._blocks, self._sessions = blocks, sessions
        self._stop = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep, daemon=True, name="hsunmix-sweeper")
        self._sweeper.start()
        atexit.register(self.close)

    def _sweep(self) -> None:
        while not self._stop.wait(SWEEP_SECONDS):
            try:
                self._sessions.sweep()
            except Exception:  # a file that vanished meanwhile must not end all sweeping
                logger.exception("sweeping failed")

    def wait(self) -> None:
        """Until the process is interrupted, or told to end (SIGTERM, as containers do)."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            self._blocks.block_thread()
        finally:
            self.close()

    def close(self) -> None:
        """Stop, and leave nothing behind."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._blocks.close(verbose=False)
        self._sessions.end_all()
        _restore(self._environment)


def _restore(folder: str | None) -> None:
    if folder is None:
        os.environ.pop("GRADIO_TEMP_DIR", None)
    else:
        os.environ["GRADIO_TEMP_DIR"] = folder


def serve(unmixer: Unmixer, host: str = "127.0.0.1", port: int | None = None, open_browser: bool = False) -> Server:
    """Show the page.

    Args:
        unmixer: does the work.
        host: address to listen at; "0.0.0.0" for other machines too.
        port: to listen at; None = the first free one from 7860 on.
        open_browser: show it in this machine's browser.

    Returns:
        The server, which runs in the background.

    Raises:
        OSError: the port is taken.
    """
    root = Path(tempfile.mkdtemp(prefix="hsunmix-app-")).resolve()
    environment = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(root)  # gradio has no argument for the folder of received files
    sessions = Sessions(root, unmixer.limits)
    try:
        blocks = Page(unmixer, sessions).build()
        _, url, _ = blocks.launch(
            server_name=host, server_port=port, inbrowser=open_browser, prevent_thread_lock=True, quiet=True,
            share=False, ssr_mode=False, show_error=False, footer_links=[], run_history=False,
            max_file_size=unmixer.limits.upload, css=Path(__file__).with_name("page.css").read_text(encoding="utf-8"),
            theme=_theme(),
        )  # fmt: skip
    except BaseException:
        sessions.end_all()
        _restore(environment)
        raise
    return Server(blocks, sessions, url, environment)
