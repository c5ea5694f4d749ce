"""What `web.deliveries` promises: verified, written down, answered, and nothing but that."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from syncd.events import BODY_MAX
from syncd.service.hook_networks import Learnt
from syncd.sync.database import Database
from syncd.sync.job import Cause, Result, State
from syncd.web.attempts import FREE
from syncd.web.backend import HttpLimits
from tests.deliveries import example, pushed, signed
from tests.fakes.registry import Registry
from tests.harness import Harness, sample
from tests.sync.test_worker import Faulty
from tests.web.sockets import as_strangers, peer

LATER = 'settle = "1h"'


def body_for(harness: Harness) -> bytes:
    """Return the event of a push to the watched repository."""
    return json.dumps(pushed(harness.repository.name)).encode()


async def counted(harness: Harness) -> str:
    """Return the metrics."""
    return await (await harness.ask("GET", "/metrics")).text()


async def test_a_push_becomes_a_template(tmp_path: Path, registry: Registry) -> None:
    """A signed push to a watched repository is published."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(harness.repository.repository, "latest", sample())
        status, answer = await harness.deliver(body_for(harness))
        assert status == 202
        (job,) = answer["jobs"]
        outcome = await harness.outcome(job)
        assert outcome.result is Result.PUBLISHED
        assert [path.name for path in harness.templates] == [
            volume.rpartition("/")[2] for volume in outcome.volumes
        ]


async def test_written_before_it_is_answered(tmp_path: Path, registry: Registry) -> None:
    """At the answer the ledger has the job and the delivery, and the registry was not asked."""
    async with Harness(tmp_path, registry, server='settle = "1h"') as harness:
        status, answer = await harness.deliver(body_for(harness), delivery="42")
        assert status == 202
        record = harness.services.ledger.job(*answer["jobs"])
        assert record is not None
        assert (record.job.reference, record.job.cause, record.state) == (
            harness.repository,
            Cause.WEBHOOK,
            State.QUEUED,
        )
        assert harness.services.ledger.seen("42") == answer["jobs"]
        assert registry.requests == []
        assert 'syncd_deliveries_total{result="accepted"} 1.0' in await counted(harness)


async def test_repeated(tmp_path: Path, registry: Registry) -> None:
    """A delivery that comes again leads to the same job, also when that has ended long since."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(harness.repository.repository, "latest", sample())
        _, first = await harness.deliver(body_for(harness))
        await harness.outcome(first["jobs"][0])
        assert await harness.deliver(body_for(harness)) == (202, {**first, "repeated": True})
        assert (
            len([r for r in harness.services.ledger.jobs(9) if r.job.cause is Cause.WEBHOOK]) == 2
        )


async def test_burst(tmp_path: Path, registry: Registry) -> None:
    """Three events of one push, for its manifests, are one job."""
    async with Harness(tmp_path, registry, server=LATER) as harness:
        answers = await asyncio.gather(
            *(harness.deliver(body_for(harness), delivery=str(n)) for n in range(3))
        )
        assert len({answer["jobs"][0] for _, answer in answers}) == 1
        assert len(harness.services.ledger.jobs(9)) == 1


async def test_ping(tmp_path: Path, registry: Registry) -> None:
    """A ping is answered, and is no work."""
    async with Harness(tmp_path, registry) as harness:
        body = json.dumps(example("ping")).encode()
        assert await harness.deliver(body, "ping") == (200, {"pong": True})
        assert harness.services.ledger.jobs(9) == []


async def test_workflow_run(tmp_path: Path, registry: Registry) -> None:
    """A build that succeeded looks at every watched repository of its owner."""
    async with Harness(tmp_path, registry, server=LATER) as harness:
        payload = example("workflow_run.completed")
        payload["repository"]["owner"]["login"] = "Org"
        status, answer = await harness.deliver(json.dumps(payload).encode(), "workflow_run")
        assert (status, len(answer["jobs"])) == (202, 1)


@pytest.mark.parametrize(
    ("name", "payload", "reason"),
    [
        ("package", example("package.published.container"), "it concerns no watched repository"),
        ("workflow_run", example("workflow_run.completed"), "it concerns no watched repository"),
        ("package", {"action": "deleted"}, "the action 'deleted' pushes nothing"),
        ("push", {}, "syncd does nothing on the event 'push'"),
    ],
)
async def test_ignored(
    name: str, payload: dict[str, Any], reason: str, tmp_path: Path, registry: Registry
) -> None:
    """What concerns nothing watched is answered 202 with the reason, and leaves no trace."""
    async with Harness(tmp_path, registry) as harness:
        answer = await harness.deliver(json.dumps(payload).encode(), name)
        assert answer == (202, {"ignored": reason})
        assert harness.services.ledger.jobs(9) == []
        assert harness.services.ledger.seen("1") is None


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Hub-Signature-256": ""},
        {"X-Hub-Signature-256": "sha256=" + "0" * 64},
        {"X-Hub-Signature-256": "é"},
        signed(b"another body"),
    ],
)
async def test_wrong_signature(headers: dict[str, str], tmp_path: Path, registry: Registry) -> None:
    """A wrong signature is 401, and nothing is done or remembered."""
    async with Harness(tmp_path, registry) as harness:
        status, answer = await harness.deliver(body_for(harness), **headers)
        assert status == 401
        assert "signature" in answer["error"]
        assert harness.services.ledger.jobs(9) == []
        assert harness.services.ledger.seen("1") is None
        assert registry.requests == []
        assert 'syncd_deliveries_total{result="refused"} 1.0' in await counted(harness)


async def test_guesses_are_slowed(tmp_path: Path, registry: Registry) -> None:
    """Who signs wrongly has to wait, in few lines of the log; the right signature still works."""
    async with Harness(tmp_path, registry, server=LATER) as harness:
        wrong = signed(b"another body")
        with capture_logs() as logs:
            guesses = [await harness.deliver(body_for(harness), **wrong) for _ in range(30)]
        assert [status for status, _ in guesses] == [401] * (FREE - 1) + [429] * (31 - FREE)
        assert {line["event"] for line in logs} == {"wrong token"}
        assert len(logs) < len(guesses)
        assert {line["sender"] for line in logs} == {"github"}
        assert (await harness.deliver(body_for(harness)))[0] == 202


async def test_no_body_of_who_waits(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has to wait is told so before the body; GitHub, at another address, is heard."""
    as_strangers(monkeypatch)
    monkeypatch.setattr("syncd.web.attempts.FREE", -10)  # a minute from the first one on,
    monkeypatch.setattr("syncd.web.attempts.LOOKS", 0)  # and no look meanwhile
    async with Harness(tmp_path, registry, server=LATER) as harness:
        for body in ("{}", ""):
            async with peer(harness, "127.0.0.2") as stranger:
                stranger.send("POST /webhooks/github HTTP/1.1\nHost: x\nContent-Length: 2\n\n")
                stranger.send(body)
                assert await stranger.status() == 429
        assert (await harness.deliver(body_for(harness)))[0] == 202


def behind_a_proxy(harness: Harness, *sources: str) -> None:
    """Have loopback be a proxy's address, and take deliveries from these sources only."""
    server = harness.services.live.config.server
    update = {"proxies": ("127.0.0.1",), "hook_addresses": sources}
    harness.configure(server=server.model_copy(update=update))


GITHUBS = Learnt((ip_network("192.30.252.0/22"), ip_network("2a0a:a440::/29")), datetime.now(UTC))


@pytest.mark.parametrize(
    ("forwarded", "status"),
    [
        ("192.30.252.7", 202),
        ("2a0a:a440::7", 202),
        ("192.30.252.7, 203.0.113.9", 403),
        ("10.0.0.9", 202),
        ("10.0.1.9", 403),
        ("192.30.252.7, unknown", 403),
        ("", 403),
    ],
)
async def test_hook_addresses(
    forwarded: str, status: int, tmp_path: Path, registry: Registry
) -> None:
    """Deliveries come from GitHub's networks and from those of the configuration, or are 403."""
    async with Harness(tmp_path, registry, server=LATER) as harness:
        behind_a_proxy(harness, "github", "10.0.0.0/24")
        harness.services.hook_networks._learnt = GITHUBS
        headers = {"X-Forwarded-For": forwarded} if forwarded else {}
        assert (await harness.deliver(body_for(harness), **headers))[0] == status
        assert len(harness.services.ledger.jobs(9)) == (status == 202)
        behind_a_proxy(harness)
        assert (await harness.deliver(body_for(harness), **headers))[0] == 202


async def test_refused_unread(tmp_path: Path, registry: Registry) -> None:
    """Who may not deliver is told so before the body, in few lines of the log, as the client is."""
    async with Harness(tmp_path, registry, server=LATER) as harness:
        behind_a_proxy(harness, "192.30.252.0/22")
        with capture_logs() as logs:
            for _ in range(30):
                async with peer(harness) as stranger:
                    stranger.send(
                        "POST /webhooks/github HTTP/1.1\nHost: x\nContent-Length: 9\n"
                        "X-Forwarded-For: 203.0.113.9\n\n"
                    )
                    assert await stranger.status() == 403
        assert len(logs) == 20
        assert {line["peer"] for line in logs} == {"203.0.113.9"}
        assert 'syncd_deliveries_total{result="refused"} 30.0' in await counted(harness)


async def test_networks_that_are_not_known(tmp_path: Path, registry: Registry) -> None:
    """While GitHub's networks are not known nobody is taken for GitHub: 503, and never 202."""
    async with Harness(tmp_path, registry, server=LATER) as harness:
        behind_a_proxy(harness, "github", "10.0.0.0/24")
        body = body_for(harness)
        status, answer = await harness.deliver(body, **{"X-Forwarded-For": "192.30.252.7"})
        assert (status, "from where GitHub delivers" in answer["error"]) == (503, True)
        assert (await harness.deliver(body, **{"X-Forwarded-For": "10.0.0.1"}))[0] == 202


async def test_guesses_through_a_proxy(tmp_path: Path, registry: Registry) -> None:
    """Behind a proxy that is known, who guesses waits alone, whatever else the header says."""
    async with Harness(tmp_path, registry, server=LATER) as harness:
        behind_a_proxy(harness)
        wrong, body = signed(b"another body"), body_for(harness)
        for number in range(3 * FREE):
            wrong["X-Forwarded-For"] = f"192.30.252.7, 198.51.100.{number}, 203.0.113.9"
            status, _ = await harness.deliver(body, **wrong)
        assert status == 429
        wrong["X-Forwarded-For"] = "203.0.113.9, 192.30.252.7"
        assert (await harness.deliver(body, **wrong))[0] == 401


async def test_signature_of_any_bytes(tmp_path: Path, registry: Registry) -> None:
    """A signature header of bytes that are no text is a wrong one."""
    async with Harness(tmp_path, registry) as harness:
        reader, writer = await asyncio.open_connection("127.0.0.1", harness.client.port)
        writer.write(
            b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
            b"X-Hub-Signature-256: \xff\xfe\r\nConnection: close\r\n\r\n{}"
        )
        assert (await reader.readline()).split()[1] == b"401"
        writer.close()
        await writer.wait_closed()


async def test_no_secret(tmp_path: Path, registry: Registry) -> None:
    """Without a secret nothing can be verified: 503, and nothing is done."""
    async with Harness(tmp_path, registry) as harness:
        config = harness.services.live.config
        server = config.server.model_copy(update={"webhook_secret_file": None})
        harness.configure(server=server)
        status, answer = await harness.deliver(body_for(harness))
        assert status == 503
        assert "webhook_secret_file" in answer["error"]
        assert harness.services.ledger.jobs(9) == []


async def test_lost_secret(tmp_path: Path, registry: Registry) -> None:
    """A secret's file that is gone is 503; a stranger is not told where it should be."""
    async with Harness(tmp_path, registry) as harness:
        (tmp_path / "webhook-secret").unlink()
        status, answer = await harness.deliver(body_for(harness))
        assert status == 503
        assert str(tmp_path) not in answer["error"]


async def test_rotated_secret(tmp_path: Path, registry: Registry) -> None:
    """A secret that changed in its file counts from the next delivery on."""
    async with Harness(tmp_path, registry) as harness:
        (tmp_path / "webhook-secret").write_text("new")
        body = json.dumps({}).encode()
        assert (await harness.deliver(body, "ping"))[0] == 401
        headers = signed(body, "ping", secret="new")
        assert (await harness.deliver(body, "ping", **headers))[0] == 200


async def test_ledger_out_of_order(tmp_path: Path, registry: Registry) -> None:
    """What cannot be written down is not accepted: 503, so that it is delivered again."""
    async with Harness(tmp_path, registry) as harness:
        harness.services.ledger._db.execute("DROP TABLE jobs")
        status, answer = await harness.deliver(body_for(harness))
        assert (status, "log" in answer["error"]) == (503, True)
        assert harness.services.worker.busy == 0
        assert harness.services.ledger.seen("1") is None


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b"\xff"])
async def test_not_json(body: bytes, tmp_path: Path, registry: Registry) -> None:
    """A signed body that is no JSON object is 400."""
    async with Harness(tmp_path, registry) as harness:
        status, answer = await harness.deliver(body)
        assert status == 400
        assert "JSON" in answer["error"]


async def test_too_large(tmp_path: Path, registry: Registry) -> None:
    """A body beyond the bound is 413; one at the bound is read."""
    async with Harness(tmp_path, registry, limits=HttpLimits(body=1000)) as harness:
        fits = b"{}" + b" " * 998
        assert (await harness.deliver(fits, "ping"))[0] == 200
        assert (await harness.deliver(fits + b" ", "ping"))[0] == 413


def test_bound() -> None:
    """The bound is what GitHub sends at the most: 25 MiB."""
    assert BODY_MAX == 25 * 1024 * 1024


async def test_only_post(tmp_path: Path, registry: Registry) -> None:
    """Nothing but POST is answered there."""
    async with Harness(tmp_path, registry) as harness:
        assert (await harness.ask("GET", "/webhooks/github")).status == 405


async def test_a_disk_that_takes_a_second(tmp_path: Path, registry: Registry) -> None:
    """With a second for each flush, twenty deliveries at once are accepted long before ten."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(harness.repository.repository, "latest", sample())
        Faulty(harness.services.ledger, seconds=1)
        body, begun = body_for(harness), time.monotonic()
        answers = await asyncio.gather(
            *(harness.deliver(body, delivery=str(number)) for number in range(20))
        )
        assert time.monotonic() - begun < 8
        assert {status for status, _ in answers} == {202}
        assert {harness.services.ledger.seen(str(number)) is None for number in range(20)} == {
            False
        }


async def test_the_loop_never_waits_for_the_ledger(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a delivery to the template, and in every answer, the ledger is asked off the loop."""
    loop, callers = threading.get_ident(), set[int]()

    @contextmanager
    def noted(database: Database) -> Iterator[None]:
        callers.add(threading.get_ident())
        with sound(database):
            yield

    sound = Database._sound
    async with Harness(tmp_path, registry) as harness:
        registry.push(harness.repository.repository, "latest", sample())
        monkeypatch.setattr(Database, "_sound", noted)
        status, _ = await harness.deliver(body_for(harness))
        assert status == 202
        while harness.services.worker.busy:  # noqa: ASYNC110 - a thread has no event
            await asyncio.sleep(0.01)
        assert len(harness.templates) == 1
        for path in ("/", "/metrics", "/readyz", "/api/v1/jobs", "/api/v1/images"):
            assert (await harness.ask("GET", path)).status == 200
        await harness.services.worker.resume()
        await harness.services.engine.settle()
        await harness.services.worker.stop()
        assert callers
        assert loop not in callers
        monkeypatch.undo()
