"""What `github_token` promises: when GitHub says that a token ends, and nothing else is asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from syncd.errors import RegistryError, RegistryUnavailableError
from syncd.oci.registry import token_expiry


class GitHub:
    """GitHub's API on loopback: it knows one token, and tells its end if that is set."""

    def __init__(self) -> None:
        self.end: str | None = None
        self.status = 200
        self.asked: list[tuple[str, str]] = []
        github = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                authorization = self.headers.get("Authorization", "")
                github.asked.append((self.path, authorization))
                status = github.status if authorization == "Bearer good" else 401
                self.send_response(status)
                if status == 200 and github.end is not None:
                    self.send_header("github-authentication-token-expiration", github.end)
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def github() -> Iterator[GitHub]:
    """Serve GitHub's API."""
    served = GitHub()
    thread = threading.Thread(target=served.server.serve_forever, args=(0.01,))
    thread.start()
    yield served
    served.server.shutdown()
    thread.join()
    served.server.server_close()


@pytest.mark.parametrize(
    ("told", "end"),
    [
        (None, None),
        ("2027-10-12 09:00:00 UTC", datetime(2027, 10, 12, 9, tzinfo=UTC)),
        ("2027-10-12 09:00:00 +0200", datetime(2027, 10, 12, 7, tzinfo=UTC)),
        ("soon", None),
    ],
)
def test_end(told: str | None, end: datetime | None, github: GitHub) -> None:
    """The end is what GitHub's header says, in its own form."""
    github.end = told
    assert token_expiry("good", github.url) == end
    assert github.asked == [("/rate_limit", "Bearer good")]


def test_unknown_token(github: GitHub) -> None:
    """A token that GitHub does not know is told, and not shown."""
    with pytest.raises(RegistryError, match="make another one") as caught:
        token_expiry("secret-one", github.url)
    assert "secret-one" not in str(caught.value)


def test_redirected(github: GitHub) -> None:
    """The token follows no redirect."""
    github.status = 302
    assert token_expiry("good", github.url) is None


def test_no_answer() -> None:
    """Without an answer nobody knows, which may pass; the token is not shown."""
    for url in ("http://127.0.0.1:1", "http://"):
        with pytest.raises(RegistryUnavailableError) as caught:
            token_expiry("secret-one", url)
        assert "secret-one" not in str(caught.value)
