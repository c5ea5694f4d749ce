"""What `oci.registry` promises of addresses: what nobody configured is reached at public ones."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from syncd.config.settings import RegistrySettings
from syncd.errors import RegistryError, RegistryUnavailableError
from syncd.oci.image import read_image
from syncd.oci.reference import Platform, Reference
from syncd.oci.registry import Logins, Registry, addresses
from syncd.oci.registry.addresses import is_own, is_public
from tests.fakes.certificate import Certificate
from tests.fakes.registry import Registry as Fake
from tests.oci.test_registry import IMAGE, REPOSITORY

PUBLIC = "registry.example"
"""A name that the tests let mean this host, at an address that they let pass for a public one."""

Resolve = Callable[[str], list[str]]


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "140.82.121.33", "2606:50c0:8000::154", "64:ff9b::8c52:7921"],
)
def test_public(address: str) -> None:
    """Addresses of the Internet are public, behind NAT64 too."""
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        # loopback, this network, private, CGNAT, link-local with the metadata of most clouds
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255",
        "192.168.0.1", "100.64.0.1", "100.100.100.200", "169.254.169.254", "169.254.0.1",
        # Oracle's and Azure's metadata, documentation, benchmarks, multicast, reserved, broadcast
        "192.0.0.192", "168.63.129.16", "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1",
        "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
        "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1",
        "2001:db8::1", "3fff::1", "100::1", "192.88.99.1",
        # IPv4 addresses in disguise: mapped, compatible, 6to4, Teredo, NAT64
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:1.1.1.1", "::127.0.0.1", "2002:7f00:1::1",
        "2001:0:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1",
        "", "localhost", "1.1.1", "0x7f000001", "2130706433",
    ],
)  # fmt: skip
def test_not_public(address: str) -> None:
    """Everything else is not, however it is written; what is no address is none."""
    assert not is_public(address)


def test_own() -> None:
    """An address of this host counts as its own, wherever it comes from."""
    assert is_own(ip_address("127.0.0.1"))
    assert not is_own(ip_address("192.0.2.77"))


def test_own_public_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A public address that is this host's own is refused: services listen there."""
    monkeypatch.setattr(addresses, "is_own", lambda address: str(address) == "1.1.1.1")
    assert not is_public("1.1.1.1")
    assert is_public("1.0.0.1")


@pytest.fixture
def fake() -> Iterator[Fake]:
    with Fake() as registry:
        registry.push(REPOSITORY, "latest", IMAGE)
        yield registry


class Names:
    """Names that mean what a test says, each time another address if it says several.

    The addresses of TEST-NET-1 stand for public ones, behind which is this host.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.meaning: dict[str, list[list[str]]] = {PUBLIC: [["192.0.2.1"]]}
        self.connected: list[str] = []
        self.resolved: list[str] = []
        really, connect = socket.getaddrinfo, socket.socket.connect

        def getaddrinfo(host: str, port: int, *rest: Any, **more: Any) -> list[Any]:
            self.resolved.append(host)
            answers = self.meaning.get(host)
            if answers is None:
                return really(host, port, *rest, **more)
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            return [(2, 1, 6, "", (address, port)) for address in answer]

        def connecting(one: socket.socket, place: Any) -> None:
            self.connected.append(place[0])
            real = ("127.0.0.1", place[1]) if place[0].startswith("192.0.2.") else place
            connect(one, real)

        judge = is_public
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        monkeypatch.setattr(socket.socket, "connect", connecting)
        monkeypatch.setattr(
            addresses, "is_public", lambda text: text.startswith("192.0.2.") or judge(text)
        )


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


def ask(
    fake: Fake, host: str = PUBLIC, *, public: bool = True, logins: Logins | None = None
) -> str:
    """Resolve an image of the registry by a name, and read a layer; return the image's digest."""
    host = f"{host}:{fake.address.rpartition(':')[2]}"
    reference = Reference(host, REPOSITORY, "latest")
    settings = RegistrySettings(host=host, plain_http=True)
    registry = Registry(reference, settings, public=public, logins=logins, pause=lambda _: None)
    found = registry.resolve(reference)
    image = read_image(registry, found, Platform.parse("linux/amd64"))
    assert registry.blob(image.layers[0].descriptor).read(1)
    return str(found.digest)


def test_a_public_registry(fake: Fake, names: Names) -> None:
    """A registry at a public address is asked."""
    assert ask(fake) == IMAGE.digest
    assert {*names.connected} == {"192.0.2.1"}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.1", "2130706433.lan"])
def test_a_private_registry(host: str, fake: Fake, names: Names) -> None:
    """A registry elsewhere gets no connection, however its host is written; it names itself."""
    names.meaning["2130706433.lan"] = [["10.0.0.1"]]
    with pytest.raises(RegistryError, match="not at a public address") as refused:
        ask(fake, host)
    assert not refused.value.temporary
    assert "[[registry]]" in str(refused.value)
    assert "10.0.0.1" not in str(refused.value)
    assert (names.connected, fake.requests) == ([], [])


def test_one_private_address_spoils_all(fake: Fake, names: Names) -> None:
    """A name with a public and a private address is not asked at either."""
    names.meaning[PUBLIC] = [["192.0.2.1", "10.0.0.1"]]
    with pytest.raises(RegistryError, match="not at a public address"):
        ask(fake)
    assert names.connected == []


def test_rebinding(fake: Fake, names: Names) -> None:
    """The address that was checked is the one that is connected to: a name changes in vain."""
    names.meaning[PUBLIC] = [["192.0.2.1"], ["127.0.0.1"]]
    assert ask(fake) == IMAGE.digest
    assert {*names.connected} == {"192.0.2.1"}


def test_a_further_address(fake: Fake, names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one of several addresses takes no connection, the next one is asked."""
    names.meaning[PUBLIC] = [["198.51.100.9", "192.0.2.1"]]
    connect, judge = socket.socket.connect, addresses.is_public

    def connecting(one: socket.socket, place: Any) -> None:
        if place[0] == "198.51.100.9":
            raise ConnectionRefusedError
        connect(one, place)

    monkeypatch.setattr(socket.socket, "connect", connecting)
    monkeypatch.setattr(addresses, "is_public", lambda text: text == "198.51.100.9" or judge(text))
    assert ask(fake) == IMAGE.digest


def test_a_name_without_address(fake: Fake, names: Names) -> None:
    """A name that means nothing now may mean something later."""
    with pytest.raises(RegistryUnavailableError):
        ask(fake, "nowhere.invalid")


@pytest.mark.parametrize("place", ["127.0.0.1", "localhost", "inner.lan"])
def test_redirected_blobs(place: str, fake: Fake, names: Names) -> None:
    """A public registry whose blobs lie at a private address is not followed there."""
    names.meaning["inner.lan"] = [["127.0.0.1"]]
    with Fake() as inner:
        fake.faults.blobs_at = f"{place}:{inner.address.rpartition(':')[2]}"
        with pytest.raises(RegistryError, match="not at a public address"):
            ask(fake)
        assert inner.requests == []
    assert {*names.connected} == {"192.0.2.1"}


def test_token_service(fake: Fake, names: Names) -> None:
    """A challenge that names a token service at a private address leads nowhere."""
    with Fake() as inner:
        fake.scheme, fake.login = "bearer", ("user", "password")
        fake.faults.realm = f"http://{inner.address}/latest/meta-data"
        with pytest.raises(RegistryError, match="not at a public address"):
            ask(fake)
        assert inner.requests == []


def test_next_page(fake: Fake, names: Names) -> None:
    """A list of tags goes on at no private address."""
    with Fake() as inner:
        fake.push(REPOSITORY, "a", IMAGE)
        fake.push(REPOSITORY, "b", IMAGE)
        fake.faults.next_tags = f"http://{inner.address}/v2/x/tags/list"
        host = f"{PUBLIC}:{fake.address.rpartition(':')[2]}"
        reference = Reference(host, REPOSITORY, "latest")
        settings = RegistrySettings(host=host, plain_http=True)
        with pytest.raises(RegistryError):
            Registry(reference, settings, public=True).tags()
        assert inner.requests == []


def test_connections_are_not_shared(fake: Fake, names: Names) -> None:
    """A connection that a configured registry keeps open is none for anybody else."""
    logins = Logins()
    assert ask(fake, "127.0.0.1", public=False, logins=logins) == IMAGE.digest
    with pytest.raises(RegistryError, match="not at a public address"):
        ask(fake, "127.0.0.1", public=True, logins=logins)
    assert ask(fake, "127.0.0.1", public=False, logins=logins) == IMAGE.digest


def test_proxy(fake: Fake, names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a proxy of the environment, a name that is private here is not asked for."""
    monkeypatch.setenv("http_proxy", f"http://{fake.address}")
    for host in ("localhost.lan", "127.0.0.1", "inner.lan"):
        names.meaning |= {"localhost.lan": [["127.0.0.1"]], "inner.lan": [["10.0.0.1"]]}
        with pytest.raises(RegistryError, match="not at a public address"):
            ask(fake, host)
    assert fake.requests == []


@pytest.mark.parametrize(("name", "fits"), [("localhost", True), (PUBLIC, False)])
def test_certificate(name: str, fits: bool, fake: Fake, names: Names, tmp_path: Path) -> None:
    """The certificate has to be for the name, not for the address that the name means."""
    certificate = Certificate.make(tmp_path)
    fake.encrypt(certificate)
    names.meaning["localhost"] = names.meaning[PUBLIC]
    host = f"{name}:{fake.address.rpartition(':')[2]}"
    reference = Reference(host, REPOSITORY, "latest")
    settings = RegistrySettings(host=host, ca_file=certificate.file)
    registry = Registry(reference, settings, public=True)
    if fits:
        assert str(registry.resolve(reference).digest) == IMAGE.digest
    else:
        with pytest.raises(RegistryError, match="cannot be trusted"):
            registry.resolve(reference)
