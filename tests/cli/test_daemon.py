"""What `daemon` promises: a command asks the running daemon, and says what it says without one."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from syncd.cli.daemon import Daemon, running_daemon
from syncd.config.load import load_config
from syncd.errors import SyncdError
from syncd.sync.ledger import Ledger
from tests.daemons import running
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, configure, sample


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Type = Callable[..., Ended]


@pytest.fixture
def config(tmp_path: Path, registry: Registry) -> Path:
    """Watch three tags, of which the registry has two."""
    for tag in ("latest", "v1"):
        registry.push(REPOSITORY, tag, sample(tag))
    image = 'tags = ["latest", "re:^v", "none"]'
    return configure(tmp_path, registry, image=image, more='[schedule]\nsweep = "off"')


@pytest.fixture
def type_in(config: Path) -> Type:
    """Return a way to type a command of the configuration."""

    def typed(*words: str) -> Ended:
        done = subprocess.run(
            [sys.executable, "-m", "syncd", "--config", str(config), *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return typed


def steady(text: str) -> str:
    """Return what a command printed, without what differs from one call to the next."""
    return re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d\.\d+\+00:00)?", "WHEN", text)


def test_same_words(config: Path, type_in: Type, tmp_path: Path, registry: Registry) -> None:
    """Commands print and end the same way with and without a daemon."""
    reference = f"{registry.address}/{REPOSITORY}"
    commands = [
        ("sync",),
        ("sync", "--dry-run"),
        ("sync", "--json"),
        ("sync", f"{reference}:v9"),
        ("sync", "Not A Reference"),
        ("resolve", f"{reference}:v1"),
        ("resolve", f"{reference}:v1", "--json"),
        ("resolve", f"{reference}:v9"),
        ("verify",),
        ("verify", "--json", reference),
        ("verify", "elsewhere.example/none"),
        ("pin", "local:vztmpl/none"),
        ("prune", "--dry-run"),
        ("prune", "--json"),
        ("containers", "--json"),
        ("replace", "100"),
    ]
    assert type_in("sync").code == 1  # brings everything, so that what follows changes nothing
    with running(tmp_path, config) as daemon:
        asked = [type_in(*words) for words in commands]
        assert daemon.end() < 10
    alone = [type_in(*words) for words in commands]
    for words, one, other in zip(commands, asked, alone, strict=True):
        assert (one.code, steady(one.out)) == (other.code, steady(other.out)), words
        assert [line for line in other.err.splitlines() if line in one.err] == (
            one.err.splitlines()
        ), words
    assert [end.code for end in asked] == [1, 1, 1, 1, 2, 0, 0, 1, 0, 0, 1, 1, 0, 0, 0, 2]


def test_status(config: Path, type_in: Type, tmp_path: Path) -> None:
    """Status and jobs are what the ledger holds, and the daemon made the jobs."""
    with running(tmp_path, config):
        assert type_in("sync").code == 1
        told = [type_in(*words) for words in (("status",), ("status", "--json"), ("jobs",))]
        (volume,) = json.loads(told[1].out)["templates"][0]["volumes"]
        assert type_in("pin", volume).code == 0
        job = json.loads(told[1].out)["jobs"][0]
        shown = type_in("jobs", job["id"][:12], "--json")
    assert type_in("status").out == told[0].out.replace(volume, f"{volume} pinned")
    assert type_in("unpin", volume).code == 0
    assert [type_in(*words) for words in (("status",), ("status", "--json"), ("jobs",))] == told
    (detail,) = json.loads(shown.out)
    log = [line["text"] for line in detail.pop("log")]
    assert detail == job
    assert log[0].startswith("started cause=")
    assert type_in("jobs", job["id"], "--json").out == shown.out
    assert type_in("jobs", job["id"]).out.splitlines()[-1].endswith(f" {log[-1]}")
    assert {job["cause"] for job in json.loads(told[1].out)["jobs"]} <= {"api", "sweep"}


@pytest.mark.parametrize(
    ("fault", "told"),
    [("a = [", "is not TOML"), ("[nonsense]", "there is no such key")],
)
def test_faulty_file(config: Path, type_in: Type, tmp_path: Path, fault: str, told: str) -> None:
    """While the file has a fault, the daemon that runs it can be looked at, with a warning."""
    looks: list[tuple[str, ...]] = [("status",), ("status", "--json"), ("jobs",)]
    with running(tmp_path, config) as daemon:
        assert type_in("sync").code == 1
        before = [type_in(*words).out for words in looks]
        job = json.loads(type_in("jobs", "--json").out)[0]["id"]
        config.write_text(f"{config.read_text()}\n{fault}\n")
        shown = [type_in(*words) for words in looks]
        assert [(one.code, one.out) for one in shown] == [(0, text) for text in before]
        assert all(one.err.startswith("warning: the running daemon, ") for one in shown)
        assert all(told in one.err for one in shown)
        assert type_in("jobs", job).code == 0
        assert type_in("sync").code == 2
        copy = tmp_path / "copy.toml"  # which this daemon has never read
        copy.write_text(config.read_text())
        assert type_in("--config", str(copy), "status").code == 2
        daemon.end()
    assert type_in("status").code == 2


def test_ledger_is_not_touched(config: Path, type_in: Type, tmp_path: Path) -> None:
    """A command that asks the daemon opens no ledger: it need not be able to."""
    with running(tmp_path, config):
        ledger = tmp_path / "state" / "ledger.sqlite"
        ledger.rename(ledger.with_name("elsewhere"))
        assert type_in("status").code == 0
        assert not ledger.exists()


def test_interrupted(config: Path, type_in: Type, tmp_path: Path, registry: Registry) -> None:
    """An interrupted sync leaves its job to the daemon, and says so."""
    with running(tmp_path, config) as daemon:
        type_in("sync")
        registry.faults.refusals = [(503, {"Retry-After": "1"}, b"")] * 3
        reference = f"{registry.address}/{REPOSITORY}:v1"
        typed = subprocess.Popen(
            [sys.executable, "-m", "syncd", "--config", str(config), "sync", reference],
            stderr=subprocess.PIPE,
            text=True,
        )
        ends = len(daemon.lines("unchanged"))
        begun = len(daemon.lines("started"))
        daemon.until_logged("started", begun + 1)
        typed.send_signal(signal.SIGINT)
        _, said = typed.communicate(timeout=20)
        assert typed.returncode == 130
        assert said.endswith(
            "syncd: the daemon goes on with this: syncd jobs shows how far it is\n"
        )
        assert daemon.until_logged("unchanged", ends + 1)["reference"] == reference


def test_progress(config: Path, tmp_path: Path, registry: Registry) -> None:
    """A sync that waits for the daemon shows what its job does."""
    go_on = threading.Event()
    content = sample("slow")
    layers = [one["digest"] for one in content.document["layers"]]
    with running(tmp_path, config) as daemon:
        daemon.until_logged("failed")  # the tag that the registry has not, last of the start's
        reference = registry.push(REPOSITORY, "slow", content)
        registry.faults.stalls = {layers[-1]: go_on}
        typed = subprocess.Popen(
            [sys.executable, "-m", "syncd", "--config", str(config), "sync", reference],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert typed.stderr is not None
        told = typed.stderr.readline()
        go_on.set()
        said, _ = typed.communicate(timeout=60)
        assert typed.returncode == 0
    assert told.split()[0] in ("pulling", "flattening", "converting", "waiting"), told
    assert said.startswith(f"{reference}: published: local:vztmpl/")


def test_no_daemon(config: Path) -> None:
    """A socket that nobody listens on is no daemon, nor is one whose path is too long."""
    loaded = load_config(config)
    assert running_daemon(loaded) is None
    loaded.state.directory.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(loaded.socket))
    assert running_daemon(loaded) is None
    state = loaded.state.model_copy(update={"directory": Path("/" + "x" * 120)})
    assert running_daemon(loaded.model_copy(update={"state": state})) is None


def test_another_state(config: Path, tmp_path: Path) -> None:
    """A daemon of another state is not asked, even where a configuration names its socket."""
    text = config.read_text()
    with running(tmp_path, config):
        mine = load_config(config)
        assert running_daemon(mine) is not None
        other = tmp_path / "other.toml"
        elsewhere = text.replace(f"{tmp_path}/state", f"{tmp_path}/another")
        other.write_text(elsewhere.replace("[server]", f'[server]\nsocket = "{mine.socket}"'))
        with pytest.raises(SyncdError, match=f"has the state {tmp_path}/state, and this"):
            running_daemon(load_config(other))


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Callable[[bytes], Daemon]]:
    """Return a way to have something else than a daemon answer once, with these bytes."""
    path, threads = tmp_path / "sock", []

    def answer(said: bytes) -> Daemon:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(path))
        listening.listen()

        def once() -> None:
            with listening:
                connected, _ = listening.accept()
            with connected:
                connected.recv(1 << 16)
                connected.sendall(said)

        threads.append(threading.Thread(target=once))
        threads[-1].start()
        return Daemon(path)

    yield answer
    for thread in threads:
        thread.join(20)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nnonsense",
        b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"pid"',
        b"HTTP/1.1 500 Fault\r\nContent-Length: 2\r\n\r\n[]",
    ],
)
def test_bad_answers(said: bytes, answering: Callable[[bytes], Daemon]) -> None:
    """Whatever answers in the daemon's place is told in one sentence."""
    with pytest.raises(SyncdError, match=r"daemon|status 500"):
        answering(said).get("daemon")


def test_job_is_cancelled(config: Path, type_in: Type, tmp_path: Path, registry: Registry) -> None:
    """A job that goes on is shown with its bytes, and ended once."""
    layer = sample("latest").document["layers"][1]["digest"]
    stalled = registry.faults.stalls[layer] = threading.Event()
    try:
        with running(tmp_path, config) as daemon:
            while not any(layer in path for _, path in registry.requests):
                assert daemon.process.poll() is None
                time.sleep(0.05)
            found = json.loads(type_in("jobs", "--json").out)
            (job,) = [
                one["id"]
                for one in found
                if one["state"] == "running" and one["reference"].endswith(":latest")
            ]
            assert " MB" in type_in("jobs", job).out
            ended = type_in("jobs", job[:12], "--cancel")
            assert (ended.code, "cancelled: cancelled on request" in ended.out) == (0, True)
            assert "started cause=" in ended.out
            again = type_in("jobs", job, "--cancel")
            assert (again.code, "ended already" in again.err) == (1, True)
        alone = type_in("jobs", job, "--cancel")
        assert (alone.code, "no daemon runs" in alone.err) == (1, True)
        assert type_in("jobs", "--cancel").code == 2
    finally:
        stalled.set()


def test_sync_is_cancelled(config: Path, type_in: Type, tmp_path: Path, registry: Registry) -> None:
    """A sync whose job somebody cancels did not do its work: it says so, and ends with 1."""
    content = sample("slow")
    stalled = registry.faults.stalls[content.document["layers"][1]["digest"]] = threading.Event()
    try:
        with running(tmp_path, config) as daemon:
            daemon.until_logged("failed")  # the tag that the registry has not, last of the start's
            reference = registry.push(REPOSITORY, "slow", content)
            typed = subprocess.Popen(
                [sys.executable, "-m", "syncd", "--config", str(config), "sync", reference],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert typed.stderr is not None
            assert typed.stderr.readline().startswith(("pulling", "waiting"))
            (job,) = [
                one["id"]
                for one in json.loads(type_in("jobs", "--json").out)
                if one["reference"] == reference
            ]
            assert type_in("jobs", job, "--cancel").code == 0
            said, complained = typed.communicate(timeout=60)
        assert (typed.returncode, said) == (1, "")
        assert f"{reference}: cancelled: cancelled on request; " in complained
    finally:
        stalled.set()


def test_jobs_of_no_daemon(config: Path, type_in: Type, tmp_path: Path) -> None:
    """Without a daemon the jobs are read from the ledger; an id that fits no job is told."""
    assert type_in("sync").code == 1
    with Ledger(tmp_path / "state" / "ledger.sqlite") as ledger:
        newest = ledger.jobs(1)[0].job
    assert type_in("jobs", "--limit", "1").out.startswith(f"{newest.id[:8]} {newest.reference}\n")
    missing = type_in("jobs", "zz")
    assert (missing.code, "0 of the newest" in missing.err) == (1, True)


def test_check(config: Path, type_in: Type, tmp_path: Path) -> None:
    """The daemon is asked where it runs this configuration, and else this process looks."""
    text = config.read_text()
    config.write_text(text.replace('"re:^v", "none"', '"re:^v"'))
    with running(tmp_path, config) as daemon:
        asked = type_in("check")
        assert asked.code == 0
        where, *lines = asked.out.splitlines()
        assert where.startswith("ok   check: as ")
        assert where.endswith(f", by the running service (process {daemon.process.pid})")
        assert any(line.startswith("ok   target local: ") for line in lines)
        first = json.loads(type_in("check", "--json").out)[0]
        assert (first["ok"], first["subject"]) == (True, "check")
        assert "by this process" in type_in("check", "--here").out
        copy = tmp_path / "copy.toml"
        copy.write_text(config.read_text())
        other = type_in("--config", str(copy), "check").out.splitlines()[0]
        pid = daemon.process.pid
        why = "there is no unit of it" if os.geteuid() == 0 else "you are not root"
        assert other.endswith(
            f", by this process: the daemon of its state (process {pid}) has read {config}, "
            f"and {why}"
        )
        path = load_config(config).socket
        path.unlink()
        deaf = type_in("check").out.splitlines()[0]
        assert f": a daemon (process {pid}) uses its state, but nobody answers on {path}" in deaf
        daemon.end()
    assert (
        type_in("check")
        .out.splitlines()[0]
        .endswith(f", by this process: no daemon runs it, and {why}")
    )
    assert type_in("check", "--secrets") == Ended(0, "ok   secrets: as on disk\n", "")
