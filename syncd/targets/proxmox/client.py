"""Calls of the Proxmox VE API: endpoints, and errors of the one tree.

proxmoxer sends the requests; this module decides what proxmoxer leaves open.  Time-outs are longer
than the three seconds after which Proxmox VE answers a refusal.  Several endpoints are tried in
turn, but a request that may have taken effect is never sent twice: the caller gets a
ConnectionLostError, and has to find out what came of the request.  Every answer is checked against
its shape.

Without endpoints, proxmoxer's `local` backend runs `pvesh`, as root on a Proxmox VE host.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from proxmoxer import ResourceException

from syncd.errors import (
    ConnectionLostError,
    EndpointUnreachableError,
    PublishError,
    TargetUnavailableError,
    joined,
)
from syncd.targets.proxmox import https, pvesh
from syncd.targets.proxmox.access import ClusterAccess
from syncd.targets.proxmox.answers import Permissions, Version, checked
from syncd.targets.proxmox.memory import Memory
from syncd.targets.proxmox.privileges import Duty, granting

T = TypeVar("T")

TIMEOUT = 60.0
"""Seconds that a connection, a block of an upload, or an answer may take."""
_LOCAL_TIMEOUT = 6 * 3600.0  # pvesh runs until the task that it started has ended
PERMISSIONS = "access/permissions"
COMPLETE = (9, 1)
"""The version since which the API has all that syncd uses."""
ON_NODES = "nodes/*"
"""The paths below which syncd changes something."""
_DENIED = re.compile(r"\((?P<path>/[^,\s]*),\s*(?P<privileges>[\w.|,\s]+)\)")
_PASSING = re.compile(
    r"timeout|timed out|no quorum|can't lock|trying to acquire|unable to fork|temporar",
    re.IGNORECASE,
)


class DeniedError(PublishError):
    """A call that the API refused for a privilege, which its answer need not name."""


class Client:
    """The API of one cluster.  Several threads may use it: each has connections of its own."""

    def __init__(self, access: ClusterAccess) -> None:
        self._access = access
        self._connections = threading.local()
        self._first = 0  # the endpoint that answered last
        self.memory = Memory()
        self._version = (0, 0)
        self._nodes: dict[str, str] = {}  # the node of each endpoint that has taken an upload

    @property
    def is_local(self) -> bool:
        """Whether the calls go through `pvesh`, as root on a Proxmox VE host, without a token."""
        return not self._access.endpoints

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The endpoints of the API, in the configured order."""
        return self._access.endpoints or (pvesh.PROGRAM,)

    def get(self, path: str, shape: type[T], /, **params: object) -> T:
        """Return the answer to a question, checked against its shape; see `answers.checked`.

        Raise PublishError, or TargetUnavailableError when no endpoint answers.
        """
        return self._anywhere("get", path, params, shape, again=True)[1]

    def recall(self, path: str, shape: type[T], /, *, fresh: bool = False, **params: object) -> T:
        """Return an answer that may be some seconds old, see `memory`; raise as `get` does."""
        question = path, tuple(sorted(params.items()))
        return self.memory.recall(question, lambda: self.get(path, shape, **params), fresh=fresh)

    def forget(self, paths: str = ON_NODES) -> None:
        """Let `recall` ask anew for the paths of a pattern, since something was changed there."""
        self.memory.forget(paths)

    def get_near(self, node: str, path: str, shape: type[T]) -> T:
        """Return the answer of the endpoint that takes the uploads for a node; raise as `get`."""
        return self._anywhere("get", path, {}, shape, again=True, near=node)[1]

    def ask(self, endpoint: str, path: str, shape: type[T]) -> T:
        """Return the answer of this endpoint, and try no other; raise as `get` does."""
        return self._call(endpoint, "get", path, {}, shape)

    def post(self, path: str, /, **params: object) -> str:
        """Send an order once; return the UPID of its task.

        Raise ConnectionLostError when it is unknown whether the order took effect.
        """
        try:
            return self._anywhere("post", path, params, str, again=False)[1]
        finally:
            self.forget()

    def post_near(self, node: str, path: str, /, **params: object) -> str:
        """Send an upload for a node as `post` does, to the node's own endpoint if that is known.

        Another endpoint would spool the upload and then copy it to the node.  Whose endpoint it is
        tells the task, which runs on the node that took the upload, or the host name of the URL.
        What the upload changes is for the caller to forget, once its task has ended.
        """
        endpoint, upid = self._anywhere("post", path, params, str, again=False, near=node)
        if (parts := upid.split(":"))[0] == "UPID":
            self._nodes[endpoint] = parts[1]
        return upid

    def put(self, path: str, /, **params: object) -> None:
        """Change something that exists; raise as `get` does.

        A second time the same change must change nothing, since the order may be sent twice.
        """
        shape: Any = str | None
        try:
            self._anywhere("put", path, params, shape, again=True)
        finally:
            self.forget()

    def delete(self, path: str, /, **params: object) -> str | None:
        """Remove something; return the UPID of the task, or None when nothing is left to do.

        The absence of the thing must be no error, since the order may be sent twice.
        """
        shape: Any = str | None  # for mypy a union is no type[T]: PEP 747
        try:
            upid: str | None = self._anywhere("delete", path, params, shape, again=True)[1]
        finally:
            self.forget()
        return upid

    def version(self) -> tuple[int, int]:
        """Return the major and minor version of Proxmox VE; raise as `get` does.

        A version that has all that syncd uses is asked for once: nobody goes back behind it.
        """
        if self._version >= COMPLETE:
            return self._version
        text = self.recall("version", Version)["version"]
        found = re.match(r"(\d+)\.(\d+)", text)
        if not found:
            raise PublishError(
                f"{self._where()} tells no version ({text!r:.40})", "is it a Proxmox VE?"
            )
        self._version = int(found[1]), int(found[2])
        return self._version

    def lacking(self, duties: Iterable[Duty]) -> list[tuple[Duty, tuple[str, ...]]]:
        """Return each duty for which the token lacks privileges, with these privileges."""
        asked = list(duties)
        held = {path: self._held(path) for path in dict.fromkeys(duty.path for duty in asked)}
        found = [(duty, duty.missing(held[duty.path])) for duty in asked]
        return [(duty, missing) for duty, missing in found if missing]

    def granting(self, path: str, privileges: Iterable[str]) -> str:
        """Return the commands that grant these privileges; empty where there is no token.

        What the token holds on the path already is among them; where that is not known, only what
        is needed is named.
        """
        names = tuple(privileges)
        try:
            held = self._held(path) if self._access.token_id else {}
        except PublishError:
            return f"the token needs {', '.join(names)} on {path}"
        return granting(self._access.token_id, path, names, held)

    def _held(self, path: str) -> dict[str, bool]:
        """Return the privileges that the token holds on a path, and whether they propagate."""
        return self.recall(PERMISSIONS, Permissions, path=path).get(path, {})

    def _where(self) -> str:
        return f"target {self._access.name!r} ({', '.join(self.endpoints)})"

    def _anywhere(
        self,
        verb: str,
        path: str,
        params: dict[str, object],
        shape: type[T],
        *,
        again: bool,
        near: str | None = None,
    ) -> tuple[str, T]:
        """Return the first endpoint that answers, and its answer.

        The endpoint of the node `near` is tried first, else the endpoint that answered last.  With
        `again`, the request may be sent a second time after its connection was lost.
        """
        failures: list[PublishError] = []
        for endpoint in self._in_turn(near, twice=again):
            try:
                result = self._call(endpoint, verb, path, params, shape)
            except ConnectionLostError as exc:
                if not again:
                    raise
                failures.append(exc)
            except EndpointUnreachableError as exc:
                failures.append(exc)
            else:
                if near is None:
                    self._first = self.endpoints.index(endpoint)
                return endpoint, result
        raise joined(failures) from failures[-1]

    def _in_turn(self, near: str | None, *, twice: bool) -> Iterator[str]:
        """Yield the endpoints in the order in which they are tried.

        Before the endpoints of other nodes than `near` come those whose node is not known.
        With `twice`, a single endpoint is tried twice: the server may have closed a connection
        that was kept open.
        """
        endpoints = self.endpoints
        in_turn = endpoints[self._first :] + endpoints[: self._first]
        if near is not None:
            in_turn = tuple(sorted(in_turn, key=lambda endpoint: self._distance(endpoint, near)))
        yield from in_turn
        if twice and len(endpoints) == 1:
            yield endpoints[0]

    def _distance(self, endpoint: str, node: str) -> int:
        """Return 0 for the node's own endpoint, 1 if it may be its own, 2 for another node's."""
        host = (urlsplit(endpoint).hostname or "").partition(".")[0]
        known = self._nodes.get(endpoint)
        if node in (known, host):
            return 0
        return 1 if known is None else 2

    def _call(
        self, endpoint: str, verb: str, path: str, params: dict[str, object], shape: type[T]
    ) -> T:
        what = f"{verb.upper()} {path} at {endpoint}"
        if self.is_local and any("\0" in str(value) for value in params.values()):
            raise PublishError(f"{what}: no argument of a program has NUL in it", "use endpoints")
        try:
            answer = getattr(self._api(endpoint)(path), verb)(**params)
        except ResourceException as exc:
            if exc.status_code == 401:
                self._connections = threading.local()  # the secret is read again next time
            raise self._refusal(exc, what) from exc
        except requests.exceptions.RequestException as exc:
            raise https.unanswered(exc, endpoint, what) from exc
        except subprocess.TimeoutExpired as exc:
            raise ConnectionLostError(f"{what} took longer than {exc.timeout:.0f} s") from exc
        except OSError as exc:
            raise PublishError(f"{what} is not possible: {exc}", "check ca_file") from exc
        except (LookupError, TypeError, AttributeError) as exc:
            raise self._not_proxmox(endpoint, what) from exc
        if isinstance(answer, dict) and isinstance(answer.get("errors"), bytes | str):
            if str(answer["errors"]).strip() or not self.is_local:
                raise self._not_proxmox(endpoint, what)
            answer = None  # pvesh prints nothing where the API answers null
        if self.is_local and verb != "get":
            answer = pvesh.upid_in(answer)
        try:
            return checked(answer, shape)
        except ValueError as exc:
            raise self._not_proxmox(endpoint, f"{what}: {exc}") from exc

    def _not_proxmox(self, endpoint: str, what: str) -> PublishError:
        return PublishError(
            f"what answers at {endpoint} is not the API of Proxmox VE: {what}",
            f"check the endpoints of [[target]] {self._access.name!r}",
        )

    def _api(self, endpoint: str) -> Any:
        """Return this thread's proxmoxer for an endpoint."""
        open_apis = vars(self._connections)
        if endpoint not in open_apis:
            open_apis[endpoint] = (
                self._connect_local()
                if self.is_local
                else https.connect(self._access, endpoint, TIMEOUT)
            )
        return open_apis[endpoint]

    def _connect_local(self) -> Any:
        if os.geteuid() or not shutil.which(pvesh.PROGRAM):
            raise PublishError(
                f"target {self._access.name!r} has no endpoints, and this is not root on a "
                "Proxmox VE host",
                "configure endpoints, token_id and token_secret_file",
            )
        return pvesh.connect(_LOCAL_TIMEOUT)

    def _where_to_grant(self, path: str) -> str:
        """Return the path of a grant: of a container's, /vms, which helps the next one as well.

        Where a container has roles of its own, these replace what it would inherit from /vms.
        """
        if not re.fullmatch(r"/vms/\d+", path):
            return path
        with suppress(PublishError):
            return "/vms" if self._held(path) == self._held("/vms") else path
        return "/vms"

    def _refusal(self, exc: ResourceException, what: str) -> PublishError:
        """Return the error for an answer that is a refusal.

        The API gives the reason in the status line (403 and 5xx) or in `errors` (400).
        """
        reason = str(exc.content).strip() or str(exc.status_message)
        errors = exc.errors if isinstance(exc.errors, dict) else {"": exc.errors}
        # Where a body is not JSON, proxmoxer takes its bytes for errors; the API sends it empty.
        if told := [f"{key}: {text}".strip(": \n") for key, text in errors.items() if text]:
            reason += ": " + ", ".join(told)
        if exc.status_code in (401, 403):
            self.forget(PERMISSIONS)
        if exc.status_code == 401:
            return PublishError(
                f"{what}: the token {self._access.token_id} is not accepted: {reason}",
                "check token_id and token_secret_file, and that the token has not expired",
            )
        if exc.status_code == 403:
            denied = _DENIED.search(reason)
            hint = ""
            if denied and PERMISSIONS not in what:
                names = re.split(r"[|,\s]+", denied["privileges"].strip())
                hint = self.granting(self._where_to_grant(denied["path"]), names[:1])
            return DeniedError(f"{what}: {reason}", hint)
        passing = exc.status_code in (429, 502, 503, 504) or exc.status_code >= 595
        if passing or (exc.status_code == 500 and _PASSING.search(reason)):
            return TargetUnavailableError(f"{what}: {exc.status_code} {reason}")
        return PublishError(f"{what}: {exc.status_code} {reason}")
