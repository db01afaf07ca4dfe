"""Plays the Hugging Face Hub in this machine: models with branches and commits, gates and refusals, over plain HTTP."""

import contextlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Model:
    """Files by commit, commits by revision, and status and code where the hub does not give them."""

    commits: dict[str, dict[str, bytes]]
    revisions: dict[str, str]
    refusal: tuple[int, str] | None = None


@dataclass
class Hub:
    """Models by name, and what was asked for."""

    models: dict[str, Model] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    address: str = ""

    def add(self, name: str, **folders: Path) -> Model:
        """Put folders up as revisions of a model, each with a commit of its own."""
        model = self.models.setdefault(name, Model({}, {}))
        for revision, folder in folders.items():
            commit = f"{len(model.commits) + 1:040x}"
            files = (file for file in Path(folder).rglob("*") if file.is_file())
            model.commits[commit] = {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
            model.revisions[revision] = commit
        return model

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and content for `/OWNER/NAME/resolve/REVISION/FILE`."""
        name, _, rest = unquote(urlsplit(path).path).lstrip("/").partition("/resolve/")
        model = self.models.get(name)
        if model is None:  # as to whoever is not logged in
            return 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b""
        if model.refusal is not None:
            return model.refusal[0], {"X-Error-Code": model.refusal[1], "X-Error-Message": model.refusal[1]}, b""
        known = [*model.revisions.items(), *((commit, commit) for commit in model.commits)]
        found = [(commit, rest[len(one) + 1 :]) for one, commit in known if rest.startswith(f"{one}/")]
        if not found:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        commit, file = found[0]
        content = model.commits[commit].get(file)
        headers = {"X-Repo-Commit": commit}
        if content is None:
            return 404, {**headers, "X-Error-Code": "EntryNotFound"}, b""
        return 200, {**headers, "ETag": f'"{abs(hash((name, content))):040x}"'}, content


@contextlib.contextmanager
def playing_hub():
    """Yield a hub that answers until the end of the context."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self.answer(with_body=False)

        def do_GET(self):
            self.answer(with_body=True)

        def answer(self, with_body):
            hub.asked.append(f"{self.command} {self.path}")
            status, headers, content = hub.answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_body:
                self.wfile.write(content)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(monkeypatch, address, cache):
    """Let the library of the hub, and this package, ask a hub at an address, with a folder of its own."""
    import huggingface_hub

    from sktransfer.backbones.sources import _hub_connection, _weights

    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(_weights, "SCHEMES", ("https", "http"))
    monkeypatch.setattr(_hub_connection, "WAITS", 60)  # for machines that are busy
    monkeypatch.setattr(_hub_connection, "_TRIED", {})
    monkeypatch.setattr(_hub_connection, "_ANSWERED", {})
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
