"""What `syncd.config`, `settings` and `secret` promise: checked whole, no secret in any value."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from syncd import config
from syncd.config import embedded, load, locate
from syncd.errors import ConfigError
from syncd.reference import Reference
from syncd.settings import (
    Config,
    DirectoryTargetSettings,
    ImageSettings,
    ProxmoxTargetSettings,
    RegistrySettings,
    ServerSettings,
)

EXAMPLE = Path("config/syncd.toml")
TARGET = '[[target]]\nname = "t"\ntype = "directory"\npath = "/x"\n'
IMAGE = '[[image]]\nrepository = "ghcr.io/o/n"\n'


def read(tmp_path: Path, text: str) -> Config:
    """Load a configuration of this text."""
    path = tmp_path / "syncd.toml"
    path.write_text(text)
    return load(path)


def faults(tmp_path: Path, text: str) -> list[str]:
    """Return the faults of a configuration, without the file's path."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    prefix = f"{tmp_path / 'syncd.toml'}:"
    assert all(fault.startswith(prefix) for fault in caught.value.faults)
    assert all(fault in str(caught.value) for fault in caught.value.faults)
    return [fault.removeprefix(prefix) for fault in caught.value.faults]


def test_locate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The option goes before the environment, that before /etc, and nothing means embedded."""
    there = tmp_path / "there"
    there.touch()
    given, named = Path("given"), {"SYNCD_CONFIG": "named"}
    for default, first, environment, found in [
        (there, given, named, given),
        (there, None, named, Path("named")),
        (there, None, {}, there),
        (there, None, {"SYNCD_CONFIG": ""}, there),
        (tmp_path / "none", None, {}, None),
    ]:
        monkeypatch.setattr(config, "DEFAULT_PATH", default)
        assert locate(first, environment) == found


def test_embedded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a file there is one directory target below the current folder, and no secret."""
    monkeypatch.chdir(tmp_path)
    found = load(None)
    assert found == embedded(tmp_path)
    (target,) = found.target
    assert isinstance(target, DirectoryTargetSettings)
    assert target.path.is_relative_to(tmp_path)
    assert found.state.directory.is_relative_to(tmp_path)
    assert found.server.webhook_secret() is found.server.api_token() is None


def test_empty(tmp_path: Path) -> None:
    """An empty file is all defaults."""
    assert read(tmp_path, "") == Config()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.toml", None, "cannot be read"),
        (".", None, "cannot be read"),
        ("latin.toml", b"\xff", "cannot be read"),
        ("bad.toml", b"[server\n", "is not TOML.*line 1"),
        ("twice.toml", b"[server]\n[server]\n", "is not TOML.*line 2"),
    ],
)
def test_unreadable(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    """A file that is missing, or no TOML, is named with the reason."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=f"{tmp_path / name}.*{message}"):
        load(tmp_path / name)


def test_every_fault_at_once(tmp_path: Path) -> None:
    """Every fault is listed with its line and key."""
    text = f"""\
[server]
listen = "8750"
lisn = "x"

[state]
directory = 5

[[image]]
repository = "ghcr.io/o/n"

[[image]]
repository = "ghcr.io/o/n:tag"
tags = ["latest", "re:("]
keep = 0

[nonsense]
{TARGET}
[[target]]
name = "p"
type = "proxmox"
endpoints = ["http://10.0.0.11"]
"""
    found = faults(tmp_path, text)
    for place in (
        "2: server.listen: ",
        "3: server.lisn: there is no such key",
        "6: state.directory: ",
        "12: image[1].repository: the repository carries a tag",
        "13: image[1].tags[1]: not a regular expression",
        "14: image[1].keep: ",
        "16: nonsense: there is no such key",
        "25: target[1].endpoints[0]: ",
    ):
        assert any(fault.startswith(place) for fault in found), (place, found)
    assert len(found) == 8


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ('[server]\nlisten = "127.0.0.1:99999"', "2: server.listen", "port"),
        ('[server]\nsettle = "soon"', "2: server.settle", "span of time"),
        ('[server]\nsettle = ""', "2: server.settle", "span of time"),
        (f'[server]\nsettle = "{"9" * 20}d"', "2: server.settle", "span of time"),
        (f'[server]\nsettle = "{"9" * 5000}d"', "2: server.settle", ""),
        ("[server]\nsettle = [1]", "2: server.settle", ""),
        ('[state]\ncache_max = "much"', "2: state.cache_max", ""),
        ('[schedule]\nweekly = "30 23 * *"', "2: schedule.weekly", ""),
        ('[schedule]\nweekly = "61 23 * * sun"', "2: schedule.weekly", ""),
        ('[schedule]\nweekly = "30 23 * * 8"', "2: schedule.weekly", ""),
        ('[schedule]\nweekly = ""', "2: schedule.weekly", ""),
        ('[schedule]\nsweep = "no"', "2: schedule.sweep", "span of time"),
        ("[worker]\njobs = 0", "2: worker.jobs", ""),
        ("[limits]\nlayers = 0", "2: limits.layers", ""),
        ('[notify]\non = ["sometimes"]', "2: notify.on[0]", ""),
        ('[[registry]]\nhost = "a b"', "2: registry[0].host", "is not a"),
        ("[[registry]]\nplain_http = true", "1: registry[0].host", "required"),
        ('[[registry]]\nhost = "a.b"\nusername = "u"', "1: registry[0]", "go together"),
        ('[[registry]]\nhost = "a.b"\npassword_file = "f"', "1: registry[0]", "go together"),
        ('[[registry]]\nhost = "a.b"\npassword = "hunter2"', "3: registry[0].password", "no such"),
        ('[[registry]]\nhost = "a.b"\n' * 2, "1: as a whole", "share a host: a.b"),
        ("[[image]]\n", "1: image[0].repository", "required"),
        (f"{IMAGE}tags = []", "3: image[0].tags", ""),
        (f'{IMAGE}tags = ["latest", "a b"]', "3: image[0].tags[1]", "not a tag"),
        (f'{IMAGE}platform = "amd64"', "3: image[0].platform", "not a platform"),
        (f'{IMAGE}format = "zip"', "3: image[0].format", ""),
        (f"{IMAGE}compression_level = 20", "3: image[0].compression_level", ""),
        (f'{IMAGE}name = "x"', "3: image[0].name", "no digest"),
        (IMAGE, "1: as a whole", "no \\[\\[target\\]\\]"),
        (f'{TARGET}{IMAGE}targets = ["u"]', "1: as a whole", "unknown targets: u"),
        (TARGET * 2, "1: as a whole", "share a name: t"),
        ('[[target]]\nname = "t"\ntype = "s3"', "1: target[0]", "proxmox"),
        ('[[target]]\nname = "t"', "1: target[0]", "type"),
        ('[[target]]\nname = "a/b"\ntype = "directory"\npath = "/"', "2: target[0].name", ""),
        ('[[target]]\nname = "t"\ntype = "directory"', "1: target[0].path", "required"),
        (
            '[[target]]\nname = "t"\ntype = "proxmox"\nendpoints = ["https://a"]',
            "1: target[0]",
            "need token_id",
        ),
        (
            '[[target]]\nname = "t"\ntype = "proxmox"\nca_file = "f"\n'
            f'fingerprint = "{":".join(["AB"] * 32)}"',
            "1: target[0]",
            "not both",
        ),
        ('[[target]]\nname = "t"\ntype = "proxmox"\ntoken_id = "x"', "4: target[0].token_id", ""),
    ],
)
def test_fault(text: str, place: str, message: str, tmp_path: Path) -> None:
    """Each fault is told at its place, and never with the value: it might be a secret."""
    (fault,) = faults(tmp_path, text)
    assert fault.startswith(f"{place}: ")
    assert re.search(message, fault)
    assert "hunter2" not in fault


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("1h30m", 5400), ("1d", 86400), ("1d1h1m1s", 90061), ("0s", 0)],
)
def test_span(text: str, seconds: int, tmp_path: Path) -> None:
    """Spans of time are written in days, hours, minutes and seconds."""
    found = read(tmp_path, f'[server]\nsettle = "{text}"')
    assert found.server.settle == timedelta(seconds=seconds)


def test_off(tmp_path: Path) -> None:
    """The sweep can be switched off."""
    assert read(tmp_path, '[schedule]\nsweep = "off"').schedule.sweep is None


def test_secret_by_file(tmp_path: Path) -> None:
    """A secret is read from its file when asked for, as it is then, without its line end."""
    file = tmp_path / "secret"
    server = ServerSettings(webhook_secret_file=file, api_token_file=file)
    for secret in ("first", "second"):
        file.write_text(f"{secret}\n")
        assert server.webhook_secret() == server.api_token() == secret


def test_secret_by_credential(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a file, systemd's credentials are looked at; a configured file goes before them."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert ServerSettings().webhook_secret() is None
    for name in ("webhook-secret", "api-token", "notify-urls"):
        (tmp_path / name).write_text(f"{name}\n")
    assert ServerSettings().webhook_secret() == "webhook-secret"
    assert ServerSettings().api_token() == "api-token"
    assert Config().notify.urls() == ["notify-urls"]
    assert ServerSettings(api_token_file=tmp_path / "webhook-secret").api_token() == (
        "webhook-secret"
    )
    assert RegistrySettings(host="a.b").credentials() is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff", "cannot be read"),
        (b"x" * 65537, "is too long"),
    ],
)
def test_bad_secret(content: bytes | None, message: str, tmp_path: Path) -> None:
    """A configured secret that is missing, empty, too long or no text: an error names its file."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"{file}.*{message}"):
        ServerSettings(api_token_file=file).api_token()


def test_secrets_are_never_in_a_value(tmp_path: Path) -> None:
    """What is printed or logged of a configuration names files, never what is in them."""
    file = tmp_path / "secret"
    file.write_text("hunter2")
    text = f"""\
[server]
webhook_secret_file = "{file}"
api_token_file = "{file}"
[notify]
urls_file = "{file}"
[[registry]]
host = "a.b"
username = "u"
password_file = "{file}"
[[target]]
name = "t"
type = "proxmox"
endpoints = ["https://a"]
token_id = "u@pve!t"
token_secret_file = "{file}"
"""
    found = read(tmp_path, text)
    (target,) = found.target
    assert isinstance(target, ProxmoxTargetSettings)
    assert found.server.webhook_secret() == target.token_secret() == "hunter2"
    assert found.registry[0].credentials() == ("u", "hunter2")
    assert found.notify.urls() == ["hunter2"]
    assert "hunter2" not in f"{found!r} {found} {found.model_dump_json()}"


def test_notify_urls(tmp_path: Path) -> None:
    """The file of URLs may have comments and empty lines."""
    (tmp_path / "urls").write_text("# mine\njson://a\n\n  json://b  \n  # json://c\n")
    found = read(tmp_path, f'[notify]\nurls_file = "{tmp_path}/urls"')
    assert found.notify.urls() == ["json://a", "json://b"]


def test_which_image(tmp_path: Path) -> None:
    """A reference is treated as the first image that watches its tag says, or by default."""
    found = read(
        tmp_path,
        f'{TARGET}{IMAGE}tags = ["latest"]\nkeep = 5\n{IMAGE}tags = ["re:^v[0-9]"]\nkeep = 7\n',
    )
    kept = {
        tag: found.image_for(Reference.parse(f"ghcr.io/o/n{tag}")).keep
        for tag in ("", ":latest", ":v1", ":xv1", f"@sha256:{'0' * 64}")
    }
    assert kept == {"": 5, ":latest": 5, ":v1": 7, ":xv1": 2, f"@sha256:{'0' * 64}": 5}
    assert found.image_for(Reference.parse("ghcr.io/o/other:v1")).repository == "ghcr.io/o/other"


def test_watches() -> None:
    """Tags are watched by name as a whole, and by pattern anywhere unless it is anchored."""
    image = ImageSettings(repository="a.b/c", tags=("main", "re:^v[0-9]+$"))
    assert [image.watches(tag) for tag in ("main", "mainly", "v12", "v1x")] == [1, 0, 1, 0]
    assert image.fixed_tags == ("main",)
    assert image.has_patterns
    assert not ImageSettings(repository="a.b/c").has_patterns


def test_which_registry(tmp_path: Path) -> None:
    """A registry that is not configured is spoken to anonymously, over HTTPS."""
    found = read(tmp_path, '[[registry]]\nhost = "a.b:5000"\nplain_http = true\n')
    assert found.registry_for("a.b:5000").plain_http
    assert found.registry_for("a.b") == RegistrySettings(host="a.b")


def test_example_loads() -> None:
    """The example that is installed is a configuration, all of whose values are defaults."""
    found = load(EXAMPLE)
    assert found == Config(target=found.target)


def uncommented() -> Iterator[str]:
    """Return the example's lines with every commented-out key live, and without its sentences."""
    for line in EXAMPLE.read_text().splitlines():
        live = line.removeprefix("#")
        if re.match(r"\[|[a-z_]+ = ", live):
            yield live


def tables() -> dict[str, Any]:
    """Return the example as it is with every key live."""
    return tomllib.loads("\n".join(uncommented()).replace('"AB:CD:..."', '""'))


def models() -> Iterator[tuple[str, type[BaseModel], dict[str, Any]]]:
    """Return each table of the configuration: name, model, and what the example says of it."""
    shown = tables()
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, field.annotation, shown[name]
    yield "registry", RegistrySettings, shown["registry"][0]
    yield "image", ImageSettings, shown["image"][0]
    yield "target", ProxmoxTargetSettings, shown["target"][0]
    yield "target", DirectoryTargetSettings, shown["target"][1]


def test_example_is_complete() -> None:
    """The example shows every key there is, and no other."""
    assert set(tables()) == set(Config.model_fields)
    for name, model, shown in models():
        assert set(shown) == set(model.model_fields), name


def test_example_shows_the_defaults() -> None:
    """Where a key has a default, that is the value the example shows."""
    for name, model, shown in models():
        required = {
            key: shown[key] for key, field in model.model_fields.items() if field.is_required()
        }
        default = model(**required)
        live = model.model_validate(
            {
                key: value
                for key, value in shown.items()
                if key in required or getattr(default, key) not in (None, ())
            }
        )
        assert live == default, name


def test_example_explains_each_key() -> None:
    """Before each key stands a line that says what it is for."""
    lines = EXAMPLE.read_text().splitlines()
    for before, line in pairwise(lines):
        if re.match(r"#?[a-z_]+ = ", line):
            assert before.startswith("# "), line
