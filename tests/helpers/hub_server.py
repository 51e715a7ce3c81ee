"""A Hugging Face hub with one dataset, `someone/small`, on this machine: `python hub_server.py FOLDER` prints its port.

As much of the hub's HTTP interface as `datasets` needs to find, download and stream the files of FOLDER.
"""

from __future__ import annotations

import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

ROOT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
NAME, COMMIT = "someone/small", "a" * 40
API, FILES = f"/api/datasets/{NAME}", f"/datasets/{NAME}/resolve/"


def entry(path: Path) -> dict[str, Any]:
    name = str(path.relative_to(ROOT))
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40}
    return {"type": "file", "path": name, "oid": hashlib.sha1(path.read_bytes()).hexdigest(), **size(path)}


def size(path: Path) -> dict[str, int]:
    return {"size": path.stat().st_size}


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: Any) -> None:
        pass

    def answer(self, body: Any, code: int = 200, **headers: Any) -> None:
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in {"Content_Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        paths = (json.loads(body) if body.startswith("{") else parse_qs(body))["paths"]
        self.answer([entry(ROOT / path) for path in paths if (ROOT / path).exists()])

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = unquote(urlparse(self.path).path)
        if url.startswith(FILES):
            self.file(ROOT / url.removeprefix(FILES).partition("/")[2])
        elif url.startswith(f"{API}/tree/"):
            folder = ROOT / url.removeprefix(f"{API}/tree/").partition("/")[2]
            self.answer([entry(path) for path in sorted(folder.iterdir())] if folder.is_dir() else [])
        elif url in (API, f"{API}/revision/main", f"{API}/revision/{COMMIT}"):
            self.answer({"id": NAME, "sha": COMMIT, "private": False, "gated": False, "tags": [], "siblings": []})
        elif url.startswith(f"{API}/revision/"):
            self.answer({}, 404, X_Error_Code="RevisionNotFound")
        else:
            self.answer({}, 404, X_Error_Code="RepoNotFound")

    def file(self, path: Path) -> None:
        if not path.is_file():
            self.answer({}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            return
        data = path.read_bytes()
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X_Repo_Commit": COMMIT, "Accept_Ranges": "bytes"}
        wanted = self.headers.get("Range")
        if wanted is None or self.command == "HEAD":
            self.answer(data, **headers)
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        begin, end = int(first), min(int(last or len(data)), len(data) - 1)
        self.answer(data[begin : end + 1], 206, Content_Range=f"bytes {begin}-{end}/{len(data)}", **headers)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    print(server.server_port, flush=True)
    server.serve_forever()
