"""What `oci.registry` promises of peers that fall silent or drip: each wait has an end.

The peers here keep their connections open and never close them; a wait without a bound would
outlast the test, which gives up after `ENOUGH` seconds.  A peer that drips sends a byte again and
again, so that no single wait is long.
"""

from __future__ import annotations

import io
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import pytest

from syncd.config.settings import RegistrySettings
from syncd.errors import RegistryUnavailableError, SlowStreamError, SyncdError
from syncd.oci.backoff import ATTEMPTS
from syncd.oci.blob_reader import BlobReader
from syncd.oci.manifest import Descriptor, Reader
from syncd.oci.reference import Reference
from syncd.oci.registry import Registry, Timeouts, stream
from tests.archives import file
from tests.fakes.registry import Registry as Fake
from tests.images import describe, image, layer

ENOUGH = 8.0
SOON, NEVER = 0.05, 600.0
DRIP, WHOLE = 0.02, 0.4

LAYER = layer(file("a", b"0123456789" * 500), compression="")
BLOB = Descriptor.parse(describe(LAYER.media_type(docker=False), LAYER.stored), "blob")
BEGUN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{"


@contextmanager
def silent_peer(beginning: bytes = b"", drip: bytes = b"") -> Iterator[str]:
    """Serve the beginning of an answer, and then nothing, or `drip` for ever; give the address."""
    over = threading.Event()
    with ExitStack() as held, socket.create_server(("127.0.0.1", 0)) as server:

        def go_on(connection: socket.socket) -> None:
            with suppress(OSError):
                while not over.wait(DRIP):
                    connection.sendall(drip)

        def loop() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                held.enter_context(connection)
                with suppress(OSError):
                    connection.recv(1 << 16)
                    connection.sendall(beginning)
                if drip:
                    threading.Thread(target=go_on, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            over.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join(ENOUGH)


@contextmanager
def deaf_peer() -> Iterator[str]:
    """Give an address where no connection comes about: the queue of the waiting is full."""
    with ExitStack() as held, socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        for _ in range(4):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        yield f"127.0.0.1:{address[1]}"


def door(address: str, timeouts: Timeouts, *, plain_http: bool = True) -> Registry:
    """Return the door to a repository there; it does not wait between its attempts."""
    settings = RegistrySettings(host=address, plain_http=plain_http)
    return Registry(latest(address), settings, pause=lambda _: None, timeouts=timeouts)


def latest(address: str) -> Reference:
    return Reference(address, "org/image", "latest")


def fault_of(call: Callable[[], object]) -> SyncdError:
    """Return the error in which a call ends; raise TimeoutError if it does not end."""
    ended: Future[SyncdError] = Future()

    def run() -> None:
        try:
            call()
        except SyncdError as exc:
            ended.set_result(exc)

    threading.Thread(target=run, daemon=True).start()
    return ended.result(ENOUGH)


READS: dict[str, Callable[[Registry, Reference], object]] = {
    "HEAD": lambda source, reference: source.resolve(reference),
    "GET": lambda source, _: source.tags(),
    "blob": lambda source, _: source.blob(BLOB).read(1 << 20),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_no_headers(read: Callable[[Registry, Reference], object]) -> None:
    """A registry that takes a request and never answers is given up, as a passing fault."""
    with silent_peer() as address:
        source = door(address, Timeouts(NEVER, SOON))
        fault = fault_of(lambda: read(source, latest(address)))
    assert isinstance(fault, RegistryUnavailableError)
    assert fault.temporary
    assert f"registry {address} cannot be reached" in str(fault)


def test_silence_in_a_document() -> None:
    """A document that stops in mid-stream is asked for again, and then given up."""
    with silent_peer(BEGUN) as address:
        fault = fault_of(door(address, Timeouts(NEVER, SOON)).tags)
    assert isinstance(fault, RegistryUnavailableError)
    assert f"{address} broke off" in str(fault)


def test_silence_in_a_blob() -> None:
    """A blob that stops in mid-stream is asked for again, and then given up."""
    with silent_peer(BEGUN) as address:
        source = door(address, Timeouts(NEVER, SOON))
        reader = BlobReader(BLOB, open_at=partial(source.blob, BLOB), pause=lambda _: None)
        fault = fault_of(lambda: list(iter(lambda: reader.read(1000), b"")))
        reader.close()
    assert isinstance(fault, RegistryUnavailableError)
    assert f"broke off {ATTEMPTS} times" in str(fault)


@pytest.mark.parametrize("beginning", [b"", BEGUN], ids=["headers", "body"])
def test_silent_token_service(beginning: bytes) -> None:
    """A token service that falls silent is given up as the registry is."""
    with Fake(scheme="bearer") as fake, silent_peer(beginning) as address:
        fake.faults.realm = f"http://{address}/token"
        source = door(fake.address, Timeouts(NEVER, SOON))
        fault = fault_of(lambda: source.resolve(latest(fake.address)))
        assert len(fake.requests) == ATTEMPTS
    assert isinstance(fault, RegistryUnavailableError)


def test_silent_handshake() -> None:
    """A peer that takes connections and never begins TLS is bounded by the time to connect."""
    with silent_peer() as address:
        source = door(address, Timeouts(SOON, NEVER), plain_http=False)
        fault = fault_of(lambda: source.resolve(latest(address)))
    assert isinstance(fault, RegistryUnavailableError)


def test_no_connection() -> None:
    """An address where no connection comes about is given up after the time to connect."""
    with deaf_peer() as address:
        source = door(address, Timeouts(SOON, NEVER))
        fault = fault_of(lambda: source.resolve(latest(address)))
    assert isinstance(fault, RegistryUnavailableError)
    assert f"registry {address} cannot be reached" in str(fault)


def test_no_connection_to_token_service() -> None:
    """A token service that no connection can be made to is given up, too."""
    with Fake(scheme="bearer") as fake, deaf_peer() as address:
        fake.faults.realm = f"http://{address}/token"
        source = door(fake.address, Timeouts(SOON, NEVER))
        fault = fault_of(lambda: source.resolve(latest(fake.address)))
    assert isinstance(fault, RegistryUnavailableError)


LOOKS = {name: READS[name] for name in ("HEAD", "GET")} | {
    "document": lambda source, _: source.document(BLOB),
    "blob's headers": lambda source, _: source.blob(BLOB),
}


@pytest.mark.parametrize("read", LOOKS.values(), ids=LOOKS)
def test_headers_that_drip(read: Callable[[Registry, Reference], object]) -> None:
    """A look ends at its deadline, all attempts together, though each wait for a byte is short."""
    with silent_peer(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x") as address:
        source = door(address, Timeouts(NEVER, NEVER, look=WHOLE))
        began = time.monotonic()
        fault = fault_of(lambda: read(source, latest(address)))
    assert isinstance(fault, RegistryUnavailableError)
    assert "took too long as a whole" in str(fault)
    assert WHOLE <= time.monotonic() - began < 3 * WHOLE


@pytest.mark.parametrize("name", ["GET", "document"])
def test_documents_that_drip(name: str) -> None:
    """A document whose bytes drip is given up at the deadline of the look."""
    with silent_peer(BEGUN, b" ") as address:
        source = door(address, Timeouts(NEVER, NEVER, look=WHOLE))
        fault = fault_of(lambda: LOOKS[name](source, latest(address)))
    assert isinstance(fault, RegistryUnavailableError)
    assert "took too long as a whole" in str(fault)


HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + b" " * 400_000


def test_large_documents_take_turns(registry: Fake) -> None:
    """A host that stops in a large document keeps its own large documents waiting, no others'."""
    large = image(LAYER, runtime={"Labels": {"a": "b" * 1_000_000}})
    registry.push("org/image", "latest", large)
    source = door(registry.address, Timeouts(NEVER, NEVER))
    config = Descriptor.parse(large.document["config"], "config")
    with silent_peer(HALF) as address:
        stuck = door(address, Timeouts(NEVER, NEVER, look=10 * WHOLE))
        first = threading.Thread(target=fault_of, args=(lambda: stuck.document(BLOB),))
        first.start()
        time.sleep(WHOLE / 2)
        assert len(source.document(config)) == config.size
        second = door(address, Timeouts(NEVER, NEVER, look=WHOLE))
        fault = fault_of(lambda: second.document(BLOB))
        assert isinstance(fault, RegistryUnavailableError)
        assert "had no turn" in str(fault)
        first.join(ENOUGH)


@pytest.mark.parametrize("beginning", [b"HTTP/1.1 200 OK\r\nX-Long: ", BEGUN])
def test_token_service_that_drips(beginning: bytes) -> None:
    """The deadline of a look counts for its token, too."""
    with Fake(scheme="bearer") as fake, silent_peer(beginning, b" ") as address:
        fake.faults.realm = f"http://{address}/token"
        source = door(fake.address, Timeouts(NEVER, NEVER, look=WHOLE))
        fault = fault_of(lambda: source.resolve(latest(fake.address)))
    assert isinstance(fault, RegistryUnavailableError)


def test_no_deadline_for_a_blob() -> None:
    """A blob may take longer than a look, as long as its bytes come; so may the next look."""
    with Fake() as fake:
        fake.push("org/image", "latest", image(LAYER))
        fake.faults.stalls[str(BLOB.digest)] = stall = threading.Event()
        source = door(fake.address, Timeouts(NEVER, NEVER, look=WHOLE))
        reader = source.blob(BLOB)
        threading.Timer(2 * WHOLE, stall.set).start()
        assert reader.read(len(LAYER.stored)) == LAYER.stored
        reader.close()
        assert source.resolve(latest(fake.address))


def test_bytes_come_as_they_are() -> None:
    """A read of a blob returns soon with what has come, so that whoever reads can be stopped."""
    with silent_peer(BEGUN, b"x") as address:
        reader = door(address, Timeouts(NEVER, NEVER)).blob(BLOB)
        began = time.monotonic()
        assert 0 < len(reader.read(5000)) < 100
        assert time.monotonic() - began < 1
        reader.close()


def test_blob_that_drips(monkeypatch: pytest.MonkeyPatch) -> None:
    """A blob that comes below the least rate is asked for once more, and then given up."""
    monkeypatch.setattr(stream, "WINDOW", WHOLE)
    opened: list[int] = []
    with silent_peer(BEGUN, b"x") as address:
        source = door(address, Timeouts(NEVER, NEVER, slowest=5000))

        def open_at(offset: int) -> Reader:
            opened.append(offset)
            return source.blob(BLOB)

        reader = BlobReader(BLOB, open_at=open_at, pause=lambda _: None)
        fault = fault_of(lambda: list(iter(lambda: reader.read(1000), b"")))
        reader.close()
    assert isinstance(fault, RegistryUnavailableError)
    assert "comes too slowly" in str(fault)
    assert "limits.slowest" in fault.hint
    assert len(opened) == 2


@pytest.mark.parametrize("slowest", [0, 10])
def test_blob_that_is_not_too_slow(slowest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A blob above the least rate is read on, and so is any blob where 0 stands for no rate."""
    monkeypatch.setattr(stream, "WINDOW", WHOLE / 4)
    with silent_peer(BEGUN, b"x") as address:
        reader = door(address, Timeouts(NEVER, NEVER, slowest=slowest)).blob(BLOB)
        began = time.monotonic()
        while time.monotonic() - began < 2 * WHOLE:
            assert reader.read(5000)
        reader.close()


def test_a_slow_reader_is_no_slow_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that a reader takes for what came does not count against the registry."""
    monkeypatch.setattr(stream, "WINDOW", WHOLE / 4)
    with Fake() as fake:
        fake.push("org/image", "latest", image(LAYER))
        reader = door(fake.address, Timeouts(slowest=100_000)).blob(BLOB)
        got = b""
        while piece := reader.read(2000):
            got += piece
            time.sleep(WHOLE / 2)
        reader.close()
    assert got == LAYER.stored


def test_slow_stretches_far_apart() -> None:
    """Slow stretches with a megabyte between them do not add up."""
    content = random.Random(0).randbytes(8 << 20)
    wanted = Descriptor.parse(describe("application/octet-stream", content), "blob")

    class Stretches(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= 2 << 20:
                raise SlowStreamError("slow")
            return super().read(size)

    reader = BlobReader(
        wanted, open_at=lambda offset: Stretches(content[offset:]), pause=lambda _: None
    )
    assert b"".join(iter(lambda: reader.read(1 << 20), b"")) == content


def test_a_peer_that_speaks_no_http() -> None:
    """Of what such a peer sends, an error quotes a little."""
    with silent_peer(b"\x16\x03\x01" * 20_000 + b"\r\n") as address:
        with pytest.raises(RegistryUnavailableError, match="cannot be reached") as caught:
            door(address, Timeouts(SOON, SOON)).resolve(Reference(address, "a/b", "latest"))
        assert r"\x16\x03" in str(caught.value)
        assert len(str(caught.value)) < 1500
