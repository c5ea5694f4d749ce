"""What `syncd init` promises: from answers to a configuration that works, and to a template."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from syncd.cli.first_images import parse_watched
from syncd.config.example import configuration_text, example_keys
from syncd.config.load import load_config
from syncd.config.target_settings import ProxmoxTargetSettings
from syncd.errors import SyncdError
from tests.cli.terminal import Terminal
from tests.clusters import TOKEN, names_on, token_for
from tests.fakes.pve import Pve
from tests.fakes.pvesh import install_pvesh
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, sample

PVEUM = """\
#!/bin/sh
echo "$@" >>{log}
case "$*" in
"user add"*) echo "create user failed: user 'syncd@pve' already exists" >&2; exit 255 ;;
"role add"*) echo "role already exists" >&2; exit 255 ;;
"user token add"*"--output-format json") printf '{{"full-tokenid":"x","value":"%s"}}' '{secret}' ;;
esac
"""
"""Refuses what is there already, as PVE::API2::User and PVE::API2::Role do."""


class Typist:
    """Somebody in a folder with a configuration to be made; `env` is the commands' environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "syncd.toml"
        self.env: dict[str, str] = {}

    def at_terminal(self, *words: object) -> Terminal:
        """Run a command at a terminal."""
        return Terminal(["--config", self.config, *words], self.folder, self.env)

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run a command without a terminal."""
        return subprocess.run(
            [sys.executable, "-m", "syncd", "--config", str(self.config), *map(str, words)],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path.cwd()), **self.env},
            check=False,
        )

    @property
    def files(self) -> list[str]:
        """The names of all files and folders there."""
        return sorted(path.name for path in self.folder.iterdir())

    def secret(self, name: str) -> str:
        """Return a secret, which its user alone may read."""
        file = self.folder / name
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        return file.read_text().strip()


@pytest.fixture
def typist(tmp_path: Path) -> Typist:
    """Return somebody in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    return Typist(folder)


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """Return the folder of a storage."""
    folder = tmp_path / "vz"
    folder.mkdir()
    return folder


def test_typed(typist: Typist, storage: Path, registry: Registry) -> None:
    """A folder is typed in a minute: what is wrong is asked again, and the check is green."""
    for tag in ("latest", "v1"):
        registry.push(REPOSITORY, tag, sample())
    image = f"{registry.address}/{REPOSITORY}"
    with typist.at_terminal("init", "--plain-http", registry.address) as terminal:
        terminal.answer("Images to watch", "Not A Reference")
        terminal.await_words("'Not' is not a")
        terminal.answer("Images to watch", f"{image}@sha256:{'0' * 64}")
        terminal.await_words("a digest always means the same image")
        terminal.answer("Images to watch", f"{image} {image}:re:^v[0-9]")
        terminal.answer("Where templates go", "3")
        terminal.await_words("write 1 or 2")
        terminal.answer("Where templates go", "2")
        terminal.answer("The folder", "vz")
        terminal.await_words("no absolute path")
        terminal.answer("The folder", str(storage))
        terminal.answer("What Proxmox VE calls that storage", "a b")
        terminal.await_words("'a b' is no name of a storage")
        terminal.answer("What Proxmox VE calls that storage", "")
        terminal.answer("The name by which GitHub", "syncd.example.org")
        assert terminal.end() == 0, terminal.shown
    config = load_config(typist.config)
    assert [(each.repository, each.tags) for each in config.image] == [
        (image, ("latest", "re:^v[0-9]"))
    ]
    assert [each.plain_http for each in config.registry] == [True]
    assert stat.S_IMODE(typist.config.stat().st_mode) == 0o644
    assert "https://syncd.example.org/webhooks/github\n" in terminal.shown
    assert f" {typist.secret('webhook-secret')}\n" in terminal.shown
    assert typist.secret("api-token") not in terminal.shown
    assert "FAIL" not in terminal.shown
    assert typist.run("sync").returncode == 0
    assert len([*storage.rglob("*.tar.zst")]) == 2


@pytest.mark.parametrize("agreed", [True, False])
def test_http_is_asked_for(agreed: bool, typist: Typist, storage: Path, registry: Registry) -> None:
    """A registry that speaks HTTP is asked so where that is agreed to, and else not."""
    registry.push(REPOSITORY, "latest", sample())
    words = ("--directory", storage, "--storage", "local", "--public-name", "a.b", "--no-check")
    with typist.at_terminal("init", *words) as terminal:
        terminal.answer("Images to watch", f"{registry.address}/{REPOSITORY}")
        terminal.await_words("does not speak HTTPS there, but probably HTTP")
        terminal.answer(f"--plain-http {registry.address} does? [y/N]", "y" if agreed else "")
        assert terminal.end() == 0, terminal.shown
    assert [each.plain_http for each in load_config(typist.config).registry] == [True] * agreed
    assert any(path.startswith("/v2/") for _, path in registry.requests) == agreed


def test_interrupted(typist: Typist, storage: Path, registry: Registry) -> None:
    """^C at any question ends it, and leaves nothing behind."""
    registry.push(REPOSITORY, "latest", sample())
    answers = {
        "Images to watch": f"{registry.address}/{REPOSITORY}",
        "Where templates go": "2",
        "The folder": str(storage),
        "What Proxmox VE calls": "",
        "The name by which GitHub": "",
    }
    for last in answers:
        with typist.at_terminal("init", "--plain-http", registry.address) as terminal:
            for question, text in answers.items():
                if question == last:
                    terminal.await_words(question)
                    break
                terminal.answer(question, text)
            assert terminal.interrupt() == 130
        assert typist.files == []
        assert [*storage.iterdir()] == []


def test_login(typist: Typist, storage: Path) -> None:
    """A registry that refuses is asked again with a login, which goes into a file of its own."""
    with Registry(login=("octocat", "a good word")) as registry:
        registry.push(REPOSITORY, "latest", sample())
        words = ("--plain-http", registry.address, "--directory", storage, "--public-name", "a.b")
        with typist.at_terminal("init", *words, "--storage", "local") as terminal:
            terminal.answer("Images to watch", f"{registry.address}/{REPOSITORY}")
            terminal.await_words("not found, or no access")
            terminal.answer("User name at", "octocat")
            terminal.answer("Password", "a wrong word")
            terminal.await_words("not found, or no access")
            terminal.answer("User name at", "octocat")
            terminal.answer("Password", "a good word")
            assert terminal.end() == 0, terminal.shown
    assert "good word" not in terminal.shown
    (settings,) = load_config(typist.config).registry
    assert settings.credentials() == ("octocat", "a good word")
    assert settings.password_file is not None
    assert typist.secret(settings.password_file.name) == "a good word"


def be_root_on_a_node(typist: Typist, pve: Pve, secret: str) -> Path:
    """Give the typist the programs of a Proxmox VE host; return the log of its `pveum`."""
    programs = typist.folder.parent / "bin"
    programs.mkdir()
    install_pvesh(pve, programs)
    log = programs / "log"
    (programs / "pveum").write_text(PVEUM.format(log=log, secret=secret))
    (programs / "pveum").chmod(0o755)
    (programs / "sitecustomize.py").write_text("import os\nos.geteuid = lambda: 0\n")
    typist.env |= {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": f"{programs}:{Path.cwd()}",
    }
    return log


def test_cluster(typist: Typist, pve: Pve, registry: Registry) -> None:
    """On a node the cluster is found, `pveum` is run, and the next sync publishes there."""
    registry.push(REPOSITORY, "latest", sample())
    token = token_for(pve)
    log = be_root_on_a_node(typist, pve, token.secret)
    with typist.at_terminal("init", "--plain-http", registry.address) as terminal:
        terminal.answer("Images to watch", f"{registry.address}/{REPOSITORY}")
        terminal.await_words("Where templates go")
        terminal.answer("[1]", "")
        terminal.await_words("Nodes of the cluster")
        terminal.answer("[https://127.0.0.1:8006 https://127.0.0.2:8006]", "no/node")
        terminal.await_words("write it like https://10.0.0.11:8006")
        terminal.answer("Nodes of the cluster", f"127.0.0.1:{pve.port}")
        terminal.answer("Their certificate", "/nonexistent")
        terminal.await_words("is no file of a CA")
        terminal.answer("Their certificate", "AB:CD")
        terminal.await_words("32 bytes in hex")
        terminal.answer("Their certificate", str(pve.certificate.file))
        terminal.answer("Storage for templates (cephfs, shared, ", "nowhere")
        terminal.await_words("no such storage for templates")
        terminal.answer("Storage for templates", "")
        terminal.answer("Name of the API token", "syncd")
        terminal.await_words("write it like syncd@pve!sync")
        terminal.answer("Name of the API token", "")
        terminal.answer("Delete old versions", "")
        terminal.answer("Make and replace", "")
        terminal.answer("The name by which GitHub", "")
        terminal.answer("Run them here now?", "")
        assert terminal.end() == 0, terminal.shown
    assert typist.secret("pve-token") == token.secret
    assert token.secret not in terminal.shown
    printed = [line.strip() for line in terminal.shown.splitlines() if line.startswith("    pveum")]
    ran = log.read_text().splitlines()
    assert ran[1] == "user token add syncd@pve sync --output-format json"
    assert len(ran) == len(printed) == 4
    assert printed[2:] == [
        "pveum role add Syncd-DatastoreAllocate-DatastoreAllocateTemplate-DatastoreAudit "
        "--privs Datastore.Allocate,Datastore.AllocateTemplate,Datastore.Audit",
        "pveum acl modify /storage/cephfs --roles "
        "Syncd-DatastoreAllocate-DatastoreAllocateTemplate-DatastoreAudit "
        f"--users syncd@pve --tokens '{TOKEN}'",
    ]
    assert typist.run("sync").returncode == 0
    assert len(names_on(pve, "cephfs", "pve1")) == 1


def test_options(typist: Typist, pve: Pve, registry: Registry) -> None:
    """With options alone nothing is asked, and containers get their duties, too."""
    registry.push(REPOSITORY, "latest", sample())
    token = token_for(pve)
    secret = typist.folder.parent / "secret"
    secret.write_text(token.secret)
    done = typist.run(
        *("init", "--no-check", "--plain-http", registry.address, "--no-delete"),
        *("--image", f"{registry.address}/{REPOSITORY}"),
        *("--endpoint", f"https://127.0.0.1:{pve.port}", "--ca-file", pve.certificate.file),
        *("--storage", "cephfs", "--token-secret-file", secret),
        *("--rootfs-storage", "local-zfs", "--pool", "web"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"\nThen: syncd --config {typist.config} run\n" in done.stdout
    (target,) = load_config(typist.config).target
    assert isinstance(target, ProxmoxTargetSettings)
    assert (target.token_id, target.storage) == (TOKEN, "cephfs")
    assert (target.rootfs_storage, target.bridge, target.pool) == ("local-zfs", "vmbr0", "web")
    assert target.token_secret() == token.secret
    assert token.secret not in done.stdout
    grants = [line.split() for line in done.stdout.splitlines() if "pveum acl" in line]
    assert [words[3] for words in grants] == [
        "/storage/cephfs",
        "/pool/web",
        "/storage/local-zfs",
        "/sdn/zones/localnetwork/vmbr0",
    ]
    assert "Datastore.Allocate," not in done.stdout


COMPLETE: Mapping[str, str] = {"--image": "ghcr.io/owner/image", "--directory": "/"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"--image": None}, "--image: is needed, since nobody is asked"),
        ({"--directory": None}, "--endpoint or --directory: is needed"),
        ({"--image": "A B"}, "--image"),
        ({"--image": "ghcr.io/o/i:re:("}, "not a regular expression"),
        ({"--image": "ghcr.io/o/i:v1:re:v"}, "not both"),
        ({"--directory": "/nonexistent"}, "there is no folder /nonexistent"),
        ({"--storage": "1"}, "no name of a storage"),
        ({"--public-name": "https://a.b"}, "no name of a host"),
        ({"--start": ""}, "--start: cannot be: the service "),
        ({"--login": "ghcr.io=me"}, "is written HOST=USER:FILE"),
        ({"--login": "ghcr.io=me:/nonexistent"}, "/nonexistent cannot be read: No such file"),
        ({"--endpoint": "a.b"}, "is for a folder of this host"),
        ({"--directory": None, "--endpoint": "a b"}, "write it like"),
        (
            {"--directory": None, "--endpoint": "a.b", "--fingerprint": "AB"},
            "no SHA-256 fingerprint",
        ),
    ],
)
def test_wrong_options(options: Mapping[str, str | None], message: str, typist: Typist) -> None:
    """An option that is wrong or missing is named, the exit code is 2, and nothing is written."""
    pairs = {**COMPLETE, **options}.items()
    words = [word for pair in pairs if pair[1] is not None for word in pair if word]
    done = typist.run("init", *words)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert typist.files == []


def test_somebodys_configuration(typist: Typist) -> None:
    """A configuration that somebody wrote is replaced with --force only, and keeps its mode."""
    words = ("init", "--no-check", *(word for pair in COMPLETE.items() for word in pair))
    typist.config.write_text("# mine\n")
    typist.config.chmod(0o640)
    done = typist.run(*words)
    assert (done.returncode, typist.config.read_text()) == (2, "# mine\n")
    assert "--force replaces it" in done.stderr
    assert typist.files == ["syncd.toml"]
    assert typist.run(*words, "--force").returncode == 0
    assert load_config(typist.config).image
    assert stat.S_IMODE(typist.config.stat().st_mode) == 0o640
    before = typist.secret("webhook-secret")
    assert typist.run(*words, "--force").returncode == 0
    assert typist.secret("webhook-secret") == before


def test_untouched_configuration(typist: Typist) -> None:
    """What `make install` or the package put there is replaced without a word."""
    words = ("init", "--no-check", *(word for pair in COMPLETE.items() for word in pair))
    typist.config.write_bytes(Path("config/syncd.toml").read_bytes())
    assert typist.run(*words).returncode == 0

    programs = typist.folder.parent / "bin"
    programs.mkdir()
    # As dpkg-query(1) prints it: a blank, the path, the MD5 sum of what the package has.
    (programs / "dpkg-query").write_text(f"#!/bin/sh\nmd5sum {programs}/shipped |\n  sed '"
        f"s|\\(.*\\)  .*| {typist.config} \\1|'\n")  # fmt: skip
    (programs / "dpkg-query").chmod(0o755)
    typist.env["PATH"] = f"{programs}:{os.environ['PATH']}"
    for content, code in (("of the package\n", 0), ("edited\n", 2)):
        (programs / "shipped").write_text("of the package\n")
        typist.config.write_text(content)
        assert typist.run(*words).returncode == code


def test_unwritable(typist: Typist) -> None:
    """A folder that is not there is told before anything is asked."""
    typist.config = typist.folder / "none" / "syncd.toml"
    done = typist.run("init")
    assert (done.returncode, typist.files) == (1, [])
    assert f"make it: mkdir -p {typist.folder}/none" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("text", "name", "tag"),
    [
        ("ghcr.io/o/i", "ghcr.io/o/i", "latest"),
        ("ghcr.io/o/i:main", "ghcr.io/o/i", "main"),
        ("localhost:5000/o/i:re:^v[0-9]:x", "localhost:5000/o/i", "re:^v[0-9]:x"),
        ("debian", "docker.io/library/debian", "latest"),
    ],
)
def test_watched(text: str, name: str, tag: str) -> None:
    """What is to be watched is written as a reference, or with `:re:` and a pattern."""
    watched = parse_watched(text)
    assert (watched.repository.name, watched.tag) == (name, tag)


def test_bad_watched() -> None:
    """What is neither is refused."""
    for text in ("", "A", "ghcr.io/o/i:", "ghcr.io/o/i:a b"):
        with pytest.raises((SyncdError, ValueError)):
            parse_watched(text)


def test_text(tmp_path: Path) -> None:
    """Whatever a value has in it, the configuration's file reads back as that value."""
    path = Path('/a "b"\\c\x7f\té')
    text = configuration_text("one\ntwo", [("server", {"api_token_file": path})])
    assert text.startswith("# one\n# two\n\n[server]\n# the bearer token of the API")
    (tmp_path / "a.toml").write_text(text)
    assert load_config(tmp_path / "a.toml").server.api_token_file == path


def test_packaged_example() -> None:
    """The example that the package holds is that of the project."""
    assert {name for name, _ in example_keys()} >= {"server", "image", "target", "profile"}
    assert Path("syncd/config/example.toml").read_bytes() == Path("config/syncd.toml").read_bytes()
