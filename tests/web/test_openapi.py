"""What `openapi` promises: the description is whole, and says what requests and answers are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from syncd.errors import RequestError
from syncd.targets import ContainerRequest, RequestModel
from syncd.web.app import application
from syncd.web.backend import HttpLimits
from syncd.web.openapi import api_description
from syncd.web.requests import SyncRequest
from tests.deliveries import pushed, signed
from tests.fakes.registry import Registry
from tests.harness import DOCUMENT, Harness, described

SCHEMAS = DOCUMENT["components"]["schemas"]
OPERATIONS = [
    (method, path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
]
LEAST = {"hostname": "web", "ref": "a.b/c"}
# Each field's values that are accepted, and those that are refused.
FIELDS: dict[str, tuple[list[Any], list[Any]]] = {
    "hostname": (
        ["w", "WEB", "web.example.org", "a-b", "a" * 63, ".".join(["a" * 63] * 4)],
        [None, "", "-a", "a-", "a_b", "a..b", ".a", "a.", "a" * 64, "a.\n", "a\n", "é", 5,
         ".".join(["a" * 63] * 3 + ["a" * 62, "b"])],
    ),
    "node": ([None, "pve1", "a" * 63], ["", "a.b", "-a", "a" * 64, "a\n", "a/b", 1]),
    "vmid": ([None, 100, 100.0, 999_999_999], [99, 1_000_000_000, 100.5, "100", True, [100]]),
    "cores": ([1, 8192, 2.0], [None, 0, 8193, 1.5, "1", True, -1]),
    "memory": ([16, 10**30, 1e300], [None, 15, 15.999, "512", False]),
    "swap": ([None, 0, 1, -0.0], [-1, 0.5, "", False]),
    "storage": ([None, "local", "a.b-c_1"], ["", "a", "1a", "a-", "local:8", "a/b", "ab\n", 5]),
    "size": ([1, 8.0], [None, 0, "8", True, "8G"]),
    "bridge": ([None, "vmbr0", "-", "a.b_c"], ["", "a b", "a/b", "a,b", "vmbr0\n", 5]),
    **dict.fromkeys(["net0", "net31"], (
        [None, "name=eth0,bridge=vmbr0,ip=dhcp", "name=a,tag=7", "name=" + "a" * 15],
        ["", "name=", "eth0", "name=a b", "name=a\n", "name=\x00", "name=é", "name=\ufeff", 5,
         "name=~", "name=a,tag=7,tag=8", "name=a,ip=dhcp\n"],
    )),
    **dict.fromkeys(["mp0", "mp255"], (
        [None, "ab:1,mp=/a", "/a,mp=/b,ro=1"],
        ["", "ab:1", "ab:1,mp=/..", "ab:c,mp=/a", "ab:1,mp=/a\n", "ab:1,mp=/é", 5, ["ab:1,mp=/a"]],
    )),
    "cpulimit": ([None, 0, 0.5, 8192], [-1, 8193, "1", True, [1]]),
    "nameserver": ([None, "10.0.0.1", "fd00::1 10.0.0.1"], ["", "dns", "10.0.0.1\n", 5]),
    "searchdomain": ([None, "lan", "a.b c"], ["", "a_b", "lan\n", 5]),
    "entrypoint": ([None, "/bin/sh -c 'a\tb'"], ["", "a\n", "\x00", 5]),
    "env": (
        [{}, {"A": ""}, {"A_1": "b c=d"}],
        [None, [], "A=b", {"A-B": "c"}, {"": "c"}, {"A": "b\n"}, {"A": 5}, {"é": ""}],
    ),
    "ostype": ([None, "debian", "unmanaged"], ["", "Debian", 5]),
    "cmode": ([None, "tty"], ["", "vnc", 5]),
    "onboot": ([None, True, False], [0, "yes"]),
    "startup": ([None, "1", "order=1,up=2,down=3"], ["", "order", "1\n", 1]),
    "protection": ([None, True, False], [1, "no"]),
    "timezone": ([None, "host", "Europe/Berlin"], ["", "../etc", "a b", "host\n", 5]),
    "hookscript": ([None, "local:snippets/a.sh"], ["", "local:iso/a", "local:snippets/a\n", 5]),
    "description": ([None, "", "a\nb\tc", "é"], ["\x00", "a\r\n", "a" * 7001, 5]),
    "password": ([None, "12345", "é" * 1024], ["", "1234", "12345\n", "a" * 1025, 12345]),
    "profile": ([None, "", "web"], [5, ["web"]]),
    "unprivileged": ([True, False], [None, 0, 1, "true", "yes", []]),
    "features": (
        [None, "nesting=1", "nesting=1,keyctl=0", "mount=nfs;cifs"],
        ["", "nesting", "nesting=", "nesting=1,", ",nesting=1", "a=1 b=2", "N=1", "a=\x7f", "a=é"],
    ),
    "tags": (
        [[], ["a"], ["_a", "9", "a+b.c-d"]],
        [None, "a", [""], ["-a"], ["a b"], ["a\n"], [5], {"a": 1}],
    ),
    "ssh_keys": (
        [[], ["ssh-ed25519 AAAA me@here"], ["é"], ["a" * 16_384]],
        [None, "a", [""], ["a\nb"], ["a\r"], ["a" * 16_385], [None]],
    ),
    "pool": ([None, "a", "a/b/c", "."], ["", "/a", "a/", "a//b", "a/b/c/d", "a b", "a\n"]),
    "start": ([True, False], [None, 0, 1, "on"]),
    "ref": (
        ["a", "a.b/c:d", "localhost:5000/a", "a@sha256:" + "0" * 64],
        [None, "", "A", "a:", "a@", "a b", "a\n", "http://a.b/c", 5, ["a"], {}],
    ),
    "target": ([None, "", "cluster"], [5, ["a"], True]),
    "credentials": (
        [None, {"username": "a", "password": "b"}, {"token": "a.b-c"}, {"token": "~" * 16_384},
         {"username": "é", "password": "b:c d", "token": None}],
        [{}, "a", [], {"username": "a"}, {"password": "b"}, {"username": "", "password": "b"},
         {"username": "a:b", "password": "c"}, {"username": "a", "password": "b\n"},
         {"username": "a", "password": "b", "token": "c"}, {"token": ""}, {"token": "a b"},
         {"username": "a", "token": "c"}, {"token": 5}, {"token": None}, {"token": "a", "x": 1},
         {"username": "a", "password": None}, {"token": "a" * 16_385}, {"token": "a\n"}],
    ),
}  # fmt: skip
VALUES = [value for lists in FIELDS.values() for values in lists for value in values]


def in_python(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema whose pattern means in Python what it means in ECMA-262.

    JSON Schema takes patterns of ECMA-262, where `$` is the end; in Python a newline may follow.
    """
    if "pattern" in schema:
        schema["pattern"] = schema["pattern"].removesuffix("$") + r"\Z"
    return schema


COMPONENTS = json.loads(json.dumps(DOCUMENT["components"]), object_hook=in_python)


def described_ok(model: type[RequestModel], body: object) -> bool:
    """Whether the description's schema of a request allows a body."""
    place = f"#/components/schemas/{model.__name__}"
    return Draft202012Validator({"$ref": place, "components": COMPONENTS}).is_valid(body)


def accepted(model: type[RequestModel], body: dict[str, Any]) -> bool:
    """Whether a request's model accepts a body."""
    try:
        model.parse(body)
    except RequestError:
        return False
    return True


def parts(value: object) -> Iterator[dict[str, Any]]:
    """Yield every object in a document, itself first."""
    if isinstance(value, list):
        for part in value:
            yield from parts(part)
    if isinstance(value, dict):
        yield value
        yield from parts([*value.values()])


def test_document() -> None:
    """The description is OpenAPI 3.1, of JSON alone, and is made once."""
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert json.loads(json.dumps(DOCUMENT)) == DOCUMENT
    assert api_description() is api_description()
    assert {"title", "version"} <= set(DOCUMENT["info"])


def test_references() -> None:
    """Every reference leads somewhere, and each schema and response is referred to."""
    places = {part["$ref"] for part in parts(DOCUMENT) if "$ref" in part}
    for place in places:
        found: Any = DOCUMENT
        for key in place.removeprefix("#/").split("/"):
            found = found[key]
    for kind in ("schemas", "responses"):
        for name in DOCUMENT["components"][kind]:
            assert f"#/components/{kind}/{name}" in places


def test_schemas() -> None:
    """Every schema is one of JSON Schema, and no object of a request or answer takes more keys."""
    schemas = [*SCHEMAS.values(), *(part["schema"] for part in parts(DOCUMENT) if "schema" in part)]
    for schema in schemas:
        Draft202012Validator.check_schema(schema)
    for schema in SCHEMAS.values():
        assert schema["description"]
        assert "title" not in schema
        for name, field in schema.get("properties", {}).items():
            assert field.get("title", "").lower().replace(" ", "_") != name
            if "default" in field:
                Draft202012Validator(field).validate(field["default"])
        assert schema.get("additionalProperties") is False or "enum" in schema


def test_operations() -> None:
    """Every operation has a name of its own, a known tag, and answers with a meaning and a body."""
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(names) == len(set(names))
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for _, path, operation in OPERATIONS:
        assert operation["summary"]
        assert set(operation["tags"]) <= tags
        assert any(status.startswith("2") for status in operation["responses"])
        for status, answer in operation["responses"].items():
            name = answer.get("$ref", "").rpartition("/")[2]
            described_answer = DOCUMENT["components"]["responses"][name] if name else answer
            assert re.fullmatch("[1-5][0-9]{2}", status)
            assert described_answer["description"]
            assert described_answer["content"]
        named = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
        assert named == set(re.findall(r"\{(\w+)\}", path))


def test_security() -> None:
    """What is below /api wants the token, and can be refused or fail; nothing else wants it."""
    (scheme,) = DOCUMENT["components"]["securitySchemes"]
    for _, path, operation in OPERATIONS:
        guarded = path.startswith("/api/")
        assert [*map(list, operation["security"])] == ([[scheme]] if guarded else [])
        assert not guarded or {"401", "503", "500"} <= set(operation["responses"])


def test_errors() -> None:
    """What every request below /api may be refused for, and what waiting may end with, is told."""
    paths, responses = DOCUMENT["paths"], DOCUMENT["components"]["responses"]
    assert "WWW-Authenticate" in responses["Unauthorized"]["headers"]
    for waiting in (paths["/api/v1/resolve"]["get"], paths["/api/v1/containers"]["post"]):
        assert {"400", "404", "502", "504"} <= set(waiting["responses"])


async def test_routes(tmp_path: Path, registry: Registry) -> None:
    """Exactly the routes that are answered are described."""
    async with Harness(tmp_path, registry) as harness:
        routes = {
            (route.method.lower(), route.resource.canonical)
            for route in application(harness.services).router.routes()
            if route.resource and route.method != "HEAD"
        }
        assert routes == {(method, path) for method, path, _ in OPERATIONS}


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_field(field: str) -> None:
    """The values of a field that the model refuses are those that the description refuses."""
    right, wrong = FIELDS[field]
    for value, expected in [*((v, True) for v in right), *((v, False) for v in wrong)]:
        body = LEAST | {field: value}
        verdicts = accepted(ContainerRequest, body), described_ok(ContainerRequest, body)
        assert verdicts == (expected, expected), value
    for value in VALUES:
        body = LEAST | {field: value}
        assert accepted(ContainerRequest, body) == described_ok(ContainerRequest, body), value


def test_every_field_is_tried() -> None:
    """No field of a container request is left out of the comparison."""
    numbered = {"net0", "net31", "mp0", "mp255"}
    assert set(FIELDS) - numbered == set(ContainerRequest.model_fields) - {"networks", "mounts"}
    described_keys = SCHEMAS["ContainerRequest"]
    assert set(FIELDS) - numbered == set(described_keys["properties"])
    assert len(described_keys["patternProperties"]) == 2


@pytest.mark.parametrize("key", ["net32", "net00", "net", "net-1", "mp256", "mp01", "net[n]", "a"])
def test_no_such_key(key: str) -> None:
    """A number beyond those of Proxmox VE is refused, and described as refused."""
    values: list[Any] = ["name=a", "ab:1,mp=/a", None, {}]
    for value in values:
        assert not accepted(ContainerRequest, LEAST | {key: value})
        assert not described_ok(ContainerRequest, LEAST | {key: value})


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([99, 100, 15, 16, 8192, 8193, 999_999_999, 1_000_000_000])
    | st.text("aZ09-_.:/=,+@;[] \n\r\x00é\ufeff", max_size=6)
    | st.tuples(
        st.sampled_from([value for value in VALUES if isinstance(value, str)]),
        st.sampled_from("aZ0-_.:/=,+@;[] \n\r\x00\x85é"),
    ).map("".join),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=2),
    max_leaves=3,
)


@given(st.sampled_from(sorted(FIELDS)), JSON_VALUES)
def test_any_value(field: str, value: object) -> None:
    """Whatever a field holds, the model and the description judge it alike."""
    body = LEAST | {field: value}
    assert accepted(ContainerRequest, body) == described_ok(ContainerRequest, body)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, False),
        ({"hostname": "web"}, False),
        ({"ref": "a.b/c"}, False),
        (LEAST, True),
        (LEAST | {"disk": 5}, False),
        (LEAST | {"bridge": "vmbr0", "net0": "name=eth0"}, False),
        (LEAST | {"bridge": None, "net0": "name=eth0"}, True),
        (LEAST | {"bridge": "vmbr0", "net0": None}, True),
        (LEAST | {"bridge": None, "net0": None}, True),
        (LEAST | {"bridge": "vmbr0", "net1": "name=eth0"}, True),
    ],
)
def test_container_request(body: dict[str, Any], expected: bool) -> None:
    """Which keys are needed, unknown or exclude each other is described, too."""
    assert accepted(ContainerRequest, body) == expected
    assert described_ok(ContainerRequest, body) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, True),
        ({"ref": "a.b/c"}, True),
        ({"refs": ["a.b/c", "d"]}, True),
        ({"ref": "a.b/c", "refs": ["d"]}, True),
        ({"refs": ["a"] * 1000}, True),
        ({"refs": ["a"] * 1001}, False),
        ({"refs": []}, False),
        ({"refs": None}, False),
        ({"refs": "a"}, False),
        ({"refs": {"a": 1}}, False),
        ({"refs": ["a", None]}, False),
        ({"refs": ["A"]}, False),
        ({"ref": None}, False),
        ({"ref": ""}, False),
        ({"ref": ["a"]}, False),
        ({"reference": "a"}, False),
    ],
)
def test_sync_request(body: dict[str, Any], expected: bool) -> None:
    """The bodies of a sync that the model refuses are those that the description refuses."""
    assert accepted(SyncRequest, body) == expected
    assert described_ok(SyncRequest, body) == expected


async def test_deliveries(tmp_path: Path, registry: Registry) -> None:
    """Each answer to a delivery is as described."""
    async with Harness(tmp_path, registry, limits=HttpLimits(body=20_000)) as harness:
        push = json.dumps(pushed(str(harness.repository))).encode()
        other = json.dumps(pushed("a.b/other")).encode()
        for status, body, headers in [
            (202, push, signed(push, delivery="1")),
            (202, push, signed(push, delivery="1")),
            (202, other, signed(other, delivery="2")),
            (202, push, signed(push, "star", delivery="3")),
            (200, b"{}", signed(b"{}", "ping", delivery="4")),
            (400, b"[]", signed(b"[]", delivery="5")),
            (401, push, signed(push, secret="another")),
            (413, b" " * 20_001, signed(b"", delivery="6")),
        ]:
            answer = await harness.ask(
                "POST", "/webhooks/github", data=body, headers=headers, token=None
            )
            assert answer.status == status
            assert described(answer, "/webhooks/github")
