"""What `web.senders` promises: each sender by a secret of its own, slowed when it guesses."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from syncd.events import SENDERS
from syncd.sync.job import Cause, Result
from syncd.web.attempts import FREE
from syncd.web.backend import HttpLimits
from syncd.web.senders import path_of
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, described, sample
from tests.senders import BY_FILE, DOCUMENTED, Documented, authenticated, secret_of, tables

LATER = 'settle = "1h"'
BY_NAME = {sender.name: sender for sender in SENDERS}
# One documented call of each sender.
ONE_EACH = pytest.mark.parametrize(
    "shown", [BY_FILE[name] for name in BY_NAME], ids=lambda shown: shown.sender
)
ALL = pytest.mark.parametrize("shown", DOCUMENTED, ids=lambda shown: shown.file)


def house(folder: Path, registry: Registry, **options: Any) -> Harness:
    """Return a harness that every sender may call."""
    options = {"server": LATER, "more": tables(folder, registry.address), **options}
    return Harness(folder, registry, **options)


def pushed(harness: Harness, shown: Documented) -> bytes:
    """Return a documented push, to the watched repository."""
    return shown.body(harness.repository.registry, REPOSITORY)


async def call(
    harness: Harness, shown: Documented, body: bytes, secret: str = "", **headers: str
) -> tuple[int, dict[str, Any]]:
    """Make a call with the sender's secret or another one; return status and JSON."""
    path = path_of(BY_NAME[shown.sender])
    shows, key = authenticated(shown.sender, body, secret or secret_of(shown.sender))
    given = {**shown.headers_for(harness.repository.registry), **shows, **headers}
    where = path.replace("{secret}", key)
    answer = await harness.ask("POST", where, token=None, data=body, headers=given)
    return answer.status, described(answer, path)


async def counted(harness: Harness, result: str) -> int:
    """Return how many deliveries had a result, of all senders."""
    text = await (await harness.ask("GET", "/metrics")).text()
    (line,) = [
        each for each in text.splitlines() if f'_deliveries_total{{result="{result}"' in each
    ]
    return int(float(line.rpartition(" ")[2]))


@ALL
async def test_a_push_becomes_a_template(
    shown: Documented, tmp_path: Path, registry: Registry
) -> None:
    """What each documentation shows of a push leads to a template."""
    async with house(tmp_path, registry, server='settle = "0s"') as harness:
        registry.push(REPOSITORY, "latest", sample())
        status, answer = await call(harness, shown, pushed(harness, shown))
        assert status == 202
        (job,) = answer["jobs"]
        assert (await harness.outcome(job)).result is Result.PUBLISHED
        assert len(harness.templates) == 1
        record = harness.services.ledger.job(job)
        assert record is not None
        assert record.job.cause is Cause.WEBHOOK


@ALL
async def test_not_watched(shown: Documented, tmp_path: Path, registry: Registry) -> None:
    """A push to what nobody watches is told as such, and leaves no trace."""
    async with house(tmp_path, registry) as harness:
        with capture_logs() as logs:
            answer = await call(harness, shown, shown.body())
        assert answer == (202, {"ignored": "it concerns no watched repository"})
        (line,) = [each for each in logs if each["event"] == "delivery ignored"]
        assert (line["sender"], line["reason"]) == (shown.sender, "no watched repository")
        assert line["kind"]
        assert harness.services.ledger.jobs(9) == []
        assert registry.requests == []
        assert await counted(harness, "ignored") == 1


@ALL
async def test_repeated(shown: Documented, tmp_path: Path, registry: Registry) -> None:
    """A call that comes again leads to the same job, by its id or while the job waits."""
    async with house(tmp_path, registry) as harness:
        _, first = await call(harness, shown, pushed(harness, shown))
        _, again = await call(harness, shown, pushed(harness, shown))
        assert again["jobs"] == first["jobs"]
        assert again.get("repeated", False) is (shown.file not in ("quay", "generic"))
        assert len(harness.services.ledger.jobs(9)) == 1


async def test_generic_with_an_id(tmp_path: Path, registry: Registry) -> None:
    """A script that gives an id is told that its call came before."""
    async with house(tmp_path, registry) as harness:
        shown, given = BY_FILE["generic"], {"X-Syncd-Delivery": "build-7"}
        body = pushed(harness, shown)
        await call(harness, shown, body, **given)
        assert (await call(harness, shown, body, **given))[1]["repeated"]
        assert "repeated" not in (await call(harness, shown, body, **{"X-Syncd-Delivery": "8"}))[1]


async def test_a_sender_speaks_for_itself(tmp_path: Path, registry: Registry) -> None:
    """An id that one sender has used is not used up for another one, nor for GitHub."""
    async with house(tmp_path, registry) as harness:
        one, other = BY_FILE["generic"], BY_FILE["gitea"]
        await call(harness, one, pushed(harness, one), **{"X-Syncd-Delivery": "1"})
        header = {"X-Gitea-Delivery": "1"}
        _, answer = await call(harness, other, pushed(harness, other), **header)
        assert "repeated" not in answer
        assert harness.services.ledger.seen("1") is None


@ONE_EACH
async def test_wrong_secret(shown: Documented, tmp_path: Path, registry: Registry) -> None:
    """A wrong secret is 401, and so is that of another sender; nothing is done or remembered."""
    async with house(tmp_path, registry) as harness:
        body = pushed(harness, shown)
        other = secret_of("quay" if shown.sender == "harbor" else "harbor")
        for secret in ("wrong", other, secret_of(shown.sender) + "x"):
            status, answer = await call(harness, shown, body, secret)
            assert (status, "docs/senders.md" in answer["error"]) == (401, True)
        assert harness.services.ledger.jobs(9) == []
        assert await counted(harness, "refused") == 3


@ONE_EACH
async def test_missing_secret(shown: Documented, tmp_path: Path, registry: Registry) -> None:
    """A call without a secret reaches nothing."""
    async with house(tmp_path, registry) as harness:
        path = f"/webhooks/{shown.sender}"
        body = pushed(harness, shown)
        answer = await harness.ask("POST", path, token=None, data=body, headers=shown.headers)
        assert answer.status == (404 if BY_NAME[shown.sender].in_path else 401)
        assert harness.services.ledger.jobs(9) == []


@ONE_EACH
async def test_not_configured(shown: Documented, tmp_path: Path, registry: Registry) -> None:
    """Without a sender of this type nothing can be verified: 503."""
    async with house(tmp_path, registry, more="") as harness:
        status, answer = await call(harness, shown, pushed(harness, shown))
        assert status == 503
        assert f'[[sender]] of type "{shown.sender}"' in answer["error"]
        assert harness.services.ledger.jobs(9) == []
        assert await counted(harness, "failed") == 1


async def test_lost_secret(tmp_path: Path, registry: Registry) -> None:
    """A secret's file that is gone is 503; a stranger is not told where it should be."""
    async with house(tmp_path, registry) as harness:
        (tmp_path / "harbor-secret").unlink()
        shown = BY_FILE["harbor"]
        status, answer = await call(harness, shown, pushed(harness, shown))
        assert status == 503
        assert str(tmp_path) not in answer["error"]


async def test_two_of_a_kind(tmp_path: Path, registry: Registry) -> None:
    """Of two senders of a type each has its own secret, and speaks of its own registry."""
    (tmp_path / "second").write_text("the-secret-of-the-second")
    more = f"""{tables(tmp_path, registry.address)}
[[sender]]
type = "harbor"
secret_file = "{tmp_path}/second"
registry = "second.example.org"
"""
    async with house(tmp_path, registry, more=more) as harness:
        shown = BY_FILE["harbor"]
        body = pushed(harness, shown)
        assert "jobs" in (await call(harness, shown, body))[1]
        assert "ignored" in (await call(harness, shown, body, "the-secret-of-the-second"))[1]


@ONE_EACH
async def test_guesses_are_slowed(shown: Documented, tmp_path: Path, registry: Registry) -> None:
    """Who guesses has to wait; other senders do not, and the right secret still works."""
    async with house(tmp_path, registry) as harness:
        body = pushed(harness, shown)
        guesses = [await call(harness, shown, body, f"wrong{n}") for n in range(FREE + 1)]
        assert [status for status, _ in guesses] == [401] * (FREE - 1) + [429] * 2
        assert (await call(harness, shown, body))[0] == 202
        other = BY_FILE["harbor" if shown.sender == "quay" else "quay"]
        assert (await call(harness, other, pushed(harness, other), "wrong"))[0] == 401


@ONE_EACH
async def test_secrets_are_not_told(shown: Documented, tmp_path: Path, registry: Registry) -> None:
    """No secret, right or wrong, is in an answer, in the log or on the page."""
    async with house(tmp_path, registry) as harness:
        right, wrong = secret_of(shown.sender), "a-secret-that-is-wrong"
        with capture_logs() as logs:
            answers = [
                await call(harness, shown, pushed(harness, shown)),
                await call(harness, shown, pushed(harness, shown), wrong),
                await call(harness, shown, b"no JSON"),
            ]
            (tmp_path / f"{shown.sender}-secret").unlink()
            answers.append(await call(harness, shown, pushed(harness, shown)))
            page = await (await harness.ask("GET", "/")).text()
        (guess,) = [line for line in logs if line["event"] == "wrong token"]
        assert guess["sender"] == shown.sender
        assert [status for status, _ in answers] == [202, 401, 400, 503]
        assert len(logs) >= 4
        for told in (str(logs), str(answers), page):
            assert right not in told
            assert wrong not in told


async def test_no_body_before_the_secret(tmp_path: Path, registry: Registry) -> None:
    """Who shows a wrong secret is answered before its body is read."""
    async with house(tmp_path, registry) as harness:
        for head in (b"/webhooks/quay/wrong", b"/webhooks/harbor"):
            reader, writer = await asyncio.open_connection("127.0.0.1", harness.client.port)
            writer.write(
                b"POST " + head + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
                b"Authorization: \xff\xfe\r\nConnection: close\r\n\r\n"
            )
            async with asyncio.timeout(20):
                assert (await reader.readline()).split()[1] == b"401"
            writer.close()


MALFORMED = (
    b"POST /webhooks/quay/KEY HTTP/9.9\r\nHost: x",
    b"POST /webhooks/quay/KEY KEY HTTP/1.1\r\nHost: x",
    b"P\x00ST /webhooks/quay/KEY HTTP/1.1\r\nHost: x",
    b"POST /webhooks/quay/KEY" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x",
    b"POST /webhooks/harbor HTTP/1.1\r\nHost: x\r\nAuthorization: KEY\x00",
    b"POST /webhooks/harbor HTTP/1.1\r\nHost: x\r\nAuthorization KEY",
)


@pytest.mark.parametrize("request_", MALFORMED, ids=range(len(MALFORMED)))
async def test_malformed_requests_are_not_quoted(
    request_: bytes, tmp_path: Path, registry: Registry
) -> None:
    """What cannot be read is told in the log by its fault, not by its words."""
    async with house(tmp_path, registry) as harness:
        reader, writer = await asyncio.open_connection("127.0.0.1", harness.client.port)
        with capture_logs() as logs:
            writer.write(request_ + b"\r\n\r\n")
            async with asyncio.timeout(20):
                assert b" 400 " in await reader.read()
        writer.close()
        (line,) = [each for each in logs if each["event"] == "malformed request"]
        assert len(line["error"]) > 10
        assert "KEY" not in str(logs)


@ONE_EACH
async def test_bounds(shown: Documented, tmp_path: Path, registry: Registry) -> None:
    """A body beyond the bound, one that is coded, and one that is no JSON are refused."""
    async with house(tmp_path, registry, limits=HttpLimits(body=1000)) as harness:
        assert (await call(harness, shown, b" " * 1001))[0] == 413
        assert (await call(harness, shown, b"{}", **{"Content-Encoding": "gzip"}))[0] == 415
        assert (await call(harness, shown, b"\xff"))[0] == 400
        assert harness.services.ledger.jobs(9) == []


@pytest.mark.parametrize("secret", ["a b", "a/b", "a%41", "é", "a?b"])
async def test_secret_of_a_path(secret: str, tmp_path: Path, registry: Registry) -> None:
    """A secret that no path can have is told in the log, and nobody is let in."""
    async with house(tmp_path, registry) as harness:
        (tmp_path / "quay-secret").write_text(secret)
        shown = BY_FILE["quay"]
        with capture_logs() as logs:
            status, _ = await call(harness, shown, pushed(harness, shown), "another")
        assert status == 503
        assert "openssl rand -hex 32" in str(logs)
        assert f"'{secret}" not in str(logs)
