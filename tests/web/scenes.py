"""States of a daemon as the status page shows them, written into its ledger.

async with Harness(folder, registry, **tables_of("failing")) as harness:
    stage(harness, "failing")
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from syncd.formats import Format
from syncd.oci import Digest, Platform, Reference
from syncd.progress import Advance, Silence
from syncd.report.space_metrics import Usage
from syncd.sync.conditions import Current, Failed, Finding, Gone, Lack, Place
from syncd.sync.job import Cause, Outcome, Result, SyncJob
from syncd.sync.job_log import LogLine
from syncd.sync.template import Template
from syncd.targets.target import Space
from tests.fakes.registry import Registry
from tests.harness import Harness

HOUSE = "ghcr.io/mieweb/opensource-server"
TIMEOUT = "ghcr.io gave no answer within 30 s; see whether the host reaches it"
DENIED = (
    "ghcr.io refuses manifest latest of mieweb/opensource-server/worker: 401 Unauthorized; its "
    "token may have expired: renew the one in /etc/syncd/ghcr-token"
)
HOSTILE = "<script>alert('{jobs}{watched}')</script>&<b>" + "x" * 3000

_TARGETS = ("cephfs", "backup")
_SMALL = ("base", "nodejs", "postgres")


def harness_of(folder: Path, registry: Registry, scene: str) -> Harness:
    """Return a daemon on the configuration that a scene needs."""
    targets = "".join(
        f'[[target]]\nname = "{name}"\ntype = "directory"\npath = "/nowhere/{name}"\n'
        for name in _TARGETS
    )
    images = "".join(
        f'[[image]]\nrepository = "{HOUSE}/{name}"\ntags = {_tags_of(scene)}\n'
        'targets = ["cephfs", "backup"]\n'
        for name in _repositories(scene)
    )
    own = 'tags = ["latest"]\ntargets = ["cephfs"]'
    return Harness(folder, registry, image=own, more=targets + images)


def stage(harness: Harness, scene: str) -> None:
    """Write a scene into the ledger: good, failing or large."""
    now = datetime.now(UTC)
    found: list[tuple[Place, Finding]] = [(Place(harness.latest, "cephfs"), _current(harness))]
    for number, name in enumerate(_repositories(scene)):
        repository = Reference.parse(f"{HOUSE}/{name}")
        for index, tag in enumerate(_named(scene)):
            for target in _TARGETS:
                place = Place(repository.with_tag(tag), target)
                template = _template(place, now - timedelta(days=3 * index + number, hours=5))
                harness.services.ledger.record(template)
                found.append((place, Current(template.digest, template.volumes)))
    harness.services.ledger.conditions.write(found, now - timedelta(minutes=23))
    if scene == "failing":
        _fail(harness, now)
    if scene == "good":
        lack = "the image names no init: Proxmox VE will start /sbin/init, which it does not have"
        place = Place(Reference.parse(f"{HOUSE}/nodejs:22"), "cephfs")
        current = Current(
            _digest(str(place.reference)), (_volume(place.reference, "cephfs"),), (lack,)
        )
        _write(harness, place, current, now)
    harness.services.metrics.usage = Usage(
        cache={"blobs": 9_800_000_000, "templates": 4_100_000_000},
        state=Space("state", 38_000_000_000, 100_000_000_000),
        targets={
            "cephfs": [Space("cephfs", 7_400_000_000_000, 20_000_000_000_000)],
            "backup": [
                Space("pve1", 3_000_000_000, 250_000_000_000),
                Space("pve2", 120_000_000_000, 250_000_000_000),
            ],
        },
    )
    _history(harness, failing=scene == "failing")
    for run, ago in (("sweep", timedelta(minutes=23)), ("weekly", timedelta(days=3))):
        harness.services.ledger.mark_run(run, now - ago)


def run(harness: Harness) -> Advance:
    """Let jobs run and wait, without doing anything; return what moves the job of base:latest."""
    ledger, activity = harness.services.ledger, harness.services.activity
    named = [Reference.parse(f"{HOUSE}/{name}") for name in ("base:latest", "nodejs:22", "worker")]
    waiting = [Reference.parse(f"{HOUSE}/postgres:{number}") for number in range(14)]
    jobs = [SyncJob(reference, Cause.WEBHOOK) for reference in named]
    ledger.accept([*jobs, *(SyncJob(reference, Cause.SWEEP) for reference in waiting)])
    for job in jobs:
        ledger.start(job.id)
        activity.started(job)
    progress = activity.watch(named[1], Silence())
    progress.begin("publish", "nodejs_22_4f4f4f4f4f4f.tar.zst to pve1", 402_000_000)(389_000_000)
    progress = activity.watch(named[0], Silence())
    advance = progress.begin("layer", f"sha256:{'4f' * 32}", 182_000_000)
    advance(48_200_000)
    return advance


def _fail(harness: Harness, now: datetime) -> None:
    base, worker = (Reference.parse(f"{HOUSE}/{name}") for name in ("postgres", "worker"))
    for tag in ("15", "16", "latest"):
        for hours in (30, 29, 28):
            place = Place(base.with_tag(tag), "backup")
            at = now - timedelta(hours=hours)
            why = "target backup: /mnt/backup is not mounted; mount it, or leave the target out"
            _write(harness, place, Failed(why, passing=True), at)
    for number in range(9):
        place = Place(worker.with_tag(f"v1.{number}"), "cephfs")
        for minutes in (125, 65, 5):
            _write(harness, place, Failed(DENIED, passing=False), now - timedelta(minutes=minutes))
    gone = Gone(
        Lack.TAG, "the registry lists the repository's tags, and this tag is not among them"
    )
    _write(harness, Place(Reference.parse(f"{HOUSE}/base:v0.9"), "cephfs"), gone, now)
    hostile = Place(Reference.parse(f"{HOUSE}/nodejs:22"), "backup")
    _write(harness, hostile, Failed(HOSTILE, passing=True), now)


def _history(harness: Harness, *, failing: bool) -> None:
    ledger, now = harness.services.ledger, datetime.now(UTC)
    ends = [
        (f"{HOUSE}/base:latest", Cause.WEBHOOK, Result.PUBLISHED, "{} is published"),
        (f"{HOUSE}/nodejs:22", Cause.SWEEP, Result.UNCHANGED, "{} is published already"),
        (f"{HOUSE}/base", Cause.SCHEDULE, Result.PUBLISHED, "watched tags: 3 published"),
    ]
    if failing:
        ends += [(f"{HOUSE}/worker:v1.3", Cause.RETRY, Result.FAILED, DENIED)]
        ends += [(f"{HOUSE}/postgres:16", Cause.API, Result.CANCELLED, "cancelled on request")]
    for reference, cause, result, message in ends:
        job = SyncJob(Reference.parse(reference), cause)
        volumes = (_volume(job.reference, "cephfs"),) if result is not Result.FAILED else ()
        lines = [
            LogLine(now, "info", f"started cause={cause}"),
            LogLine(now, "info", f"layer subject=sha256:{'4f' * 32} size=48211930"),
            LogLine(now, "error" if result is Result.FAILED else "info", f"{result} message=…"),
        ]
        ledger.accept([job])
        ledger.start(job.id)
        ledger.finish(job.id, Outcome(result, message.format(_digest(reference)), volumes))
        ledger.logs.add(job.id, lines)


def _template(place: Place, at: datetime) -> Template:
    reference = place.reference
    digest = _digest(str(reference))
    volume = _volume(reference, place.target)
    return Template(
        name=volume.rpartition("/")[2],
        target=place.target,
        reference=reference,
        format=Format.ROOTFS,
        platform=Platform.parse("linux/amd64"),
        digest=digest,
        manifest_digest=digest,
        config_digest=digest,
        diff_ids=(digest,),
        file_digest=digest,
        size=412_000_000,
        created=at,
        volumes=(volume,),
        syncd_version="1.0",
    )


def _write(harness: Harness, place: Place, finding: Finding, at: datetime) -> None:
    harness.services.ledger.conditions.write([(place, finding)], at)


def _current(harness: Harness) -> Current:
    reference = harness.latest
    return Current(_digest(str(reference)), (_volume(reference, "cephfs"),))


def _volume(reference: Reference, target: str) -> str:
    flat = reference.name.replace("/", "_").replace(":", "_")
    config12 = _digest(str(reference)).encoded[:12]
    return f"{target}:vztmpl/{flat}_{reference.tag}_{config12}.tar.zst"


def _digest(text: str) -> Digest:
    return Digest.of(text.encode())


def _repositories(scene: str) -> tuple[str, ...]:
    return {"empty": (), "good": _SMALL, "failing": (*_SMALL, "worker")}.get(
        scene, tuple(f"service-{number:02}" for number in range(20))
    )


def _named(scene: str) -> tuple[str, ...]:
    if scene == "large":
        return tuple(f"v1.{number}.0" for number in range(50))
    return ("latest", "22", "16", "15")


def _tags_of(scene: str) -> str:
    return str(["re:^v[0-9]", *([] if scene == "large" else ["latest", "22", "16", "15"])])
