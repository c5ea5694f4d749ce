"""What `cli`, `console` and `checks` promise: the commands, their words and exit codes."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from syncd import __version__
from syncd.cli import main
from syncd.errors import PublishError
from syncd.oci.reference import Reference
from syncd.sync.conditions import Failed, Place
from syncd.sync.job import Cause, Outcome, Result, SyncJob
from syncd.sync.ledger import Ledger
from syncd.targets.directory import DirectoryTarget
from syncd.targets.target import Volume
from tests.archives import file
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, configure, sample
from tests.images import image, layer, write_layout
from tests.sigstore import IDENTITY, IMAGE, ISSUER, OTHER, ROOT, attach_referrer, recorded
from tests.templates import read

Run = Callable[..., "Ended"]


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, what it printed, and what it complained of."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """Put logging back as it was: each command sets it up for its process."""
    handlers, ours = logging.root.handlers[:], logging.getLogger("syncd").level
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    signals = {number: signal.getsignal(number) for number in numbers}
    yield
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.getLogger("syncd").setLevel(ours)
    for number, handler in signals.items():
        signal.signal(number, handler)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a way to run a command in an empty folder, as `syncd` does."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("SYNCD_CONFIG", raising=False)
    monkeypatch.setattr("syncd.config.load.DEFAULT_PATH", tmp_path / "none")

    def run(*arguments: object, config: Path | None = None) -> Ended:
        options = ["--config", str(config)] if config else []
        monkeypatch.setattr(sys, "argv", ["syncd", *options, *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as exc:
            code = exc.code if isinstance(exc.code, int) else 1 if exc.code else 0
        printed = capsys.readouterr()
        return Ended(code, printed.out, printed.err)

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config", "", "status"], "'--config': name a file"),
        (["restore", ""], "'FILE': name a file"),
        (["convert", "oci:", "y.tar.zst"], "'oci:' names no folder or file; write oci:PATH"),
        (["jobs", ""], "no job is named"),
    ],
)
def test_empty_words(arguments: list[str], said: str, run: Run) -> None:
    """An empty word is told as that, not as the folder where somebody happens to be."""
    ended = run(*arguments)
    assert ended.code == 2
    assert said in " ".join(ended.err.replace("│", " ").split())


def test_version(run: Run) -> None:
    """The version is printed without a configuration."""
    assert run("--version") == Ended(0, f"syncd {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["sync", "--nonsense"],
        ["convert", "one"],
        ["convert", "oci:x", "y", "--format", "zip"],
        ["convert", "oci:x", "y", "--level", "99"],
        ["convert", "oci:x", "y", "--platform", "amd64"],
        ["convert", "Not A Reference", "y"],
        ["sync", "Not A Reference"],
        ["sync", "docker-daemon:foo"],
        ["resolve", "oci:dir"],
        ["verify", "oci-archive:x.tar"],
        ["resolve", "a.b/c:!"],
        ["sync"],
        ["convert", "dir:", "y.tar.zst"],
        ["convert", "docker-archive::tag", "y.tar.zst"],
        ["--config", "none.toml", "status"],
        ["--config", "none.toml", "run"],
    ],
)
def test_usage(arguments: list[str], run: Run) -> None:
    """Wrong usage is 2, and no traceback."""
    ended = run(*arguments)
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert ended.out + ended.err


@pytest.mark.parametrize(
    "command", ["run", "sync", "status", "prune", "check", "resolve a.b/c", "convert a.b/c x"]
)
def test_bad_configuration(command: str, run: Run, tmp_path: Path) -> None:
    """Every fault of a configuration is listed, by every command, and the exit code is 2."""
    config = tmp_path / "bad.toml"
    config.write_text("[server]\nlisten = 5\n[xyz]\n")
    ended = run(*command.split(), config=config)
    assert ended.code == 2
    assert ended.err.splitlines() == [
        f"syncd: the configuration {config} has faults:",
        f"  {config}:2: server.listen: write text, in quotes",
        f"  {config}:3: xyz: there is no such key",
    ]


def test_check_of_a_bad_configuration(run: Run, tmp_path: Path) -> None:
    """A check for machines tells what keeps it from looking as a result, too."""
    config = tmp_path / "bad.toml"
    config.write_text("[xyz]\n")
    ended = run("check", "--json", config=config)
    assert ended.code == 2
    assert json.loads(ended.out) == [
        {
            "ok": False,
            "subject": "configuration",
            "detail": f"the configuration {config} has faults:\n"
            f"  {config}:1: xyz: there is no such key",
        }
    ]
    assert ended.err.startswith(f"syncd: the configuration {config} has faults:")


def test_configuration_by_environment(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """$SYNCD_CONFIG names the configuration where no option does."""
    monkeypatch.setenv("SYNCD_CONFIG", str(tmp_path / "named.toml"))
    assert f"{tmp_path}/named.toml cannot be read" in run("status").err


def test_sync(run: Run, tmp_path: Path, registry: Registry) -> None:
    """A sync brings all that is watched, prints its volume ids, and says what was there."""
    config = configure(tmp_path, registry, image='tags = ["latest", "v1"]')
    for tag in ("latest", "v1"):
        registry.push(REPOSITORY, tag, sample(tag))
    would = run("sync", "--dry-run", config=config)
    assert would.code == 0
    assert would.out.count("would be published") == 2
    assert not (tmp_path / "storage").exists()
    done = run("sync", config=config)
    assert done.code == 0
    assert [line.split()[1] for line in done.out.splitlines()] == ["published:"] * 2
    assert "pulling" in done.err
    assert "flattening" in done.err
    again = run("sync", f"{registry.address}/{REPOSITORY}:v1", "--json", config=config)
    (result,) = again.json
    assert set(result) == {"reference", "outcome", "message", "volumes"}
    assert result["outcome"] == "unchanged"
    assert result["volumes"][0] in done.out
    assert again.err == ""


def test_sync_fails(run: Run, tmp_path: Path, registry: Registry) -> None:
    """One reference that fails is told and makes the exit code 1; the others are done."""
    config = configure(tmp_path, registry, image='tags = ["none", "latest"]')
    registry.push(REPOSITORY, "latest", sample())
    ended = run("sync", config=config)
    assert ended.code == 1
    assert f"{REPOSITORY}:none: failed: registry {registry.address} does not have" in ended.err
    assert f"{REPOSITORY}:latest: published: local:vztmpl/" in ended.out
    ended = run("sync", "--json", config=config)
    assert ended.code == 1
    assert [one["outcome"] for one in ended.json] == ["failed", "unchanged"]


def test_convert(run: Run, tmp_path: Path, registry: Registry) -> None:
    """A layout and a registry's image become the same template, byte for byte."""
    layout = write_layout(tmp_path / "layout", {"latest": sample()})
    first = run("convert", f"oci:{layout}", "one.tar.zst")
    assert first.code == 0
    assert first.out.startswith("one.tar.zst 0.0 MB sha256:")
    reference = registry.push(REPOSITORY, "latest", sample())
    second = run("convert", reference, "two.tar.zst", "--plain-http", "--json")
    assert second.code == 0
    one, two = Path("one.tar.zst"), Path("two.tar.zst")
    assert one.read_bytes() == two.read_bytes()
    assert second.json == {
        "output": "two.tar.zst",
        "format": "rootfs",
        "size": two.stat().st_size,
        "digest": first.out.split()[-1],
        "manifest_digest": sample().digest,
        "config_digest": sample().document["config"]["digest"],
    }
    assert {entry.name for entry in read(one)} >= {b"./base", b"./text"}
    assert sorted(path.name for path in Path().iterdir()) == ["one.tar.zst", "two.tar.zst"]


def test_convert_on_an_earlier_template(run: Run, tmp_path: Path) -> None:
    """On an earlier template a later version of the image becomes the same file as without it."""
    layout = write_layout(tmp_path / "layout", {"old": sample("old"), "new": sample("new")})
    for tag, output, options in (
        ("old", "old.tar.zst", ()),
        ("new", "alone.tar.zst", ()),
        ("new", "built.tar.zst", ("--earlier", "old.tar.zst")),
    ):
        assert run("convert", f"oci:{layout}:{tag}", output, *options).code == 0
    assert Path("alone.tar.zst").read_bytes() == Path("built.tar.zst").read_bytes()
    refused = run("convert", f"oci:{layout}:new", "x.tar.zst", "--earlier", f"{layout}/index.json")
    assert (refused.code, refused.out) == (1, "")
    assert "index.json is not a template of syncd" in refused.err
    assert not Path("x.tar.zst").exists()


def test_convert_warns(run: Run, tmp_path: Path) -> None:
    """What no unprivileged container can be made from is named on standard error."""
    content = image(layer(file("app/x", uid=197_609)))
    layout = write_layout(tmp_path / "layout", {"latest": content})
    for options in ([], ["--json"]):
        done = run("convert", f"oci:{layout}", "one.tar.zst", *options)
        assert done.code == 0
        assert "warning: no unprivileged container" in done.err
        assert "'./app/x' (197609:0)" in done.err
        assert "197609" not in done.out


def test_convert_fails(run: Run, tmp_path: Path) -> None:
    """What cannot be converted is one sentence and 1, and the file that was there stays."""
    output = Path("out.tar.zst")
    output.write_bytes(b"before")
    arm = write_layout(tmp_path / "arm", {"": image(layer(), platform="linux/arm64")})
    for source, message in [
        (f"oci:{arm}", "the image is for linux/arm64"),
        (f"oci:{tmp_path}", "not an OCI image layout"),
        (f"oci-archive:{tmp_path}/none", "none"),
    ]:
        ended = run("convert", source, output)
        assert ended.code == 1
        assert message in ended.err
        assert ended.err.startswith("syncd: ")
    unwritable = run("convert", f"oci:{arm}", "none/out.tar.zst", "--platform", "linux/arm64")
    assert (unwritable.code, f"{Path.cwd()}/none: No such file" in unwritable.err) == (1, True)
    assert [path.name for path in Path().iterdir()] == ["out.tar.zst"]
    assert output.read_bytes() == b"before"


def test_resolve(run: Run, tmp_path: Path, registry: Registry) -> None:
    """The volume id is printed when it is cached as the tag is now; --pull sees to that."""
    config = configure(tmp_path, registry)
    reference = registry.push(REPOSITORY, "latest", sample())
    name = reference.removesuffix(":latest")
    absent = run("resolve", name, config=config)
    assert (absent.code, absent.out) == (1, "")
    assert "not cached as it is now; fetch it with --pull" in absent.err
    pulled = run("resolve", name, "--pull", config=config)
    (path,) = (tmp_path / "storage" / "template" / "cache").iterdir()
    assert (pulled.code, pulled.out) == (0, f"local:vztmpl/{path.name}\n")
    assert run("resolve", name, config=config).out == pulled.out
    assert run("resolve", name, "--json", config=config).json == {
        "reference": reference,
        "volumes": [pulled.out.strip()],
    }
    unknown = run("resolve", f"{name}:none", "--pull", config=config)
    assert (unknown.code, "does not have" in unknown.err) == (1, True)


def test_status(run: Run, tmp_path: Path, registry: Registry) -> None:
    """Templates and jobs are shown as they are, whatever is in a message."""
    config = configure(tmp_path, registry)
    reference = registry.push(REPOSITORY, "latest", sample())
    empty = run("status", config=config)
    assert (empty.code, empty.err) == (0, "")
    run("sync", config=config)
    message = "see [[registry]] and [/etc], [bold]now[/bold]"
    with Ledger(tmp_path / "state" / "ledger.sqlite") as ledger:
        ledger.accept([job := SyncJob(Reference.parse("a.b/c:d"), Cause.API)])
        ledger.finish(job.id, Outcome(Result.FAILED, message))
    shown = run("status", config=config)
    assert shown.code == 0
    assert reference in shown.out
    assert f"failed: {message}" in shown.out
    said = run("status", "--json", config=config).json
    assert set(said) == {"conditions", "templates", "jobs"}
    (condition,) = said["conditions"]
    assert (condition["reference"], condition["status"]) == (reference, "ok")
    assert condition["volumes"] == said["templates"][0]["volumes"]
    assert said["templates"][0]["volumes"][0] in shown.out
    assert said["jobs"][0]["message"] == message


def test_prune(run: Run, tmp_path: Path, registry: Registry) -> None:
    """A dry run names what would go; what is pinned stays; then it goes, and no more is to do."""
    config = configure(tmp_path, registry)
    for text in ("one", "two"):
        registry.push(REPOSITORY, "latest", sample(text))
        assert run("sync", config=config).code == 0
    assert run("prune", config=config) == Ended(0, "", "")
    config = configure(tmp_path, registry, image="keep = 1")
    folder = tmp_path / "storage" / "template" / "cache"
    would = run("prune", "--dry-run", config=config)
    assert would.out.startswith("would delete local:vztmpl/")
    assert len(list(folder.iterdir())) == 2
    volume = would.out.split()[-1]
    assert run("pin", volume, config=config).code == 0
    assert " pinned" in run("status", config=config).out
    assert run("prune", "--json", config=config).json == []
    assert run("unpin", volume, config=config).code == 0
    (gone,) = run("prune", "--json", config=config).json
    assert gone == {"target": "local", "volumes": [volume]}
    unknown = run("pin", volume.partition("/")[2], config=config).err
    assert "published no volume" in unknown
    assert "write it whole, STORAGE:vztmpl/NAME" in unknown
    assert len(list(folder.iterdir())) == 1
    assert run("prune", "--json", config=config).json == []


def test_refused_deletion(
    run: Run, tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deletion that the target refuses is told, and fails a prune but no sync."""

    def refuse(_: DirectoryTarget, volume: Volume) -> None:
        raise PublishError(f"{volume.volid} cannot be deleted: Operation not permitted")

    monkeypatch.setattr(DirectoryTarget, "delete", refuse)
    config = configure(tmp_path, registry, image="keep = 1")
    for text in ("one", "two"):
        registry.push(REPOSITORY, "latest", sample(text))
        synced = run("sync", config=config)
        assert synced.code == 0
    assert "warning: local:vztmpl/" in synced.err
    assert "was not deleted: local:vztmpl/" in synced.err
    pruned = run("prune", config=config)
    assert (pruned.code, pruned.out) == (1, "")
    assert "Operation not permitted" in pruned.err
    assert run("prune", "--dry-run", config=config).code == 0


def test_check(run: Run, tmp_path: Path, registry: Registry) -> None:
    """A check looks at secrets, tags and targets, changes nothing, and fails if one is bad."""
    config = configure(tmp_path, registry, image='tags = ["latest", "re:^v"]')
    for tag in ("latest", "v1"):
        registry.push(REPOSITORY, tag, sample())
    ended = run("check", config=config)
    assert ended.code == 0
    subjects = [line.split(": ")[0] for line in ended.out.splitlines()]
    name = f"{registry.address}/{REPOSITORY}"
    assert subjects == [
        "ok   check",
        "ok   webhook secret",
        "ok   API token",
        "ok   state",
        f"ok   image {name}:latest",
        f"ok   image {name}, tags by pattern",
        f"ok   clock, by {registry.address}",
        f"ok   signatures of {name}",
        "ok   target local",
        "ok   notifications",
    ]
    assert not (tmp_path / "state").exists()
    (tmp_path / "api-token").unlink()
    config = configure(tmp_path, registry, image='tags = ["none"]')
    (tmp_path / "webhook-secret").unlink()
    ended = run("check", "--json", config=config)
    assert ended.code == 1
    assert {one["subject"]: one["ok"] for one in ended.json} == {
        "check": True,
        "webhook secret": False,
        "API token": True,
        "state": True,
        f"image {name}:none": False,
        f"clock, by {registry.address}": True,
        f"signatures of {name}": True,
        "target local": True,
        "notifications": True,
    }


def test_check_of_patterns(run: Run, tmp_path: Path, registry: Registry) -> None:
    """A pattern that matches none of the registry's tags fails the check, and is named."""
    config = configure(tmp_path, registry, image='tags = ["re:^v", "re:^w", "re:^lat"]')
    registry.push(REPOSITORY, "latest", sample())
    ended = run("check", config=config)
    assert ended.code == 1
    assert "none of the registry's 1 tags is matched by re:^v or re:^w" in ended.out


def test_check_of_conditions(run: Run, tmp_path: Path, registry: Registry) -> None:
    """A check tells what the daemon found at its last look, in its exit code and as JSON too."""
    config = configure(tmp_path, registry, image='tags = ["latest"]')
    registry.push(REPOSITORY, "latest", sample())
    assert run("sync", config=config).code == 0
    ended = run("check", config=config)
    assert ended.code == 0
    assert "ok   watched tags: 1 in order at the last look" in ended.out
    latest = Reference.parse(f"{registry.address}/{REPOSITORY}:latest")
    now = datetime.now(UTC)
    with Ledger(tmp_path / "state" / "ledger.sqlite") as ledger:
        failed = Failed("the folder is full", passing=True)
        ledger.conditions.write([(Place(latest, "local"), failed)], now - timedelta(hours=5))
        ledger.mark_run("sweep", now - timedelta(hours=4))
    ended = run("check", "--json", config=config)
    assert ended.code == 1
    found = {one["subject"]: one for one in ended.json}
    failing = found[f"tag {latest} in local"]
    assert (failing["ok"], failing["detail"]) == (
        False,
        "failing for 5 hours, 1 try: the folder is full",
    )
    assert not found["last sweep"]["ok"]


@pytest.mark.parametrize(
    "bad",
    [
        ("api-token", "fifteen of them", 0o600, "fewer than 16 characters"),
        ("webhook-secret", "short", 0o600, "fewer than 16 characters"),
        ("api-token", "", 0o600, "is empty"),
        ("api-token", "a" * 16, 0o604, "every user of this host"),
        ("webhook-secret", "a" * 16, 0o602, "every user of this host"),
        ("password", "short", 0o644, "every user of this host"),
        ("sync-token", "a" * 15, 0o640, "fewer than 16 characters"),
        ("sync-token", "a" * 16, 0o604, "every user of this host"),
        ("create-token", "a" * 15, 0o640, "fewer than 16 characters"),
        ("read-token", "a" * 16, 0o604, "every user of this host"),
        ("quay-secret", "a" * 15, 0o640, "fewer than 16 characters"),
        ("quay-secret", "a" * 16, 0o644, "every user of this host"),
        ("quay-secret", "a/" * 16, 0o640, "characters that a path cannot have"),
    ],
)
def test_check_of_secrets(
    bad: tuple[str, str, int, str], run: Run, tmp_path: Path, registry: Registry
) -> None:
    """A secret that can be guessed, or that others may read, fails the check; no secret is told."""
    password = tmp_path / "password"
    password.write_text("short")
    password.chmod(0o640)
    tokens = [f"{scope}-token" for scope in ("create", "sync", "read")]
    for name in ("quay-secret", *tokens):
        (tmp_path / name).write_text("a" * 16)
        (tmp_path / name).chmod(0o640)
    table = f"""\
[[registry]]
host = "a.b"
username = "me"
password_file = "{password}"
[[sender]]
type = "quay"
secret_file = "{tmp_path}/quay-secret"
"""
    server = "\n".join(f'{name.replace("-", "_")}_file = "{tmp_path}/{name}"' for name in tokens)
    config = configure(tmp_path, registry, server=server, more=table)
    registry.push(REPOSITORY, "latest", sample())
    (tmp_path / "api-token").write_text("a" * 16)
    assert run("check", config=config).code == 0
    name, secret, mode, message = bad
    (tmp_path / name).write_text(secret)
    (tmp_path / name).chmod(mode)
    ended = run("check", config=config)
    assert ended.code == 1
    assert message in ended.out
    assert not secret or secret not in ended.out


def test_signatures(run: Run, tmp_path: Path, registry: Registry) -> None:
    """A person is told who has to sign, who signed, and what passes; else the exit code is 1."""
    registry.push(REPOSITORY, "latest", IMAGE)
    registry.push(REPOSITORY, "other", OTHER)
    attach_referrer(registry, REPOSITORY, IMAGE, recorded("bundle image").bundle)
    policy = f'identity = "{IDENTITY}"\nissuer = "{ISSUER}"\ntrust_root = "{ROOT}"\n'
    image = f'tags = ["latest", "other"]\n[image.verify]\n{policy}'
    config = configure(tmp_path, registry, image=image)
    name, signed = (
        f"{registry.address}/{REPOSITORY}",
        f"a signature by {IDENTITY} (issuer {ISSUER})",
    )
    ended = run("check", config=config)
    assert ended.code == 1
    assert f"ok   signatures of {name}: wanted: {signed}" in ended.out
    assert f"ok   signatures of {name}:latest: {signed}, entry" in ended.out
    assert f"FAIL signatures of {name}:other: nobody vouches for" in ended.out
    assert run("sync", f"{name}:latest", config=config).code == 0
    assert "vouched for: a signature by" in run("status", config=config).out
    ended = run("verify", f"{name}:latest", config=config)
    assert ended.code == 0
    assert ended.out.startswith("ok         local:vztmpl/")
    assert (
        f"{name}:latest is {IMAGE.digest}\n  wanted: {signed}\n  trusted for {signed}" in ended.out
    )
    ended = run("verify", f"{name}:other", config=config)
    assert (ended.code, "NOT trusted: nobody vouches for" in ended.out) == (1, True)
    ended = run("verify", "--json", f"{name}:latest", config=config)
    (examined,) = ended.json["images"]
    assert (examined["trusted"], examined["digest"]) == (True, IMAGE.digest)
    assert examined["signatures"][0]["voucher"]["identity"] == IDENTITY
    assert ended.json["files"][0]["state"] == "ok"


def test_provenance(run: Run, tmp_path: Path, registry: Registry) -> None:
    """What an image says of itself is printed as JSON Lines; an unknown template is an error."""
    registry.push(REPOSITORY, "latest", IMAGE)
    attach_referrer(registry, REPOSITORY, IMAGE, recorded("provenance").bundle)
    config = configure(tmp_path, registry)
    assert run("sync", config=config).code == 0
    (volume,) = run("status", "--json", config=config).json["templates"][0]["volumes"]
    ended = run("provenance", volume, config=config)
    assert (ended.code, json.loads(ended.out)) == (0, recorded("provenance").bundle)
    ended = run("provenance", "local:vztmpl/none.tar.zst", config=config)
    assert (ended.code, "syncd published no local:vztmpl/none" in ended.err) == (1, True)


def test_no_policy(run: Run, tmp_path: Path, registry: Registry) -> None:
    """An image that nobody has to sign is told by a check, and fails nothing."""
    registry.push(REPOSITORY, "latest", IMAGE)
    config = configure(tmp_path, registry)
    ended = run("check", config=config)
    assert (ended.code, "there is no [image.verify]: whoever may push" in ended.out) == (0, True)
    ended = run("verify", f"{registry.address}/{REPOSITORY}:latest", config=config)
    assert (ended.code, "nobody has to sign it" in ended.out) == (0, True)
    assert "no signature at all" in ended.out


def test_policy_without_its_key(run: Run, tmp_path: Path, registry: Registry) -> None:
    """A check fails where a policy names a key that is not there."""
    registry.push(REPOSITORY, "latest", IMAGE)
    config = configure(tmp_path, registry, image=f'[image.verify]\nkey_file = "{tmp_path}/none"\n')
    ended = run("check", config=config)
    assert ended.code == 1
    assert "none, which [image.verify] names, cannot be read" in ended.out


def test_check_without_secrets(run: Run) -> None:
    """The embedded default is in order, and says what is not answered without secrets."""
    ended = run("check")
    assert ended.code == 0
    assert "not configured: /webhooks answers 503" in ended.out


@pytest.mark.parametrize(
    ("command", "number"),
    [("convert", signal.SIGINT), ("sync", signal.SIGTERM), ("convert", signal.SIGHUP)],
)
def test_interrupted(
    command: str, number: signal.Signals, tmp_path: Path, registry: Registry
) -> None:
    """A command that is interrupted in the midst of a layer ends soon, and leaves nothing."""
    go_on = threading.Event()
    layers = [one["digest"] for one in sample().document["layers"]]
    registry.faults.stalls = dict.fromkeys(layers, go_on)
    reference = registry.push(REPOSITORY, "latest", sample())
    config = configure(tmp_path, registry)
    (work := tmp_path / "work").mkdir()
    signal.signal(number, signal.SIG_DFL)  # inherited: nohup, and a shell's &, ignore some
    arguments = [reference, "out.tar.zst"] if command == "convert" else [reference]
    process = subprocess.Popen(
        [sys.executable, "-m", "syncd", "--config", config, command, *arguments],
        cwd=work,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    try:
        deadline = time.monotonic() + 20
        while not set(layers) & set(registry.fetched()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        begun = time.monotonic()
        process.send_signal(number)
        _, complaints = process.communicate(timeout=20)
    finally:
        go_on.set()
        process.kill()
        process.communicate()
    assert time.monotonic() - begun < 5
    assert process.returncode == 128 + number
    assert b"Traceback" not in complaints
    assert list(work.iterdir()) == []
    assert not (tmp_path / "storage").exists()


def test_a_job_of_a_dead_process(run: Run, tmp_path: Path, registry: Registry) -> None:
    """Without a daemon, the job of a command that was killed is told as interrupted."""
    config = configure(tmp_path, registry)
    script = """
import os, sys
from pathlib import Path
from syncd.config import load_config
from syncd.oci import Reference
from syncd.sync import Cause, Ledger, SyncJob
ledger = Ledger(load_config(Path(sys.argv[1])).state.paths.ledger)
ledger.accept([SyncJob(Reference.parse("a.b/c:d"), Cause.CLI, "f" * 32)])
ledger.start("f" * 32)
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", script, config], check=False).returncode == 9
    for command in (["jobs"], ["jobs", "ffff"], ["status"]):
        told = run(*command, config=config).out
        assert "interrupted: the command ended before its job did" in told
        assert "running" not in told


def test_prune_gone(run: Run, tmp_path: Path, registry: Registry) -> None:
    """What is not watched any more is told by status, and deleted by `prune --gone`."""
    config = configure(tmp_path, registry)
    reference = registry.push(REPOSITORY, "latest", sample())
    assert run("sync", config=config).code == 0
    folder = tmp_path / "storage" / "template" / "cache"
    (file,) = folder.iterdir()
    config = configure(tmp_path, registry, image='tags = ["v1"]')
    shown = run("status", config=config).out
    assert f"absent  {reference}" in shown
    assert "syncd prune --gone" in shown
    assert run("prune", config=config).out == ""
    would = run("prune", "--gone", "--dry-run", config=config)
    assert would == Ended(0, f"would delete local:vztmpl/{file.name}\n", "")
    assert run("prune", "--gone", "--older-than", "30d", config=config) == Ended(0, "", "")
    assert file.exists()
    volume = f"local:vztmpl/{file.name}"
    assert run("pin", volume, config=config).code == 0
    assert "after syncd unpin VOLUME" in " ".join(run("status", config=config).out.split())
    spared = run("prune", "--gone", config=config)
    assert spared == Ended(0, f"spared {volume}, which is pinned: syncd unpin {volume}\n", "")
    assert file.exists()
    assert run("unpin", volume, config=config).code == 0
    done = run("prune", "--gone", "--json", config=config)
    assert done.json == [{"target": "local", "volumes": [f"local:vztmpl/{file.name}"]}]
    assert not file.exists()
    assert reference not in run("status", config=config).out.partition("newest jobs")[0]


@pytest.mark.parametrize("options", [["--older-than", "30d"], ["--gone", "--older-than", "soon"]])
def test_prune_usage(options: list[str], run: Run, tmp_path: Path, registry: Registry) -> None:
    """A span of time needs --gone, and a form; else the usage is wrong."""
    ended = run("prune", *options, config=configure(tmp_path, registry))
    assert ended.code == 2
    assert "--older-than" in ended.err


def test_backup_and_restore(run: Run, tmp_path: Path, registry: Registry) -> None:
    """The ledger goes into a file and comes back from it; each command says what it did."""
    registry.push(REPOSITORY, "latest", sample())
    config, file = configure(tmp_path, registry), tmp_path / "backup"
    assert run("sync", config=config).code == 0
    told = run("backup", file, config=config)
    assert (told.code, told.out.startswith(f"{file} 0.")) == (0, True)
    (volume,) = run("status", "--json", config=config).json["templates"][0]["volumes"]
    assert run("pin", volume, config=config).code == 0
    told = run("restore", file, config=config)
    ledger = tmp_path / "state" / "ledger.sqlite"
    assert (told.code, told.err) == (0, "")
    assert f"{ledger} is what {file} was; the old ledger is {ledger}.replaced-1" in told.out
    (template,) = run("status", "--json", config=config).json["templates"]
    assert (template["volumes"], template["pinned"]) == ([volume], False)
    told = run("restore", tmp_path / "none", config=config)
    assert (told.code, told.err) == (
        1,
        f"syncd: there is no file {tmp_path}/none; name a whole file that syncd backup wrote\n",
    )


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_list_that_cannot_be_read(
    options: list[str], run: Run, tmp_path: Path, registry: Registry
) -> None:
    """A repository whose tags cannot be listed has failed, and keeps no other from a sync."""
    dead = f"{registry.address}/org/dead"
    more = f'[[image]]\nrepository = "{dead}"\ntags = ["re:^v"]\n'
    config = configure(tmp_path, registry, more=more)
    reference = registry.push(REPOSITORY, "latest", sample())
    ended = run("sync", *options, config=config)
    assert ended.code == 1
    assert f"{dead}: failed: " in ended.err
    assert f"{reference}: {'would be ' if options else ''}published" in ended.out
    assert f"failing {dead}" in run("status", config=config).out


def test_verify(run: Run, tmp_path: Path, registry: Registry) -> None:
    """Published files are compared with their digests; one that is bad makes the exit code 1."""
    config = configure(tmp_path, registry)
    registry.push(REPOSITORY, "latest", sample())
    assert run("verify", config=config) == Ended(0, "", "")
    assert run("sync", config=config).code == 0
    repository = f"{registry.address}/{REPOSITORY}"
    for ref in ("", repository, f"{repository}:latest"):
        ended = run("verify", *filter(None, [ref]), config=config)
        assert (ended.code, "ok" in ended.out, "digest" in ended.out) == (0, True, True)
    ended = run("verify", f"{repository}:other", config=config)
    assert (ended.code, "published no template" in ended.err) == (1, True)
    (path,) = (tmp_path / "storage" / "template" / "cache").iterdir()
    path.write_bytes(b"x" * path.stat().st_size)
    ended = run("verify", "--json", config=config)
    (found,) = ended.json
    assert (ended.code, found["state"], found["compared"]) == (1, "changed", "digest")
    assert found["volumes"] == [f"local:vztmpl/{path.name}"]
    assert str(path) in found["detail"]
