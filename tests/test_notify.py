"""What `syncd.notify` promises: whoever asked is told, and nothing else ever comes of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import apprise
import pytest
from structlog.testing import capture_logs

from syncd.job import Cause, Outcome, Result, SyncJob
from syncd.notify import Notices
from syncd.reference import Reference
from syncd.settings import NotifySettings

JOB = SyncJob(Reference.parse("ghcr.io/o/n:latest"), Cause.WEBHOOK)
FAILED = Outcome(Result.FAILED, "the registry is down")


class Hearer(HTTPServer):
    """A service that is notified: Apprise's `json://` posts to it."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.status = 200
        hearer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                hearer.heard.append(json.loads(self.rfile.read(length)))
                self.send_response(hearer.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def hearer() -> Iterator[Hearer]:
    """Serve a service to be notified."""
    with Hearer() as served:
        threading.Thread(target=served.serve_forever, args=(0.02,), daemon=True).start()
        yield served
        served.shutdown()


def notices(folder: Path, urls: str, **settings: Any) -> Notices:
    """Return notices to these URLs."""
    (folder / "urls").write_text(urls)
    return Notices(lambda: NotifySettings(urls_file=folder / "urls", **settings))


def url(hearer: Hearer) -> str:
    """Return the URL that notifies the service; it carries a password."""
    return f"json://user:hunter2@127.0.0.1:{hearer.server_port}"


@pytest.mark.parametrize(
    ("on", "told"),
    [
        (None, [Result.FAILED]),
        ({"published", "failed"}, [Result.PUBLISHED, Result.FAILED]),
        ({"unchanged"}, [Result.UNCHANGED]),
        (set(), []),
    ],
)
async def test_who_is_told(
    on: set[str] | None, told: list[Result], hearer: Hearer, tmp_path: Path
) -> None:
    """Those results are told that are asked for: by default, failures."""
    notifier = notices(tmp_path, url(hearer), **({} if on is None else {"on": on}))
    for result in Result:
        await notifier.ended(JOB, Outcome(result, "the message"))
    assert [heard["title"] for heard in hearer.heard] == [
        f"syncd: {JOB.reference} {r}" for r in told
    ]
    assert all(heard["message"] == "the message" for heard in hearer.heard)


async def test_kind(hearer: Hearer, tmp_path: Path) -> None:
    """A failure looks like one to the service."""
    await notices(tmp_path, url(hearer)).ended(JOB, FAILED)
    assert [heard["type"] for heard in hearer.heard] == ["failure"]


@pytest.mark.parametrize(
    "urls",
    [
        "nonsense",
        "nonsense://user:hunter2@host",
        "json://user:hunter2@127.0.0.1:1/",
        "json://user:hunter2@:x",
        "{0}\nnonsense",
    ],
)
async def test_not_delivered(
    urls: str, hearer: Hearer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be delivered is one warning, without the URL: it carries a password."""
    with capture_logs() as logs:
        await notices(tmp_path, urls.format(url(hearer))).ended(JOB, FAILED)
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("notification not delivered", "warning")
    ]
    assert "hunter2" not in f"{logs} {caplog.text}"


async def test_refused(hearer: Hearer, tmp_path: Path) -> None:
    """A service that refuses is a warning too."""
    hearer.status = 500
    with capture_logs() as logs:
        await notices(tmp_path, url(hearer)).ended(JOB, FAILED)
    assert [line["event"] for line in logs] == ["notification not delivered"]


async def test_no_file(tmp_path: Path) -> None:
    """A file of URLs that is gone is a warning, and none configured is silence."""
    with capture_logs() as logs:
        await Notices(lambda: NotifySettings(urls_file=tmp_path / "none")).ended(JOB, FAILED)
        await Notices(NotifySettings).ended(JOB, FAILED)
    assert [line["event"] for line in logs] == ["notification not delivered"]


@pytest.mark.parametrize(
    "fault", [TimeoutError(), OSError("no route"), TypeError("a plugin's own")]
)
async def test_any_fault_is_a_warning(
    fault: Exception, hearer: Hearer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a service's plugin does, the job's end is not touched by it."""

    def notify(*_: object, **__: object) -> bool:
        raise fault

    monkeypatch.setattr(apprise.Apprise, "notify", notify)
    with capture_logs() as logs:
        await notices(tmp_path, url(hearer)).ended(JOB, FAILED)
    assert [line["event"] for line in logs] == ["notification not delivered"]


async def test_metrics(tmp_path: Path) -> None:
    """Every job's end is counted, by cause and result."""
    notifier = Notices(NotifySettings)
    for result in (Result.FAILED, Result.PUBLISHED, Result.PUBLISHED):
        await notifier.ended(JOB, Outcome(result, ""))
    text = notifier.metrics().decode()
    assert 'syncd_jobs_total{cause="webhook",result="published"} 2.0' in text
    assert 'syncd_jobs_total{cause="webhook",result="failed"} 1.0' in text
    assert (
        f'syncd_job_ended_timestamp_seconds{{reference="{JOB.reference}",result="failed"}}' in text
    )
    assert Notices(NotifySettings).metrics() != notifier.metrics()
