"""What the contract check says about requests, by both versions of the API."""

import json
from pathlib import Path

import pytest
import requests

from tests.fakes import pve_schema
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import Request
from tests.fakes.pve_format import FORMATS
from tests.fakes.pve_schema import REDUCED, VERSIONS, Description, assert_contract, validate

CONTENT = "/nodes/pve1/storage/local/content"
LXC = "/nodes/pve1/lxc"
UPLOAD = "/nodes/pve1/storage/local/upload"
CREATE = {"vmid": "100", "ostemplate": "local:vztmpl/a.tar.zst"}


@pytest.fixture(params=VERSIONS)
def description(request: pytest.FixtureRequest) -> Description:
    return Description.load(request.param)


@pytest.mark.parametrize(
    ("method", "path", "params"),
    [
        ("GET", "/version", {}),
        ("GET", CONTENT, {"content": "vztmpl"}),
        ("DELETE", f"{CONTENT}/local:vztmpl/a.tar.zst", {"delay": "5"}),
        ("GET", "/nodes/pve1/storage", {"content": "vztmpl,rootdir", "enabled": "1"}),
        ("GET", "/nodes/pve1/tasks/UPID:pve1:00:00:00:imgcopy::a@pve!b:/log", {"limit": "500"}),
        ("POST", f"{LXC}/100/status/start", {}),
        ("POST", UPLOAD, {"content": "vztmpl", "filename": "a.tar"}),
        (
            "POST",
            LXC,
            CREATE
            | {
                "net0": "name=eth0,bridge=vmbr0,ip=dhcp,ip6=fd00::1/64",
                "rootfs": "local-zfs:8,acl=on",
                "features": "nesting=1,mount=nfs;cifs",
                "tags": "owner;web",
                "nameserver": "10.0.0.1 fe80::1%eth0",
                "cpulimit": "1.5",
            },
        ),
    ],
)
def test_taken(description: Description, method: str, path: str, params: dict[str, str]) -> None:
    """A request as the API describes it violates nothing."""
    assert validate([Request(method, path, params)], description) == []


@pytest.mark.parametrize(
    ("method", "path", "params", "fault"),
    [
        ("GET", "/nodes/pve1/storages", {}, "no such path"),
        ("PUT", LXC, {}, "no such method; there is GET, POST"),
        ("GET", CONTENT, {"contents": "iso"}, "contents: not a parameter of this method"),
        ("GET", CONTENT, {"content": "tarballs"}, "content: 'tarballs' is no pve-storage-content"),
        ("GET", "/nodes/pve_1/storage", {}, "node: 'pve_1' is no pve-node"),
        ("GET", "/nodes/pve1/storage", {"enabled": "True"},
         "enabled: 'True' is not a boolean, which is 0 or 1"),
        ("DELETE", f"{CONTENT}/a", {"delay": "60"}, "delay: 60 is above 30"),
        ("GET", "/nodes/pve1/tasks/UPID:a/log", {"limit": "-1"}, "limit: -1 is below 0"),
        ("GET", "/cluster/resources", {"type": "lxc"},
         "type: 'lxc' is none of vm, storage, node, sdn"),
        ("POST", LXC, {"vmid": "100"}, "ostemplate: missing, and not optional"),
        ("POST", LXC, CREATE | {"cores": "two"}, "cores: 'two' is not an integer"),
        ("POST", LXC, CREATE | {"cpulimit": "1,5"}, "cpulimit: '1,5' is not a number"),
        ("POST", LXC, CREATE | {"memory": "8"}, "memory: 8 is below 16"),
        ("POST", LXC, CREATE | {"vmid": "99"}, "vmid: '99' is no pve-vmid"),
        ("POST", LXC, CREATE | {"net": "name=eth0"}, "net: not a parameter of this method"),
        ("POST", LXC, CREATE | {"net0": "bridge=vmbr0"},
         "net0: name: missing, and not optional"),
        ("POST", LXC, CREATE | {"net0": "name=eth0,ip=10.0.0.1"},
         "net0: ip: '10.0.0.1' is no pve-ipv4-config"),
        ("POST", LXC, CREATE | {"features": "nesting=1,nesting=0"},
         "features: nesting is given twice"),
        ("POST", LXC, CREATE | {"features": "docker=1"},
         "features: 'docker=1' has no key that is known here"),
        ("POST", LXC, CREATE | {"hostname": "a_b"}, "hostname: 'a_b' is no dns-name"),
        ("POST", LXC, CREATE | {"password": "1234"}, "password: shorter than 5 characters"),
        ("POST", UPLOAD, {"content": "vztmpl", "filename": "a" * 256},
         "filename: longer than 255 characters"),
        ("POST", UPLOAD, {"content": "vztmpl", "filename": "a", "checksum": "00"},
         "checksum: requires checksum-algorithm"),
        ("POST", UPLOAD, {"content": "vztmpl", "filename": "a", "tmpfilename": "/etc/passwd"},
         "tmpfilename: '/etc/passwd' does not match /var/tmp/pveupload-[0-9a-f]+"),
    ],
)  # fmt: skip
def test_violations(
    description: Description, method: str, path: str, params: dict[str, str], fault: str
) -> None:
    """A request that the API would refuse is told with its place and its fault, and no other."""
    assert validate([Request(method, path, params)], description) == [
        f"PVE {description.version}: {method} {path}: {fault}"
    ]


@pytest.mark.parametrize(
    ("version", "faults"),
    [("9.2.3", []), ("8.4.5", ["env", "entrypoint"])],
)
def test_versions_differ(version: str, faults: list[str]) -> None:
    """What came with PVE 9 is a violation of the API of PVE 8."""
    request = Request("POST", LXC, CREATE | {"env": "A=1\0B=2 3", "entrypoint": "/bin/app -x"})
    assert validate([request], Description.load(version)) == [
        f"PVE {version}: POST {LXC}: {name}: not a parameter of this method" for name in faults
    ]


def test_double_is_held_to_it(tmp_path: Path) -> None:
    """What the double took without a word is found all the same, unless its body went unread."""
    with Pve(tmp_path) as pve:
        api = pve.client(pve.cluster.token("syncd@pve!sync", {"/": ["Datastore.Audit"]}))
        pve.cluster.hang_ups = 1
        with pytest.raises(requests.ConnectionError):
            api.nodes("pve1").lxc.post(vmid=100)
        assert_contract(pve)
        api.nodes("pve1").storage.get(contents="vztmpl")
        with pytest.raises(AssertionError, match="contents: not a parameter"):
            assert_contract(pve)


def test_formats_known(description: Description) -> None:
    """Every format that a described parameter names is known to the check."""
    named = {
        form.removesuffix("-list")
        for method in description.methods
        for schema in method.parameters.values()
        for each in (schema, *(schema.get("format", {}).values() if _nested(schema) else ()))
        if isinstance(form := each.get("format"), str)
    }
    assert named <= FORMATS.keys()


def _nested(schema: pve_schema.Schema) -> bool:
    return isinstance(schema.get("format"), dict)


def test_reduction_is_true(description: Description) -> None:
    """What is kept of the official descriptions says what they say; they must be at hand for it."""
    folder = pve_schema.official()
    if folder is None:
        pytest.skip("no official API description in ../shared/pve-api; SYNCD_PVE_API may name it")
    name = f"pve-{description.version}.json"
    reduced = pve_schema.reduce(json.loads((folder / name).read_text()))
    assert json.loads((REDUCED / name).read_text()) == reduced
