"""A small model Hub on the loopback interface: the part of its HTTP interface that pushing and loading a pipeline use.

Repositories live in memory as commits, `{path: bytes}`; branches name commits. Files with a weights suffix travel
through the LFS protocol, the others inside the commit. Every request is recorded: tests see what was downloaded.
"""

import base64
import hashlib
import json
import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

LFS_SUFFIXES = (".safetensors", ".bin", ".pkl", ".pt", ".png")


@dataclass
class Fault:
    """A connection that breaks: after `size` bytes of the content sent (GET) or of the body received (PUT, POST).

    `stall` waits for the other side to go away instead of closing; `stalled` says that it does.
    """

    method: str
    part_of_path: str
    size: int
    times: int = 1_000_000
    stall: bool = False

    def __post_init__(self):
        self.stalled = threading.Event()


class LoopbackHub(AbstractContextManager):
    """The server and its repositories; `with LoopbackHub() as hub: ... hub.url`."""

    def __init__(self, token="hf_loopback"):
        self.token = token
        self.commits = {}  # sha -> {path: bytes}
        self.branches = {}  # repo id -> {branch: sha}
        self.private = set()
        self.lfs_objects = {}  # sha256 -> bytes
        self.requests = []  # (method, path without query)
        self.faults = []
        self.forged = {}  # path -> content that is sent under the checksum of the real one
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._server.shutdown()
        self._server.server_close()

    def commit(self, repo_id, files, branch="main"):
        """Make `files` ({path: bytes}) the content of a branch; the new commit's sha."""
        digest = hashlib.sha1(repr((repo_id, branch, len(self.commits))).encode())
        for path, content in sorted(files.items()):
            digest.update(path.encode() + hashlib.sha1(content).digest())
        sha = digest.hexdigest()
        self.commits[sha] = dict(files)
        self.branches.setdefault(repo_id, {})[branch] = sha
        return sha

    def commit_folder(self, repo_id, folder, branch="main", extra=None):
        """Commit everything under a local folder, and `extra` ({path: bytes})."""
        folder = Path(folder)
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        return self.commit(repo_id, {**files, **(extra or {})}, branch)

    def fault(self, method, path):
        """The fault that this request runs into, or None."""
        for fault in self.faults:
            if fault.method == method and fault.part_of_path in path and fault.times:
                fault.times -= 1
                return fault
        return None

    def files(self, repo_id, branch="main"):
        """The content of a branch."""
        return self.commits[self.branches[repo_id][branch]]

    def downloaded(self):
        """Paths, inside their repository, of the files whose content was sent."""
        return {
            path.split("/resolve/")[1].split("/", 1)[1]
            for method, path in self.requests
            if method == "GET" and "/resolve/" in path
        }


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub

    def log_message(self, format, *args):
        pass

    # -- plumbing ---------------------------------------------------------------------------------------------------

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def send(self, status, content=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_json(self, value, status=200):
        self.send(status, json.dumps(value).encode(), Content_Type="application/json")

    def send_missing(self, code, status=404):
        self.send(status, b'{"error": "not found"}', X_Error_Code=code, X_Error_Message=code)

    def handle_any(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        authorised = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if self.command in ("POST", "PUT"):
            fault = self.hub.fault(self.command, path)
            if fault is not None:
                self.rfile.read(fault.size)
                return self.break_off(fault)
            if not authorised and "/lfs-put/" not in path:
                return self.send_missing("Unauthorized", 401)
            return self.write(path, self.body())
        return self.read(path, authorised)

    def break_off(self, fault):
        if fault.stall:
            fault.stalled.set()
            while self.connection.recv(1 << 16):
                pass
        self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    # -- reading ----------------------------------------------------------------------------------------------------

    def read(self, path, authorised):
        if path == "/api/whoami-v2":
            return self.send_json({"type": "user", "name": "user", "orgs": []})
        if path.startswith("/api/models/"):
            user, name, *rest = path.removeprefix("/api/models/").split("/")
        elif "/resolve/" in path:
            user, name, *rest = path.removeprefix("/").split("/")
        else:
            return self.send_missing("EntryNotFound")
        repo_id = f"{user}/{name}"
        if repo_id not in self.hub.branches or (repo_id in self.hub.private and not authorised):
            return self.send_missing("RepoNotFound", 404 if authorised else 401)
        kind, revision = rest[:2] if len(rest) > 1 else ("revision", "main")
        sha = self.hub.branches[repo_id].get(revision, revision)
        if sha not in self.hub.commits:
            return self.send_missing("RevisionNotFound")
        files = self.hub.commits[sha]
        if kind == "resolve":
            return self.send_file(files, sha, "/".join(rest[2:]))
        if kind == "tree":
            return self.send_json([self.tree_entry(p, c) for p, c in files.items()])
        siblings = [{"rfilename": p} for p in files]
        return self.send_json({"id": repo_id, "modelId": repo_id, "sha": sha, "siblings": siblings, "private": False})

    def tree_entry(self, path, content):
        entry = {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        if path.endswith(LFS_SUFFIXES):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
        return entry

    def send_file(self, files, sha, path):
        if path not in files:
            return self.send_missing("EntryNotFound")
        content = files[path]
        hash_name = "sha256" if path.endswith(LFS_SUFFIXES) else "sha1"
        etag = f'"{hashlib.new(hash_name, content).hexdigest()}"'
        content = self.hub.forged.get(self.path.split("/resolve/")[0].strip("/") + "/" + path, content)
        fault = self.hub.fault(self.command, self.path)
        headers = {"ETag": etag, "X_Repo_Commit": sha, "Content_Type": "application/octet-stream"}
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if fault is None:
            return self.send(206 if start else 200, content[start:], **headers)
        self.send_response(206 if start else 200)
        for name, value in {**headers, "Content_Length": str(len(content) - start)}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content[start : start + fault.size])
        self.wfile.flush()
        return self.break_off(fault)

    # -- writing ----------------------------------------------------------------------------------------------------

    def write(self, path, body):
        if path == "/api/repos/create":
            request = json.loads(body)
            repo_id = f"{request.get('organization') or 'user'}/{request['name']}"
            if repo_id not in self.hub.branches:
                self.hub.commit(repo_id, {".gitattributes": b"*.safetensors filter=lfs\n"})
            return self.send_json({"url": f"{self.hub.url}/{repo_id}", "name": repo_id, "id": "0"})
        if path == "/api/validate-yaml":
            errors = metadata_errors(json.loads(body)["content"])
            return self.send_json({"errors": errors, "warnings": []}, 400 if errors else 200)
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [self.lfs_instruction(entry) for entry in json.loads(body)["objects"]]
            return self.send_json({"transfer": "basic", "objects": objects})
        if path.startswith("/lfs-put/"):
            self.hub.lfs_objects[hashlib.sha256(body).hexdigest()] = body
            return self.send(200)
        user, name, action, branch = path.removeprefix("/api/models/").split("/", 3)
        if action == "preupload":
            entries = [
                {
                    "path": entry["path"],
                    "uploadMode": "lfs" if entry["path"].endswith(LFS_SUFFIXES) else "regular",
                    "shouldIgnore": False,
                }
                for entry in json.loads(body)["files"]
            ]
            return self.send_json({"files": entries})
        if action == "commit":
            return self.apply_commit(f"{user}/{name}", branch, body)
        return self.send_missing("EntryNotFound")

    def lfs_instruction(self, entry):
        instruction = {"oid": entry["oid"], "size": entry["size"]}
        if entry["oid"] not in self.hub.lfs_objects:
            instruction["actions"] = {"upload": {"href": f"{self.hub.url}/lfs-put/{entry['oid']}"}}
        return instruction

    def apply_commit(self, repo_id, branch, body):
        files = dict(self.hub.files(repo_id))
        for line in body.splitlines():
            item = json.loads(line)
            if item["key"] == "file":
                files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            elif item["key"] == "lfsFile":
                files[item["value"]["path"]] = self.hub.lfs_objects[item["value"]["oid"]]
            elif item["key"] == "deletedFile":
                files.pop(item["value"]["path"], None)
        sha = self.hub.commit(repo_id, files, branch)
        url = f"{self.hub.url}/{repo_id}/commit/{sha}"
        return self.send_json({"success": True, "commitOid": sha, "commitUrl": url, "pullRequestUrl": None})


def metadata_errors(card):
    """What is wrong with the metadata of a README, as the Hub says it; its schema of `model-index`, in short."""
    if not card.startswith("---\n"):
        return []
    try:
        data = yaml.safe_load(card.split("---\n")[1])
        for model in data.get("model-index", []):
            for result in model["results"]:
                named = [model["name"], result["task"]["type"], result["dataset"]["type"], result["dataset"]["name"]]
                named += [metric["type"] for metric in result["metrics"]]
                if not all(isinstance(value, str) and value for value in named):
                    return [{"message": f"model-index: a name is missing in {result}"}]
                if not all(isinstance(metric["value"], (int, float)) for metric in result["metrics"]):
                    return [{"message": f"model-index: a value is no number in {result}"}]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        return [{"message": f"{type(error).__name__}: {error}"}]
    return []
