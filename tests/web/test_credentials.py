"""What is promised of a caller's login: used for that caller's pull alone, and found nowhere."""

from __future__ import annotations

import asyncio
import base64
import gc
import http.client
import json
import logging
import pickle
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import ClientResponse

from syncd.cli.logs import set_up_logs
from syncd.config.settings import RegistrySettings
from syncd.errors import CrowdedError, RegistryError, RegistryUnavailableError, StoppedError
from syncd.oci import CallerAccess, CallerLogin, Reference
from syncd.oci.registry import Logins
from syncd.oci.registry import Registry as Client
from syncd.progress import Silence
from syncd.sync.caller_jobs import CALLERS_MAX
from syncd.sync.context import CALLERS
from syncd.sync.job import LOGIN_GONE, Cause, Result, State, SyncJob
from syncd.sync.slots import Turn
from tests.daemons import PATIENCE, Daemon, running
from tests.fakes.pve import Pve
from tests.fakes.registry import Registry
from tests.harness import TOKEN, Harness, configure, described, on_cluster, sample
from tests.images import artifact
from tests.waiting import until
from tests.web.test_scopes import token_of, with_tokens

USER, PASSWORD = "octocat", "xyzzy-the-password-0451"
LOGIN = {"username": USER, "password": PASSWORD}
WRONG = {"username": USER, "password": "xyzzy-a-wrong-one-9"}
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
APP = "team/app"


@contextmanager
def everything_logged() -> Iterator[list[str]]:
    """Give the lines that the daemon's log would have, those of libraries and debugging too."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))
            lines.append(repr(record.__dict__))

    set_up_logs("json", logging.DEBUG)
    root, handler = logging.getLogger(), Handler(logging.DEBUG)
    handler.setFormatter(root.handlers[0].formatter)
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        structlog.reset_defaults()


@pytest.fixture
def private() -> Iterator[Registry]:
    """Serve a registry that shows nothing without the login."""
    with Registry((USER, PASSWORD), "bearer") as registry:
        registry.push(APP, "1", sample("secret"))
        yield registry


def house(folder: Path, registry: Registry, private: Registry, *more: str) -> Harness:
    """Watch an image elsewhere; callers may have any image of the private registry."""
    server = with_tokens(folder, f'on_demand = ["{private.address}/**"]')
    table = f'[[registry]]\nhost = "{private.address}"\nplain_http = true\n'
    return Harness(folder, registry, server=server, more=table + "\n".join(more))


async def resolve(
    harness: Harness, ref: object, credentials: object = None, *, pull: bool = True, **more: Any
) -> ClientResponse:
    body: dict[str, object] = {"ref": str(ref), "pull": pull}
    if credentials is not None:
        body["credentials"] = credentials
    more.setdefault("token", token_of("create"))
    return await harness.ask("POST", "/api/v1/resolve", json=body, **more)


def logins_in_memory() -> int:
    """Return how many logins of callers this process holds."""
    gc.collect()
    found = [one for one in gc.get_objects() if isinstance(one, CallerLogin)]
    return len([one for one in found if one.is_given])


async def volumes(answer: ClientResponse) -> list[str]:
    assert answer.status == 200, await answer.text()
    found: list[str] = described(answer, "/api/v1/resolve")["volumes"]
    return found


async def everything_told(harness: Harness, token: str | None) -> str:
    """Return what can be read over HTTP with a token, and without one."""
    jobs = harness.services.ledger.jobs(100)
    asked = [("POST", "/api/v1/verify"), ("GET", "/"), ("GET", "/metrics")]
    asked += [("GET", f"/api/v1/{path}") for path in ("jobs", "images", "containers", "check")]
    asked += [("GET", f"/api/v1/jobs/{record.job.id}") for record in jobs]
    answers = [await harness.ask(*one, token=token) for one in asked]
    told = [await answer.text() for answer in answers]
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with harness.client.get("/api/v1/events", headers=headers) as stream:
        told.append((await stream.content.read(1 << 20)).decode())
    return "\n".join(told)


def on_disk(folder: Path, *, wal: bool = True) -> bytes:
    """Return all bytes below a folder, with the names of the files: the ledger's log, too.

    A file that goes while it is looked for is passed over: a conversion may be ending.
    """
    found: dict[Path, bytes] = {}
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file() and not path.is_symlink():
                found[path] = path.read_bytes()
    assert not wal or any(path.name.endswith("-wal") for path in found)
    return b"\n".join(str(path).encode() + b"\0" + content for path, content in found.items())


def secrets_of(*registries: Registry) -> list[str]:
    """Return what must be nowhere: the login in any form, and the tokens that it was given."""
    tokens = [token for registry in registries for token in registry.tokens]
    return [PASSWORD, BASIC, WRONG["password"], *tokens]


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
async def test_a_pull(scheme: str, tmp_path: Path, registry: Registry, private: Registry) -> None:
    """A login brings an image that this host cannot open, and nobody else is told where it is."""
    private.scheme = scheme
    app = f"{private.address}/{APP}:1"
    async with house(tmp_path, registry, private) as harness:
        assert (await resolve(harness, app, LOGIN, pull=False)).status == 404
        (volume,) = await volumes(await resolve(harness, app, LOGIN))
        assert [path.name for path in harness.templates] == [volume.rpartition("/")[2]]
        assert await volumes(await resolve(harness, app, LOGIN, pull=False)) == [volume]
        for token in (token_of("create"), token_of("read"), TOKEN):
            for credentials in (None, WRONG, {"token": "xyzzy-a-wrong-one-9"}):
                answer = await resolve(harness, app, credentials, pull=False, token=token)
                assert answer.status in (403, 404)
                if token != token_of("read"):
                    assert "send credentials along" in await answer.text()
                assert volume not in await answer.text()
        digest = harness.services.ledger.templates()[0].digest
        await until(lambda: logins_in_memory() == 0)  # a thread may have to end first
        by_digest = f"{private.address}/{APP}@{digest}"
        assert (await resolve(harness, by_digest, pull=False)).status == 404
        assert await volumes(await resolve(harness, by_digest, LOGIN, pull=False)) == [volume]


async def test_nobody_else_is_told(tmp_path: Path, registry: Registry, private: Registry) -> None:
    """Lists, jobs, logs, events, page and metrics name neither the volume nor what is in it."""
    app = f"{private.address}/{APP}:1"
    async with house(tmp_path, registry, private) as harness:
        with everything_logged() as logged, harness.services.logs.attached():
            (volume,) = await volumes(await resolve(harness, app, LOGIN))
        assert any(volume in line for line in logged)  # the administrator's log has it
        (template,) = harness.services.ledger.templates()
        assert template.private
        hidden = [
            volume,
            template.name,
            template.name.rpartition("_")[2].partition(".")[0],
            template.manifest_digest.encoded,
            template.config_digest.encoded,
            *(layer["digest"] for layer in sample("secret").document["layers"][1:]),
        ]
        for token in (token_of("create"), token_of("read"), None):
            told = await everything_told(harness, token)
            assert [text for text in hidden if text in told] == []
        assert volume in await everything_told(harness, TOKEN)
        answer = await harness.ask(
            "POST", "/api/v1/verify", json={"ref": app}, token=token_of("create")
        )
        assert answer.status == 404
        (record,) = harness.services.ledger.jobs(9)
        assert (record.job.cause, record.state) == (Cause.CALLER, State.DONE)
        assert record.outcome is not None
        assert (record.outcome.result, record.outcome.volumes) == (Result.PUBLISHED, ())


async def test_what_is_watched_is_told(tmp_path: Path, registry: Registry) -> None:
    """An image that this host watches is no secret, whoever's login brought it first."""
    registry.login = (USER, PASSWORD)
    registry.push("org/repo/image", "latest", sample())
    async with Harness(tmp_path, registry, server=with_tokens(tmp_path)) as harness:
        (volume,) = await volumes(await resolve(harness, harness.latest, LOGIN))
        answer = await harness.ask("GET", "/api/v1/images", token=token_of("read"))
        assert volume in await answer.text()


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
async def test_the_secret_is_nowhere(
    scheme: str, tmp_path: Path, registry: Registry, private: Registry
) -> None:
    """After success and each kind of failure, the login is in no file, log line or answer."""
    private.scheme = scheme
    told = []
    with everything_logged() as logged:
        async with house(tmp_path, registry, private) as harness:
            app = f"{private.address}/{APP}:1"
            with harness.services.logs.attached():
                told.append(await (await resolve(harness, app, LOGIN)).text())
                for ref, credentials in (
                    (app, WRONG),
                    (f"{private.address}/{APP}:none", LOGIN),
                    (f"{private.address}/{APP}", {**LOGIN, "token": PASSWORD}),
                    (app, {"username": PASSWORD, "passwd": PASSWORD}),
                    (app, {"username": f"{PASSWORD}:", "password": f"{PASSWORD}\n"}),
                    (app, {"token": f"{PASSWORD}\n"}),
                    (app, PASSWORD),
                    (app, [PASSWORD]),
                    (app, {"token": PASSWORD}),
                ):
                    answer = await resolve(harness, ref, credentials)
                    assert answer.status >= 400
                    told.append(await answer.text())
                # The registry's own words quote what it was sent.
                quoted = json.dumps(
                    {"errors": [{"code": "DENIED", "message": f"{BASIC} {PASSWORD} is bad"}]}
                ).encode()
                private.faults.refusals = [(403, {}, quoted)] * 3
                private.push(APP, "2", sample("another secret"))
                told.append(
                    await (await resolve(harness, f"{private.address}/{APP}:2", LOGIN)).text()
                )
                private.faults.refusals = []
                private.replace_blob(sample("another secret").document["layers"][1]["digest"], None)
                answer = await resolve(harness, f"{private.address}/{APP}:2", LOGIN)
                assert answer.status == 502
                told.append(await answer.text())
            told += [await everything_told(harness, token) for token in (TOKEN, None)]
            told.append(on_disk(tmp_path / "state").decode("latin-1"))
            told.append(on_disk(tmp_path).decode("latin-1").replace(f"{TOKEN}\n", ""))
    told += logged
    assert any("published" in line for line in logged)
    for secret in secrets_of(private):
        assert [text[:200] for text in told if secret in text] == []


async def test_what_this_host_may_have(tmp_path: Path, registry: Registry) -> None:
    """A caller gets what is not watched by no login of this host, but by the caller's own."""
    with Registry((USER, PASSWORD)) as private:
        private.push(APP, "1", sample())
        password = tmp_path / "password"
        password.write_text(PASSWORD)
        app = f"{private.address}/{APP}:1"
        login = f'username = "{USER}"\npassword_file = "{password}"'
        async with house(tmp_path, registry, private, login) as harness:
            assert (await resolve(harness, app)).status == 404
            path = f"/api/v1/resolve?ref={app}&pull=1"
            assert (await harness.ask("GET", path)).status == 404
            dry = {"ref": app, "dry_run": True}
            answer = await harness.ask("POST", "/api/v1/sync", json=dry)
            assert (await answer.json())["ends"][0]["outcome"] == "failed"
            answer = await harness.ask("POST", "/api/v1/sync", json={"ref": app})
            outcome = await harness.outcome((await answer.json())["jobs"][0]["id"])
            assert outcome.failed
            assert {*private.authorizations} == {""}
            assert harness.templates == []
            assert (await resolve(harness, app, LOGIN)).status == 200


async def test_pulls_are_not_shared(tmp_path: Path, registry: Registry, private: Registry) -> None:
    """Two callers have a job each, and one whose login opens nothing waits for nobody's."""
    digest = sample("secret").document["layers"][1]["digest"]
    private.faults.stalls[digest] = go = threading.Event()
    app = f"{private.address}/{APP}:1"
    async with house(tmp_path, registry, private) as harness:
        worker = harness.services.worker
        pulls = [asyncio.create_task(resolve(harness, app, LOGIN)) for _ in range(2)]
        await until(lambda: worker.running == 2 and digest in private.fetched())
        assert (await resolve(harness, app, WRONG)).status == 404
        assert (await resolve(harness, app)).status == 404
        assert len({record.job.id for record in harness.services.ledger.jobs(9)}) == 2
        told = await everything_told(harness, token_of("create"))
        assert digest not in told
        go.set()
        first, second = [await volumes(await pull) for pull in pulls]
        assert first == second
        assert len(harness.templates) == 1


async def test_an_ordinary_job_is_not_joined(tmp_path: Path, registry: Registry) -> None:
    """A caller's job neither joins this host's job of a watched image nor hides how far that is."""
    registry.push("org/repo/image", "latest", sample())
    digest = sample().document["layers"][1]["digest"]
    registry.faults.stalls[digest] = go = threading.Event()
    async with Harness(tmp_path, registry, server=with_tokens(tmp_path)) as harness:
        ref = str(harness.latest)
        answer = await harness.ask("POST", "/api/v1/sync", json={"ref": ref})
        (job,) = (await answer.json())["jobs"]
        await until(lambda: digest in registry.fetched())
        pull = asyncio.create_task(resolve(harness, ref, LOGIN))
        await until(lambda: registry.fetched().count(digest) == 2)
        answer = await harness.ask("POST", "/api/v1/sync", json={"ref": ref})
        ((other,),) = [(await answer.json())["jobs"]]
        assert (other["cause"], other["reference"]) == ("api", ref)
        assert other["id"] != job["id"]
        jobs = (await (await harness.ask("GET", "/api/v1/jobs")).json())["jobs"]
        progress = {one["id"]: one["progress"] for one in jobs}
        assert progress[job["id"]]["step"] == "layer"
        assert [one for one in progress if progress[one]] == [job["id"]]
        go.set()
        await volumes(await pull)
        assert not (await harness.outcome(job["id"])).failed
        assert not (await harness.outcome(other["id"])).failed


async def test_progress(tmp_path: Path, registry: Registry) -> None:
    """Nobody watches how far a caller's own job is; who cancels the job ends its work, too."""
    watched: list[Reference] = []

    def watch(reference: Reference) -> Silence:
        watched.append(reference)
        return Silence()

    async with Harness(tmp_path, registry, watch) as harness:
        engine, login = harness.services.engine, CallerLogin(USER, PASSWORD)
        advance = engine.context(harness.latest, login=login).progress.begin("layer", "a", 2)
        advance(1)
        login.cancelled.set()
        with pytest.raises(StoppedError):
            advance(1)
        assert watched == []
        assert engine.context(harness.latest)
        assert watched == [harness.latest]


async def test_no_image(tmp_path: Path, registry: Registry) -> None:
    """What a caller's login finds to be no image is an error, and marks no watched tag."""
    registry.push("org/repo/image", "chart", artifact())
    server = with_tokens(tmp_path)
    async with Harness(tmp_path, registry, server=server, image='tags = ["re:.*"]') as harness:
        answer = await resolve(harness, harness.repository.with_tag("chart"), LOGIN)
        assert answer.status == 502
        assert harness.services.engine._passed_over._known == set()


async def test_caches_are_not_shared(tmp_path: Path, registry: Registry, private: Registry) -> None:
    """To know the digest of a private layer is no right to it: no cache gives it to another."""
    content = sample("secret")
    app = f"{private.address}/{APP}:1"
    async with house(tmp_path, registry, private) as harness:
        await volumes(await resolve(harness, app, LOGIN))
        paths = harness.services.live.config.state.paths
        blobs = [path.name for path in paths.blob_cache.glob("blobs/*/*")]
        assert [one for one in blobs if any(one in name for name in content.blobs)] == []
        assert not [*paths.layers.glob("*")]
        assert not [*paths.templates.glob("*.frames")]
        with Registry() as evil:
            # It has the documents, which name the layers, but not the layers.
            evil.push("team/app", "1", content)
            for one in content.document["layers"]:
                evil.replace_blob(one["digest"], None)
            table = RegistrySettings(host=evil.address, plain_http=True)
            config = harness.services.live.config
            server = config.server.model_copy(update={"on_demand": (f"{evil.address}/**",)})
            harness.configure(registry=(*config.registry, table), server=server)
            for credentials in (None, LOGIN):
                answer = await resolve(harness, f"{evil.address}/team/app:1", credentials)
                assert answer.status == 502
        assert len(harness.templates) == 1


async def test_what_is_cached_is_not_for_a_caller(
    tmp_path: Path, registry: Registry, private: Registry
) -> None:
    """A watched private image's layers are given to no caller who knows their digests."""
    content = sample("of this house")
    registry.push("org/repo/image", "latest", content)
    async with house(tmp_path, registry, private) as harness:
        await harness.bring()
        private.push(APP, "stolen", content)
        for one in content.document["layers"]:
            private.replace_blob(one["digest"], None)
        answer = await resolve(harness, f"{private.address}/{APP}:stolen", LOGIN)
        assert answer.status == 502
        assert len(harness.templates) == 1


async def test_conditions(tmp_path: Path, registry: Registry) -> None:
    """A login that opens nothing makes no watched tag look as if it failed."""
    registry.login = (USER, PASSWORD)
    registry.push("org/repo/image", "latest", sample())
    registry.replace_blob(sample().document["layers"][1]["digest"], None)
    async with Harness(tmp_path, registry, server=with_tokens(tmp_path)) as harness:
        assert (await resolve(harness, harness.latest, WRONG)).status == 404
        assert (await resolve(harness, harness.latest, LOGIN)).status == 502
        assert harness.services.ledger.conditions.all() == []


async def test_after_a_crash(tmp_path: Path, registry: Registry, private: Registry) -> None:
    """A job whose login is gone ends as interrupted, before it began or after, and says so."""
    async with house(tmp_path, registry, private) as harness:
        services = harness.services
        reference = Reference.parse(f"{private.address}/{APP}:1")
        waiting, running = (
            SyncJob(reference, Cause.CALLER, login=CallerLogin(USER, PASSWORD)) for _ in range(2)
        )
        services.ledger.accept([waiting, running])
        services.ledger.start(running.id)
        await services.worker.resume()
        for job in (waiting, running):
            record = services.ledger.job(job.id)
            assert record is not None
            assert record.outcome == LOGIN_GONE
        assert "ask for it again" in LOGIN_GONE.message
        assert private.requests == []
        answer = await harness.ask("POST", f"/api/v1/jobs/{running.id}/retry")
        assert answer.status == 409
        assert "one caller's" in (await answer.json())["error"]


async def test_a_stop(tmp_path: Path, registry: Registry, private: Registry) -> None:
    """A stop in the middle of a pull leaves a job that the next start ends as interrupted."""
    digest = sample("secret").document["layers"][1]["digest"]
    private.faults.stalls[digest] = go = threading.Event()
    async with house(tmp_path, registry, private) as harness:
        pull = asyncio.create_task(resolve(harness, f"{private.address}/{APP}:1", LOGIN))
        await until(lambda: digest in private.fetched())
        await harness.services.worker.stop()
        go.set()
        (record,) = harness.services.ledger.jobs(9)
        assert record.state is State.QUEUED
        assert PASSWORD.encode() not in on_disk(tmp_path / "state")
        pull.cancel()
        await asyncio.gather(pull, return_exceptions=True)
    async with house(tmp_path, registry, private) as harness:
        await harness.services.worker.resume()
        outcome = await harness.outcome(record.job.id)
        assert outcome.result is Result.INTERRUPTED
        assert harness.templates == []


def test_a_killed_daemon(tmp_path: Path, private: Registry) -> None:
    """A daemon that is killed in the middle leaves the login nowhere, and says what became of it.

    Neither in its state and log, nor in the memory that the process that converts has.
    """
    private.lists_referrers = True
    digest = sample("secret").document["layers"][1]["digest"]
    private.faults.stalls[digest] = go = threading.Event()
    with Registry() as watched:
        config = configure(
            tmp_path,
            watched,
            server=f'on_demand = ["{private.address}/**"]',
            more=f'[[registry]]\nhost = "{private.address}"\nplain_http = true',
        )
        text = config.read_text()
        body = {"ref": f"{private.address}/{APP}:1", "pull": True, "credentials": LOGIN}

        def pull(daemon: Daemon) -> None:
            with suppress(OSError, http.client.HTTPException):
                daemon.ask("/api/v1/resolve", json.dumps(body).encode())

        with running(tmp_path, config) as daemon:
            asking = threading.Thread(target=pull, args=(daemon,))
            asking.start()
            deadline = time.monotonic() + PATIENCE
            while digest not in private.fetched() and time.monotonic() < deadline:
                time.sleep(0.01)
            jobs = daemon.ask("/api/v1/jobs")["jobs"]
            (job,) = [job for job in jobs if job["cause"] == "caller"]
            assert job["state"] == "running"
            others = [other for other in Path("/proc").glob("[0-9]*") if descends(other, daemon)]
            assert others
            assert in_memory(Path(f"/proc/{daemon.process.pid}"), PASSWORD.encode())
            for other in others:
                for secret in (PASSWORD, BASIC, *private.tokens):
                    assert not in_memory(other, secret.encode()), (other / "cmdline").read_bytes()
            daemon.process.kill()
            daemon.process.wait(20)
            go.set()
            asking.join()
        left = on_disk(tmp_path)
        config.write_text(text)
        with running(tmp_path, config) as daemon:
            line = daemon.until_logged("interrupted")
            assert "ask for it again" in line["message"]
            found = daemon.ask(f"/api/v1/jobs/{job['id']}")
            assert (found["state"], found["outcome"]) == ("done", "interrupted")
            assert daemon.end() < 10
        left += on_disk(tmp_path, wal=False)
    assert b"on_demand" in left  # what is looked at has the configuration, too
    for secret in (PASSWORD, BASIC, *private.tokens):
        assert secret.encode() not in left


def descends(process: Path, daemon: Daemon) -> bool:
    """Tell whether a process was begun by the daemon, or by one that was."""
    try:
        parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return False
    mine = daemon.process.pid
    return parent == mine or (parent > 1 and descends(process.parent / str(parent), daemon))


def in_memory(process: Path, wanted: bytes) -> bool:
    """Tell whether a process has something in its memory that it may write (proc_pid_mem(5))."""
    with (process / "mem").open("rb", buffering=0) as memory:
        for line in (process / "maps").read_text().splitlines():
            place, rights, *_ = line.split()
            if not rights.startswith("rw"):
                continue
            begin, end = (int(part, 16) for part in place.split("-"))
            with suppress(OSError):
                memory.seek(begin)
                if wanted in memory.read(end - begin):
                    return True
    return False


async def test_cancelled(tmp_path: Path, registry: Registry, private: Registry) -> None:
    """A caller's job can be cancelled by its id, and the work ends, too."""
    digest = sample("secret").document["layers"][1]["digest"]
    private.faults.stalls[digest] = go = threading.Event()
    async with house(tmp_path, registry, private) as harness:
        pull = asyncio.create_task(resolve(harness, f"{private.address}/{APP}:1", LOGIN))
        await until(lambda: digest in private.fetched())
        (record,) = harness.services.ledger.jobs(9)
        path = f"/api/v1/jobs/{record.job.id}/cancel"
        (queue,) = harness.services.worker._queues.values()
        login = queue.running.login if queue.running else None
        assert (await harness.ask("POST", path)).status == 200
        assert login is not None
        assert login.cancelled.is_set()
        go.set()
        assert (await pull).status == 502
        assert harness.templates == []


async def test_bound(tmp_path: Path, registry: Registry, private: Registry) -> None:
    """Only so many logins are held at a time."""
    async with house(tmp_path, registry, private) as harness:
        worker, reference = harness.services.worker, Reference.parse(f"{private.address}/{APP}:1")
        worker.resize(1)
        taken = worker._places.taken(CALLERS, Turn("another"))
        await taken.__aenter__()  # so that none of the jobs begins
        for _ in range(CALLERS_MAX):
            await worker.submit_alone(SyncJob(reference, Cause.CALLER, login=CallerLogin()))
        with pytest.raises(CrowdedError) as crowded:
            await worker.submit_alone(SyncJob(reference, Cause.CALLER, login=CallerLogin()))
        assert crowded.value.temporary
        assert (await resolve(harness, reference, LOGIN)).status == 503


async def test_what_is_watched_goes_on(
    tmp_path: Path, registry: Registry, private: Registry
) -> None:
    """Slow registries that callers name hold up callers alone: all have a few places together."""
    registry.push("org/repo/image", "latest", sample())
    digest = sample("secret").document["layers"][1]["digest"]
    private.faults.stalls[digest] = go = threading.Event()
    async with house(tmp_path, registry, private) as harness:
        services, app = harness.services, f"{private.address}/{APP}:1"
        services.worker.resize(1)
        services.executors.converting.resize(1)
        pulls = [asyncio.create_task(resolve(harness, app, LOGIN)) for _ in range(4)]
        await until(lambda: digest in private.fetched())
        await until(lambda: services.worker.waiting == 3)
        assert (await resolve(harness, harness.latest)).status == 200
        assert (services.worker.running, services.worker.waiting) == (1, 3)
        assert private.fetched().count(digest) == 1
        go.set()
        for pull in pulls:
            await volumes(await pull)


def test_representations() -> None:
    """A login shows itself in no representation, and goes to no other process."""
    login = CallerLogin(USER, PASSWORD, "a-token-of-theirs")
    access = CallerAccess(RegistrySettings(host="a.b"), login)
    job = SyncJob(Reference.parse("a.b/c:d"), Cause.CALLER, login=login)
    for one in (login, access, job, [job], {"job": job}):
        for text in (repr(one), str(one), f"{one!r:s}"):
            assert PASSWORD not in text
            assert "a-token-of-theirs" not in text
    for one in (login, access, job):
        with pytest.raises(TypeError):
            pickle.dumps(one)
    assert CallerLogin(USER, PASSWORD) != CallerLogin(USER, PASSWORD)


async def test_a_token(tmp_path: Path, registry: Registry) -> None:
    """A bearer token goes to the registry as it is, and to nobody that the registry leads to."""
    with Registry((USER, PASSWORD), "bearer") as private, Registry() as store:
        private.push(APP, "1", sample())
        store.push(APP, "1", sample())
        host = private.address
        reference = Reference(host, APP, "1")
        settings = RegistrySettings(host=host, plain_http=True)
        Client(reference, CallerAccess(settings, CallerLogin(USER, PASSWORD))).resolve(reference)
        (token,) = private.tokens
        private.requests.clear()
        private.faults.blobs_at = store.address
        async with house(tmp_path, registry, private) as harness:
            answer = await resolve(harness, reference, {"token": token})
            assert answer.status == 200, await answer.text()
        assert set(private.authorizations[3:]) <= {f"Bearer {token}", ""}
        assert "/token" not in [path for _, path in private.requests]
        assert {*store.authorizations} == {""}


def test_a_login_is_never_kept() -> None:
    """What one caller's login was given, the next one's has to ask for by itself."""
    with Registry((USER, PASSWORD), "bearer") as private:
        private.push(APP, "1", sample())
        logins, reference = Logins(), Reference(private.address, APP, "1")
        settings = RegistrySettings(host=private.address, plain_http=True)

        def ask(login: CallerLogin | None) -> None:
            access = settings if login is None else CallerAccess(settings, login)
            Client(reference, access, logins=logins).resolve(reference)

        ask(CallerLogin(USER, PASSWORD))
        for nobody in (CallerLogin(), None, CallerLogin(USER, "wrong"), CallerLogin(token="wrong")):
            with pytest.raises(RegistryError):
                ask(nobody)


def test_nobody_else_waits() -> None:
    """A registry that asks one caller's login to wait is asked by everybody else."""
    with Registry() as busy:
        busy.push(APP, "1", sample())
        logins, reference = Logins(), Reference(busy.address, APP, "1")
        settings = RegistrySettings(host=busy.address, plain_http=True)
        busy.faults.refusals = [(429, {"Retry-After": "900"}, b"")]
        with pytest.raises(RegistryUnavailableError):
            Client(
                reference, CallerAccess(settings, CallerLogin(USER, PASSWORD)), logins=logins
            ).resolve(reference)
        assert Client(reference, settings, logins=logins).resolve(reference)


async def test_a_container(tmp_path: Path, registry: Registry, private: Registry, pve: Pve) -> None:
    """A container is made from what the caller's login opens, and its answer is the caller's."""
    async with on_cluster(tmp_path, registry, pve) as harness:
        config = harness.services.live.config
        table = RegistrySettings(host=private.address, plain_http=True)
        cluster = tuple(target for target in config.target if target.name == "cluster")
        harness.configure(registry=(*config.registry, table), target=cluster)
        app = f"{private.address}/{APP}:1"
        body: dict[str, Any] = {"ref": app, "hostname": "web", "target": "cluster"}

        async def create(credentials: object, **headers: str) -> ClientResponse:
            sent = body if credentials is None else {**body, "credentials": credentials}
            return await harness.ask("POST", "/api/v1/containers", json=sent, headers=headers)

        key = {"Idempotency-Key": "one"}
        assert (await create(WRONG)).status == 404
        assert (await create(None)).status == 404
        assert pve.cluster.containers == {}
        made = await create(LOGIN, **key)
        assert made.status == 201, await made.text()
        volume = (await made.json())["volume"]
        assert await (await create(LOGIN, **key)).json() == await made.json()
        for credentials, status in ((WRONG, 404), (None, 404), ({"token": "a"}, 404)):
            answer = await create(credentials, **key)
            assert (answer.status, volume in await answer.text()) == (status, False)
        assert len(pve.cluster.containers) == 1
        sent = repr(pve.cluster.containers)
        state = on_disk(tmp_path / "state").decode("latin-1")
        for secret in secrets_of(private):
            assert secret not in sent
            assert secret not in state


async def test_of_a_name_alike(tmp_path: Path, registry: Registry, private: Registry) -> None:
    """A repository whose files are named like a private one's is not told of the private one's."""
    content = sample("secret")
    private.push("team_x/app", "1", content)
    private.push("team/x/app", "1", content)
    async with house(tmp_path, registry, private) as harness:
        await volumes(await resolve(harness, f"{private.address}/team_x/app:1", LOGIN))
        for pull in (False, True):
            private.requests.clear()
            alike = await resolve(harness, f"{private.address}/team/x/app:1", LOGIN, pull=pull)
            assert (alike.status == 200) is pull
        # It is told of the file only once it has brought each of its layers itself.
        layers = {one["digest"] for one in content.document["layers"]}
        assert layers <= set(private.fetched())


async def test_mirrors(tmp_path: Path, registry: Registry, private: Registry) -> None:
    """No mirror answers a caller: what it gives to this host is not the caller's to have."""
    with Registry() as mirror:
        mirror.push(APP, "1", sample("secret"))
        lines = f'mirrors = ["http://{mirror.address}"]\nmirror_tags = true'
        async with house(tmp_path, registry, private, lines) as harness:
            app = f"{private.address}/{APP}:1"
            for credentials, status in ((None, 404), (WRONG, 404), (LOGIN, 200)):
                assert (await resolve(harness, app, credentials)).status == status
            assert mirror.requests == []
            assert harness.services.engine.context(Reference.parse(app)).repository.resolve(
                Reference.parse(app)
            )
            assert mirror.requests
