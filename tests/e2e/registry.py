"""A container registry on loopback: Debian's docker-registry, with its access log.

The access log is what the tests ask when they say which blobs a sync read: it is the registry's
own word, not syncd's.  Passwords are kept as docker-registry wants them, in an htpasswd file with
bcrypt (https://distribution.github.io/distribution/about/configuration/#htpasswd); tokens are
those of `tests.e2e.token_service` (the same page, #token).
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from tests.e2e.command import free_port, run, stop, wait_for
from tests.e2e.token_service import ISSUER, SERVICE, TokenService
from tests.images import Content

_ACCESS = re.compile(
    r'"(?P<method>[A-Z]+) (?P<path>\S+) HTTP/[0-9.]+" (?P<status>[0-9]{3}) (?P<size>[0-9]+) '
)
_BLOB = re.compile(r"/blobs/(sha256:[0-9a-f]{64})")


class Request(NamedTuple):
    """One line of the access log."""

    method: str
    path: str
    status: int
    size: int
    """Bytes of the answer's body."""


class Registry:
    """A registry that serves `folder` on `address` while the context is open.

    With `user` and `password` nothing is served without them, with `tokens` nothing without a
    token that was signed there.  With `cache_of`, the URL of another registry, it is a pull-through
    cache of that (https://distribution.github.io/distribution/recipes/mirror/).  The address stays
    the same when the registry is stopped and started again.
    """

    def __init__(
        self,
        folder: Path,
        user: str = "",
        password: str = "",
        tokens: TokenService | None = None,
        *,
        cache_of: str = "",
    ) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.credentials = f"{user}:{password}" if user else ""
        self._tokens = tokens
        self._folder = folder
        self._log = folder / "access.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._pings = 0
        folder.mkdir(parents=True)
        self._log.touch()
        settings = self._settings(user, password)
        if cache_of:
            settings["proxy"] = {"remoteurl": cache_of}
        (folder / "registry.yml").write_text(json.dumps(settings))

    def __enter__(self) -> Registry:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.stop()

    def notify(self, url: str, authorization: str) -> None:
        """Have the registry tell `url` of pushes and pulls, from its next start on.

        Source: https://distribution.github.io/distribution/about/notifications/#configuration
        """
        file = self._folder / "registry.yml"
        endpoint = {
            "name": "e2e",
            "url": url,
            "headers": {"Authorization": [authorization]},
            "timeout": "5s",
            "threshold": 3,
            "backoff": "1s",
        }
        settings = json.loads(file.read_text())
        file.write_text(json.dumps({**settings, "notifications": {"endpoints": [endpoint]}}))

    def start(self) -> None:
        """Serve; returns once the registry answers."""
        with self._log.open("ab") as log, (self._folder / "errors.log").open("ab") as errors:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", str(self._folder / "registry.yml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=errors,
            )
        wait_for(f"the registry at {self.address}", self._answers, timeout=20)

    def stop(self) -> None:
        """Stop serving; what was pushed stays."""
        assert self._process is not None
        stop(self._process)
        self._process = None

    def push(self, repository: str, tag: str, content: Content) -> str:
        """Push an image or index of `tests.images`, byte for byte; return its reference."""
        manifests = content.document.get("manifests", [])
        types = {entry["digest"]: entry["mediaType"] for entry in manifests}
        for digest in content.blobs.keys() - {content.digest} - types.keys():
            begun = self._send("POST", f"{repository}/blobs/uploads/", repository)
            where = f"{begun['Location'].partition('/v2/')[2]}&digest={digest}"
            self._send("PUT", where, repository, content.blobs[digest])
        for digest, media_type in types.items():
            where = f"{repository}/manifests/{digest}"
            self._send("PUT", where, repository, content.blobs[digest], media_type)
        document = content.blobs[content.digest]
        where, media_type = f"{repository}/manifests/{tag}", content.descriptor["mediaType"]
        self._send("PUT", where, repository, document, media_type)
        return f"{self.address}/{repository}:{tag}"

    def mark(self) -> int:
        """Return the present end of the access log, to be given to `requests` or `blobs`."""
        self._settle()
        return self._log.stat().st_size

    def requests(self, method: str, pattern: str, since: int = 0) -> list[Request]:
        """Return the requests logged after the mark `since` whose path matches `pattern`."""
        self._settle()
        with self._log.open("rb") as log:
            log.seek(since)
            lines = log.read().decode().splitlines()
        found = (_ACCESS.search(line) for line in lines)
        return [
            Request(method, entry["path"], int(entry["status"]), int(entry["size"]))
            for entry in found
            if entry and entry["method"] == method and re.search(pattern, entry["path"])
        ]

    def blobs(self, since: int = 0) -> list[str]:
        """Return the digest of each blob read after the mark `since`, once for every GET."""
        gets = self.requests("GET", _BLOB.pattern, since)
        return [found[1] for get in gets if (found := _BLOB.search(get.path))]

    def blob_file(self, digest: str) -> Path:
        """Return where the registry stores the content of a blob."""
        algorithm, encoded = digest.split(":")
        blobs = self._folder / "data" / "docker" / "registry" / "v2" / "blobs"
        return blobs / algorithm / encoded[:2] / encoded / "data"

    def _settings(self, user: str, password: str) -> dict[str, object]:
        settings: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(self._folder / "data")}},
            "http": {"addr": self.address},
        }
        if user:
            htpasswd = self._folder / "htpasswd"
            htpasswd.write_text(run("htpasswd", "-Bbn", user, password))
            settings["auth"] = {"htpasswd": {"realm": "e2e", "path": str(htpasswd)}}
        if self._tokens is not None:
            settings["auth"] = {
                "token": {
                    "realm": self._tokens.realm,
                    "service": SERVICE,
                    "issuer": ISSUER,
                    "rootcertbundle": str(self._tokens.certificate),
                }
            }
        return settings

    def _send(
        self,
        method: str,
        path: str,
        repository: str,
        body: bytes = b"",
        media_type: str = "application/octet-stream",
    ) -> Mapping[str, str]:
        """Make a request of a push, and return the answer's headers."""
        headers = {"Content-Type": media_type}
        if self._tokens is not None:
            scope = f"repository:{repository}:pull,push"
            headers["Authorization"] = f"Bearer {self._tokens.token(SERVICE, [scope])}"
        elif self.credentials:
            encoded = base64.b64encode(self.credentials.encode()).decode()
            headers["Authorization"] = f"Basic {encoded}"
        url = f"http://{self.address}/v2/{path}"
        request = urllib.request.Request(url, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return dict(answer.headers)

    def _answers(self, query: str = "") -> bool:
        try:
            urllib.request.urlopen(f"http://{self.address}/v2/{query}", timeout=5).close()
        except urllib.error.HTTPError as refusal:
            refusal.close()
            return refusal.code == 401
        except OSError:
            return False
        return True

    def _settle(self) -> None:
        """Wait until the log holds a request made now, hence those that were answered before."""
        if self._process is None:
            return
        self._pings += 1
        query = f"?e2e={self._pings}"
        assert self._answers(query)
        wait_for("the access log", lambda: f"/v2/{query} " in self._log.read_text(), timeout=5)
