"""What `config`, `settings` and `secret` promise: checked whole, no secret in any value."""

from __future__ import annotations

import re
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import ValidationError

from syncd.config import load as loading
from syncd.config.github_settings import GitHubSettings
from syncd.config.load import embedded, likely_socket, load_config, locate
from syncd.config.server_settings import ServerSettings
from syncd.config.settings import (
    Config,
    ImageSettings,
    RegistrySettings,
)
from syncd.config.target_settings import DirectoryTargetSettings, ProxmoxTargetSettings
from syncd.errors import ConfigError
from syncd.oci.reference import Reference
from tests.configuration import EXAMPLE, PAGE, lines, models, page, tables

TARGET = '[[target]]\nname = "t"\ntype = "directory"\npath = "/x"\n'
IMAGE = '[[image]]\nrepository = "ghcr.io/o/n"\n'


def read(tmp_path: Path, text: str) -> Config:
    """Load a configuration of this text."""
    path = tmp_path / "syncd.toml"
    path.write_text(text)
    return load_config(path)


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
        monkeypatch.setattr(loading, "DEFAULT_PATH", default)
        assert locate(first, environment) == found


def test_embedded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a file there is one directory target below the current folder, and no secret."""
    monkeypatch.chdir(tmp_path)
    found = load_config(None)
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
        ("none.toml", None, "cannot be read: No such file or directory$"),
        (".", None, "cannot be read: Is a directory$"),
        ("latin.toml", b"\xff", "cannot be read: it is not text in UTF-8$"),
        ("bad.toml", b"[server\n", "is not TOML.*line 1"),
        ("twice.toml", b"[server]\n[server]\n", "is not TOML.*line 2"),
        ("arrays.toml", b"a = " + b"[" * 100_000, "nested too deeply"),
        ("tables.toml", b"a = " + b"{b = " * 100_000, "nested too deeply"),
    ],
)
def test_unreadable(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    """A file that is missing, or no TOML, is named with the reason."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=f"{tmp_path / name}.*{message}"):
        load_config(tmp_path / name)


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
        ('[server]\nlisten = "8750"', "2: server.listen", r"like 127\.0\.0\.1:8750"),
        ("[server]\nlisten = 8750", "2: server.listen", "text, in quotes"),
        ('[server]\nlistne = "127.0.0.1:1"', "2: server.listne", r"did you mean listen\?$"),
        ('[servers]\nlisten = "127.0.0.1:1"', "1: servers", r"did you mean server\?$"),
        ("server = 5", "1: server", "table with keys"),
        ("[state]\ndirectory = 5", "2: state.directory", "path, in quotes"),
        ("[image]\n", "1: image", r"^1: image: write \[\[image\]\] with two brackets"),
        ("image = 3", "1: image", "list"),
        (f'{IMAGE}tags = "latest"', "3: image[0].tags", r'tags = \["\.\.\."\]'),
        (f'{IMAGE}strict = "maybe"', "3: image[0].strict", "true or false"),
        (f"{IMAGE}keep = 1.5", "3: image[0].keep", "whole number"),
        (f"{IMAGE}retry = 3", "3: image[0].retry", r"there is no such key$"),
        (f"{IMAGE}plat = 3", "3: image[0].plat", r"did you mean platform\?$"),
        (f"{IMAGE}keap = 1", "3: image[0].keap", r"did you mean keep\?$"),
        ('[[target]]\nname = "t"\ntype = "dir"', "1: target[0]", r"did you mean directory\?$"),
        (
            '[[target]]\nname = "t"\ntype = "directory"\npaht = "/x"\npath = "/x"',
            "4: target[0].paht",
            r"did you mean path\?$",
        ),
        (
            '[[target]]\nname = "t"\ntype = "proxmox"\nendpoints = ["10.0.0.1"]',
            "4: target[0].endpoints[0]",
            r"write it like https://10\.0\.0\.11:8006$",
        ),
        ('[server]\nsettle = "30"', "2: server.settle", "like 90s, 5m, 1h30m or 30d"),
        ('[server]\nsettle = ""', "2: server.settle", "span of time"),
        (f'[server]\nsettle = "{"9" * 20}d"', "2: server.settle", "span of time"),
        (f'[server]\nsettle = "{"9" * 5000}d"', "2: server.settle", ""),
        ("[server]\nsettle = [1]", "2: server.settle", ""),
        ('[state]\ncache_max = "much"', "2: state.cache_max", "like 20GiB"),
        ('[schedule]\nweekly = "30 23 * *"', "2: schedule.weekly", ""),
        ('[schedule]\nweekly = "61 23 * * sun"', "2: schedule.weekly", ""),
        ('[schedule]\nweekly = "30 23 * * 8"', "2: schedule.weekly", ""),
        ('[schedule]\nweekly = ""', "2: schedule.weekly", ""),
        ('[schedule]\nsweep = "no"', "2: schedule.sweep", "span of time"),
        ("[worker]\njobs = 0", "2: worker.jobs", "at least 1$"),
        ('[limits]\nslowest = "16KiB/h"', "2: limits.slowest", ""),
        ("[limits]\nlayers = 0", "2: limits.layers", ""),
        ('[notify]\non = ["sometimes"]', "2: notify.on[0]", ""),
        ('[notify]\nremind = "30s"', "2: notify.remind", "a span of at least 1m, or off"),
        ('[[registry]]\nhost = "a b"', "2: registry[0].host", "is not a"),
        ("[[registry]]\nplain_http = true", "1: registry[0].host", "needed"),
        ('[[registry]]\nhost = "a.b"\nusername = "u"', "1: registry[0]", "go together"),
        ('[[registry]]\nhost = "a.b"\npassword_file = "f"', "1: registry[0]", "go together"),
        ('[[registry]]\nhost = "a.b"\npassword = "hunter2"', "3: registry[0].password", "no such"),
        ('[[registry]]\nhost = "a.b"\n' * 2, "1: as a whole", "share a host: a.b"),
        ("[[image]]\n", "1: image[0].repository", "needed"),
        (f"{IMAGE}tags = []", "3: image[0].tags", "at least one"),
        (f'{IMAGE}tags = ["latest", "a b"]', "3: image[0].tags[1]", "not a tag"),
        (f'{IMAGE}platform = "amd64"', "3: image[0].platform", "not a platform"),
        (f"{IMAGE}platform = []", "3: image[0].platform", "at least one"),
        (
            f'{IMAGE}platform = ["linux/arm64", "linux/arm64/v8"]',
            "3: image[0].platform",
            "there twice",
        ),
        (f'{IMAGE}format = "zip"', "3: image[0].format", "write .auto., .rootfs. or .oci."),
        (f"{IMAGE}compression_level = 20", "3: image[0].compression_level", "at most 19$"),
        (f'{IMAGE}name = "x"', "3: image[0].name", "no digest"),
        (IMAGE, "1: as a whole", "no \\[\\[target\\]\\]"),
        (f'{TARGET}{IMAGE}targets = ["u"]', "1: as a whole", "unknown targets: u"),
        (TARGET * 2, "1: as a whole", "share a name: t"),
        (TARGET + TARGET.replace('"t"', '"u"'), "1: as a whole", "share a folder: /x"),
        ('[[profile]]\nname = "a"\n' * 2, "1: as a whole", "profiles share a name: a"),
        ("[[profile]]\ncores = 1", "1: profile[0].name", "needed"),
        ('[[profile]]\nname = "a"\ncores = "1"', "3: profile[0].cores", ""),
        (
            '[[profile]]\nname = "a"\nstorage = "/hunter2"',
            "3: profile[0].storage",
            "write the name",
        ),
        ('[[profile]]\nname = "a"\nnet1 = "hunter2"', "3: profile[0].net1", "like name=eth0"),
        ('[[profile]]\nname = "a"\nmp0 = "hunter2"', "3: profile[0].mp0", "like local-zfs:8"),
        ('[[profile]]\nname = "a"\nenv = { A = "hunter2\\n" }', "3: profile[0].env.A", ""),
        ('[[profile]]\nname = "a"\nfeatures = "hunter2"', "3: profile[0].features", "nesting"),
        ('[[profile]]\nname = "a"\nhostname = "b"', "3: profile[0].hostname", "no such key"),
        ('[[profile]]\nname = "a"\npassword = "hunter2"', "3: profile[0].password", "no such"),
        ('[[target]]\nname = "t"\ntype = "s3"', "1: target[0]", "proxmox"),
        ('[[target]]\nname = "t"', "1: target[0]", "type"),
        ('[[target]]\nname = "a/b"\ntype = "directory"\npath = "/"', "2: target[0].name", ""),
        ('[[target]]\nname = "t"\ntype = "directory"', "1: target[0].path", "needed"),
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
        (
            '[[target]]\nname = "t"\ntype = "proxmox"\ntoken_id = "x"',
            "4: target[0].token_id",
            "like syncd@pve!sync",
        ),
    ],
)
def test_fault(text: str, place: str, message: str, tmp_path: Path) -> None:
    """Each fault is told at its place, and never with the value: it might be a secret."""
    (fault,) = faults(tmp_path, text)
    assert fault.startswith(f"{place}: ")
    assert re.search(message, fault)
    assert "hunter2" not in fault


USUAL = "/run/syncd/syncd.sock"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("= nonsense", USUAL),
        ("[server", USUAL),
        ('[server]\nsocket = "sock"', USUAL),
        ("server = 7", USUAL),
        ('[state]\ndirectory = "/srv/state"\n[server]\nx = [', "/srv/state/syncd.sock"),
        ('[server]\nx = 1\nsocket = "/srv/sock"\n[[image]]\n= 1', "/srv/sock"),
        ("a = " + "[" * 100_000, USUAL),
    ],
)
def test_likely_socket(text: str, expected: str, tmp_path: Path) -> None:
    """What a faulty file says of its daemon's socket counts where that can be read."""
    path = tmp_path / "syncd.toml"
    path.write_text(text)
    assert likely_socket(path) == Path(expected)
    assert likely_socket(tmp_path / "none") == Path(USUAL)


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
    for name in ("webhook-secret", "api-token", "notify-urls", "ping-url"):
        (tmp_path / name).write_text(f"{name}\n")
    assert ServerSettings().webhook_secret() == "webhook-secret"
    assert ServerSettings().api_token() == "api-token"
    assert Config().notify.urls() == ["notify-urls"]
    with pytest.raises(ConfigError, match="is none of HTTP") as caught:
        Config().notify.ping_url()
    assert "ping-url\n" not in str(caught.value)
    assert ServerSettings(api_token_file=tmp_path / "webhook-secret").api_token() == (
        "webhook-secret"
    )
    assert RegistrySettings(host="a.b").credentials() is None


def test_secret_handed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A configured file that this user may not read is read from the credential of its name."""
    handed, file = tmp_path / "handed", tmp_path / "api-token"
    handed.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(handed))
    settings = ServerSettings(api_token_file=file)
    with pytest.raises(ConfigError, match=f"{file} cannot be read"):
        settings.api_token()
    (handed / "api-token").write_text("handed over\n")
    assert settings.api_token() == "handed over"
    file.write_text("there\n")
    assert settings.api_token() == "there"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory; check its path"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff", "cannot be read: it is not text in UTF-8; make one with: openssl"),
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
    """The file of URLs may have comments and empty lines; who is named twice is told once."""
    (tmp_path / "urls").write_text("# mine\njson://a\n\n  json://b  \n  # json://c\njson://a\n")
    found = read(tmp_path, f'[notify]\nurls_file = "{tmp_path}/urls"')
    assert found.notify.urls() == ["json://a", "json://b"]


def test_notify(tmp_path: Path) -> None:
    """All that happens to tags is told unless less is asked for, for one image or for all."""
    default = read(tmp_path, f"{TARGET}{IMAGE}")
    assert default.notify.on == {"new", "updated", "failing", "recovered"}
    assert (default.notify.remind, default.image[0].notify) == (timedelta(hours=24), None)
    lines = '[notify]\non = ["failing", "weekly"]\nremind = "off"\n'
    found = read(tmp_path, f"{lines}{TARGET}{IMAGE}notify = []\n")
    assert found.notify.on == {"failing", "weekly"}
    assert found.notify.remind is None
    assert found.image[0].notify == frozenset()


@pytest.mark.parametrize("url", ["https://hc-ping.com/a-b", "http://127.0.0.1:3001/push/x?y=z"])
def test_ping_url(url: str, tmp_path: Path) -> None:
    """The URL of the dead man's switch is read from its file when it is asked."""
    (tmp_path / "ping").write_text(f"{url}\n")
    found = read(tmp_path, f'[notify]\nping_url_file = "{tmp_path}/ping"')
    assert found.notify.ping_url() == url
    assert url not in f"{found!r}"


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


def test_one_faulty_tag() -> None:
    """The only tag's fault is told, and not also that the list of tags is empty."""
    text = '[[image]]\nrepository = "a.b/c"\ntags = ["re:("]\n'
    with pytest.raises(ConfigError) as caught:
        loading.parse_config(text, Path("syncd.toml"))
    assert "not a regular expression" in str(caught.value)
    assert "at least one" not in str(caught.value)


def test_watches() -> None:
    """Tags are watched by name as a whole, and by pattern anywhere unless it is anchored."""
    image = ImageSettings(repository="a.b/c", tags=("main", "re:^v[0-9]+$"))
    assert [image.watches(tag) for tag in ("main", "mainly", "v12", "v1x")] == [1, 0, 1, 0]
    assert image.fixed_tags == ("main",)
    assert image.has_patterns
    assert not ImageSettings(repository="a.b/c").has_patterns


@pytest.mark.parametrize(
    "tag",
    [
        f"sha256-{'0' * 64}",
        f"sha256-{'0' * 64}.sig",
        f"sha256-{'0' * 64}.att",
        f"sha256-{'a' * 64}.sbom",
        f"sha512-{'0' * 64}",
        f"sha256-{'0' * 64}.8f3a.sig",
    ],
)
def test_attachments_are_not_watched(tag: str) -> None:
    """A pattern never meets what signing leaves in a repository; its name does."""
    assert not ImageSettings(repository="a.b/c", tags=("re:.", "re:^sha")).watches(tag)
    assert ImageSettings(repository="a.b/c", tags=("re:.", tag)).watches(tag)


@pytest.mark.parametrize("tag", ["sha256-abc", f"sha256-{'0' * 63}", f"v-sha256-{'0' * 64}"])
def test_tags_like_attachments(tag: str) -> None:
    """What only looks like such a tag is one like any other."""
    assert ImageSettings(repository="a.b/c", tags=("re:.",)).watches(tag)


@pytest.mark.parametrize(
    "host", ["docker.io", "index.docker.io", "registry-1.docker.io", "Docker.IO"]
)
def test_names_of_docker_hub(host: str) -> None:
    """A registry is found under each of its names."""
    config = Config(registry=(RegistrySettings(host=host, plain_http=True),))
    assert config.registry_for(Reference.parse("debian").registry).plain_http


def test_which_registry(tmp_path: Path) -> None:
    """A registry that is not configured is spoken to anonymously, over HTTPS."""
    found = read(tmp_path, '[[registry]]\nhost = "a.b:5000"\nplain_http = true\n')
    assert found.registry_for("a.b:5000").plain_http
    assert found.registry_for("a.b") == RegistrySettings(host="a.b")


def test_example_loads() -> None:
    """The example that is installed is a configuration, all of whose values are defaults."""
    found = load_config(EXAMPLE)
    assert found == Config(target=found.target)


def test_profiles(tmp_path: Path) -> None:
    """The example's profile is one, once its keys are live."""
    text = "\n".join(lines())
    start = text.index("[[profile]]")
    (profile,) = read(tmp_path, text[start : text.index("[[target]]", start)]).profile
    assert profile.networks == {"net1": "name=eth1,bridge=vmbr1,ip=10.0.0.5/24"}
    assert profile.env == {"TZ": "UTC"}


def test_example_is_complete() -> None:
    """The example shows every key there is, and no other."""
    assert set(tables()) == set(Config.model_fields)
    for name, model, shown in models():
        assert set(shown) == set(model.model_fields), name


def test_example_shows_the_defaults() -> None:
    """Where a key has a default, that is the value the example shows."""
    for name, model, shown in models():
        if all(field.default in (None, {}) for field in model.model_fields.values()):
            continue
        required = {
            key: shown[key] for key, field in model.model_fields.items() if field.is_required()
        }
        default = model(**required)
        live = model.model_validate(
            {
                key: value
                for key, value in shown.items()
                if key in required or getattr(default, key) not in (None, (), {})
            }
        )
        assert live == default, name


def test_example_explains_each_key() -> None:
    """Before each key stands a line that says what it is for."""
    lines = EXAMPLE.read_text().splitlines()
    for before, line in pairwise(lines):
        if re.match(r"#?[a-z_0-9]+ = ", line):
            assert before.startswith("# "), line


def test_page_is_true() -> None:
    """docs/configure.md is what the model and the example say: `make docs` writes it."""
    assert PAGE.read_text() == page()


@pytest.mark.parametrize(
    ("line", "mountpoint"),
    [
        ("", None),
        ("is_mountpoint = false", None),
        ("is_mountpoint = true", Path("/mnt/disk/templates")),
        ('is_mountpoint = "/mnt/disk"', Path("/mnt/disk")),
    ],
)
def test_mountpoint(line: str, mountpoint: Path | None, tmp_path: Path) -> None:
    """A target's own folder, or one that it names, has to be a mount point, as PVE has it."""
    (tmp_path / "syncd.toml").write_text(
        f'[[target]]\nname = "t"\ntype = "directory"\npath = "/mnt/disk/templates"\n{line}\n'
    )
    (target,) = load_config(tmp_path / "syncd.toml").target
    assert isinstance(target, DirectoryTargetSettings)
    assert target.mountpoint == mountpoint


@pytest.mark.parametrize(
    "hook",
    [
        "orgs/mieweb",
        "orgs/mieweb/hooks/12345678",
        "repos/Octo_managed/a.b-c_d",
        "repos/o/hooks/hooks/1",
        "repos/o/..x",
    ],
)
def test_github_hook(hook: str) -> None:
    """One place may stand for a list of itself."""
    assert GitHubSettings(hook=hook).hook == GitHubSettings(hook=[hook]).hook == (hook,)


@pytest.mark.parametrize(
    "hook",
    [
        "",
        "mieweb",
        "orgs/",
        "orgs/a/b",
        "orgs/..",
        "repos/a",
        "repos/a/..",
        "repos/a/../hooks/1",
        "repos/a/.",
        "orgs/a/hooks/",
        "orgs/a/hooks/x",
        "orgs/a/hooks/1/deliveries",
        "orgs/a?b",
        "orgs/a\n",
        "/orgs/a",
        "https://github.com/orgs/a",
    ],
)
def test_bad_github_hook(hook: str) -> None:
    """What leads elsewhere in GitHub's API is refused."""
    with pytest.raises(ValidationError, match="write orgs/ORG or repos/OWNER/REPOSITORY"):
        GitHubSettings(hook=(hook,))


@pytest.mark.parametrize(
    "api",
    [
        "http://api.github.com",
        "ftp://api.github.com",
        "api.github.com",
        "https://",
        "https://user:secret@api.github.com",
        "https://api.github.com?a",
        "https://api.github.com#a",
        "https://api.github.com/a b",
        "https://api.github.com:x",
        "https://[x",
        "https://gïthub.com",
    ],
)
def test_bad_github_api(api: str) -> None:
    """The token goes nowhere without encryption, and nowhere that is no host."""
    with pytest.raises(ValidationError, match="write a URL like"):
        GitHubSettings(api=api)


def test_github_api() -> None:
    """A GitHub Enterprise Server has its API in a path; a double speaks HTTP on loopback."""
    for api in ("https://github.example.org/api/v3", "http://127.0.0.1:9", "http://[::1]:9"):
        assert GitHubSettings(api=f"{api}/").api == api


def test_networks() -> None:
    """Addresses and networks of both kinds are taken, and GitHub's own by a word."""
    server = ServerSettings.model_validate(
        {"proxies": ["127.0.0.1", "::1", "10.0.0.0/8"], "hook_addresses": "github"}
    )
    assert server.proxies == ("127.0.0.1/32", "::1/128", "10.0.0.0/8")
    assert server.hook_addresses == ("github",)


@pytest.mark.parametrize("key", ["proxies", "hook_addresses"])
@pytest.mark.parametrize("wrong", ["example.org", "10.0.0.1/8", "1.2.3.4/33", "0.0.0.0/0", "::/0"])
def test_bad_networks(key: str, wrong: str) -> None:
    """A network with an address in it, a name, and everybody are refused."""
    with pytest.raises(ValidationError, match="network"):
        ServerSettings.model_validate({key: [wrong]})


def test_no_hook_addresses() -> None:
    """An empty list is refused: it may mean everybody or nobody."""
    with pytest.raises(ValidationError, match="at least 1"):
        ServerSettings.model_validate({"hook_addresses": []})
