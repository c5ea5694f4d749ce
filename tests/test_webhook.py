"""What `syncd.webhook` promises: verified, written down, answered, and nothing but that."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from syncd import event, webhook
from syncd.job import Cause, Result, State
from tests.deliveries import example, pushed, signed
from tests.fakes.registry import Registry
from tests.houses import House, sample

LATER = 'settle = "1h"'


def body_for(house: House) -> bytes:
    """Return the event of a push to the watched repository."""
    return json.dumps(pushed(house.repository.name)).encode()


async def counted(house: House) -> str:
    """Return the metrics."""
    return await (await house.ask("GET", "/metrics")).text()


async def test_a_push_becomes_a_template(tmp_path: Path, registry: Registry) -> None:
    """A signed push to a watched repository is published."""
    async with House(tmp_path, registry) as house:
        registry.push(house.repository.repository, "latest", sample())
        status, answer = await house.deliver(body_for(house))
        assert status == 202
        (job,) = answer["jobs"]
        outcome = await house.outcome(job)
        assert outcome.result is Result.PUBLISHED
        assert [path.name for path in house.templates] == [
            volume.rpartition("/")[2] for volume in outcome.volumes
        ]


async def test_written_before_it_is_answered(tmp_path: Path, registry: Registry) -> None:
    """At the answer the ledger has the job and the delivery, and the registry was not asked."""
    async with House(tmp_path, registry, server='settle = "1h"') as house:
        status, answer = await house.deliver(body_for(house), delivery="42")
        assert status == 202
        record = house.parts.ledger.job(*answer["jobs"])
        assert record is not None
        assert (record.job.reference, record.job.cause, record.state) == (
            house.repository,
            Cause.WEBHOOK,
            State.QUEUED,
        )
        assert house.parts.ledger.seen("42") == answer["jobs"]
        assert registry.requests == []
        assert 'syncd_deliveries_total{answer="202"} 1.0' in await counted(house)


async def test_repeated(tmp_path: Path, registry: Registry) -> None:
    """A delivery that comes again leads to the same job, also when that has ended long since."""
    async with House(tmp_path, registry) as house:
        registry.push(house.repository.repository, "latest", sample())
        _, first = await house.deliver(body_for(house))
        await house.outcome(first["jobs"][0])
        assert await house.deliver(body_for(house)) == (202, {**first, "repeated": True})
        assert len([r for r in house.parts.ledger.jobs(9) if r.job.cause is Cause.WEBHOOK]) == 2


async def test_burst(tmp_path: Path, registry: Registry) -> None:
    """Three events of one push, for its manifests, are one job."""
    async with House(tmp_path, registry, server=LATER) as house:
        answers = await asyncio.gather(
            *(house.deliver(body_for(house), delivery=str(n)) for n in range(3))
        )
        assert len({answer["jobs"][0] for _, answer in answers}) == 1
        assert len(house.parts.ledger.jobs(9)) == 1


async def test_ping(tmp_path: Path, registry: Registry) -> None:
    """A ping is answered, and is no work."""
    async with House(tmp_path, registry) as house:
        body = json.dumps(example("ping")).encode()
        assert await house.deliver(body, "ping") == (200, {"pong": True})
        assert house.parts.ledger.jobs(9) == []


async def test_workflow_run(tmp_path: Path, registry: Registry) -> None:
    """A build that succeeded looks at every watched repository of its owner."""
    async with House(tmp_path, registry, server=LATER) as house:
        payload = example("workflow_run.completed")
        payload["repository"]["owner"]["login"] = "Org"
        status, answer = await house.deliver(json.dumps(payload).encode(), "workflow_run")
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
    async with House(tmp_path, registry) as house:
        answer = await house.deliver(json.dumps(payload).encode(), name)
        assert answer == (202, {"ignored": reason})
        assert house.parts.ledger.jobs(9) == []
        assert house.parts.ledger.seen("1") is None


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
    async with House(tmp_path, registry) as house:
        status, answer = await house.deliver(body_for(house), **headers)
        assert status == 401
        assert "signature" in answer["error"]
        assert house.parts.ledger.jobs(9) == []
        assert house.parts.ledger.seen("1") is None
        assert registry.requests == []
        assert 'syncd_deliveries_total{answer="401"} 1.0' in await counted(house)


async def test_signature_of_any_bytes(tmp_path: Path, registry: Registry) -> None:
    """A signature header of bytes that are no text is a wrong one."""
    async with House(tmp_path, registry) as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.client.port)
        writer.write(
            b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
            b"X-Hub-Signature-256: \xff\xfe\r\nConnection: close\r\n\r\n{}"
        )
        assert (await reader.readline()).split()[1] == b"401"
        writer.close()
        await writer.wait_closed()


async def test_no_secret(tmp_path: Path, registry: Registry) -> None:
    """Without a secret nothing can be verified: 503, and nothing is done."""
    async with House(tmp_path, registry) as house:
        config = house.parts.sync.config
        server = config.server.model_copy(update={"webhook_secret_file": None})
        house.parts.sync.config = config.model_copy(update={"server": server})
        status, answer = await house.deliver(body_for(house))
        assert status == 503
        assert "webhook_secret_file" in answer["error"]
        assert house.parts.ledger.jobs(9) == []


async def test_lost_secret(tmp_path: Path, registry: Registry) -> None:
    """A secret's file that is gone is 503; a stranger is not told where it should be."""
    async with House(tmp_path, registry) as house:
        (tmp_path / "webhook-secret").unlink()
        status, answer = await house.deliver(body_for(house))
        assert status == 503
        assert str(tmp_path) not in answer["error"]


async def test_rotated_secret(tmp_path: Path, registry: Registry) -> None:
    """A secret that changed in its file counts from the next delivery on."""
    async with House(tmp_path, registry) as house:
        (tmp_path / "webhook-secret").write_text("new")
        body = json.dumps({}).encode()
        assert (await house.deliver(body, "ping"))[0] == 401
        headers = signed(body, "ping", secret="new")
        assert (await house.deliver(body, "ping", **headers))[0] == 200


async def test_ledger_out_of_order(tmp_path: Path, registry: Registry) -> None:
    """What cannot be written down is not accepted: 503, so that it is delivered again."""
    async with House(tmp_path, registry) as house:
        house.parts.ledger._db.execute("DROP TABLE jobs")
        status, answer = await house.deliver(body_for(house))
        assert (status, "log" in answer["error"]) == (503, True)
        assert house.parts.worker.busy == 0
        assert house.parts.ledger.seen("1") is None


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b"\xff"])
async def test_not_json(body: bytes, tmp_path: Path, registry: Registry) -> None:
    """A signed body that is no JSON object is 400."""
    async with House(tmp_path, registry) as house:
        status, answer = await house.deliver(body)
        assert status == 400
        assert "JSON" in answer["error"]


async def test_too_large(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body beyond the bound is 413; one at the bound is read."""
    monkeypatch.setattr("syncd.daemon.BODY_MAX", 1000)
    monkeypatch.setattr(event, "BODY_MAX", 1000)
    async with House(tmp_path, registry) as house:
        fits = b"{}" + b" " * 998
        assert (await house.deliver(fits, "ping"))[0] == 200
        assert (await house.deliver(fits + b" ", "ping"))[0] == 413


def test_bound() -> None:
    """The bound is what GitHub sends at the most: 25 MiB."""
    assert event.BODY_MAX == 25 * 1024 * 1024


async def test_slow_body(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that does not arrive is given up before GitHub would, and blocks nobody for good."""
    monkeypatch.setattr(webhook, "_BODY_TIMEOUT", 0.05)
    async with House(tmp_path, registry) as house:
        slow = []
        for _ in range(webhook._BODIES_AT_A_TIME + 1):
            reader, writer = await asyncio.open_connection("127.0.0.1", house.client.port)
            writer.write(b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
            slow.append((reader, writer))
        for reader, writer in slow:
            assert (await reader.readline()).split()[1] == b"408"
            writer.close()
        assert (await house.deliver(b"{}", "ping"))[0] == 200


async def test_only_post(tmp_path: Path, registry: Registry) -> None:
    """Nothing but POST is answered there."""
    async with House(tmp_path, registry) as house:
        assert (await house.ask("GET", "/webhooks/github")).status == 405
