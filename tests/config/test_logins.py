"""What `logins` promises: what docker and podman would give to a registry, and nothing else."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from syncd.config.logins import login
from syncd.config.settings import RegistrySettings
from syncd.errors import ConfigError


def auth(user: str, password: str) -> dict[str, str]:
    """Return an entry as `docker login` writes it."""
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def write(path: Path, content: object) -> Path:
    """Write a file of logins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def helper(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a helper `docker-credential-mine` into PATH."""
    program = folder / "docker-credential-mine"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_no_file(tmp_path: Path) -> None:
    """Where nobody logged in, and where no home is, nothing is found."""
    assert login("ghcr.io", {"HOME": str(tmp_path)}) is None
    assert login("ghcr.io", {}) is None


def test_order(tmp_path: Path) -> None:
    """The named file alone, else podman's of the session, podman's, docker's."""
    environment = {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    for user, path in [
        ("docker", tmp_path / "home/.docker/config.json"),
        ("podman", tmp_path / "home/.config/containers/auth.json"),
        ("session", tmp_path / "run/containers/auth.json"),
    ]:
        write(path, {"auths": {"ghcr.io": auth(user, "p")}})
        assert login("ghcr.io", environment) == (user, "p")
    named = write(tmp_path / "named.json", {"auths": {"a.b": auth("named", "p")}})
    assert login("ghcr.io", {**environment, "REGISTRY_AUTH_FILE": str(named)}) is None
    assert login("a.b", {**environment, "REGISTRY_AUTH_FILE": str(named)}) == ("named", "p")


def test_next_file(tmp_path: Path) -> None:
    """A file that does not know the host leaves the question to the next."""
    write(tmp_path / ".config/containers/auth.json", {"auths": {"other.io": auth("u", "p")}})
    write(tmp_path / ".docker/config.json", {"auths": {"https://ghcr.io": auth("d", "a:b")}})
    assert login("ghcr.io", {"HOME": str(tmp_path)}) == ("d", "a:b")


def test_docker_hub(tmp_path: Path) -> None:
    """Docker Hub is known by the address that `docker login` writes."""
    write(
        tmp_path / ".docker/config.json",
        {"auths": {"https://index.docker.io/v1/": auth("u", "p")}},
    )
    assert login("docker.io", {"HOME": str(tmp_path)}) == ("u", "p")
    assert login("index.docker.io.evil.example", {"HOME": str(tmp_path)}) is None


@pytest.mark.parametrize(
    "content",
    [
        {"credHelpers": {"ghcr.io": "mine"}},
        {"credsStore": "mine", "auths": {"ghcr.io": {}}},
    ],
)
def test_helper(content: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper of the host, or the store of all, is asked by name and given the host."""
    helper(
        tmp_path,
        'test "$1" = get && read -r host; '
        'echo "{\\"Username\\": \\"u\\", \\"Secret\\": \\"$host\\"}"',
        monkeypatch,
    )
    write(tmp_path / ".docker/config.json", content)
    assert login("ghcr.io", {"HOME": str(tmp_path)}) == ("u", "ghcr.io")
    assert login("other.io", {"HOME": str(tmp_path)}) is None


def test_helper_that_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper without a login for the host is no fault: the registry is asked anonymously."""
    helper(tmp_path, "echo credentials not found in native keychain; exit 1", monkeypatch)
    write(tmp_path / ".docker/config.json", {"credHelpers": {"ghcr.io": "mine"}})
    assert login("ghcr.io", {"HOME": str(tmp_path)}) is None


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo hunter2 >&2; exit 3", "ended with 3 for ghcr.io"),
        ("echo hunter2", "Username and Secret"),
        ('echo "{\\"Username\\": \\"<token>\\", \\"Secret\\": \\"hunter2\\"}"', "identity token"),
        ("exec sleep 60", "no answer in 0.3 s"),
    ],
    ids=["fails", "garbage", "token", "silent"],
)
def test_bad_helper(
    script: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A helper that fails is told by name, without what the helper printed."""
    helper(tmp_path, script, monkeypatch)
    write(tmp_path / ".docker/config.json", {"credHelpers": {"ghcr.io": "mine"}})
    with pytest.raises(ConfigError, match=message) as caught:
        login("ghcr.io", {"HOME": str(tmp_path)}, patience=0.3)
    assert "docker-credential-mine" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "no JSON object"),
        ("{", "no JSON object"),
        ("[" * 100_000, "no JSON object"),
        ('{"auths": {"ghcr.io": {"auth": "%%"}}}', "not base64"),
        ('{"auths": {"ghcr.io": {"auth": "aHVudGVyMg=="}}}', "not USER:PASSWORD"),
        ('{"credHelpers": {"ghcr.io": "../mine"}}', "cannot be one"),
        ('{"credHelpers": {"ghcr.io": "absent"}}', "does not work: No such file"),
    ],
    ids=["list", "cut", "deep", "no-base64", "no-colon", "path", "absent"],
)
def test_bad_file(content: str, message: str, tmp_path: Path) -> None:
    """A file that is none is told by its path; the daemon never goes on without the login."""
    path = tmp_path / ".docker/config.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        login("ghcr.io", {"HOME": str(tmp_path)})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("content", ['{"auths": 5}', '{"auths": {"ghcr.io": 5}}', "{}"])
def test_odd_file(content: str, tmp_path: Path) -> None:
    """A file without a login for the host is none for the host."""
    path = tmp_path / ".docker/config.json"
    path.parent.mkdir()
    path.write_text(content)
    assert login("ghcr.io", {"HOME": str(tmp_path)}) is None


def test_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry is asked with its own credentials; without any, with this machine's login."""
    named = write(tmp_path / "auth.json", {"auths": {"ghcr.io": auth("u", "p")}})
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(named))
    assert RegistrySettings(host="ghcr.io").credentials() == ("u", "p")
    (tmp_path / "secret").write_text("mine")
    own = RegistrySettings(host="ghcr.io", username="me", password_file=tmp_path / "secret")
    assert own.credentials() == ("me", "mine")
    assert RegistrySettings(host="other.io").credentials() is None
