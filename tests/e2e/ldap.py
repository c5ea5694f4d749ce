"""An LDAP directory: Debian's slapd with a few people, in a network namespace of its own.

A container that is given the same namespace finds it on its loopback, and nobody else does.  As in
a real one, a person's password is known to the directory alone, and nothing is said without TLS.
A reader must say who it is, unless the directory is told to be read by anybody.
"""

from __future__ import annotations

import base64
import socketserver
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tests.e2e.command import CommandError, attempt, run, stop, wait_for

BASE = "dc=example,dc=org"
READER = f"cn=reader,{BASE}"
READER_SECRET = r"""all of '"$HOME" & \\ @LDAP_BASE@ # ; = %s"""
PASSWORDS = {"alice": "correct horse", "bob": "battery staple", "carol": "telephone line"}

TELEPHONE = "carol"
"""Who has to confirm each login on a telephone."""

_SETTINGS = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload back_sock
attributetype ( 1.3.6.1.4.1.24552.500.1.1.1.13 NAME 'sshPublicKey'
    EQUALITY octetStringMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.40 )
objectclass ( 1.3.6.1.4.1.24552.500.1.1.2.0 NAME 'ldapPublicKey' SUP top AUXILIARY
    MAY ( sshPublicKey ) )
TLSCertificateFile {folder}/certificate.pem
TLSCertificateKeyFile {folder}/key.pem
security tls=1
database mdb
suffix "{base}"
directory {folder}/data
access to attrs=userPassword by anonymous auth by * none
access to * by {readers} read by * none
overlay sock
socketpath {folder}/telephone
sockops bind
sockdnpat ^uid={telephone},
"""

_TREE = """\
dn: {base}
objectClass: organization
objectClass: dcObject
o: example
dc: example

dn: {reader}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: {secret}

dn: cn=ldapusers,{base}
objectClass: posixGroup
cn: ldapusers
gidNumber: 10000
memberUid: alice
"""

_PERSON = """\

dn: uid={name},{base}
objectClass: inetOrgPerson
objectClass: posixAccount
objectClass: ldapPublicKey
uid: {name}
cn: {name}
sn: {name}
uidNumber: {number}
gidNumber: {number}
homeDirectory: /home/{name}
loginShell: /bin/bash
userPassword: {password}
"""


class _Telephone(socketserver.ThreadingUnixStreamServer):
    """The other end of slapd's overlay (slapd-sock(5)): a bind goes on once it was confirmed."""

    daemon_threads = True
    request_queue_size = 16

    def __init__(self, socket: Path, seconds: float) -> None:
        super().__init__(str(socket), _Confirmation)
        self.seconds = seconds


class _Confirmation(socketserver.StreamRequestHandler):
    server: _Telephone

    def handle(self) -> None:
        time.sleep(self.server.seconds)
        self.wfile.write(b"CONTINUE\n")


class Directory:
    """A directory with its files in `folder`, answering while the context is open.

    It knows alice, a member of the group ldapusers, and bob, who is not, and carol, whose binds are
    held for `confirmed_after` seconds.  `keys` are the people's SSH public keys.
    """

    def __init__(
        self,
        folder: Path,
        *,
        anonymous: bool = False,
        keys: Mapping[str, str] | None = None,
        confirmed_after: float = 20,
    ) -> None:
        self._folder = folder
        self._readers = "*" if anonymous else f'dn.exact="{READER}"'
        self._keys = keys or {}
        self._confirmed_after = confirmed_after
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Directory:
        self._write()
        self._telephone = _Telephone(self._folder / "telephone", self._confirmed_after)
        threading.Thread(target=self._telephone.serve_forever).start()
        holder = self._start("unshare", "--net", "sleep", "infinity")
        self.network = Path(f"/proc/{holder.pid}/ns/net")
        try:
            self._serve()
        except CommandError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in reversed(self._started):
            stop(process)
        self._telephone.shutdown()
        self._telephone.server_close()

    @property
    def env(self) -> dict[str, str]:
        """What a container must be told to let the directory's people in."""
        return {
            "LDAP_URI": "ldap://127.0.0.1",
            "LDAP_BASE": BASE,
            "LDAP_BIND_DN": READER,
            "LDAP_BIND_SECRET": READER_SECRET,
            "LDAP_CA_CERT": self.certificate,
        }

    @property
    def certificate(self) -> str:
        """The certificate that the directory shows, as a container must be told it."""
        return base64.b64encode((self._folder / "certificate.pem").read_bytes()).decode()

    def _write(self) -> None:
        (self._folder / "data").mkdir(parents=True)
        names = {"folder": self._folder, "base": BASE, "reader": READER}
        names |= {"readers": self._readers, "telephone": TELEPHONE}
        (self._folder / "slapd.conf").write_text(_SETTINGS.format(**names))
        people = [
            _PERSON.format(name=name, number=10001 + index, password=password, **names)
            + (f"sshPublicKey: {self._keys[name]}\n" if name in self._keys else "")
            for index, (name, password) in enumerate(PASSWORDS.items())
        ]
        tree = self._folder / "tree.ldif"
        tree.write_text(_TREE.format(secret=READER_SECRET, **names) + "".join(people))
        run(
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *(
                "-noenc",
                "-days",
                "2",
                "-subj",
                "/CN=ldap",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
            ),
            *("-keyout", self._folder / "key.pem", "-out", self._folder / "certificate.pem"),
        )
        run("slapadd", "-f", self._folder / "slapd.conf", "-l", tree)

    def _serve(self) -> None:
        own = Path("/proc/self/ns/net").readlink()
        wait_for("a network namespace", lambda: self.network.readlink() != own, timeout=10)
        self._inside("ip", "link", "set", "lo", "up")
        slapd = ("slapd", "-d", "0", "-f", self._folder / "slapd.conf")
        self._start("nsenter", f"--net={self.network}", *slapd, "-h", "ldap://127.0.0.1/")
        wait_for("slapd", self._answers, timeout=20)

    def _start(self, *argv: str | Path) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        self._started.append(process)
        return process

    def _inside(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return attempt("nsenter", f"--net={self.network}", *argv)

    def _answers(self) -> bool:
        return self._inside("bash", "-c", ": </dev/tcp/127.0.0.1/389").returncode == 0
