"""What `scopes` promises: one table says what each operation needs, and it is what is enforced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from syncd.config.settings import RegistrySettings
from syncd.web.operations import OPERATIONS
from syncd.web.scopes import EVERYTHING, TABLE, TO_CREATE, TO_READ, TO_SYNC, Scope, needed
from tests.fakes.registry import Registry
from tests.harness import DOCUMENT, ON_DEMAND, REPOSITORY, TOKEN, Harness, described, sample

HELD = {"read": TO_READ, "sync": TO_SYNC, "create": TO_CREATE}
ROWS = [(scope, *row) for scope, rows in TABLE.items() for row in rows]


def token_of(scope: str) -> str:
    return f"a token for {scope} alone"


def with_tokens(folder: Path, *more: str) -> str:
    """Write a token for each scope; return the lines of [server]."""
    lines = ['settle = "0s"', *more]
    for scope in HELD:
        file = folder / f"{scope}-token"
        file.write_text(f"{token_of(scope)}\n")
        file.chmod(0o600)
        lines.append(f'{scope}_token_file = "{file}"')
    return "\n".join(lines)


def test_the_table_is_whole() -> None:
    """Every operation below /api stands in the table once, and nothing else does."""
    described_here = sorted(
        (operation.method.upper(), operation.path)
        for operation in OPERATIONS
        if operation.path.startswith("/api/")
    )
    assert sorted(row for rows in TABLE.values() for row in rows) == described_here


def test_what_the_table_lacks() -> None:
    """What the table does not name needs most."""
    assert needed("POST", "/api/v1/new") is Scope.UPKEEP
    assert needed("DELETE", "/api/v1/jobs") is Scope.UPKEEP


def test_scopes_are_nested() -> None:
    """Whoever has a scope has the smaller ones, too; the API's token has all."""
    assert TO_READ < TO_SYNC < TO_CREATE < EVERYTHING


def test_description() -> None:
    """The API's description says of each operation which scope its token needs."""
    for scope, method, path in ROWS:
        assert DOCUMENT["paths"][path][method.lower()]["security"] == [{"token": [scope]}]


def test_page_of_the_documentation() -> None:
    """docs/operate.md has the same table."""
    page = Path("docs/operate.md").read_text()
    for scope, rows in TABLE.items():
        (line,) = [one for one in page.splitlines() if one.startswith(f"| `{scope}` |")]
        told = [text for text in line.split("|")[3].split("`") if text.startswith(("GET", "POST"))]
        wanted = [f"{method} {path.removeprefix('/api/v1')}" for method, path in rows]
        assert sorted(told) == sorted(wanted)


def cases() -> Iterator[tuple[str, Scope, str, str]]:
    for scope in HELD:
        for row in ROWS:
            yield (scope, *row)


async def test_every_operation(tmp_path: Path, registry: Registry) -> None:
    """Each token is admitted where the table says so, and else told which scope is needed."""
    async with Harness(tmp_path, registry, server=with_tokens(tmp_path)) as harness:
        for held, needed_, method, path in cases():
            if path == "/api/v1/events" or (needed_ in HELD[held] and path == "/api/v1/check"):
                continue  # the first has no end, the second asks the network
            url = path.format(id="0" * 32, vmid=100)
            body: Any = {"nonsense": 1} if method == "POST" else None
            answer = await harness.ask(method, url, token=token_of(held), json=body)
            refused = answer.status == 403
            assert refused == (needed_ not in HELD[held]), (held, method, path, answer.status)
            if refused:
                told = described(answer, path)["error"]
                assert f"needs the scope {needed_}" in told
                challenge = answer.headers["WWW-Authenticate"]
                assert challenge.endswith(f'error="insufficient_scope", scope="{needed_}"')


async def test_events_and_heads(tmp_path: Path, registry: Registry) -> None:
    """HEAD needs what GET needs; an unknown path is told to whoever may look, and no more."""
    async with Harness(tmp_path, registry, server=with_tokens(tmp_path)) as harness:
        for method, path, status in (
            ("HEAD", "/api/v1/events", 200),
            ("HEAD", "/api/v1/jobs", 200),
            ("GET", "/api/v1/nowhere", 404),
            ("POST", "/api/v1/nowhere", 403),
            ("DELETE", "/api/v1/jobs", 403),
            ("PUT", "/api/v1/containers", 403),
        ):
            answer = await harness.ask(method, path, token=token_of("read"))
            assert answer.status == status, (method, path)


async def test_syncing(tmp_path: Path, registry: Registry) -> None:
    """The token for syncing brings what is watched, and nothing else; the one to read nothing."""
    registry.push(REPOSITORY, "latest", sample())
    registry.push(REPOSITORY, "other", sample("two"))
    async with Harness(tmp_path, registry, server=with_tokens(tmp_path)) as harness:
        name, other = str(harness.repository), sample("two").digest
        tried: list[tuple[str, str, str, dict[str, object], int]] = [
            ("read", "GET", f"/api/v1/resolve?ref={name}&pull=1", {}, 403),
            ("read", "GET", f"/api/v1/resolve?ref={name}", {}, 404),
            ("sync", "POST", "/api/v1/sync", {"ref": f"{name}:other"}, 403),
            ("sync", "POST", "/api/v1/sync", {"ref": "a.b/c:d"}, 403),
            ("sync", "POST", "/api/v1/sync", {"ref": "a.b/c:d", "dry_run": True}, 403),
            ("sync", "POST", "/api/v1/sync", {"ref": "a.b/c", "each": True}, 403),
            ("sync", "GET", f"/api/v1/resolve?ref={name}:other", {}, 403),
            ("sync", "POST", "/api/v1/sync", {"ref": f"{name}@{other}"}, 403),
            ("sync", "GET", f"/api/v1/resolve?ref={name}:latest@{other}&pull=1", {}, 403),
            ("read", "GET", f"/api/v1/resolve?ref={name}@{other}", {}, 403),
            ("sync", "POST", "/api/v1/sync", {"ref": f"{name}:latest"}, 202),
            ("sync", "GET", f"/api/v1/resolve?ref={name}&pull=1", {}, 200),
            ("sync", "POST", "/api/v1/verify", {}, 200),
            ("read", "GET", f"/api/v1/resolve?ref={name}", {}, 200),
        ]
        for scope, method, path, body, status in tried:
            answer = await harness.ask(method, path, token=token_of(scope), json=body or None)
            assert answer.status == status, (scope, path, body, await answer.text())
        assert {job.job.reference for job in harness.services.ledger.jobs(9)} == {harness.latest}


async def test_on_demand(tmp_path: Path, registry: Registry) -> None:
    """What is not watched is brought where a pattern allows it, with the scope create alone."""
    registry.push("org/repo/other", "1", sample())
    registry.push("org/secret/other", "1", sample())
    server = with_tokens(tmp_path, f'on_demand = ["{registry.address}/org/repo/*"]')
    async with Harness(tmp_path, registry, server=server) as harness:
        allowed, other = (f"{registry.address}/org/{part}/other:1" for part in ("repo", "secret"))
        for scope, reference, status in (
            ("sync", allowed, 403),
            ("create", other, 403),
            ("api", other, 403),
            ("create", allowed, 200),
        ):
            token = TOKEN if scope == "api" else token_of(scope)
            path = f"/api/v1/resolve?ref={reference}&pull=1"
            answer = await harness.ask("GET", path, token=token)
            assert answer.status == status, (scope, reference, await answer.text())
        for method, path, body in (
            ("POST", "/api/v1/sync", {"ref": other}),
            ("POST", "/api/v1/containers", {"ref": other, "hostname": "web"}),
            ("POST", "/api/v1/containers/replace", {"ref": other}),
        ):
            answer = await harness.ask(method, path, json=body)
            assert answer.status == 403
            assert "server.on_demand" in (await answer.json())["error"]
        assert not [path for _, path in registry.requests if "secret" in path]


async def test_retry(tmp_path: Path, registry: Registry) -> None:
    """A job of an image that is not watched any more is not begun again by whoever may sync."""
    registry.push(REPOSITORY, "latest", sample())
    async with Harness(tmp_path, registry, server=with_tokens(tmp_path)) as harness:
        asked = await harness.ask("POST", "/api/v1/sync", token=token_of("sync"))
        job = (await asked.json())["jobs"][0]["id"]
        await harness.outcome(job)
        path = f"/api/v1/jobs/{job}/retry"
        assert (await harness.ask("POST", path, token=token_of("sync"))).status == 202
        harness.configure(image=())
        for token, told in ((token_of("sync"), "scope create"), (TOKEN, "server.on_demand")):
            answer = await harness.ask("POST", path, token=token)
            assert answer.status == 403
            assert told in (await answer.json())["error"]


async def test_every_token_is_compared(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever token is right, all are compared in constant time: the time tells nothing."""
    compared: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return one == other

    monkeypatch.setattr("syncd.web.guard.hmac.compare_digest", compare)
    async with Harness(tmp_path, registry, server=with_tokens(tmp_path)) as harness:
        for token in (TOKEN, *map(token_of, HELD), "wrong"):
            compared.clear()
            await harness.ask("GET", "/api/v1/jobs", token=token)
            assert len(compared) == 4


async def test_guesses_of_any_token(tmp_path: Path, registry: Registry) -> None:
    """Wrong tokens are slowed whichever token they are a guess of; a right one still works."""
    with structlog.testing.capture_logs() as logs:
        async with Harness(tmp_path, registry, server=with_tokens(tmp_path)) as harness:
            paths = ["jobs", "sync", "containers", "pin"] * 3
            statuses = [
                (await harness.ask(method, f"/api/v1/{path}", token=f"wrong {path}")).status
                for path in paths
                for method in ["GET" if path == "jobs" else "POST"]
            ]
            assert statuses == [401] * 4 + [429] * 8
            for scope in HELD:
                assert (await harness.ask("GET", "/api/v1/jobs", token=token_of(scope))).status in (
                    200,
                    429,
                )
    assert not [line for line in logs if "wrong pin" in str(line) or "a token for" in str(line)]


async def test_one_token_is_enough(tmp_path: Path, registry: Registry) -> None:
    """A server with one token of a scope answers its holder, without a token of the API."""
    async with Harness(tmp_path, registry, server=with_tokens(tmp_path)) as harness:
        server = harness.services.live.config.server
        harness.configure(server=server.model_copy(update={"api_token_file": None}))
        assert (await harness.ask("GET", "/api/v1/jobs", token=token_of("read"))).status == 200
        assert (await harness.ask("GET", "/api/v1/jobs", token=TOKEN)).status == 401
        bare = {f"{scope}_token_file": None for scope in ("api", *HELD)}
        harness.configure(server=server.model_copy(update=bare))
        assert (await harness.ask("GET", "/api/v1/jobs", token="")).status == 503


async def test_addresses(tmp_path: Path, registry: Registry) -> None:
    """A pattern allows no address: what the configuration does not name has to be public."""
    with Registry() as other:
        other.push("org/app", "1", sample())
        async with Harness(tmp_path, registry, server=ON_DEMAND) as harness:
            for _ in range(2):
                answer = await harness.ask("GET", f"/api/v1/resolve?ref={other.address}/org/app:1")
                assert answer.status == 403
                assert "not at a public address" in described(answer, "/api/v1/resolve")["error"]
            assert other.requests == []
            table = RegistrySettings(host=other.address, plain_http=True)
            harness.configure(registry=(*harness.services.live.config.registry, table))
            answer = await harness.ask("GET", f"/api/v1/resolve?ref={other.address}/org/app:1")
            assert answer.status == 404
            assert other.requests
