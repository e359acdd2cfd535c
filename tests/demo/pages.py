"""A page that is served, and a visitor who speaks to it as the browser does."""

import json
import uuid

import httpx

from hsunmix.demo.app import serve
from hsunmix.demo.session import Limits
from hsunmix.demo.unmixing import Unmixer


def serve_page(limits=None):
    import hsunmix

    def load():
        pipe = hsunmix.SemiBlindUnmixingPipeline.from_pretrained(hsunmix.bundled_checkpoint("base"))
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return serve(Unmixer(load, "base", limits or Limits()), port=None)


class Visitor:
    """Sends files and presses buttons over HTTP."""

    def __init__(self, url):
        self.client = httpx.Client(base_url=url, timeout=60, trust_env=False)
        self.session_hash = uuid.uuid4().hex[:11]
        self.config = self.client.get("config").json()

    def upload(self, *files):
        """Where the server has put them."""
        content = [("files", (name, data)) for name, data in files]
        answer = self.client.post("gradio_api/upload", files=content)
        answer.raise_for_status()
        return answer.json()

    def function(self, name):
        """Number of the function behind a button."""
        return next(entry["id"] for entry in self.config["dependencies"] if entry["api_name"] == name)

    def press(self, name, data, event_data=None):
        """The message with which the server answers."""
        body = {"fn_index": self.function(name), "session_hash": self.session_hash, "data": data}
        self.client.post("gradio_api/queue/join", json=body | {"event_data": event_data}).raise_for_status()
        query = {"session_hash": self.session_hash}
        with self.client.stream("GET", "gradio_api/queue/data", params=query) as stream:
            for line in stream.iter_lines():
                if line.startswith("data:") and json.loads(line[5:])["msg"] == "process_completed":
                    return json.loads(line[5:])
        raise AssertionError("no answer")

    def send_scene(self, *paths, scale=None):
        files = [{"path": path, "meta": {"_type": "gradio.FileData"}} for path in paths]
        return self.press("on_files", [files, scale])
