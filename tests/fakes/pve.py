"""A test double of Proxmox VE's API: an HTTPS server on loopback, for the real proxmoxer.

It stands in because no Proxmox host is at hand where the tests run, and it behaves as the real
one was measured to, the unpleasant parts first: errors are slow and their reason is in the status
line, large bodies that will not be taken end in a dropped connection, rejections leave their
spool behind, what may not be seen is left out in silence.  Every request is kept in `requests`,
so that `pve_schema` can hold it against the official description of the API.

    with Pve(tmp_path) as pve:
        token = pve.cluster.token("syncd@pve!sync", {"/": ["Datastore.Audit"]})
        pve.client(token).version.get()
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from proxmoxer import ProxmoxAPI

from tests.fakes import pve_call, pve_lxc, pve_lxc_config, pve_snapshot, pve_storage, pve_upload
from tests.fakes.certificate import Certificate
from tests.fakes.pve_call import Call
from tests.fakes.pve_cluster import ApiError, Cluster, Request, Storage, Token

DROP_ABOVE = 520 * 1024
"""Bodies of more bytes than this, refused before they were read, end in a dropped connection."""

UPLOAD = "/nodes/{node}/storage/{storage}/upload"
CALLS: dict[tuple[str, str], Callable[[Call], Any]] = {
    ("GET", "/version"): pve_call.version,
    ("GET", "/access/permissions"): pve_call.permissions,
    ("GET", "/cluster/nextid"): pve_call.next_id,
    ("GET", "/cluster/resources"): pve_call.resources,
    ("GET", "/cluster/status"): pve_call.cluster_status,
    ("GET", "/cluster/tasks"): pve_call.tasks,
    ("GET", "/nodes"): pve_call.nodes,
    ("GET", "/nodes/{node}/status"): pve_call.node_status,
    ("GET", "/nodes/{node}/tasks"): pve_call.node_tasks,
    ("GET", "/nodes/{node}/tasks/{upid}/status"): pve_call.task_status,
    ("GET", "/nodes/{node}/tasks/{upid}/log"): pve_call.task_log,
    ("GET", "/storage"): pve_storage.configuration,
    ("GET", "/nodes/{node}/storage"): pve_storage.of_node,
    ("GET", "/nodes/{node}/storage/{storage}/status"): pve_storage.status,
    ("GET", "/nodes/{node}/storage/{storage}/content"): pve_storage.content,
    ("DELETE", "/nodes/{node}/storage/{storage}/content/{volume}"): pve_storage.delete,
    ("GET", "/nodes/{node}/lxc"): pve_lxc.listing,
    ("POST", "/nodes/{node}/lxc"): pve_lxc.create,
    ("DELETE", "/nodes/{node}/lxc/{vmid}"): pve_lxc.destroy,
    ("GET", "/nodes/{node}/lxc/{vmid}/config"): pve_lxc_config.read,
    ("PUT", "/nodes/{node}/lxc/{vmid}/config"): pve_lxc_config.change,
    ("GET", "/nodes/{node}/lxc/{vmid}/status/current"): pve_lxc.current,
    ("GET", "/nodes/{node}/lxc/{vmid}/interfaces"): pve_lxc.interfaces,
    ("GET", "/nodes/{node}/lxc/{vmid}/feature"): pve_snapshot.feature,
    ("GET", "/nodes/{node}/lxc/{vmid}/snapshot"): pve_snapshot.listing,
    ("POST", "/nodes/{node}/lxc/{vmid}/snapshot"): pve_snapshot.create,
    ("DELETE", "/nodes/{node}/lxc/{vmid}/snapshot/{snapname}"): pve_snapshot.delete,
    ("POST", "/nodes/{node}/lxc/{vmid}/status/start"): pve_lxc.start,
    ("POST", "/nodes/{node}/lxc/{vmid}/status/shutdown"): pve_lxc.shutdown,
    ("POST", "/nodes/{node}/lxc/{vmid}/status/stop"): pve_lxc.stop,
}


def path_pattern(template: str) -> re.Pattern[str]:
    """Compile the paths that a template stands for; only a volume's name may hold a slash."""
    pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template)
    return re.compile(pattern.replace("(?P<volume>[^/]+)", "(?P<volume>.+)"))


PATTERNS = {(method, template): path_pattern(template) for method, template in CALLS}
UPLOAD_PATTERN = path_pattern(UPLOAD)


class Pve:
    """A cluster with one endpoint on its first node; `endpoint` opens further ones.

    The cluster it starts with: nodes pve1 and pve2; the storages `local` (dir, on each node),
    `cephfs` (shared) and `local-zfs` (for root file systems, no templates).
    """

    def __init__(
        self, root: Path, nodes: tuple[str, ...] = ("pve1", "pve2"), version: str = "9.2.11"
    ) -> None:
        self.certificate = Certificate.make(root)
        self.cluster = Cluster(root, nodes, version)
        self.cluster.storage(Storage("local", "dir", ("vztmpl", "iso", "backup")))
        self.cluster.storage(Storage("cephfs", "cephfs", ("vztmpl",)))
        self.cluster.storage(Storage("local-zfs", "zfspool", ("rootdir", "images")))
        self._endpoints: list[Endpoint] = []
        self.port = self.endpoint(nodes[0])

    def endpoint(self, node: str) -> int:
        """Serve the API from another node as well; return its port on 127.0.0.1."""
        endpoint = Endpoint(self.cluster, node, self.certificate.server_context())
        self._endpoints.append(endpoint)
        endpoint.thread.start()
        return endpoint.server_port

    def __enter__(self) -> Pve:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving, and raise whatever went wrong inside the fake itself."""
        for endpoint in self._endpoints:
            endpoint.close()
        self.cluster.join_tasks()
        if self.cluster.crashes:
            raise ExceptionGroup("the fake crashed", [*map(_as_exception, self.cluster.crashes)])

    def client(self, token: Token, port: int | None = None, secret: str | None = None) -> Any:
        """Return a real proxmoxer for the token, on the first endpoint unless `port` is given."""
        user, _, name = token.id.partition("!")
        return ProxmoxAPI(
            "127.0.0.1",
            port=port or self.port,
            user=user,
            token_name=name,
            token_value=secret or token.secret,
            verify_ssl=str(self.certificate.file),
            timeout=60,
        )

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in the order of their arrival."""
        return self.cluster.requests


def _as_exception(crash: BaseException) -> Exception:
    return crash if isinstance(crash, Exception) else RuntimeError(repr(crash))


class Endpoint(ThreadingHTTPServer):
    """The API as one node serves it."""

    daemon_threads = False

    def __init__(self, cluster: Cluster, node: str, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cluster = cluster
        self.node = node
        self.context = context
        self.connections: set[socket.socket] = set()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), name=node)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept; the handshake waits for the connection's own thread."""
        plain, address = super().get_request()
        connection = self.context.wrap_socket(
            plain, server_side=True, do_handshake_on_connect=False
        )
        self.connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that is done with."""
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a handshake that broke off: clients go away every day."""

    def close(self) -> None:
        """Stop accepting, hang up on everybody, wait for the threads."""
        self.shutdown()
        self.thread.join()
        self.cluster.tasks_may_finish.set()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class HangUpError(ConnectionError):
    """The connection was cut on purpose."""


class Handler(BaseHTTPRequestHandler):
    """One connection, request after request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Endpoint
    unread = 0
    """Bytes of the body still to come."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Keep quiet: `requests` tells all."""

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            return
        except Exception as crash:  # noqa: BLE001 - raised when the fake is closed
            self.server.cluster.crashes.append(crash)

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the base's naming

    def _serve(self) -> None:
        cluster = self.server.cluster
        self.unread = length = int(self.headers.get("Content-Length", "0"))
        url = urlsplit(self.path)
        path = unquote(url.path).removeprefix("/api2/json")
        request = Request(
            self.command,
            path,
            _parameters(url.query),
            node=self.server.node,
            whole=not length,
        )
        cluster.requests.append(request)
        if cluster.hang_ups > 0:
            cluster.hang_ups -= 1
            self._drop()
        body: dict[str, Any]
        try:
            body = {"data": self._answer(request)}
            status, reason = 200, "OK"
        except ApiError as error:
            status, reason = error.status, error.reason
            body = {"data": None, "message": f"{reason}\n"}
            if error.errors is not None:
                body["errors"] = error.errors
            if status in (401, 403):
                # Measured on pve-manager 9.2.11 (facts.md): only the status line tells the reason.
                body = {}
                time.sleep(cluster.error_delay)
            if self.unread and length > DROP_ABOVE:
                self._drop()
        while self._read(1 << 16):
            pass  # the rest of a small body is swallowed before the answer
        if cluster.lost_answers > 0:
            cluster.lost_answers -= 1
            self._drop()
        request.status = status
        raw = json.dumps(body).encode() if body else b""
        self.send_response(status, reason.replace("\n", " "))
        self.send_header("Content-Type", "application/json;charset=UTF-8")
        self.send_header("Content-Length", str(len(raw)))
        if path.endswith("/upload"):
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(raw)

    def _answer(self, request: Request) -> Any:
        token = self._authenticate()
        request.token = token.id
        cluster = self.server.cluster
        if cluster.refusal is not None:
            raise cluster.refusal
        uploads = UPLOAD_PATTERN.fullmatch(request.path)
        if request.method == "POST" and uploads:
            return self._upload(request, token, uploads.groupdict())
        for (method, template), pattern in PATTERNS.items():
            match = pattern.fullmatch(request.path)
            if match and method == request.method:
                if request.method in ("POST", "PUT"):
                    form = b"".join(iter(lambda: self._read(self.unread), b""))
                    request.params |= _parameters(form.decode())
                    request.whole = True
                params = {**request.params, **match.groupdict()}
                if params.get("node") == "localhost":
                    params["node"] = self.server.node
                call = Call(cluster, token, self.server.node, params)
                if "{node}" in template:
                    self._reach(call.node, template)
                return CALLS[method, template](call)
        raise ApiError(501, f"Method '{request.method} {request.path}' not implemented")

    def _authenticate(self) -> Token:
        header = self.headers.get("Authorization", "")
        token_id, _, secret = header.removeprefix("PVEAPIToken=").partition("=")
        token = self.server.cluster.tokens.get(token_id)
        # Measured on pve-manager 9.2.11 (facts.md): one reason for a bad user, token or secret.
        if not header.startswith("PVEAPIToken=") or token is None or token.secret != secret:
            raise ApiError(401, "authentication failure")
        return token

    def _reach(self, node: str, template: str) -> None:
        """Proxy a call to the node that its path names, or fail as the proxy does."""
        known = self.server.cluster.nodes.get(node)
        if known is None:
            raise ApiError(500, f"hostname lookup '{node}' failed - failed to get address info")
        if not known.online:
            raise ApiError(595, "No route to host")
        if known.hangs is not None and "/storage" in template:
            time.sleep(known.hangs)
            raise ApiError(596, "Connection timed out")

    def _upload(self, request: Request, token: Token, place: dict[str, str]) -> str:
        """Spool an upload here, whatever node its path names: uploads are not proxied.

        Of an upload that is refused after its body, the spooled file stays (facts.md).
        """
        try:
            token.need(f"/storage/{place['storage']}", "Datastore.AllocateTemplate")
        except ApiError:
            if self.unread <= DROP_ABOVE:
                self.server.cluster.spool_leaks.append("pveupload")
            raise
        boundary = re.search(r"boundary=([^\s;]+)", self.headers.get("Content-Type", ""))
        if boundary is None:
            raise pve_upload.MalformedError
        own = self.server.cluster.nodes[self.server.node]
        if self.unread > own.spool_avail:
            raise ApiError(501, "write to temporary file failed - No space left on device")
        spool = self.server.cluster.root / own.name / "var" / "tmp"
        body = pve_upload.receive(self._read, boundary[1].encode(), spool)
        request.params |= body.fields
        request.parts = body.parts
        request.whole = True
        call = Call(self.server.cluster, token, own.name, {**request.params, **place})
        return pve_upload.upload(call, body)

    def _read(self, size: int) -> bytes:
        """At most `size` bytes of the body; nothing at its end."""
        data = self.rfile.read1(min(size, self.unread)) if self.unread else b""
        if self.unread and not data:
            raise HangUpError
        self.unread -= len(data)
        return data

    def _drop(self) -> None:
        """Cut the connection without a word, so that the client sees a reset."""
        plain = socket.socket(fileno=self.connection.detach())
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        plain.close()
        raise HangUpError


def _parameters(query: str) -> dict[str, str]:
    """Read a query or form; a name given twice has its values joined with NUL, as in PVE."""
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        found[name] = f"{found[name]}\0{value}" if name in found else value
    return found
