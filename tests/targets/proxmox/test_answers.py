"""What is taken for an answer of Proxmox VE, and that the shapes are the official ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NotRequired, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from syncd.errors import PublishError
from syncd.progress import Silence
from syncd.targets.proxmox import answers
from syncd.targets.proxmox.answers import Node, Permissions, StorageEntry, checked
from syncd.targets.proxmox.target import ProxmoxTarget
from tests.clusters import arguments, target_on
from tests.fakes import pve_upload
from tests.fakes.pve import CALLS, Pve
from tests.fakes.pve_cluster import Token
from tests.fakes.pve_schema import VERSIONS, official

TYPES = {"string": str, "integer": int, "boolean": bool}
STORAGE = "/nodes/{node}/storage"
TASK = "/nodes/{node}/tasks/{upid}"
DESCRIBED: list[tuple[Any, str, str]] = [
    (answers.Version, "GET", "/version"),
    (answers.Permissions, "GET", "/access/permissions"),
    (list[answers.Node], "GET", "/nodes"),
    (answers.NodeStatus, "GET", "/nodes/{node}/status"),
    (list[answers.NodeStorage], "GET", STORAGE),
    (list[answers.ContentEntry], "GET", f"{STORAGE}/{{storage}}/content"),
    (list[answers.TaskEntry], "GET", "/nodes/{node}/tasks"),
    (answers.TaskStatus, "GET", f"{TASK}/status"),
    (list[answers.LogLine], "GET", f"{TASK}/log"),
    (answers.ContainerConfig, "GET", "/nodes/{node}/lxc/{vmid}/config"),
    (dict[str, object], "GET", "/nodes/{node}/lxc/{vmid}/config"),
    (answers.GuestStatus, "GET", "/nodes/{node}/lxc/{vmid}/status/current"),
    (list[answers.GuestInterface], "GET", "/nodes/{node}/lxc/{vmid}/interfaces"),
    (list[answers.Resource], "GET", "/cluster/resources"),
    (int, "GET", "/cluster/nextid"),
    (str, "POST", f"{STORAGE}/{{storage}}/upload"),
    (str, "POST", "/nodes/{node}/lxc"),
    (str, "POST", "/nodes/{node}/lxc/{vmid}/status/start"),
    (str, "POST", "/nodes/{node}/lxc/{vmid}/status/shutdown"),
    (str, "DELETE", "/nodes/{node}/lxc/{vmid}"),
    (str | None, "DELETE", f"{STORAGE}/{{storage}}/content/{{volume}}"),
]
"""Each shape with the call whose official description tells its fields."""
NEWER = {"8.4.5": ["answer.env: no such field"]}
"""What an older version does not have, and does not answer."""


def method(version: str, verb: str, path: str) -> Mapping[str, Any]:
    """Return a call of the official description; skip the test where that is not at hand."""
    folder = official()
    if folder is None:
        pytest.skip("no official description of the API: name its folder in SYNCD_PVE_API")
    document = json.loads((folder / f"pve-{version}.json").read_text())
    (found,) = (
        method
        for entry in document["paths"]
        if entry["path"] == path
        for method in entry["methods"]
        if method["verb"] == verb
    )
    return dict(found)


def faults(shape: Any, described: Mapping[str, Any], where: str) -> list[str]:
    """Return where a shape promises more than, or other than, a described schema."""
    if get_origin(shape) is list:
        (inner,) = get_args(shape)
        fitting = described["type"] == "array"
        return faults(inner, described["items"], f"{where}[]") if fitting else [f"{where}: no list"]
    if get_origin(shape) is dict:
        return [] if described["type"] == "object" else [f"{where}: no object"]
    if not is_typeddict(shape):
        return [] if TYPES.get(described["type"]) is shape else [f"{where}: not {shape}"]
    found = []
    for key, hint in get_type_hints(shape, include_extras=True).items():
        field = described["properties"].get(key)
        optional = get_origin(hint) is NotRequired
        if field is None:
            found.append(f"{where}.{key}: no such field")
            continue
        if field.get("optional") and not optional:
            found.append(f"{where}.{key}: may be absent")
        found += faults(get_args(hint)[0] if optional else hint, field, f"{where}.{key}")
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("shape", "verb", "path"), DESCRIBED, ids=[f"{verb} {path}" for _, verb, path in DESCRIBED]
)
def test_described(version: str, shape: Any, verb: str, path: str) -> None:
    """Each field is described with its type, and no required field is optional there."""
    described = method(version, verb, path)["returns"]
    if shape == (str | None):
        assert described["optional"]
        shape = str
    else:
        assert not described.get("optional")
    newer = NEWER.get(version, ())
    assert [fault for fault in faults(shape, described, "answer") if fault not in newer] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_storage_described(version: str) -> None:
    """A section of storage.cfg has the fields with which the API writes a section."""
    written = method(version, "POST", "/storage")["parameters"]
    fields = {entry["name"]: entry["definition"] for entry in written}
    assert faults(StorageEntry, {"properties": fields}, "entry") == []


@pytest.mark.parametrize("version", VERSIONS)
def test_storage_listed(version: str) -> None:
    """The field that names a storage is described in the list that syncd reads, too."""
    name = next(iter(method(version, "GET", "/storage")["returns"]["items"]["properties"]))
    assert get_type_hints(StorageEntry)[name] is str


def test_documented() -> None:
    """The docstring of each shape names the call that describes the shape."""
    for shape, verb, path in DESCRIBED:
        record = get_args(shape)[0] if get_origin(shape) is list else shape
        if is_typeddict(record):
            assert f"`{verb} {path}`" in (record.__doc__ or "")


def test_numbers() -> None:
    """A number or boolean may come as a string, as Perl does not tell them apart."""
    answer = [{"node": 12, "status": "online", "mem": "4096", "maxmem": 1.6e16, "more": []}]
    assert checked(answer, list[Node]) == [
        {"node": "12", "status": "online", "mem": 4096, "maxmem": 16 * 10**15}
    ]
    assert checked({"/": {"a": 1, "b": "0", "c": ""}}, Permissions) == {
        "/": {"a": True, "b": False, "c": False}
    }


def test_null() -> None:
    """An optional field that is null is absent; so is an answer that is null."""
    assert checked([{"node": "a", "status": "online", "mem": None}], list[Node]) == [
        {"node": "a", "status": "online"}
    ]
    anything: Any = str | None
    assert checked(None, anything) is None


@pytest.mark.parametrize(
    ("answer", "shape", "message"),
    [
        ({}, list[Node], r"the answer is \{\}, not list"),
        ([[]], list[Node], r"the answer\[0\] is \[\], not Node"),
        ([{"status": "online"}], list[Node], r"the answer\[0\] has no node"),
        ([{"node": None, "status": "online"}], list[Node], "has no node"),
        ([{"node": ["a"], "status": "online"}], list[Node], r"\['node'\] is \['a'\], not str"),
        (
            [{"node": "a", "status": "x", "mem": "much"}],
            list[Node],
            r"\['mem'\] is 'much', not int",
        ),
        ([{"node": "a", "status": "x", "mem": 1.5}], list[Node], "is 1.5, not int"),
        ([{"node": "a", "status": "x", "mem": float("inf")}], list[Node], "is inf, not int"),
        ([{"node": "a", "status": "x", "mem": True}], list[Node], "is True, not int"),
        ([{"node": True, "status": "x"}], list[Node], "is True, not str"),
        ({"/": {"a": 2}}, Permissions, r"\['/'\]\['a'\] is 2, not bool"),
        ({"/": []}, Permissions, r"\['/'\] is \[\], not dict"),
        (None, str, "is None, not str"),
    ],
)
def test_unfit(answer: object, shape: Any, message: str) -> None:
    """What is missing or of another type is named."""
    with pytest.raises(ValueError, match=message):
        checked(answer, shape)


def publish(target: ProxmoxTarget, folder: Path) -> None:
    target.publish(*arguments(folder), Silence())


@pytest.mark.parametrize(
    ("path", "answer", "act"),
    [
        ("/version", {}, lambda target, _: target.format()),
        ("/version", {"version": ["9", "2"]}, lambda target, _: target.format()),
        ("/storage", [{"type": "dir"}], lambda target, _: target._storages.visible()),
        ("/storage", {"storage": "local"}, lambda target, _: target._storages.visible()),
        ("/nodes", [{"status": "online"}], lambda target, _: target.volumes()),
        (STORAGE, [{"storage": "local"}], lambda target, _: target.volumes()),
        (
            STORAGE,
            [{"storage": "local", "type": "dir", "avail": "much"}],
            lambda target, _: target.volumes(),
        ),
        (f"{STORAGE}/{{storage}}/content", [{"size": 1}], lambda target, _: target.volumes()),
        ("/access/permissions", [], publish),
        ("/nodes/{node}/tasks", [{}], publish),
        (f"{TASK}/status", {"exitstatus": "OK"}, publish),
    ],
)
def test_unfit_answer(
    pve: Pve,
    token: Token,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    path: str,
    answer: object,
    act: Callable[[ProxmoxTarget, Path], object],
) -> None:
    """An answer without a required field, or with another type, is none of Proxmox VE."""
    monkeypatch.setitem(CALLS, ("GET", path), lambda _: answer)
    with pytest.raises(
        PublishError, match=r"is not the API of Proxmox VE: GET .*the answer"
    ) as bad:
        act(target_on(pve, tmp_path), tmp_path)
    assert not bad.value.temporary


def test_no_task(pve: Pve, token: Token, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload that is answered by something else than a task is not taken for a success."""
    monkeypatch.setattr(pve_upload, "upload", lambda *_: None)
    with pytest.raises(PublishError, match=r"is not the API of Proxmox VE: POST .*/upload"):
        publish(target_on(pve, tmp_path), tmp_path)


def test_volume_without_size(
    pve: Pve, token: Token, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template whose size is not told is listed, but counts as missing."""
    content = ("GET", f"{STORAGE}/{{storage}}/content")
    monkeypatch.setitem(CALLS, content, lambda _: [{"volid": "cephfs:vztmpl/a.tar"}])
    target = target_on(pve, tmp_path, storage="cephfs")
    assert [volume.volid for volume in target.volumes()] == ["cephfs:vztmpl/a.tar"]
    assert target.missing("a.tar", 1) == ["cephfs"]
