"""POST /nodes/{node}/storage/{storage}/upload, with everything that makes it unpleasant.

The body is spooled by the endpoint that takes it, whatever node the path names; so the task that
copies it to the storage is a task of the endpoint's node.  What is wrong with the call is found
out after the body has arrived, and then the spooled file stays in /var/tmp.  The copy opens its
destination without a look or a lock.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.pve_call import Call
from tests.fakes.pve_cluster import PATH_TYPES, ApiError, Storage, Task, TaskError
from tests.fakes.pve_storage import TEMPLATE_NAME

ORDER = ("content", "checksum-algorithm", "checksum")
ALGORITHMS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")
CONTENTS = ("iso", "vztmpl", "import")
CHUNK = 1 << 20
FIELDS_MAX = 64 * 1024
DISPOSITION = re.compile(r'form-data; name="(?P<name>[^"]*)"(?:; filename="(?P<file>[^"]+)")?')


@dataclass
class Upload:
    """A body taken apart: the fields, the file as spooled, the parts' names in their order."""

    fields: dict[str, str]
    spool: Path
    size: int
    parts: tuple[str, ...]


class MalformedError(ApiError):
    """A body with parts in another order, or others than these: a 400 without a word why."""

    def __init__(self) -> None:
        super().__init__(400, "Bad Request")


def receive(read: Callable[[int], bytes], boundary: bytes, folder: Path) -> Upload:
    """Spool the file of a multipart body into `folder`; memory stays flat.

    `read` gives at most so many bytes of the body, and nothing at its end.

    Raises:
        MalformedError: unless the parts are `content`, `checksum-algorithm`, `checksum` (each may
            be left out) and the file as `filename`, in this order.
    """
    buffer = b""
    fields: dict[str, str] = {}
    parts: list[str] = []
    delimiter = b"--" + boundary

    def until(mark: bytes) -> bytes:
        nonlocal buffer
        while mark not in buffer:
            more = read(CHUNK)
            if not more or len(buffer) > FIELDS_MAX + CHUNK:
                raise MalformedError
            buffer += more
        found, _, buffer = buffer.partition(mark)
        return found

    until(delimiter + b"\r\n")
    expected = list(ORDER)
    while True:
        disposition = None
        for line in until(b"\r\n\r\n").decode("utf-8", "replace").split("\r\n"):
            name, _, value = line.partition(": ")
            if name.lower() == "content-disposition":
                disposition = DISPOSITION.fullmatch(value)
        if disposition is None:
            raise MalformedError
        parts.append(disposition["name"])
        if disposition["file"] is not None:
            break
        if disposition["name"] not in expected:
            raise MalformedError
        del expected[: expected.index(disposition["name"]) + 1]
        value_bytes = until(b"\r\n" + delimiter + b"\r\n")
        fields[disposition["name"]] = value_bytes.decode("utf-8", "replace").strip()
    if disposition["name"] != "filename":
        raise MalformedError
    fields["filename"] = disposition["file"]
    folder.mkdir(parents=True, exist_ok=True)
    spool = folder / f"pveupload-{secrets.token_hex(16)}"
    try:
        size = _spool(read, buffer, b"\r\n" + delimiter + b"--", spool)
    except BaseException:
        spool.unlink(missing_ok=True)
        raise
    return Upload(fields, spool, size, tuple(parts))


def _spool(read: Callable[[int], bytes], buffer: bytes, end: bytes, file: Path) -> int:
    """Write what comes before `end` to the file; return its size in bytes."""
    size = 0
    with file.open("xb") as out:
        while (at := buffer.find(end)) < 0:
            keep = len(buffer) - len(end) + 1
            if keep > 0:
                size += out.write(buffer[:keep])
                buffer = buffer[keep:]
            more = read(CHUNK)
            if not more:
                raise MalformedError
            buffer += more
        size += out.write(buffer[:at])
    while read(CHUNK):
        pass  # an epilogue has no meaning
    return size


def normalised(name: str) -> str:
    """Return the name a file gets: no folder part, `_` for every byte that PVE does not like."""
    base = re.split(r"[/\\]", name)[-1]
    return re.sub(rb"[^A-Za-z0-9_.-]", b"_", base.encode()).decode()


def upload(call: Call, body: Upload) -> str:
    """Start the task that checks the sum and copies the spooled file; return its UPID.

    Every refusal here leaves the spooled file behind.
    """
    try:
        destination, volid, storage = _destination(call)
    except ApiError:
        call.cluster.spool_leaks.append(body.spool.name)
        raise

    def work(task: Task) -> None:
        task.log.append(f"starting file import from: /var/tmp/{body.spool.name}")
        try:
            _verify(call, body, task)
            task.log += [
                f"target node: {call.node}",
                f"target file: {destination}",
                f"file size is: {body.size}",
                # Measured on pve-storage 9.1.7 (facts.md).
                f"command: cp -- /var/tmp/{body.spool.name} {destination}",
            ]
            _copy(call, body, destination, volid, storage)
        finally:
            body.spool.unlink()
        task.log.append("finished file import successfully")

    return call.cluster.start_task(call.at, "imgcopy", "", call.token, work)


def _destination(call: Call) -> tuple[Path, str, Storage]:
    """Where the file goes; or the refusal, in the order in which PVE finds faults."""
    cluster, params = call.cluster, call.params
    if len(params["filename"]) > 255:
        raise ApiError.parameter(filename="value may only be 255 characters long")
    if params.get("content") not in CONTENTS:
        raise ApiError.parameter(content="value does not have a value in the enumeration")
    for one, other in (("checksum", "checksum-algorithm"), ("checksum-algorithm", "checksum")):
        if one in params and other not in params:
            raise ApiError.parameter(
                **{other: f"missing property - '{one}' requires this property"}
            )
    if params.get("checksum-algorithm", "sha256") not in ALGORITHMS:
        raise ApiError.parameter(checksum_algorithm="value does not have a value in the enum")
    storage = cluster.enabled_storage(params["storage"], call.node)
    if storage.type not in PATH_TYPES:
        raise ApiError(500, f"can't upload to storage type '{storage.type}'")
    name = normalised(params["filename"])
    if params["content"] == "vztmpl" and not TEMPLATE_NAME.fullmatch(name):
        raise ApiError.parameter(filename="wrong file extension")
    if params["content"] not in storage.content or params["content"] != "vztmpl":
        raise ApiError(
            500, f"storage '{storage.name}' does not support '{params['content']}' content"
        )
    target = cluster.nodes.get(call.node)
    if target is None or not target.online or not storage.active:
        raise ApiError(500, f"can't activate storage '{storage.name}' on node '{call.node}'")
    folder = cluster.template_folder(storage, call.node)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name, f"{storage.name}:vztmpl/{name}", storage


def _verify(call: Call, body: Upload, task: Task) -> None:
    algorithm = call.params.get("checksum-algorithm")
    if algorithm is None:
        return
    with body.spool.open("rb") as file:
        got = hashlib.file_digest(file, algorithm).hexdigest()
    wanted = call.params["checksum"]
    if got != wanted.lower():
        raise TaskError(f"checksum mismatch: got '{got}' != expect '{wanted}'")
    task.log.append("calculating checksum...OK, checksum verified")


def _copy(call: Call, body: Upload, destination: Path, volid: str, storage: Storage) -> None:
    """Copy like `cp`: over whatever is there, seen by everybody while it grows.

    Half way it waits for `tasks_may_finish`.  When the storage is full, what was there before is
    gone as well.
    """
    cluster = call.cluster
    with cluster.lock:
        if destination.exists():
            cluster.overwritten.append(volid)
        if destination in cluster.writing:
            cluster.collisions.append(volid)
        cluster.writing.append(destination)
    try:
        with body.spool.open("rb") as source, destination.open("wb", buffering=0) as out:
            room = cluster.avail(storage, call.node)
            out.write(source.read(min(body.size, CHUNK) // 2))
            cluster.tasks_may_finish.wait()
            while chunk := source.read(CHUNK):
                if source.tell() > room:
                    raise TaskError("import failed: No space left on device")
                out.write(chunk)
    except TaskError:
        destination.unlink(missing_ok=True)
        raise
    finally:
        with cluster.lock:
            cluster.writing.remove(destination)
