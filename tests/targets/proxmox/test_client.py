"""The Proxmox VE API as it is called: whom it trusts, where it turns to, what its errors say."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from urllib3.util.ssl_ import create_urllib3_context

from syncd.config.target_settings import ProxmoxTargetSettings
from syncd.errors import ConfigError, PublishError, TargetUnavailableError
from syncd.targets.proxmox.answers import Version
from syncd.targets.proxmox.client import TIMEOUT, Client
from tests.clusters import TOKEN, token_for
from tests.fakes.certificate import Certificate
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import ApiError, Container


@pytest.fixture
def connect(pve: Pve, tmp_path: Path) -> Callable[..., Client]:
    """Return a way to make a client of the cluster with other settings."""
    token_for(pve)
    secret = tmp_path / "token-secret"
    secret.write_text(f"secret-of-{TOKEN}")

    def make(**changes: Any) -> Client:
        settings = {
            "name": "cluster",
            "type": "proxmox",
            "endpoints": (f"https://127.0.0.1:{pve.port}",),
            "token_id": TOKEN,
            "token_secret_file": secret,
            "ca_file": pve.certificate.file,
        }
        return Client(ProxmoxTargetSettings(**(settings | changes)))

    return make


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_patience() -> None:
    """An answer may take longer than the three seconds of a refusal, by far."""
    assert TIMEOUT >= 60


@pytest.mark.parametrize("form", [str.upper, str.lower])
def test_fingerprint(pve: Pve, connect: Callable[..., Client], form: Callable[[str], str]) -> None:
    """A pinned certificate is trusted, whoever issued it."""
    client = connect(ca_file=None, fingerprint=form(pve.certificate.fingerprint))
    assert client.version() == (9, 2)


@pytest.mark.parametrize("trust", ["other fingerprint", "other CA", "nothing"])
def test_untrusted(pve: Pve, connect: Callable[..., Client], tmp_path: Path, trust: str) -> None:
    """A certificate that is not the trusted one gets no request, let alone the token."""
    (tmp_path / "other").mkdir()
    other = Certificate.make(tmp_path / "other")
    choices: dict[str, dict[str, Any]] = {
        "other fingerprint": {"ca_file": None, "fingerprint": other.fingerprint},
        "other CA": {"ca_file": other.file},
        "nothing": {"ca_file": None},
    }
    with pytest.raises(PublishError, match=r"is not trusted.*set ca_file") as refusal:
        connect(**choices[trust]).version()
    assert not refusal.value.temporary
    assert pve.requests == []


def strict_context(**options: Any) -> ssl.SSLContext:
    """Return what urllib3 makes where Python is 3.13 or later."""
    context = create_urllib3_context(**options)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def test_own_ca(
    pve: Pve, connect: Callable[..., Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster's own CA, which names no key usage, does under strict checks as well."""
    pve.certificate, ca_file = Certificate.issued(tmp_path)
    endpoint = f"https://127.0.0.1:{pve.endpoint('pve1')}"
    monkeypatch.setattr("urllib3.connection.create_urllib3_context", strict_context)
    with pytest.raises(requests.exceptions.SSLError, match="key usage"):
        requests.get(endpoint, verify=str(ca_file), timeout=10)
    monkeypatch.setattr("syncd.targets.proxmox.https.create_urllib3_context", strict_context)
    assert connect(ca_file=ca_file, endpoints=(endpoint,)).version() == (9, 2)


def test_environment(
    pve: Pve, connect: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a proxy nor a CA bundle of the environment comes in between."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pve.certificate.file))
    assert connect().version() == (9, 2)
    with pytest.raises(PublishError, match="is not trusted"):
        connect(ca_file=None).version()


def test_missing_ca(connect: Callable[..., Client], tmp_path: Path) -> None:
    """A CA file that is not there is an error of the configuration."""
    with pytest.raises(PublishError, match="check ca_file"):
        connect(ca_file=tmp_path / "absent.pem").version()


def test_missing_secret(connect: Callable[..., Client], tmp_path: Path) -> None:
    """A secret that cannot be read is an error of the configuration."""
    with pytest.raises(ConfigError, match="secret file"):
        connect(token_secret_file=tmp_path / "absent").version()


def test_endpoints_in_turn(pve: Pve, connect: Callable[..., Client]) -> None:
    """An endpoint that cannot be reached is passed over; the one that answered is asked first."""
    dead, second = closed_port(), pve.endpoint("pve2")
    client = connect(
        endpoints=tuple(f"https://127.0.0.1:{port}" for port in (dead, second, pve.port))
    )
    for _ in range(2):
        client.get("version", Version)
    assert [request.node for request in pve.requests] == ["pve2", "pve2"]


def test_endpoint_named_as_node(pve: Pve, connect: Callable[..., Client]) -> None:
    """What is for a node goes to the endpoint whose host name is the node's, then to the others."""
    ports = pve.endpoint("pve2"), pve.endpoint("pve1"), closed_port()
    hosts = "127.0.0.1", "localhost", "gone.localhost"
    endpoints = tuple(f"https://{host}:{port}" for host, port in zip(hosts, ports, strict=True))
    client = connect(endpoints=endpoints)
    for node in ("localhost", "gone", "other"):
        client.get_near(node, "version", Version)
    assert [request.node for request in pve.requests] == ["pve1", "pve2", "pve2"]


def test_nobody_answers(connect: Callable[..., Client]) -> None:
    """When no endpoint can be reached that is a passing trouble, and each is named."""
    ports = closed_port(), closed_port()
    client = connect(endpoints=tuple(f"https://127.0.0.1:{port}" for port in ports))
    with pytest.raises(TargetUnavailableError) as failure:
        client.post("nodes/pve1/lxc", vmid=100)
    assert failure.value.temporary
    assert all(f"127.0.0.1:{port} cannot be reached" in failure.value.what for port in ports)


def test_asked_again(pve: Pve, connect: Callable[..., Client]) -> None:
    """A question whose connection broke off is asked again; an order is not."""
    client = connect()
    pve.cluster.hang_ups = 1
    assert client.version() == (9, 2)
    pve.cluster.hang_ups = 1
    before = len(pve.requests)
    with pytest.raises(TargetUnavailableError, match="broke off"):
        client.post("nodes/pve1/lxc", vmid=100, ostemplate="local:vztmpl/a.tar")
    assert len(pve.requests) == before + 1


def test_bad_token(pve: Pve, connect: Callable[..., Client], tmp_path: Path) -> None:
    """A token that is not accepted is named; a new secret is read without a restart."""
    client = connect()
    assert client.version() == (9, 2)
    pve.cluster.tokens[TOKEN].secret = "renewed"
    with pytest.raises(PublishError, match=f"the token {TOKEN} is not accepted") as refusal:
        client.get("version", Version)
    assert "secret-of" not in str(refusal.value)
    (tmp_path / "token-secret").write_text("renewed\n")
    assert client.get("version", Version)["version"] == "9.2.11"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "nodes/pve1/status",
            r"Permission check failed \(/nodes/pve1, Sys.Audit\); grant it: pveum",
        ),
        ("nodes/absent/storage", "500 hostname lookup 'absent' failed"),
        ("nodes/pve1/tasks/UPID:x/status", "400 .*upid: no such task"),
    ],
)
def test_reasons(connect: Callable[..., Client], path: str, message: str) -> None:
    """A refusal's reason is told, from the status line or from `errors`, and is not passing."""
    with pytest.raises(PublishError, match=message) as refusal:
        connect().get(path, object)
    assert not refusal.value.temporary


@pytest.mark.parametrize(("own", "path"), [(False, "/vms"), (True, "/vms/100")])
def test_where_to_grant(pve: Pve, connect: Callable[..., Client], *, own: bool, path: str) -> None:
    """What a container lacks is granted for all of them, unless it has roles of its own."""
    client = connect()
    pve.cluster.containers[100] = Container(100, "pve1", {"hostname": "web"})
    acl = {"/vms": ["VM.Audit"]} | ({"/vms/100": ["VM.Config.Disk"]} if own else {})
    token_for(pve, acl)
    with pytest.raises(PublishError, match=f"pveum acl modify {path} --roles"):
        client.put("nodes/pve1/lxc/100/config", description="mine")


@pytest.mark.parametrize(
    ("status", "reason", "passing"),
    [
        (500, "got timeout", True),
        (500, "cluster not ready - no quorum?", True),
        (500, "storage 'x' does not exist", False),
        (503, "Service Unavailable", True),
        (595, "No route to host", True),
        (400, "Parameter verification failed.", False),
    ],
)
def test_passing(
    pve: Pve, connect: Callable[..., Client], status: int, reason: str, passing: bool
) -> None:
    """Whether trying again later may help is told by the status, and for a 500 by its words."""
    pve.cluster.refusal = ApiError(status, reason)
    with pytest.raises(PublishError) as refusal:
        connect().version()
    assert refusal.value.temporary is passing


def test_not_proxmox(pve: Pve, connect: Callable[..., Client], monkeypatch: Any) -> None:
    """Something else behind the endpoint is recognised as such."""
    monkeypatch.setattr("tests.fakes.pve.json.dumps", lambda _: "<html>hello</html>")
    with pytest.raises(PublishError, match="is not the API of Proxmox VE"):
        connect().version()
