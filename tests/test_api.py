"""What `syncd.api` promises: for the token's holder alone, as its description says."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from syncd import __version__
from syncd.daemon import application
from syncd.job import Cause, Outcome, Result, SyncJob
from syncd.reference import Reference
from tests.fakes.registry import Registry
from tests.houses import DOCUMENT, TOKEN, House, described, sample

GUARDED = [
    ("POST", "/api/v1/sync"),
    ("GET", "/api/v1/jobs"),
    ("GET", "/api/v1/jobs/1"),
    ("GET", "/api/v1/images"),
    ("GET", "/api/v1/resolve?ref=x"),
    ("POST", "/api/v1/containers"),
    ("GET", "/api/v1/openapi.json"),
    ("GET", "/api/v1/nonsense"),
    ("GET", "/api/"),
]


def test_description_is_sound() -> None:
    """The description is OpenAPI 3.1 of sound schemas, whose references lead somewhere."""
    assert DOCUMENT["openapi"].startswith("3.1.")
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    names = [
        operation["operationId"]
        for item in DOCUMENT["paths"].values()
        for operation in item.values()
    ]
    assert len(names) == len(set(names))
    for place in references(DOCUMENT):
        found: Any = DOCUMENT
        for part in place.removeprefix("#/").split("/"):
            found = found[part]


def references(value: object) -> list[str]:
    """Return every $ref in a document."""
    if isinstance(value, list):
        return [one for part in value for one in references(part)]
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [one for part in value.values() for one in references(part)]
    return []


async def test_description_names_every_route(tmp_path: Path, registry: Registry) -> None:
    """The description has exactly the routes that are answered, with their parameters."""
    async with House(tmp_path, registry) as house:
        routes = {
            (route.method.lower(), route.resource.canonical)
            for route in application(house.parts).router.routes()
            if route.resource and route.method != "HEAD"
        }
        paths = DOCUMENT["paths"]
        assert routes == {(method, path) for path, item in paths.items() for method in item}
        for path, item in paths.items():
            for operation in item.values():
                named = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
                assert named == {"id"} & set(path.replace("{", "}").split("}"))
                guarded = "security" not in operation
                assert guarded == path.startswith("/api/")
                assert not guarded or {"401", "503", "500"} <= set(operation["responses"])
        answer = await house.ask("GET", "/api/v1/openapi.json")
        assert described(answer, "/api/v1/openapi.json") == DOCUMENT


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"]
)
async def test_wrong_token(given: str, tmp_path: Path, registry: Registry) -> None:
    """Without the right token everything below /api is 401, whether it exists or not."""
    async with House(tmp_path, registry) as house:
        for method, path in GUARDED:
            headers = {"Authorization": given} if given else {}
            answer = await house.ask(method, path, token=None, headers=headers)
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert "wrong" in (await answer.json())["error"]
        assert house.parts.ledger.jobs(9) == []


async def test_token_of_any_bytes(tmp_path: Path, registry: Registry) -> None:
    """A token of bytes that are no text is a wrong one."""
    async with House(tmp_path, registry) as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.client.port)
        writer.write(
            b"GET /api/v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\r\n"
            b"Connection: close\r\n\r\n"
        )
        assert (await reader.readline()).split()[1] == b"401"
        writer.close()
        await writer.wait_closed()


async def test_no_token(tmp_path: Path, registry: Registry) -> None:
    """Without a configured token /api is 503; a lost one's place is not told to strangers."""
    async with House(tmp_path, registry) as house:
        (tmp_path / "api-token").unlink()
        answer = await house.ask("GET", "/api/v1/jobs")
        assert str(tmp_path) not in described(answer, "/api/v1/jobs")["error"]
        assert answer.status == 503
        config = house.parts.sync.config
        server = config.server.model_copy(update={"api_token_file": None})
        house.parts.sync.config = config.model_copy(update={"server": server})
        for method, path in GUARDED:
            answer = await house.ask(method, path)
            assert answer.status == 503
            assert "api_token_file" in (await answer.json())["error"]


async def test_sync_and_its_job(tmp_path: Path, registry: Registry) -> None:
    """A sync is answered with its jobs, which can be asked for until they are done."""
    async with House(tmp_path, registry) as house:
        reference = registry.push(house.repository.repository, "latest", sample())
        answer = await house.ask("POST", "/api/v1/sync", json={"refs": [reference]})
        assert answer.status == 202
        (job,) = described(answer, "/api/v1/sync")["jobs"]
        assert (job["reference"], job["cause"], job["outcome"]) == (reference, "api", None)
        await house.outcome(job["id"])
        answer = await house.ask("GET", f"/api/v1/jobs/{job['id']}")
        done = described(answer, "/api/v1/jobs/{id}")
        assert (done["state"], done["outcome"]) == ("done", "published")
        assert done["volumes"][0].startswith("local:vztmpl/")
        answer = await house.ask("GET", "/api/v1/jobs?limit=1")
        assert described(answer, "/api/v1/jobs")["jobs"] == [done]
        answer = await house.ask("GET", "/api/v1/images")
        images = described(answer, "/api/v1/images")
        assert images["watched"] == [
            {
                "repository": house.repository.name,
                "tags": ["latest"],
                "platform": "linux/amd64",
                "keep": 2,
            }
        ]
        (template,) = images["templates"]
        assert template["volumes"] == done["volumes"]
        assert template["digest"] == sample().digest


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (None, ["{repository}"]),
        ({}, ["{repository}"]),
        ({"refs": ["{repository}"]}, ["{repository}"]),
        ({"refs": ["{repository}:v1", "{repository}:v1"]}, ["{repository}:v1"]),
        ({"ref": "{repository}:v1"}, ["{repository}:v1"]),
        ({"refs": ["{other}", "{other}:v2"]}, ["{other}:latest", "{other}:v2"]),
    ],
)
async def test_what_is_synced(
    body: object, wanted: list[str], tmp_path: Path, registry: Registry
) -> None:
    """Without refs it is everything watched; a watched name without tag is all of its tags."""
    async with House(tmp_path, registry) as house:
        names = {"repository": house.repository.name, "other": f"{registry.address}/other"}
        text = json.dumps(body)
        for key, name in names.items():
            text = text.replace(f"{{{key}}}", name)
        request = {} if body is None else {"json": json.loads(text)}
        answer = await house.ask("POST", "/api/v1/sync", **request)
        jobs = described(answer, "/api/v1/sync")["jobs"]
        assert [job["reference"] for job in jobs] == [one.format(**names) for one in wanted]


@pytest.mark.parametrize(
    "request_",
    [
        {"data": b"not json"},
        {"data": b"\xff"},
        {"data": b"[" * 100_000},
        {"data": b"{}", "headers": {"Content-Type": "application/json; charset=nonsense"}},
        {"json": []},
        {"json": {"refs": []}},
        {"json": {"refs": "ghcr.io/o/n"}},
        {"json": {"refs": [5]}},
        {"json": {"refs": ["a.b/c"] * 1001}},
        {"json": {"refs": ["Not A Reference"]}},
        {"json": {"refs": ["a.b/c:\ud800"]}},
        {"json": {"ref": None}},
        {"json": {"refs": None}},
        {"json": {"reference": "a.b/c"}},
    ],
)
async def test_bad_sync(request_: dict[str, Any], tmp_path: Path, registry: Registry) -> None:
    """A body that is not as described is 400, says why, and starts nothing."""
    async with House(tmp_path, registry) as house:
        answer = await house.ask("POST", "/api/v1/sync", **request_)
        assert answer.status == 400
        assert described(answer, "/api/v1/sync")["error"]
        assert house.parts.ledger.jobs(9) == []


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "", "1e3", "²", "٣", "00001000000"])
async def test_bad_limit(limit: str, tmp_path: Path, registry: Registry) -> None:
    """A limit that is no number from 1 to 1000 is 400."""
    async with House(tmp_path, registry) as house:
        answer = await house.ask("GET", "/api/v1/jobs", params={"limit": limit})
        assert (answer.status, "limit" in described(answer, "/api/v1/jobs")["error"]) == (400, True)


async def test_unknown_job(tmp_path: Path, registry: Registry) -> None:
    """A job that never was is 404."""
    async with House(tmp_path, registry) as house:
        answer = await house.ask("GET", "/api/v1/jobs/none")
        assert (answer.status, described(answer, "/api/v1/jobs/{id}")["error"]) == (
            404,
            "there is no such job",
        )


async def test_resolve(tmp_path: Path, registry: Registry) -> None:
    """A reference that is not cached is 404, unless it is to be pulled; then it is known."""
    async with House(tmp_path, registry) as house:
        reference = registry.push(house.repository.repository, "latest", sample())
        ask = {"ref": reference}

        async def resolve(**more: str) -> tuple[int, Any]:
            answer = await house.ask("GET", "/api/v1/resolve", params=ask | more)
            return answer.status, described(answer, "/api/v1/resolve")

        status, said = await resolve()
        assert (status, "pull=1" in said["error"]) == (404, True)
        assert house.parts.ledger.jobs(9) == []
        status, pulled = await resolve(pull="1")
        assert status == 200
        assert pulled["volumes"] == [f"local:vztmpl/{path.name}" for path in house.templates]
        assert await resolve() == (200, pulled)
        assert len(house.parts.ledger.jobs(9)) == 1
        registry.push(house.repository.repository, "latest", sample("two"))
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
    async with House(tmp_path, registry) as house:
        content = sample()
        registry.push(house.repository.repository, "latest", content)
        if fault == "broken":
            registry.replace_blob(content.document["layers"][0]["digest"], None)
        names = {"address": registry.address, "latest": str(house.latest)}
        params = {key: value.format(**names) for key, value in query.items()}
        answer = await house.ask("GET", "/api/v1/resolve", params=params)
        assert (answer.status, bool(described(answer, "/api/v1/resolve")["error"])) == (
            status,
            True,
        )


async def test_registry_down(tmp_path: Path) -> None:
    """A registry that is down is 503: later it may answer."""
    with Registry() as registry:
        registry.faults.refusals = [(503, {}, b"")] * 5
        async with House(tmp_path, registry) as house:
            house.parts.stopping.wait = lambda timeout=None: False  # type: ignore[method-assign] # no real waits
            answer = await house.ask("GET", "/api/v1/resolve", params={"ref": str(house.latest)})
            assert answer.status == 503
            assert registry.address in described(answer, "/api/v1/resolve")["error"]


async def test_probes(tmp_path: Path, registry: Registry) -> None:
    """Health, readiness and metrics are for anybody, and tell nothing secret."""
    async with House(tmp_path, registry) as house:
        health = await house.ask("GET", "/healthz", token=None)
        assert described(health, "/healthz") == {"status": "ok", "version": __version__}
        ready = await house.ask("GET", "/readyz", token=None)
        assert described(ready, "/readyz") == {"status": "ready", "busy": 0}
        metrics = await house.ask("GET", "/metrics", token=None)
        assert metrics.content_type == "text/plain"
        assert f'syncd_build_info{{version="{__version__}"}} 1.0' in await metrics.text()


async def test_not_ready(tmp_path: Path, registry: Registry) -> None:
    """Without its ledger syncd is not ready."""
    async with House(tmp_path, registry) as house:
        house.parts.ledger._db.execute("DROP TABLE jobs")
        answer = await house.ask("GET", "/readyz", token=None)
        assert (answer.status, "ledger" in described(answer, "/readyz")["error"]) == (500, True)


async def test_page(tmp_path: Path, registry: Registry) -> None:
    """The page shows templates and jobs; what a registry or image says is text, never markup."""
    async with House(tmp_path, registry) as house:
        reference = registry.push(house.repository.repository, "latest", sample())
        answer = await house.ask("POST", "/api/v1/sync", json={"ref": reference})
        await house.outcome((await answer.json())["jobs"][0]["id"])
        ledger = house.parts.ledger
        ledger.accept([job := SyncJob(Reference.parse("a.b/c:d"), Cause.API)])
        ledger.finish(job.id, Outcome(Result.FAILED, "<script>alert('{jobs}')</script> & more"))
        answer = await house.ask("GET", "/", token=None)
        page = await answer.text()
        assert answer.content_type == "text/html"
        assert str(reference) in page
        assert house.templates[0].name in page
        assert "&lt;script&gt;" in page
        assert "<script>" not in page
        assert page.count("<table>") == 2
