"""What `syncd notify` and the check of notifications promise: who is reached, and never a URL."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from syncd.config.load import load_config
from syncd.service.notification_checks import notification_results
from syncd.sync.ledger import Ledger
from syncd.sync.notification import Notification, Severity
from tests.fakes.receiver import PASSWORD, Receiver

NO_URL = "is not as Apprise wants it: see https://appriseit.com/services/"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as served:
        yield served


def configured(folder: Path, *urls: str, ping: str = "") -> Path:
    """Write a configuration that tells these receivers, and pings this URL."""
    lines = ["[state]", f'directory = "{folder}/state"', "[notify]"]
    for key, content in (("urls_file", "\n".join(urls)), ("ping_url_file", ping)):
        if content:
            (folder / key).write_text(content)
            (folder / key).chmod(0o600)
            lines.append(f'{key} = "{folder}/{key}"')
    path = folder / "syncd.toml"
    path.write_text("\n".join(lines))
    return path


def syncd(config: Path, *arguments: str) -> tuple[int, str, str]:
    """Run a command in a process of its own; return its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "syncd", "--config", str(config), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert PASSWORD not in f"{done.stdout} {done.stderr}"
    return done.returncode, done.stdout, done.stderr


def test_a_test(tmp_path: Path, receiver: Receiver) -> None:
    """Each receiver is told that this is a test, the switch is pinged, and each is reported."""
    config = configured(tmp_path, receiver.url, ping=receiver.ping_url)
    code, out, _ = syncd(config, "notify", "--test")
    assert (code, out) == (
        0,
        "ok   URL 1 (json): took the message\nok   dead man's switch: answered\n",
    )
    assert receiver.titles == ["this is a test"]
    assert len(receiver.asked) == 1


def test_a_test_that_fails(tmp_path: Path, receiver: Receiver) -> None:
    """What a receiver answers, or that nobody knows its URL, is said, and the exit code is 1."""
    receiver.status = 401
    config = configured(tmp_path, receiver.url, f"jsn://{PASSWORD}@host")
    code, out, _ = syncd(config, "notify", "--test", "--json")
    assert code == 1
    assert json.loads(out) == [
        {"ok": False, "subject": "URL 1 (json)", "detail": "answers 401"},
        {"ok": False, "subject": "URL 2", "detail": NO_URL},
    ]


def test_nobody(tmp_path: Path) -> None:
    """A test without anybody to tell says what to configure."""
    code, _, told = syncd(configured(tmp_path), "notify", "--test")
    assert code == 1
    assert told.startswith("syncd: there is nobody to tell; name notify.urls_file")


def test_waiting(tmp_path: Path) -> None:
    """Without --test, what waits is shown, and why."""
    config = configured(tmp_path)
    assert syncd(config, "notify") == (0, "no notification waits\n", "")
    _leave(config)
    _, out, _ = syncd(config, "notify")
    assert out.splitlines()[0].endswith(" syncd on pve1: a.b/c:d failing")
    assert out.splitlines()[1] == "  tried once: URL 1 (json) answers 500"
    (row,) = json.loads(syncd(config, "notify", "--json")[1])
    assert (row["tries"], row["fault"]) == (1, "URL 1 (json) answers 500")


def _leave(config: Path) -> None:
    """Leave a notification that was tried once in the ledger."""
    now = datetime.now(UTC)
    with Ledger(load_config(config).state.paths.ledger) as ledger:
        message = Notification("syncd on pve1: a.b/c:d failing", "", Severity.FAILURE)
        ledger.notifications.tell(message, [], [], {}, now)
        (row,) = ledger.notifications.undelivered()
        ledger.notifications.not_delivered([row.after(now, "URL 1 (json) answers 500", row.marks)])


def test_check(tmp_path: Path, receiver: Receiver) -> None:
    """A check tries what can be tried of the URLs without telling anybody, and tells what waits."""

    def found(path: Path) -> list[tuple[bool, str, str]]:
        results = list(notification_results(load_config(path)))
        assert PASSWORD not in str(results)
        return [(each.ok, each.subject, each.detail) for each in results]

    unset = "nobody is told, unless systemd gives the service its credential notify-urls"
    assert found(configured(tmp_path)) == [(True, "notifications", unset)]
    config = configured(tmp_path, receiver.url, f"jsn://{PASSWORD}@host", ping=receiver.ping_url)
    assert found(config) == [
        (True, "notification URL 1 (json)", "syncd notify --test tells it something"),
        (False, "notification URL 2", NO_URL),
        (True, "dead man's switch", "pinged after each sweep that works"),
    ]
    assert (receiver.heard, receiver.asked) == ([], [])
    _leave(config)
    (ok, subject, detail) = found(config)[-1]
    assert (ok, subject) == (False, "notifications")
    assert detail.startswith("1 not delivered since ")
    config = configured(tmp_path, receiver.url, ping=f"ftp://{PASSWORD}")
    assert [ok for ok, subject, _ in found(config) if subject == "dead man's switch"] == [False]
    config = configured(tmp_path, ping=receiver.ping_url)
    config.write_text(f'{config.read_text()}\n[schedule]\nsweep = "off"\n')
    assert (False, "dead man's switch", "never pinged, since schedule.sweep is off") in found(
        config
    )
    config = configured(tmp_path, receiver.url)
    (tmp_path / "urls_file").unlink()
    assert found(config)[0][:2] == (False, "notifications")
