"""`pvesh` of a Proxmox VE host, as a small program that asks the double's cluster.

It prints what the real one prints.  Measured on pve-manager 9.2.11 (facts.md): for another node all
that the task printed and the UPID are one JSON string without line breaks, and a line on stderr is
no failure when the exit status is 0.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.fakes.pve import Pve

ALL = [
    "Datastore.Allocate", "Datastore.AllocateSpace", "Datastore.AllocateTemplate",
    "Datastore.Audit", "SDN.Use", "Sys.Audit", "VM.Allocate", "VM.Audit", "VM.Config.CPU",
    "VM.Config.Disk", "VM.Config.Memory", "VM.Config.Network", "VM.Config.Options", "VM.PowerMgmt",
    "VM.Snapshot",
]  # fmt: skip

_PVESH = """\
#!{python}
import json, os, ssl, sys, urllib.error, urllib.parse, urllib.request
verb, path, *options = sys.argv[1:]
names = [name.lstrip("-") for name in options[::2]]
fields = {{n: v for n, v in zip(names, options[1::2]) if n != "output-format"}}
method = {{"get": "GET", "create": "POST", "delete": "DELETE", "set": "PUT"}}[verb]
url = "https://127.0.0.1:{port}/api2/json" + urllib.parse.quote(path, safe="/:!@")
data = urllib.parse.urlencode(fields)
request = urllib.request.Request(
    url + ("?" + data if method in ("GET", "DELETE") and data else ""),
    data=data.encode() if method in ("POST", "PUT") else None, method=method,
    headers={{"Authorization": "PVEAPIToken={token}"}},
)
try:
    with urllib.request.urlopen(
        request, context=ssl.create_default_context(cafile={ca!r})
    ) as answer:
        data = json.load(answer)["data"]
        if os.environ.get("LC_ALL") != "C":
            print("perl: warning: Setting locale failed.", file=sys.stderr)
        if isinstance(data, str) and data.startswith("UPID:"):
            print("Task finished with 1 warning(s)!", file=sys.stderr)
            if "/nodes/pve1/" in f"/{{path}}/".replace("//", "/"):
                print("a line of the task's log")
            else:
                data = "a line of the task's logTASK WARNINGS: 1" + data
        print("" if data is None else json.dumps(data))
except urllib.error.HTTPError as error:
    print("what had been printed before")
    print("Use of uninitialized value in a module", file=sys.stderr)
    print(f"{{error.code}} {{error.reason}}", file=sys.stderr)
    sys.exit(2)
"""


def install_pvesh(pve: Pve, folder: Path) -> None:
    """Put the program into a folder; it may do whatever root may."""
    token = pve.cluster.token("root@pam!pvesh", {"/": ALL})
    program = folder / "pvesh"
    program.write_text(
        _PVESH.format(
            python=sys.executable,
            port=pve.port,
            token=f"{token.id}={token.secret}",
            ca=str(pve.certificate.file),
        )
    )
    program.chmod(0o755)
