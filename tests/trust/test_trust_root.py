"""Where the public trust root comes from, and that an old one never counts."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer._crypto_signer import CryptoSigner
from tuf.api._payload import (
    TOP_LEVEL_ROLE_NAMES,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.metadata import Metadata

from syncd.errors import TrustRootUnavailableError
from syncd.trust import trust_root
from syncd.trust.trust_root import TrustRoots
from tests.sigstore import ROOT


class Repository:
    """A TUF repository in a folder, written by python-tuf's own metadata API."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._signers = {name: CryptoSigner(Ed25519PrivateKey.generate()) for name in _ROLES}
        self.publish(ROOT.read_bytes())

    def publish(self, target: bytes, *, expires: timedelta = timedelta(days=1)) -> None:
        """Write all metadata, and the trust root as their target."""
        end = datetime.now(UTC).replace(microsecond=0) + expires
        root = Root(expires=datetime.now(UTC).replace(microsecond=0) + timedelta(days=1))
        root.consistent_snapshot = False
        for name, signer in self._signers.items():
            root.add_key(signer.public_key, name)
        (self.folder / "targets").mkdir(parents=True, exist_ok=True)
        (self.folder / "targets/trusted_root.json").write_bytes(target)
        targets = Targets(expires=end)
        targets.targets["trusted_root.json"] = TargetFile.from_data("trusted_root.json", target)
        roles: dict[str, tuple[Any, str]] = {
            "1.root": (root, "root"),
            "targets": (targets, "targets"),
            "snapshot": (Snapshot(expires=end), "snapshot"),
            "timestamp": (Timestamp(expires=end), "timestamp"),
        }
        for file, (signed, role) in roles.items():
            metadata = Metadata(signed)
            metadata.sign(self._signers[role])
            metadata.to_file(str(self.folder / f"{file}.json"))


_ROLES = sorted(TOP_LEVEL_ROLE_NAMES)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback; give its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Publish a trust root, and have its first key stand in for the one that the library brings."""
    made = Repository(tmp_path / "repository")
    brought = tmp_path / "brought"
    brought.mkdir()
    monkeypatch.setattr(trust_root, "files", lambda _: brought)
    folder = brought / "https%3A%2F%2Ftuf-repo-cdn.sigstore.dev"
    folder.mkdir()
    shutil.copy(made.folder / "1.root.json", folder / "root.json")
    return made


def test_fetched(repository: Repository, tmp_path: Path) -> None:
    """The trust root is fetched and verified by TUF, and kept below the given folder."""
    with served(repository.folder) as url:
        roots = TrustRoots(tmp_path / "trust", url)
        verifier = roots.of()
    assert roots.of() is verifier  # not asked for again within the day
    assert (tmp_path / "trust/targets/trusted_root.json").read_bytes() == ROOT.read_bytes()


def test_unreachable(repository: Repository, tmp_path: Path) -> None:
    """A trust root that cannot be brought up to date counts for nothing, however new the kept one.

    The failure passes, and those who ask within the minute do not wait for it again.
    """
    with served(repository.folder) as url:
        TrustRoots(tmp_path / "trust", url).of()
    roots = TrustRoots(tmp_path / "trust", url)
    with pytest.raises(TrustRootUnavailableError, match=f"from {url}: .*refused") as first:
        roots.of()
    assert first.value.temporary
    with pytest.raises(TrustRootUnavailableError) as second:
        roots.of()
    assert second.value is first.value


def test_expired(repository: Repository, tmp_path: Path) -> None:
    """A repository that somebody froze, so that its metadata is over, is no trust root."""
    repository.publish(ROOT.read_bytes(), expires=timedelta(days=-1))
    with (
        served(repository.folder) as url,
        pytest.raises(TrustRootUnavailableError, match="expired"),
    ):
        TrustRoots(tmp_path / "trust", url).of()


def test_forged(repository: Repository, tmp_path: Path) -> None:
    """A trust root that the repository's keys did not sign is no trust root."""
    (repository.folder / "targets/trusted_root.json").write_bytes(b"{}")
    with served(repository.folder) as url, pytest.raises(TrustRootUnavailableError):
        TrustRoots(tmp_path / "trust", url).of()
    other = Repository(tmp_path / "other")
    with served(other.folder) as url, pytest.raises(TrustRootUnavailableError, match="signed"):
        TrustRoots(tmp_path / "trust", url).of()
