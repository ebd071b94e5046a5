"""A stand-in for the hub on this machine: repositories in memory, over the client's own HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c" * 40
Repositories = dict[str, dict[str, bytes]]


@contextmanager
def hub_server(repositories: Repositories) -> Iterator[str]:
    """Serve them; pushes change them. Gives the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _path(self) -> list[str]:
            return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

        def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", headers.pop("length", None) or str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _json(self, value: Any, status: int = 200, **headers: str) -> None:
            self._answer(
                status, json.dumps(value).encode(), Content_Type="application/json", **headers
            )

        def _missing(self) -> None:
            self._json({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            parts = self._path()
            if parts[:2] == ["api", "models"]:
                files = repositories.get("/".join(parts[2:4]))
                if files is None:
                    self._missing()
                elif "tree" in parts:
                    self._json(
                        [
                            {"type": "file", "path": n, "size": len(b), "oid": _sha(b)}
                            for n, b in files.items()
                        ]
                    )
                else:
                    self._json(
                        {
                            "id": "/".join(parts[2:4]), "sha": COMMIT, "private": False,
                            "siblings": [{"rfilename": n} for n in files], "tags": [],
                            "downloads": 0, "likes": 0, "_id": "1", "modelId": "x",
                        }
                    )  # fmt: skip
                return
            files = repositories.get("/".join(parts[:2]))
            if files is None or "/".join(parts[4:]) not in files:
                self._missing()
                return
            body = files["/".join(parts[4:])]
            self._answer(200, body, ETag=f'"{_sha(body)}"', X_Repo_Commit=COMMIT)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = self._path()
            if not self.headers.get("Authorization"):
                self._json({"error": "log in"}, 401)
            elif parts == ["api", "repos", "create"]:
                wanted = json.loads(body)
                name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
                repositories.setdefault(name, {})
                self._json({"url": f"http://{self.headers['Host']}/{name}", "id": name})
            elif parts == ["api", "validate-yaml"]:
                self._json({"errors": [], "warnings": []})
            elif "preupload" in parts:
                sizes = json.loads(body)["files"]
                self._json(
                    {
                        "files": [
                            {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                            for f in sizes
                        ]
                    }
                )
            elif "commit" in parts:
                files = repositories["/".join(parts[2:4])]
                for line in body.splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        value = entry["value"]
                        files[value["path"]] = base64.b64decode(value["content"])
                self._json(
                    {
                        "success": True, "commitOid": COMMIT,
                        "commitUrl": f"http://{self.headers['Host']}/{'/'.join(parts[2:4])}/commit/{COMMIT}",
                    }
                )  # fmt: skip
            else:
                self._missing()

        def log_message(self, *said: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _sha(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
