"""The memory that an upload takes, measured on a process of its own against the test double.

More than 2 GiB, since that is where a TLS library's limits are met when a body is not streamed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from tests.clusters import DUTIES, TOKEN
from tests.e2e.command import run
from tests.fakes.pve import Pve

SIZE = (2 << 30) + (1 << 20)
NAME = "large_0123456789ab.tar"
MEMORY_MAX = 200 << 20

PROGRAM = """\
import json, sys
from pathlib import Path
from syncd.config import ProxmoxTargetSettings
from syncd.oci import Digest
from syncd.progress import Silence
from syncd.targets.proxmox import ProxmoxTarget
from tests.memory import peak

settings, locks, file, name, digest = sys.argv[1:]
target = ProxmoxTarget(ProxmoxTargetSettings(**json.loads(settings)), Path(locks))
(volume,) = target.publish(Path(file), name, Digest.parse(digest), Silence())
print(json.dumps({"size": volume.size, "peak": peak()}))
"""


def test_memory(tmp_path: Path) -> None:
    """Uploading a template of more than 2 GiB takes less than 200 MiB of memory."""
    file, secret = tmp_path / "large", tmp_path / "secret"
    with file.open("wb") as opened:
        opened.truncate(SIZE)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    root = tmp_path / "pve"
    root.mkdir()
    with Pve(root) as pve:
        secret.write_text(pve.cluster.token(TOKEN, DUTIES).secret)
        settings = {
            "name": "cluster",
            "type": "proxmox",
            "endpoints": [f"https://127.0.0.1:{pve.port}"],
            "token_id": TOKEN,
            "token_secret_file": str(secret),
            "fingerprint": pve.certificate.fingerprint,
            "storage": "cephfs",
        }
        arguments = (json.dumps(settings), tmp_path / "state", file, NAME, f"sha256:{digest}")
        done = json.loads(run(sys.executable, "-c", PROGRAM, *arguments))
    assert done["size"] == SIZE
    assert done["peak"] < MEMORY_MAX, f"{done['peak'] / 2**20:.0f} MiB"
