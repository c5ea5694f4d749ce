"""What `syncd.cli`, `console` and `checks` promise: the commands, their words and exit codes."""

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
from pathlib import Path
from typing import Any

import pytest
import structlog

from syncd import __version__
from syncd.__main__ import main
from syncd.job import Cause, Outcome, Result, SyncJob
from syncd.ledger import Ledger
from syncd.reference import Reference
from tests.fakes.registry import Registry
from tests.houses import REPOSITORY, configure, sample
from tests.images import image, layer, write_layout
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
    monkeypatch.setattr("syncd.config.DEFAULT_PATH", tmp_path / "none")

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
        ["resolve", "a.b/c:!"],
        ["sync"],
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
    config.write_text("[server]\nlisten = 5\n[nonsense]\n")
    ended = run(*command.split(), config=config)
    assert ended.code == 2
    assert ended.err.splitlines() == [
        f"syncd: the configuration {config} has faults:",
        f"  {config}:2: server.listen: Input should be a valid string",
        f"  {config}:3: nonsense: there is no such key",
    ]


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
    assert f"{REPOSITORY}:none: failed: registry {registry.address} has no" in ended.err
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
    unwritable = run("convert", f"oci:{arm}", "none/out", "--platform", "linux/arm64")
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
    assert (unknown.code, "has no" in unknown.err) == (1, True)


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
    assert set(said) == {"templates", "jobs"}
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
    assert "published no volume" in run("pin", volume, config=config).err
    assert len(list(folder.iterdir())) == 1
    assert run("prune", "--json", config=config).json == []


def test_check(run: Run, tmp_path: Path, registry: Registry) -> None:
    """A check looks at secrets, tags and targets, changes nothing, and fails if one is bad."""
    config = configure(tmp_path, registry, image='tags = ["latest", "re:^v"]')
    registry.push(REPOSITORY, "latest", sample())
    ended = run("check", config=config)
    assert ended.code == 0
    subjects = [line.split(": ")[0] for line in ended.out.splitlines()]
    name = f"{registry.address}/{REPOSITORY}"
    assert subjects == [
        "ok   webhook secret",
        "ok   API token",
        f"ok   image {name}:latest",
        f"ok   image {name}, tags by pattern",
        "ok   target local",
    ]
    assert not (tmp_path / "state").exists()
    (tmp_path / "api-token").unlink()
    config = configure(tmp_path, registry, image='tags = ["none"]')
    (tmp_path / "webhook-secret").unlink()
    ended = run("check", "--json", config=config)
    assert ended.code == 1
    assert {one["subject"]: one["ok"] for one in ended.json} == {
        "webhook secret": False,
        "API token": True,
        f"image {name}:none": False,
        "target local": True,
    }


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


@pytest.mark.parametrize(
    ("form", "environment", "is_json"),
    [
        ("json", {}, True),
        ("console", {"JOURNAL_STREAM": "1:2"}, False),
        ("auto", {"JOURNAL_STREAM": "1:2"}, True),
        ("auto", {}, False),
    ],
)
def test_logs(
    form: str,
    environment: dict[str, str],
    is_json: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Logs are lines for people, or JSON under systemd and when asked; libraries only warn."""
    from syncd.console import set_up_logs

    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    set_up_logs(form)
    with structlog.contextvars.bound_contextvars(job="42"):
        structlog.stdlib.get_logger("syncd.test").info("published", volume="v")
    logging.getLogger("library").info("chatter")
    logging.getLogger("library").warning("trouble")
    first, second = capsys.readouterr().err.splitlines()
    assert "42" in first
    assert "trouble" in second
    if is_json:
        line = json.loads(first)
        assert (line["event"], line["level"], line["volume"]) == ("published", "info", "v")
        assert json.loads(second)["event"] == "trouble"
    else:
        assert not first.startswith("{")


@pytest.mark.parametrize("form", ["json", "console"])
def test_tracebacks_show_no_secret(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A fault's traceback names its lines, and never what the variables hold."""
    from syncd.console import set_up_logs

    set_up_logs(form)
    password = "hunter" + str(1 + 1)
    try:
        raise ValueError("oops")
    except ValueError:
        structlog.stdlib.get_logger("syncd.test").exception("fault in syncd")
    said = capsys.readouterr().err
    assert "ValueError: oops" in said
    assert password not in said
