"""What `api` promises: answers for the token's holder alone, as the description says."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer
from jsonschema import Draft202012Validator

from syncd import __version__
from syncd.sync.conditions import Failed, Place
from syncd.sync.job import Cause
from syncd.web.app import application
from syncd.web.backend import HttpLimits
from tests.fakes.registry import Registry
from tests.harness import DOCUMENT, ON_DEMAND, REPOSITORY, TOKEN, Harness, described, sample

ERROR = Draft202012Validator(DOCUMENT["components"]["schemas"]["Error"])

GUARDED = [
    ("POST", "/api/v1/sync"),
    ("GET", "/api/v1/jobs"),
    ("GET", "/api/v1/jobs/1"),
    ("POST", "/api/v1/jobs/1/cancel"),
    ("POST", "/api/v1/jobs/1/retry"),
    ("GET", "/api/v1/events"),
    ("GET", "/api/v1/images"),
    ("GET", "/api/v1/resolve?ref=x"),
    ("POST", "/api/v1/containers"),
    ("GET", "/api/v1/containers"),
    ("POST", "/api/v1/containers/100/replace"),
    ("GET", "/api/v1/openapi.json"),
    ("GET", "/api/v1/nonsense"),
    ("DELETE", "/api/v1/jobs"),
    ("GET", "/api/"),
    ("GET", "/api"),
]


def error(answer: ClientResponse) -> Any:
    """Return an error that belongs to no operation, after holding it against its schema."""
    assert answer.content_type == "application/json"
    content = json.loads(answer._body or b"null")
    ERROR.validate(content)
    return content


async def test_description_is_served(tmp_path: Path, registry: Registry) -> None:
    """The API's description is served to the token's holder, as it is held against answers."""
    async with Harness(tmp_path, registry) as harness:
        answer = await harness.ask("GET", "/api/v1/openapi.json")
        assert described(answer, "/api/v1/openapi.json") == DOCUMENT


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"]
)
async def test_wrong_token(given: str, tmp_path: Path, registry: Registry) -> None:
    """Without the right token everything below /api is 401, whether it exists or not.

    The fifth wrong token is 429, and so is each further one.
    """
    async with Harness(tmp_path, registry) as harness:
        for number, (method, path) in enumerate(GUARDED):
            headers = {"Authorization": given} if given else {}
            answer = await harness.ask(method, path, token=None, headers=headers)
            assert answer.status == (429 if given and number >= 4 else 401)
            challenge = answer.headers.get("WWW-Authenticate", "")
            assert challenge.startswith("Bearer") is (answer.status == 401)
            assert "wrong" in (await answer.json())["error"]
        assert harness.services.ledger.jobs(9) == []


async def test_token_of_any_bytes(tmp_path: Path, registry: Registry) -> None:
    """A token of bytes that are no text is a wrong one."""
    async with Harness(tmp_path, registry) as harness:
        reader, writer = await asyncio.open_connection("127.0.0.1", harness.client.port)
        writer.write(
            b"GET /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\r\n"
            b"Connection: close\r\n\r\n"
        )
        assert (await reader.readline()).split()[1] == b"401"
        writer.close()
        await writer.wait_closed()


async def test_no_token(tmp_path: Path, registry: Registry) -> None:
    """Without a configured token /api is 503; a lost one's place is not told to strangers."""
    async with Harness(tmp_path, registry) as harness:
        (tmp_path / "api-token").unlink()
        answer = await harness.ask("GET", "/api/v1/jobs")
        assert str(tmp_path) not in described(answer, "/api/v1/jobs")["error"]
        assert answer.status == 503
        config = harness.services.live.config
        server = config.server.model_copy(update={"api_token_file": None})
        harness.configure(server=server)
        for method, path in GUARDED:
            answer = await harness.ask(method, path)
            assert answer.status == 503
            assert "api_token_file" in (await answer.json())["error"]


async def test_sync_and_its_job(tmp_path: Path, registry: Registry) -> None:
    """A sync is answered with its jobs, which can be asked for until they are done."""
    async with Harness(tmp_path, registry) as harness:
        reference = registry.push(harness.repository.repository, "latest", sample())
        answer = await harness.ask("POST", "/api/v1/sync", json={"refs": [reference]})
        assert answer.status == 202
        (job,) = described(answer, "/api/v1/sync")["jobs"]
        assert (job["reference"], job["cause"], job["outcome"]) == (reference, "api", None)
        await harness.outcome(job["id"])
        answer = await harness.ask("GET", f"/api/v1/jobs/{job['id']}")
        done = described(answer, "/api/v1/jobs/{id}")
        assert (done["state"], done["outcome"]) == ("done", "published")
        assert done["volumes"][0].startswith("local:vztmpl/")
        answer = await harness.ask("GET", "/api/v1/jobs?limit=1")
        log = done.pop("log")
        assert described(answer, "/api/v1/jobs")["jobs"] == [done]
        assert log == []  # no handler of the log is attached here
        answer = await harness.ask("GET", "/api/v1/images")
        images = described(answer, "/api/v1/images")
        assert images["watched"] == [
            {
                "repository": harness.repository.name,
                "tags": ["latest"],
                "platform": "linux/amd64",
                "keep": 2,
            }
        ]
        (template,) = images["templates"]
        assert template["volumes"] == done["volumes"]
        assert template["digest"] == sample().digest
        (condition,) = images["conditions"]
        assert (condition["reference"], condition["target"]) == (reference, "local")
        assert (condition["status"], condition["lack"]) == ("ok", None)
        assert (condition["volumes"], condition["digest"]) == (done["volumes"], sample().digest)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (None, ["{repository}"]),
        ({}, ["{repository}"]),
        ({"refs": ["{repository}"]}, ["{repository}"]),
        ({"refs": ["{repository}:v1", "{repository}:v1"]}, ["{repository}:v1"]),
        ({"ref": "{repository}:v1"}, ["{repository}:v1"]),
        ({"refs": ["{other}", "{other}:v2"]}, ["{other}:latest", "{other}:v2"]),
        (
            {"ref": "{other}:b", "refs": ["{other}:a", "{other}:b", "{other}:c"]},
            ["{other}:b", "{other}:a", "{other}:c"],
        ),
        ({"ref": "{other}", "refs": ["{other}:latest"]}, ["{other}:latest"]),
    ],
)
async def test_what_is_synced(
    body: object, wanted: list[str], tmp_path: Path, registry: Registry
) -> None:
    """Without refs it is everything watched; a watched name without tag is all of its tags."""
    async with Harness(tmp_path, registry, server=ON_DEMAND) as harness:
        names = {"repository": harness.repository.name, "other": f"{registry.address}/other"}
        text = json.dumps(body)
        for key, name in names.items():
            text = text.replace(f"{{{key}}}", name)
        request = {} if body is None else {"json": json.loads(text)}
        answer = await harness.ask("POST", "/api/v1/sync", **request)
        jobs = described(answer, "/api/v1/sync")["jobs"]
        assert [job["reference"] for job in jobs] == [one.format(**names) for one in wanted]


@pytest.mark.parametrize(
    "request_",
    [
        {"data": b"not json"},
        {"data": b"\xff"},
        {"data": b"[" * 100_000},
        {"data": b"{}", "headers": {"Content-Type": "application/json; charset=nonsense"}},
        {"data": b"{}", "headers": {"Content-Type": "application/json; charset=hex"}},
        {"json": []},
        {"json": {"refs": []}},
        {"json": {"refs": "ghcr.io/o/n"}},
        {"json": {"refs": [5]}},
        {"json": {"refs": ["a.b/c"] * 1001}},
        {"json": {"refs": ["Not A Reference"]}},
        {"json": {"refs": ["a.b/c:\ud800"]}},
        {"json": {"reference": "a.b/c"}},
    ],
)
async def test_bad_sync(request_: dict[str, Any], tmp_path: Path, registry: Registry) -> None:
    """A body that is not as described is 400, says why, and starts nothing."""
    async with Harness(tmp_path, registry) as harness:
        answer = await harness.ask("POST", "/api/v1/sync", **request_)
        assert answer.status == 400
        assert described(answer, "/api/v1/sync")["error"]
        assert harness.services.ledger.jobs(9) == []


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/api", None),
        ("GET", "/api/", None),
        ("GET", "/api/v1/nonsense", None),
        ("POST", "/api/v2/sync", None),
        ("DELETE", "/api/v1/jobs/1", "GET, HEAD"),
        ("POST", "/api/v1/jobs", "GET, HEAD"),
        ("GET", "/api/v1/sync", "POST"),
        ("OPTIONS", "/api/v1/containers", "GET, HEAD, POST"),
    ],
)
async def test_no_such_operation(
    method: str, path: str, allow: str | None, tmp_path: Path, registry: Registry
) -> None:
    """An unknown path is 404 and a wrong method 405, as JSON; 405 names the methods there are."""
    async with Harness(tmp_path, registry) as harness:
        answer = await harness.ask(method, path)
        status = 405 if allow else 404
        assert (answer.status, answer.headers.get("Allow")) == (status, allow)
        assert ("path" if status == 404 else method) in error(answer)["error"]


async def test_errors_elsewhere(tmp_path: Path, registry: Registry) -> None:
    """Outside /api an unknown path needs no token, and its answer is plain text."""
    async with Harness(tmp_path, registry) as harness:
        for path in ("/apis", "/nonsense"):
            answer = await harness.ask("GET", path, token=None)
            assert (answer.status, answer.content_type) == (404, "text/plain")


async def test_large_body(tmp_path: Path, registry: Registry) -> None:
    """A body beyond the bound is 413, as JSON."""
    async with Harness(tmp_path, registry, limits=HttpLimits(body=1000)) as harness:
        for path in ("/api/v1/sync", "/api/v1/containers"):
            answer = await harness.ask("POST", path, data=b" " * 1001)
            assert answer.status == 413
            assert "more than 1000 bytes" in described(answer, path)["error"]


async def test_fault_of_the_program(tmp_path: Path, registry: Registry) -> None:
    """An error that nobody foresaw is 500 as JSON below /api, and its text stays in the log."""

    async def broken(_: web.Request) -> web.Response:
        raise ZeroDivisionError("a secret")

    async with Harness(tmp_path, registry) as harness:
        app = application(harness.services)
        app.router.add_get("/api/v1/broken", broken)
        async with TestClient(TestServer(app)) as client:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with client.get("/api/v1/broken", headers=headers) as answer:
                await answer.read()
            assert answer.status == 500
            assert "secret" not in error(answer)["error"]


@pytest.mark.parametrize(
    "path",
    ["/api/v1/jobs", "/api/v1/images", "/api/v1/openapi.json", "/api/v1/jobs/none", "/healthz",
     "/readyz", "/metrics", "/"],
)  # fmt: skip
async def test_head(path: str, tmp_path: Path, registry: Registry) -> None:
    """HEAD is answered as GET is, without the body."""
    async with Harness(tmp_path, registry) as harness:
        head = await harness.ask("HEAD", path)
        get = await harness.ask("GET", path)
        assert (head.status, head.content_type) == (get.status, get.content_type)
        assert head._body == b""
        if path != "/metrics":  # which tell of the processor time that telling took
            assert head.headers.get("Content-Length") == get.headers.get("Content-Length")


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain",
     "nonsense", ";;;"],
)  # fmt: skip
async def test_content_type(content_type: str, tmp_path: Path, registry: Registry) -> None:
    """A body of JSON is read whatever its Content-Type is: `curl --data` names a form's."""
    async with Harness(tmp_path, registry, server=ON_DEMAND) as harness:
        headers = {"Content-Type": content_type}
        data = json.dumps({"refs": ["a.b/c"]}).encode()
        answer = await harness.ask("POST", "/api/v1/sync", data=data, headers=headers)
        (job,) = described(answer, "/api/v1/sync")["jobs"]
        assert job["reference"] == "a.b/c:latest"


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "", "1e3", "²", "٣", "00001000000"])
async def test_bad_limit(limit: str, tmp_path: Path, registry: Registry) -> None:
    """A limit that is no number from 1 to 1000 is 400."""
    async with Harness(tmp_path, registry) as harness:
        answer = await harness.ask("GET", "/api/v1/jobs", params={"limit": limit})
        assert (answer.status, "limit" in described(answer, "/api/v1/jobs")["error"]) == (400, True)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"ref": None}, "ref: Input should be a valid string"),
        ({"ref": None, "refs": ["a.b/c"]}, "ref: Input should be a valid string"),
        ({"ref": 5}, "ref: Input should be a valid string"),
        ({"ref": ["a.b/c"]}, "ref: Input should be a valid string"),
        ({"ref": ""}, "ref: '' is not an image reference"),
        ({"refs": None}, "refs: Input should be a list"),
        ({"refs": "a.b/c"}, "refs: Input should be a list"),
        ({"refs": {"a.b/c": 1}}, "refs: Input should be a list"),
        ({"refs": []}, "refs: "),
        ({"refs": ["a.b/c", None]}, "refs.1: Input should be a valid string"),
        ({"refs": ["a.b/c", "A"]}, "refs.1: 'A' is not an image reference"),
        ({"ref": "a.b/c", "refs": []}, "refs: "),
        ({"ref": "a.b/c", "all": True}, "all: Extra inputs are not permitted"),
    ],
)
async def test_bad_key(body: object, fault: str, tmp_path: Path, registry: Registry) -> None:
    """A key that is unknown, null or of a wrong type is 400 with the key's name, of a sync too."""
    async with Harness(tmp_path, registry) as harness:
        answer = await harness.ask("POST", "/api/v1/sync", json=body)
        assert answer.status == 400
        assert f"synced like this: {fault}" in described(answer, "/api/v1/sync")["error"]
        assert harness.services.ledger.jobs(9) == []


@pytest.mark.parametrize("data", [b"not json", b"\xff", b"[]", b'"text"'])
async def test_body_that_is_no_object(data: bytes, tmp_path: Path, registry: Registry) -> None:
    """A body that is no JSON object is told as a fault of the body, not of a reference."""
    async with Harness(tmp_path, registry) as harness:
        for path in ("/api/v1/sync", "/api/v1/containers"):
            answer = await harness.ask("POST", path, data=data)
            assert answer.status == 400
            assert described(answer, path)["error"].startswith("the body is not ")


async def test_unknown_job(tmp_path: Path, registry: Registry) -> None:
    """A job that never was is 404."""
    async with Harness(tmp_path, registry) as harness:
        answer = await harness.ask("GET", "/api/v1/jobs/none")
        assert (answer.status, described(answer, "/api/v1/jobs/{id}")["error"]) == (
            404,
            "there is no such job",
        )


async def test_resolve(tmp_path: Path, registry: Registry) -> None:
    """A reference that is not cached is 404, unless it is to be pulled; then it is known."""
    async with Harness(tmp_path, registry) as harness:
        reference = registry.push(harness.repository.repository, "latest", sample())
        ask = {"ref": reference}

        async def resolve(**more: str) -> tuple[int, Any]:
            answer = await harness.ask("GET", "/api/v1/resolve", params=ask | more)
            return answer.status, described(answer, "/api/v1/resolve")

        status, said = await resolve()
        assert (status, "pull=1" in said["error"]) == (404, True)
        assert (await resolve(pull="maybe"))[0] == 400
        assert harness.services.ledger.jobs(9) == []
        status, pulled = await resolve(pull="1")
        assert status == 200
        assert pulled["volumes"] == [f"local:vztmpl/{path.name}" for path in harness.templates]
        assert await resolve() == (200, pulled)
        assert len(harness.services.ledger.jobs(9)) == 1
        registry.push(harness.repository.repository, "latest", sample("two"))
        assert (await resolve())[0] == 404


@pytest.mark.parametrize(
    ("fault", "query", "status"),
    [
        ("", {}, 400),
        ("", {"ref": "Not A Reference"}, 400),
        ("absent", {"ref": "{address}/none"}, 404),
        ("absent", {"ref": "{address}/none", "pull": "1"}, 404),
        ("broken", {"ref": "{latest}", "pull": "1"}, 502),
    ],
)
async def test_resolve_fails(
    fault: str, query: dict[str, str], status: int, tmp_path: Path, registry: Registry
) -> None:
    """What cannot be resolved or pulled is told with its reason."""
    async with Harness(tmp_path, registry, server=ON_DEMAND) as harness:
        content = sample()
        registry.push(harness.repository.repository, "latest", content)
        if fault == "broken":
            registry.replace_blob(content.document["layers"][0]["digest"], None)
        names = {"address": registry.address, "latest": str(harness.latest)}
        params = {key: value.format(**names) for key, value in query.items()}
        answer = await harness.ask("GET", "/api/v1/resolve", params=params)
        assert (answer.status, bool(described(answer, "/api/v1/resolve")["error"])) == (
            status,
            True,
        )


async def test_registry_down(tmp_path: Path) -> None:
    """A registry that is down is 503: later it may answer."""
    with Registry() as registry:
        registry.faults.refusals = [(503, {}, b"")] * 5
        async with Harness(tmp_path, registry) as harness:
            harness.services.stopping.wait = lambda timeout=None: False  # type: ignore[method-assign] # no real waits
            answer = await harness.ask(
                "GET", "/api/v1/resolve", params={"ref": str(harness.latest)}
            )
            assert answer.status == 503
            assert registry.address in described(answer, "/api/v1/resolve")["error"]


async def test_probes(tmp_path: Path, registry: Registry) -> None:
    """Health, readiness and metrics are for anybody, and tell nothing secret."""
    async with Harness(tmp_path, registry) as harness:
        health = await harness.ask("GET", "/healthz", token=None)
        assert described(health, "/healthz") == {"status": "ok", "version": __version__}
        ready = await harness.ask("GET", "/readyz", token=None)
        assert described(ready, "/readyz") == {"status": "ready", "busy": 0}
        metrics = await harness.ask("GET", "/metrics", token=None)
        assert metrics.content_type == "text/plain"
        assert f'syncd_build_info{{version="{__version__}"}} 1.0' in await metrics.text()


async def test_not_ready(tmp_path: Path, registry: Registry) -> None:
    """Without its ledger syncd is not ready."""
    async with Harness(tmp_path, registry) as harness:
        harness.services.ledger._db.execute("DROP TABLE jobs")
        answer = await harness.ask("GET", "/readyz", token=None)
        assert (answer.status, "ledger" in described(answer, "/readyz")["error"]) == (500, True)


async def test_a_held_ledger_freezes_nothing(tmp_path: Path, registry: Registry) -> None:
    """While another process holds the ledger's write lock, what needs no writing is answered."""
    async with Harness(tmp_path, registry) as harness:
        holder = sqlite3.connect(tmp_path / "state" / "ledger.sqlite", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(harness.ask("POST", "/api/v1/sync", json={}))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(2):
            assert (await harness.ask("GET", "/healthz")).status == 200
            assert (await harness.ask("GET", "/metrics")).status == 200
        assert not writing.done()
        holder.execute("ROLLBACK")
        holder.close()
        assert (await writing).status == 202


async def test_token_is_compared_in_constant_time(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison is hmac's own, whose time tells nothing of the token."""
    compared: list[bytes] = []

    def compare(header: bytes, expected: bytes) -> bool:
        compared.append(header)
        return header == expected

    monkeypatch.setattr(hmac, "compare_digest", compare)
    async with Harness(tmp_path, registry) as harness:
        assert (await harness.ask("GET", "/api/v1/jobs", token="wrong")).status == 401
        assert (await harness.ask("GET", "/api/v1/jobs")).status == 200
    assert compared == [b"Bearer wrong", f"Bearer {TOKEN}".encode()]


async def test_conditions_are_seen(tmp_path: Path, registry: Registry) -> None:
    """What fails is seen first on the page, and in the metrics, after a restart too."""
    tags = 'tags = ["a", "b"]'
    async with Harness(tmp_path, registry, image=tags) as harness:
        registry.push(harness.repository.repository, "a", sample())
        await harness.bring("a")
        failed = Failed("<b>down</b> {jobs}", passing=True)
        place = Place(harness.repository.with_tag("b"), "local")
        old = Place(harness.repository.with_tag("old"), "local")
        at = datetime(2026, 11, 1, tzinfo=UTC)
        harness.services.ledger.conditions.write([(place, failed), (old, failed)], at)
    async with Harness(tmp_path, registry, image=tags) as harness:
        page = await (await harness.ask("GET", "/", token=None)).text()
        metrics = await (await harness.ask("GET", "/metrics", token=None)).text()
        images = described(await harness.ask("GET", "/api/v1/images"), "/api/v1/images")
    assert "&lt;b&gt;down&lt;/b&gt; {jobs}" in page
    assert page.index(">failing<") < page.index(">absent<") < page.index(">ok<")
    labels = f'reference="{harness.repository}:{{}}",target="local"'
    assert f"syncd_failing{{{labels.format('a')}}} 0.0" in metrics
    assert f"syncd_failing{{{labels.format('b')}}} 1.0" in metrics
    name = "syncd_last_check_timestamp_seconds"
    (checked,) = re.findall(rf"{name}{{{re.escape(labels.format('b'))}}} (.*)", metrics)
    assert float(checked) == at.timestamp()
    success = "syncd_last_success_timestamp_seconds"
    assert f"{success}{{{labels.format('a')}}}" in metrics
    assert f"{success}{{{labels.format('b')}}}" not in metrics
    assert ':old"' not in metrics
    found = {row["reference"].rpartition(":")[2]: row for row in images["conditions"]}
    assert {tag: row["status"] for tag, row in found.items()} == {
        "a": "ok",
        "b": "failing",
        "old": "absent",
    }
    assert found["b"]["reason"] == "<b>down</b> {jobs}"
    assert found["old"]["lack"] == "watch"


async def test_each(tmp_path: Path, registry: Registry) -> None:
    """With `each`, every watched tag has its job; a list that cannot be read is told."""
    for tag in ("latest", "v1"):
        registry.push(REPOSITORY, tag, sample(tag))
    async with Harness(tmp_path, registry, image='tags = ["latest", "re:^v"]') as harness:
        answer = await harness.ask("POST", "/api/v1/sync", json={"each": True, "dry_run": True})
        ends = described(answer, "/api/v1/sync")["ends"]
        assert [end["outcome"] for end in ends] == ["would be published"] * 2
        answer = await harness.ask("POST", "/api/v1/sync", json={"each": True})
        told = described(answer, "/api/v1/sync")
        assert told["failed"] == []
        assert [job["reference"] for job in told["jobs"]] == [
            f"{harness.repository}:{tag}" for tag in ("latest", "v1")
        ]
        for job in told["jobs"]:
            answer = await harness.ask("GET", f"/api/v1/jobs/{job['id']}?wait=30")
            assert described(answer, "/api/v1/jobs/{id}")["outcome"] == "published"
        registry.faults.refusals = [(404, {}, b"")] * 9
        answer = await harness.ask("POST", "/api/v1/sync", json={"each": True})
        (failed,) = described(answer, "/api/v1/sync")["failed"]
        assert (failed["reference"], failed["outcome"]) == (str(harness.repository), "failed")


async def test_wait_is_bounded(tmp_path: Path, registry: Registry) -> None:
    """A wait for a job ends with its time, and a wait beyond the bound is refused."""
    async with Harness(tmp_path, registry, server='settle = "0s"') as harness:
        jobs = await harness.services.worker.submit([harness.latest], Cause.WEBHOOK, settle=3600)
        answer = await harness.ask("GET", f"/api/v1/jobs/{jobs[0].id}?wait=1")
        assert described(answer, "/api/v1/jobs/{id}")["state"] == "queued"
        for wait in ("31", "-1", "x", "1.5"):
            answer = await harness.ask("GET", f"/api/v1/jobs/{jobs[0].id}?wait={wait}")
            assert answer.status == 400, wait
