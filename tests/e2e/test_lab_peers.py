"""Peers that are hostile, broken, slow or silent, beside one that is well and whose job is done.

One daemon meets them all.  The job about each ends with a sentence that says what the peer did, the
daemon's memory stays bounded, and images of the registry that is well are published all the time.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e import hostile
from tests.e2e.command import wait_for
from tests.e2e.daemon import Job, Syncd
from tests.e2e.hostile import Asked, Behaviour, Hostile
from tests.e2e.lab import assert_sound, assert_told, image_of, payload, payload_of, peak_memory
from tests.e2e.registry import Registry
from tests.fakes.certificate import Certificate

SLOW = {
    hostile.silent: "the answer took too long as a whole",
    hostile.dripping_head: "the answer took too long as a whole",
    hostile.dripping_document: "broke off: the answer took too long as a whole",
    hostile.dripping_blob: "comes too slowly at byte",
    hostile.stalling_blob: "comes too slowly at byte",
}
HOSTILE = {
    hostile.endless_manifest: "size of a document .* beyond the bound",
    hostile.deep_manifest: "has more than 100000 values",
    hostile.wide_manifest: "has more than 100000 values",
    hostile.other_manifest: "has other content than its digest says",
    hostile.login_page: r"answers a web page \(Sign in\)",
    hostile.gzip_bomb: "size of a document .* beyond the bound",
    hostile.absurd_sizes: "has no valid size",
    hostile.wrong_blob: "has other content than its digest says",
    hostile.endless_blob: "has more than the .* bytes its descriptor says",
    hostile.short_length: "broke off 5 times at byte 9",
    hostile.long_length: "broke off 5 times at byte",
    hostile.redirect_loop: "leads nowhere .* Exceeded 30 redirects",
    hostile.redirect_chain: "leads nowhere .* Exceeded 30 redirects",
    hostile.huge_header: "more than 65536 bytes when reading header line",
    hostile.many_headers: "got more than 100 headers",
    hostile.no_http: "cannot be reached",
}
LISTS = {
    hostile.gzip_bomb_of_tags: "size of a document .* beyond the bound",
    hostile.endless_pages: "have more pages than 200",
    hostile.looping_pages: "have more pages than 200",
    hostile.endless_tags: "size of a document .* beyond the bound",
    hostile.binary_tags: "answers no list of tags",
}
GARBAGE = hostile.garbage_tags.__name__
LISTED = {GARBAGE, *(act.__name__ for act in LISTS)}
GIVING_AWAY, UNENCRYPTED = "giving_away", "unencrypted"
WORDS = {
    **{act.__name__: words for act, words in (*HOSTILE.items(), *LISTS.items())},
    GIVING_AWAY: "where registry .* redirects to, answers 401",
    UNENCRYPTED: "redirects from HTTPS to http://",
}
SLOW_WORDS = {act.__name__: words for act, words in SLOW.items()}
# Seconds, though two minutes are enough on an idle machine.  Who is not slow may wait for who is:
# few of the images that nobody watches are converted at a time.
ENDS = 240.0
LONGEST = 1500  # characters that a registry may have a job say
MEMORY = 256 << 20  # bytes of the daemon, which holds about 100 when it is idle
USER, PASSWORD = "robot", "pass-of-the-registry"
CLIENTS = 40  # of each kind of slow sender


@dataclass
class World:
    """A daemon, the registry that is well, and the others by what they do."""

    daemon: Syncd
    registry: Registry
    peers: dict[str, Hostile]
    store: Hostile
    jobs: dict[str, str] = field(default_factory=dict)

    def begin(self, *names: str) -> None:
        """Have these peers behave as they do, and ask for an image or a list of each."""
        for name in names:
            peer = self.peers[name]
            peer.begin()
            reference = peer.reference.removesuffix(":v1") if name in LISTED else peer.reference
            (job,) = self.daemon.request_sync([reference]).body["jobs"]
            self.jobs[name] = job["id"]

    def neighbour_is_served(self, text: str) -> None:
        """Push a new image to the registry that is well; its job has to publish it."""
        content = payload(text)
        reference = self.registry.push("lab/neighbour", "latest", image_of(content))
        job = self.daemon.sync(reference)
        assert job["outcome"] == "published", job
        names = {volume.rpartition("/")[2] for volume in job["volumes"]}
        (template,) = [file for file in self.daemon.templates if file.name in names]
        assert payload_of(template.read_bytes()) == content


def challenging(asked: Asked) -> bool:
    """Be a store of blobs that asks for a password by a challenge of its own."""
    realm = f"http://{asked.server.address}/token"
    return asked.answer(b"{}", 401, WWW_Authenticate=f'Bearer realm="{realm}",service="x"')


def giving_away(store: Hostile) -> Behaviour:
    """Return what a registry does that wants a password and keeps its blobs in a store."""

    def redirect(asked: Asked) -> bool:
        if "Authorization" not in asked.handler.headers:
            return asked.answer(b"{}", 401, WWW_Authenticate='Basic realm="lab"')
        where = f"http://{store.address}{asked.handler.path}"
        return asked.kind == "blobs" and asked.answer(b"", 307, Location=where)

    return redirect


def unencrypted(store: Hostile) -> Behaviour:
    """Return what a registry does that redirects from HTTPS to HTTP."""

    def redirect(asked: Asked) -> bool:
        return asked.answer(b"", 307, Location=f"http://{store.address}{asked.handler.path}")

    return redirect


@pytest.fixture(scope="module")
def world(scratch: Path, registry: Registry) -> Iterator[World]:
    """Run the peers, all of them without anything yet, and a daemon that knows them."""
    folder = scratch / "peers"
    folder.mkdir()
    certificate = Certificate.make(folder)
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o600)
    with ExitStack() as stack:
        store = stack.enter_context(Hostile("store", challenging))
        store.begin()
        behaviours = {act.__name__: act for act in (*SLOW, *HOSTILE, *LISTS, hostile.garbage_tags)}
        peers = {name: stack.enter_context(Hostile(name, act)) for name, act in behaviours.items()}
        plain = [peer.address for peer in peers.values()]
        peers[GIVING_AWAY] = stack.enter_context(Hostile(GIVING_AWAY, giving_away(store)))
        peers[UNENCRYPTED] = stack.enter_context(
            Hostile(UNENCRYPTED, unencrypted(store), certificate)
        )
        more = [
            "[[registry]]",
            f'host = "{peers[GIVING_AWAY].address}"',
            "plain_http = true",
            f'username = "{USER}"',
            f'password_file = "{folder}/password"',
            "[[registry]]",
            f'host = "{peers[UNENCRYPTED].address}"',
            f'ca_file = "{certificate.file}"',
        ]
        for name in LISTED:
            repository = peers[name].reference.removesuffix(":v1")
            more += ["[[image]]", f'repository = "{repository}"', 'tags = ["re:."]']
        # Only what is watched is asked for with the registry's password.
        repository = peers[GIVING_AWAY].reference.removesuffix(":v1")
        more += ["[[image]]", f'repository = "{repository}"', 'tags = ["v1"]']
        daemon = stack.enter_context(
            Syncd(
                folder / "syncd",
                [f"{registry.address}/lab/neighbour:latest"],
                server=['settle = "0s"'],
                hosts=plain,
                more=more,
            )
        )
        yield World(daemon, registry, peers, store)


def test_beside_slow_peers(world: World) -> None:
    """While registries are silent, drip or stall, the job of one that is well is done."""
    world.begin(*(act.__name__ for act in SLOW))
    peers = [world.peers[act.__name__] for act in SLOW]
    wait_for("a request to each", lambda: all(peer.asked for peer in peers), timeout=30)
    world.neighbour_is_served("beside slow peers")
    states = {name: world.daemon.job(job)["state"] for name, job in world.jobs.items()}
    assert set(states.values()) == {"running"}, states


@pytest.fixture(scope="module")
def ended(world: World) -> dict[str, Job]:
    """Begin all that is hostile at a time, and return how the jobs ended."""
    names = [act.__name__ for act in (*HOSTILE, *LISTS)]
    world.begin(*names, GARBAGE, GIVING_AWAY, UNENCRYPTED)
    world.neighbour_is_served("beside hostile peers")
    return {name: world.daemon.finished(world.jobs[name], ENDS) for name in (*WORDS, GARBAGE)}


@pytest.mark.parametrize("name", WORDS)
def test_hostile_peers(name: str, ended: dict[str, Job], world: World) -> None:
    """What a hostile registry does ends its own job, with a sentence that says so."""
    job = ended[name]
    assert_told(job)
    assert len(job["message"]) < LONGEST
    assert re.search(WORDS[name], job["message"]), job["message"]


def test_garbage_among_tags(ended: dict[str, Job], world: World) -> None:
    """What is no tag is passed over and told, and does not fail the list."""
    job = ended[GARBAGE]
    assert job["outcome"] == "unchanged", job
    assert "tags skipped" in world.daemon.log.read_text()
    assert "\x1b" not in world.daemon.log.read_text()


def test_passwords_stay(ended: dict[str, Job], world: World) -> None:
    """The password of a registry goes to the registry, and not to where that redirects."""
    assert world.peers[GIVING_AWAY].heard
    assert world.store.asked
    assert world.store.heard == []
    assert PASSWORD not in world.daemon.log.read_text()


def test_slow_senders(world: World) -> None:
    """Half-sent headers and slow bodies keep no delivery waiting, and are cut off."""
    begun = b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\n"
    body = begun + b"X-Hub-Signature-256: sha256=00\r\nContent-Length: 900000\r\n\r\n"
    with ExitStack() as stack:
        senders = []
        for head in [begun, body] * CLIENTS:
            sender = stack.enter_context(
                socket.create_connection(("127.0.0.1", world.daemon.port), timeout=60)
            )
            sender.sendall(head)
            senders.append(sender)
        over = threading.Event()

        def drip() -> None:
            while not over.wait(0.2):
                for sender in senders:
                    with suppress(OSError):
                        sender.sendall(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            world.neighbour_is_served("beside slow senders")
            assert all(is_cut_off(sender) for sender in senders)
        finally:
            over.set()
            thread.join()


def is_cut_off(sender: socket.socket) -> bool:
    """Tell whether the server ends a connection; it may say why."""
    with suppress(ConnectionError):
        while sender.recv(65_536):
            pass
    return True


@pytest.mark.parametrize("name", [act.__name__ for act in SLOW])
def test_slow_peers_end(name: str, world: World) -> None:
    """A registry that is silent, drips or stalls ends its own job within minutes."""
    job = world.daemon.finished(world.jobs[name], ENDS)
    assert_told(job)
    assert re.search(SLOW_WORDS[name], job["message"]), job["message"]


def test_afterwards(world: World) -> None:
    """The daemon that met all of them holds little memory, works, and kept nothing of theirs."""
    world.neighbour_is_served("afterwards")
    peak = peak_memory(world.daemon.pid)
    print(f"the daemon held {peak >> 20} MiB at most")
    assert peak < MEMORY
    assert_sound(world.daemon, *(file.name for file in world.daemon.templates))
    assert all("_neighbour_" in file.name for file in world.daemon.templates)
    assert "Traceback" not in world.daemon.log.read_text(errors="replace")
