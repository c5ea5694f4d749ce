"""An LDAP directory: Debian's slapd with a few people, in a network namespace of its own.

A container that is given the same namespace finds it on its loopback, and nobody else does.  As in
a real one, a person's password is known to the directory alone, a reader must say who it is, and
nothing is said without TLS.
"""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from types import TracebackType

from tests.e2e.command import CommandError, attempt, run, stop, wait_for

BASE = "dc=example,dc=org"
READER = f"cn=reader,{BASE}"
READER_SECRET = r"""all of '"$HOME" & \\ @LDAP_BASE@ # ; = %s"""
PASSWORDS = {"alice": "correct horse", "bob": "battery staple"}

_SETTINGS = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCertificateFile {folder}/certificate.pem
TLSCertificateKeyFile {folder}/key.pem
security tls=1
database mdb
suffix "{base}"
directory {folder}/data
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{reader}" read by * none
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
uid: {name}
cn: {name}
sn: {name}
uidNumber: {number}
gidNumber: {number}
homeDirectory: /home/{name}
loginShell: /bin/bash
userPassword: {password}
"""


class Directory:
    """A directory with its files in `folder`, answering while the context is open.

    It knows alice, a member of the group ldapusers, and bob, who is not.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Directory:
        self._write()
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

    @property
    def env(self) -> dict[str, str]:
        """What a container must be told to let the directory's people in."""
        certificate = (self._folder / "certificate.pem").read_bytes()
        return {
            "LDAP_URI": "ldap://127.0.0.1",
            "LDAP_BASE": BASE,
            "LDAP_BIND_DN": READER,
            "LDAP_BIND_SECRET": READER_SECRET,
            "LDAP_CA_CERT": base64.b64encode(certificate).decode(),
        }

    def _write(self) -> None:
        (self._folder / "data").mkdir(parents=True)
        names = {"folder": self._folder, "base": BASE, "reader": READER}
        (self._folder / "slapd.conf").write_text(_SETTINGS.format(**names))
        people = [
            _PERSON.format(name=name, number=10001 + index, password=password, **names)
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
