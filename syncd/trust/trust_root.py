"""Whom keyless signatures are checked against: Sigstore's public trust root, or a file.

The public one changes: it is fetched and verified by TUF, from the root that the library brings,
and asked for again once a day.  Where it cannot be brought up to date, nothing is verified against
an old one: a key that was withdrawn since would still count.  Whoever has no way to Sigstore names
a file, and answers for its age.

Source: https://theupdateframework.github.io/specification/latest/, "Detailed client workflow"
"""

from __future__ import annotations

import threading
import time
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import sigstore.errors
import urllib3.exceptions
from sigstore.models import TrustedRoot
from sigstore.verify import Verifier
from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.ngclient.updater import Updater

from syncd.errors import StorageError, TrustError, TrustRootUnavailableError
from syncd.files import make_folder
from syncd.trust.policy import read_file

PUBLIC = "https://tuf-repo-cdn.sigstore.dev"
"""Where Sigstore publishes its trust root."""
_FRESH = 24 * 3600.0  # seconds; TUF's own timestamp lasts some days
_LEFT_ALONE = 60.0  # seconds after a failure in which others do not wait for the same failure
_TARGET = "trusted_root.json"
_FAULTS = (DownloadError, RepositoryError, urllib3.exceptions.HTTPError, ValueError)


class TrustRoots:
    """The trust roots of a process.  Safe to use from several threads.

    `folder` keeps what TUF fetched; `url` is where the public root is published, or a mirror of it.
    """

    def __init__(self, folder: Path, url: str = PUBLIC) -> None:
        self._folder = folder
        self._url = url
        self._lock = threading.Lock()
        self._public: Verifier | None = None
        self._fault: TrustRootUnavailableError | None = None
        self._asked = float("-inf")

    def of(self, file: Path | None = None) -> Verifier:
        """Return what verifies against a file, or against the public trust root.

        Raise TrustError for a file that is no trust root, and TrustRootUnavailableError when the
        public one cannot be brought up to date.
        """
        return _loaded(file) if file is not None else self._of_public()

    def _of_public(self) -> Verifier:
        with self._lock:
            age = time.monotonic() - self._asked
            if self._public is not None and age < _FRESH:
                return self._public
            if self._fault is not None and age < _LEFT_ALONE:
                raise self._fault
            self._public = self._fault = None
            try:
                self._public = _loaded(self._fetched())
            except TrustRootUnavailableError as exc:
                self._fault = exc
                raise
            finally:
                self._asked = time.monotonic()
            return self._public

    def _fetched(self) -> Path:
        """Bring the public trust root up to date; return its file."""
        initial = files("sigstore._store") / quote(PUBLIC, safe="") / "root.json"
        try:
            for name in ("metadata", "targets"):
                make_folder(self._folder / name)
            updater = Updater(
                metadata_dir=str(self._folder / "metadata"),
                metadata_base_url=self._url,
                target_dir=str(self._folder / "targets"),
                target_base_url=f"{self._url}/targets",
                bootstrap=initial.read_bytes(),
            )
            updater.refresh()
            found = updater.get_targetinfo(_TARGET)
            if found is None:
                raise TrustRootUnavailableError(f"{self._url} publishes no {_TARGET}")
            return Path(updater.find_cached_target(found) or updater.download_target(found))
        except _FAULTS as exc:
            raise TrustRootUnavailableError(
                f"Sigstore's trust root cannot be brought up to date from {self._url}: "
                f"{_reason(exc)}",
                "let this host reach it, or name a copy as trust_root in [image.verify]; it is "
                "tried again",
            ) from exc
        except OSError as exc:
            raise StorageError(f"the trust root cannot be kept in {self._folder}: {exc}") from exc


def _reason(exc: Exception) -> str:
    """Return why TUF failed: it drops urllib3's own reason, and keeps it as the cause."""
    cause = exc.__cause__ if isinstance(exc.__cause__, urllib3.exceptions.HTTPError) else exc
    reason = getattr(cause, "reason", None) or cause
    return f"{str(reason) or type(reason).__name__:.300}"


def _loaded(file: Path) -> Verifier:
    """Return what verifies against a trust root's file; raise TrustError if it is none."""
    read_file(file)
    try:
        return Verifier(trusted_root=TrustedRoot.from_file(str(file)))
    except (sigstore.errors.Error, ValueError, OSError) as exc:
        raise TrustError(
            f"{file} is no trust root of Sigstore: {exc!s:.300}",
            "write a trusted_root.json there (docs/signatures.md)",
        ) from exc
