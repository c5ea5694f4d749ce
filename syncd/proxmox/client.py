"""Calls of the Proxmox VE API: endpoints, trust, and its errors told in syncd's words.

proxmoxer carries the requests.  What it leaves open is settled here: the server's certificate is
always verified, by a CA or by its pinned fingerprint; time-outs are longer than the three seconds
that Proxmox VE takes over a refusal; several endpoints are tried in turn, but a request that may
have had its effect already is never sent twice: that it broke off is a BrokenOffError, and its
caller has to find out what came of it.

Without endpoints the `local` backend is used: `pvesh`, as root on a Proxmox VE host.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import requests
from proxmoxer import ProxmoxAPI, ResourceException
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context

from syncd.errors import PublishError, TargetUnavailableError
from syncd.proxmox.privileges import granting
from syncd.settings import ProxmoxTargetSettings

TIMEOUT = 60.0
"""Seconds that a connection, a block of an upload or an answer may take."""
_LOCAL_TIMEOUT = 6 * 3600.0  # pvesh stays until the task that it started has ended
_BLOCK = 256 << 10
_LOCAL = "pvesh"
_DENIED = re.compile(r"\((?P<path>/[^,\s]*),\s*(?P<privileges>[\w.|,\s]+)\)")
_PASSING = re.compile(
    r"timeout|timed out|no quorum|can't lock|trying to acquire|unable to fork|temporar",
    re.IGNORECASE,
)
_UNTRUSTED = re.compile(
    r"CERTIFICATE_VERIFY_FAILED|Fingerprints did not match|doesn't match|certificate verify failed"
)


class BrokenOffError(TargetUnavailableError):
    """The connection was lost after the request was under way: it may have had its effect."""


class Client:
    """The API of one cluster.  Safe to use from several threads: each has its own connections."""

    def __init__(self, settings: ProxmoxTargetSettings) -> None:
        self._settings = settings
        self._connections = threading.local()
        self._first = 0  # the endpoint that answered last

    @property
    def is_local(self) -> bool:
        """Whether this is root on a Proxmox VE host, without an API token."""
        return not self._settings.endpoints

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where the API is served, in the configured order."""
        return self._settings.endpoints or (_LOCAL,)

    def get(self, path: str, /, **params: object) -> Any:
        """Ask for something; raise PublishError, or TargetUnavailableError when nobody answers."""
        return self._anywhere("get", path, params, again=True)

    def ask(self, endpoint: str, path: str) -> Any:
        """Ask this endpoint and no other."""
        return self._call(endpoint, "get", path, {})

    def post(self, path: str, /, **params: object) -> Any:
        """Bring something about, once; raise BrokenOffError when it is unknown whether it was."""
        return self._anywhere("post", path, params, again=False)

    def delete(self, path: str, /, **params: object) -> Any:
        """Remove something whose absence is no error, so that it may be asked for twice."""
        return self._anywhere("delete", path, params, again=True)

    def version(self) -> tuple[int, int]:
        """Return the major and minor version of Proxmox VE."""
        text = str(self.get("version").get("version", ""))
        found = re.match(r"(\d+)\.(\d+)", text)
        if not found:
            raise PublishError(
                f"{self._where()} tells no version ({text!r:.40})", "is it a Proxmox VE?"
            )
        return int(found[1]), int(found[2])

    def _where(self) -> str:
        return f"target {self._settings.name!r} ({', '.join(self.endpoints)})"

    def _anywhere(self, verb: str, path: str, params: dict[str, object], *, again: bool) -> Any:
        """Call the endpoints in turn, from the one that answered last on, until one answers."""
        failures: list[PublishError] = []
        for endpoint in self._in_turn(twice=again):
            try:
                result = self._call(endpoint, verb, path, params)
            except BrokenOffError as exc:
                if not again:
                    raise
                failures.append(exc)
            except _UnreachableError as exc:
                failures.append(exc)
            else:
                self._first = self.endpoints.index(endpoint)
                return result
        raise _all_failed(failures)

    def _in_turn(self, *, twice: bool) -> Iterator[str]:
        """Yield the endpoints; a lone one twice, since a kept connection may have been closed."""
        endpoints = self.endpoints
        yield from endpoints[self._first :] + endpoints[: self._first]
        if twice and len(endpoints) == 1:
            yield endpoints[0]

    def _call(self, endpoint: str, verb: str, path: str, params: dict[str, object]) -> Any:
        what = f"{verb.upper()} {path} at {endpoint}"
        try:
            answer = getattr(self._api(endpoint)(path), verb)(**params)
        except ResourceException as exc:
            if exc.status_code == 401:
                self._connections = threading.local()  # the secret is read again next time
            raise self._refusal(exc, what) from exc
        except requests.exceptions.RequestException as exc:
            raise self._disturbance(exc, endpoint, what) from exc
        except subprocess.TimeoutExpired as exc:
            raise BrokenOffError(f"{what} took longer than {exc.timeout:.0f} s") from exc
        except OSError as exc:
            raise PublishError(f"{what} is not possible: {exc}", "check ca_file") from exc
        except (LookupError, TypeError, AttributeError) as exc:
            raise self._not_proxmox(endpoint) from exc
        if isinstance(answer, dict) and isinstance(answer.get("errors"), bytes | str):
            if self.is_local and not str(answer["errors"]).strip():
                return None  # pvesh prints nothing where the API answers null
            raise self._not_proxmox(endpoint)
        return answer

    def _not_proxmox(self, endpoint: str) -> PublishError:
        return PublishError(
            f"what answers at {endpoint} is not the API of Proxmox VE",
            f"check the endpoints of [[target]] {self._settings.name!r}",
        )

    def _api(self, endpoint: str) -> Any:
        """Return this thread's connection to an endpoint."""
        kept = vars(self._connections)
        if endpoint not in kept:
            kept[endpoint] = self._connect_local() if self.is_local else self._connect(endpoint)
        return kept[endpoint]

    def _connect_local(self) -> Any:
        if os.geteuid() or not shutil.which(_LOCAL):
            raise PublishError(
                f"target {self._settings.name!r} has no endpoints, and this is not root on a "
                "Proxmox VE host",
                "configure endpoints, token_id and token_secret_file",
            )
        return ProxmoxAPI(backend="local", timeout=_LOCAL_TIMEOUT)

    def _connect(self, endpoint: str) -> Any:
        settings = self._settings
        user, _, token = (settings.token_id or "").partition("!")
        verify: bool | str = str(settings.ca_file) if settings.ca_file else True
        if settings.fingerprint:
            verify = False  # whoever issued it: _Trust verifies the certificate itself
        api = ProxmoxAPI(
            endpoint.removeprefix("https://"),
            user=user,
            token_name=token,
            token_value=settings.token_secret(),
            verify_ssl=verify,
            timeout=TIMEOUT,
        )
        session = api._store["session"]  # proxmoxer has no other way to it
        # Neither a proxy nor a CA that happens to be in the environment may come in between.
        session.trust_env = False
        session.max_redirects = 0
        session.mount("https://", _Trust(settings.fingerprint))
        return api

    def _refusal(self, exc: ResourceException, what: str) -> PublishError:
        """Tell what the API answered instead: reasons stand in its status line or in `errors`."""
        reason = str(exc.content).strip() or str(exc.status_message)
        if exc.errors:
            details = exc.errors.items() if isinstance(exc.errors, dict) else [("", exc.errors)]
            reason += ": " + ", ".join(f"{key}: {text}".strip(": \n") for key, text in details)
        if exc.status_code == 401:
            return PublishError(
                f"{what}: the token {self._settings.token_id} is not accepted: {reason}",
                "check token_id and token_secret_file, and that the token has not expired",
            )
        if exc.status_code == 403:
            denied = _DENIED.search(reason)
            hint = ""
            if denied:
                names = re.split(r"[|,\s]+", denied["privileges"].strip())
                # A container's own path is as good as new: the next one has another number.
                path = re.sub(r"^/vms/\d+$", "/vms", denied["path"])
                hint = granting(self._settings.token_id, path, names[:1])
            return PublishError(f"{what}: {reason}", hint)
        passing = exc.status_code in (429, 502, 503, 504) or exc.status_code >= 595
        if passing or (exc.status_code == 500 and _PASSING.search(reason)):
            return TargetUnavailableError(f"{what}: {exc.status_code} {reason}")
        return PublishError(f"{what}: {exc.status_code} {reason}")

    def _disturbance(
        self, exc: requests.exceptions.RequestException, endpoint: str, what: str
    ) -> PublishError:
        """Tell a connection that did not come about from one that broke off."""
        text = str(exc)
        if isinstance(exc, requests.exceptions.SSLError) and _UNTRUSTED.search(text):
            return _UntrustedError(
                f"the certificate of {endpoint} is not trusted: {text:.300}",
                "set ca_file (/etc/pve/pve-root-ca.pem of a node) or fingerprint (of "
                "pvenode cert info)",
            )
        cause = getattr(exc.args[0] if exc.args else None, "reason", None)
        if isinstance(exc, requests.exceptions.ConnectTimeout) or isinstance(
            cause, NewConnectionError | ConnectTimeoutError
        ):
            return _UnreachableError(f"{endpoint} cannot be reached: {cause or exc!s:.300}")
        return BrokenOffError(f"{what}: the connection broke off: {text:.300}")


class _UnreachableError(TargetUnavailableError):
    """Nothing was sent."""


class _UntrustedError(_UnreachableError):
    """Nothing was sent, and nothing will be until somebody looks."""

    temporary = False


class _Trust(HTTPAdapter):
    """Verifies the server's certificate: by the CA that the session names, or by fingerprint."""

    def __init__(self, fingerprint: str | None) -> None:
        self._fingerprint = fingerprint
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        context = create_urllib3_context()
        # The CA that Proxmox VE makes for itself names no key usage, which Python 3.13's strict
        # mode refuses.  It was configured by hand; its signatures are verified all the same.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self._fingerprint:
            # urllib3 compares the fingerprint itself, before anything is sent.
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        super().init_poolmanager(
            *args,
            **kwargs,
            blocksize=_BLOCK,
            ssl_context=context,
            assert_fingerprint=self._fingerprint,
        )


def _all_failed(failures: list[PublishError]) -> PublishError:
    """Return the failure that somebody has to look at, or the last one, naming all."""
    lasting = [one for one in failures if not one.temporary]
    worst = (lasting or failures)[-1]
    whats = "; ".join(dict.fromkeys(one.what for one in failures))
    return (PublishError if lasting else TargetUnavailableError)(whats, worst.hint)
