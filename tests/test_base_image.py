"""The programs of the image `base`: what they make of the environment of a container.

They run here, on a folder in the place of the container's root; `tests/e2e/test_images.py` boots
the containers, and reads with the real readers what is written here.
"""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

BASE = Path(__file__).parents[1] / "images" / "base"
SECRET = r"""all of '"$HOME" & \\ @LDAP_BASE@ # ; = %s"""
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
URI = {"LDAP_URI": "ldaps://ldap.example.org"}


def environ(folder: Path, env: Mapping[str, str | bytes]) -> Path:
    """Write an environment as the kernel shows it, and return the file."""
    file = folder / "environ"
    values = {n: v.encode() if isinstance(v, str) else v for n, v in env.items()}
    file.write_bytes(b"".join(n.encode() + b"=" + v + b"\0" for n, v in values.items()))
    return file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a container's root as far as the programs need one."""
    for folder in ("etc/sssd", "run", "generated"):
        (tmp_path / "root" / folder).mkdir(parents=True)
    return tmp_path / "root"


def run(program: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["perl", "-w", BASE / program, *arguments], capture_output=True, text=True, check=False
    )
    assert not re.search(r" at \S+ line \d", done.stderr), f"Perl warns: {done.stderr}"
    return done


def configure(root: Path, env: Mapping[str, str | bytes]) -> subprocess.CompletedProcess[str]:
    return run("sssd-configure", environ(root.parent, env), root)


def settings(root: Path) -> dict[str, str]:
    """Return what sssd.conf says, by setting."""
    lines = (root / "etc/sssd/sssd.conf").read_text().splitlines()
    return dict(line.split(" = ", 1) for line in lines if " = " in line)


TABLE = [
    (option, names.split())
    for option, names in re.findall(
        r"^(ldap_\w+) +\S+ +(.+)$", (BASE / "sssd-configure").read_text(), re.MULTILINE
    )
]
VALUES = {
    "ldap_uri": "ldaps://one:636, ldaps://two:636",
    "ldap_search_base": "dc=example,dc=org",
    "ldap_user_search_base": "ou=people,dc=example,dc=org",
    "ldap_group_search_base": "ou=groups,dc=example,dc=org",
    "ldap_default_authtok_type": "obfuscated_password",
    "ldap_access_filter": "(&(uid=a)(!(uid=b)))",
    "ldap_tls_reqcert": "try",
    "ldap_tls_cacert": "/ca.pem",
    "ldap_opt_timeout": "90",
    "ldap_schema": "rfc2307bis",
    "ldap_id_mapping": "true",
}


class TestDirectory:
    """sssd.conf, made of variables."""

    def test_uri_alone(self, root: Path) -> None:
        """An address is enough: nobody has to be named, and the directory tells its own base."""
        done = configure(root, URI)
        assert done.returncode == 0, done.stderr
        assert settings(root) == {
            "domains": "ldap",
            "id_provider": "ldap",
            "auth_provider": "ldap",
            "chpass_provider": "ldap",
            "access_provider": "permit",
            "ldap_id_use_start_tls": "true",
            "fallback_homedir": "/home/%u",
            "default_shell": "/bin/bash",
            "ldap_uri": "ldaps://ldap.example.org",
            "ldap_tls_reqcert": "demand",
            "ldap_tls_cacert": "/etc/ssl/certs/ca-certificates.crt",
            "ldap_opt_timeout": "60",
        }

    @pytest.mark.parametrize(
        ("option", "name"), [(option, name) for option, names in TABLE for name in names]
    )
    def test_every_variable(self, root: Path, option: str, name: str) -> None:
        """Each setting is taken from each of its variables, as it stands there."""
        value = VALUES.get(option, "inetOrgPerson")
        (root / "ca.pem").touch()
        needed = {"LDAP_BIND_DN": "cn=reader", "LDAP_BIND_SECRET": SECRET} | URI
        needed = {n: v for n, v in needed.items() if n not in dict(TABLE)[option]}
        done = configure(root, {**needed, name: value})
        assert (done.returncode, done.stderr) == (0, "")
        assert settings(root)[option] == value

    def test_names(self) -> None:
        """Each setting has a variable that begins with LDAP_ and one that begins with SSSD_."""
        assert len(TABLE) > 20
        for _, names in TABLE:
            assert [name.partition("_")[0] for name in names] == ["LDAP", "SSSD"]

    def test_web_page(self, root: Path) -> None:
        """What opensource-server's page sets, empty variables too, is understood."""
        names = (
            "SCHEMA",
            "SEARCH_BASE",
            "USER_SEARCH_BASE",
            "GROUP_SEARCH_BASE",
            "DEFAULT_BIND_DN",
        )
        empty = {f"SSSD_LDAP_{name}": "" for name in names}
        uris = "ldaps://ldap1:636, ldaps://ldap2:636"
        page = {"SSSD_LDAP_URI": uris, "SSSD_LDAP_TLS_REQCERT": "allow", **empty}
        page |= {"SSSD_DEFAULT_AUTHTOK": "", "SSSD_DEFAULT_AUTHTOK_TYPE": ""}
        done = configure(root, page)
        assert (done.returncode, done.stderr) == (0, "")
        assert "SSSD_LDAP_TLS_REQCERT lets a directory in whose certificate is not" in done.stdout
        found = settings(root)
        assert (found["ldap_uri"], found["ldap_tls_reqcert"]) == (uris, "allow")
        assert not {"ldap_schema", "ldap_default_bind_dn", "ldap_default_authtok_type"} & set(found)

    def test_reader(self, root: Path) -> None:
        """A reader's secret is in sssd.conf as it was given, for its owner alone."""
        done = configure(root, {**URI, "LDAP_BIND_DN": "cn=r", "LDAP_BIND_SECRET": SECRET})
        assert settings(root)["ldap_default_authtok"] == SECRET
        assert settings(root)["ldap_default_authtok_type"] == "password"
        assert (root / "etc/sssd/sssd.conf").stat().st_mode & 0o777 == 0o600
        assert SECRET not in done.stdout + done.stderr

    def test_access_filter(self, root: Path) -> None:
        """With a filter those alone whom it finds are let in."""
        configure(root, {**URI, "LDAP_ACCESS_FILTER": "(memberOf=cn=x,dc=y)"})
        found = settings(root)
        assert (found["access_provider"], found["ldap_access_order"]) == ("ldap", "filter")
        assert found["ldap_access_filter"] == "(memberOf=cn=x,dc=y)"

    @pytest.mark.parametrize(
        "env", [{}, {"LDAP_ACCESS_FILTER": ""}, {"LDAP_ACESS_FILTER": "(a=b)"}]
    )
    def test_no_access_filter(self, root: Path, env: Mapping[str, str]) -> None:
        """Where everybody is let in, the unit's status says so, whatever was meant."""
        done = configure(root, {**URI, **env})
        assert "everybody whom the directory knows may log in" in done.stdout
        misspelt = "LDAP_ACESS_FILTER is no variable that this image knows" in done.stdout
        assert misspelt == ("LDAP_ACESS_FILTER" in env)

    def test_authority(self, root: Path) -> None:
        """A private authority's certificate is put beside sssd.conf, which names it."""
        encoded = base64.encodebytes(CERTIFICATE.encode()).decode().replace("\n", "")
        assert configure(root, {**URI, "LDAP_CA_CERT": encoded}).returncode == 0
        assert (root / "etc/sssd/ldap-ca.pem").read_text() == CERTIFICATE
        assert settings(root)["ldap_tls_cacert"] == "/etc/sssd/ldap-ca.pem"

    @pytest.mark.parametrize(
        ("env", "said"),
        [
            ({"LDAP_URI": ""}, "LDAP_URI (or SSSD_LDAP_URI) is not set"),
            ({"LDAP_URI": "ldap.example.org"}, "LDAP_URI must hold ldap:// or ldaps:// addresses"),
            ({"LDAP_URI": "ldaps://a, b"}, "LDAP_URI must hold ldap:// or ldaps:// addresses"),
            ({"SSSD_LDAP_URI": "ldap://x"}, "LDAP_URI and SSSD_LDAP_URI say different things"),
            ({"LDAP_BASE": "example.org"}, "LDAP_BASE must be a DN"),
            ({"LDAP_BIND_DN": "cn=x"}, "LDAP_BIND_DN is set, but LDAP_BIND_SECRET"),
            ({"SSSD_DEFAULT_AUTHTOK": "x"}, "SSSD_DEFAULT_AUTHTOK is set, but LDAP_BIND_DN"),
            ({"LDAP_BASE": "dc=x\n[sssd]"}, "LDAP_BASE contains a line break"),
            (
                {"LDAP_BIND_SECRET": " s", "LDAP_BIND_DN": "cn=x"},
                "SECRET begins or ends with a space",
            ),
            ({"LDAP_BIND_DN": "cn=x ", "LDAP_BIND_SECRET": "s"}, "DN begins or ends with a space"),
            ({"LDAP_BASE": b"dc=\xff"}, "LDAP_BASE is not UTF-8"),
            ({"LDAP_URI": "ldaps://a ldaps://b"}, "LDAP_URI must hold ldap:// or ldaps://"),
            ({"LDAP_ACCESS_FILTER": "(uid=a))("}, "LDAP_ACCESS_FILTER must be one LDAP filter"),
            ({"LDAP_ACCESS_FILTER": "(uid=a)(uid=b)"}, "LDAP_ACCESS_FILTER must be one LDAP"),
            ({"LDAP_ACCESS_FILTER": "a(uid=a)"}, "LDAP_ACCESS_FILTER must be one LDAP filter"),
            ({"LDAP_ACCESS_FILTER": "everybody"}, "LDAP_ACCESS_FILTER must be one LDAP filter"),
            ({"LDAP_SCHEMA": "nis"}, "LDAP_SCHEMA must be one of rfc2307, rfc2307bis, ipa, ad"),
            (
                {"LDAP_TLS_REQCERT": "no"},
                "LDAP_TLS_REQCERT must be one of never, allow, try, demand",
            ),
            ({"LDAP_TLS_CACERT": "/none"}, "LDAP_TLS_CACERT must be the path of a file"),
            ({"LDAP_OPT_TIMEOUT": "0"}, "LDAP_OPT_TIMEOUT must be a number of seconds"),
            ({"LDAP_OPT_TIMEOUT": "171"}, "LDAP_OPT_TIMEOUT must be a number of seconds"),
            ({"LDAP_USER_NAME": "a b"}, "LDAP_USER_NAME must be the name of an attribute"),
            ({"LDAP_CA_CERT": "bm9uc2Vuc2U="}, "LDAP_CA_CERT is not a PEM certificate in base64"),
            ({"LDAP_CA_CERT": "%"}, "LDAP_CA_CERT is not a PEM certificate in base64"),
            (
                {
                    "LDAP_CA_CERT": base64.b64encode(CERTIFICATE.encode()),
                    "LDAP_TLS_REQCERT": "never",
                },
                "LDAP_CA_CERT is set, but LDAP_TLS_REQCERT says",
            ),
            (
                {"SSSD_LDAP_TLS_CACERT": "/dev/null", "LDAP_TLS_REQCERT": "Never"},
                "SSSD_LDAP_TLS_CACERT is set, but LDAP_TLS_REQCERT says",
            ),
            (
                {
                    "LDAP_CA_CERT": base64.b64encode(CERTIFICATE.encode()),
                    "SSSD_LDAP_TLS_CACERT": "/dev/null",
                },
                "LDAP_CA_CERT and SSSD_LDAP_TLS_CACERT both name an authority",
            ),
        ],
    )
    def test_faults(self, root: Path, env: Mapping[str, str | bytes], said: str) -> None:
        """What is missing, contradictory or nonsense is told once, by name, and not by value."""
        done = configure(root, {**URI, **env})
        assert done.returncode == 1
        assert done.stderr.count(said) == 1
        assert not (root / "etc/sssd/sssd.conf").exists()
        issue = (root / "run/issue.d/sssd-configure.issue").read_text()
        assert done.stderr == "".join(
            f"sssd-configure: {line}\n" for line in issue.splitlines()[:-1]
        )

    def test_all_faults_at_once(self, root: Path) -> None:
        """Several faults are several lines; what to do about them is the last."""
        done = configure(root, {"LDAP_BIND_DN": "cn=x", "LDAP_SCHEMA": "nis"})
        assert len(done.stderr.splitlines()) == 4
        assert "set the environment and reboot" in done.stderr.splitlines()[-1]

    def test_unknown_variable(self, root: Path) -> None:
        """A variable that looks like a setting, and is none, is told; the others count."""
        done = configure(root, {**URI, "SSSD_LDAP_TPYO": "x", "LDAP_OF_AN_APPLICATION": "x"})
        assert done.returncode == 0
        (line,) = done.stderr.splitlines()
        assert "SSSD_LDAP_TPYO is no variable that this image knows" in line
        assert "LDAP_OF_AN_APPLICATION is no variable that this image knows" in done.stdout

    def test_made_anew(self, root: Path) -> None:
        """A changed environment changes sssd.conf at the next boot, unless something is wrong."""
        configure(root, URI)
        configure(root, {"LDAP_URI": "ldap://new"})
        assert settings(root)["ldap_uri"] == "ldap://new"
        assert "stays as the last good settings made it" in configure(root, {}).stderr
        assert settings(root)["ldap_uri"] == "ldap://new"
        assert (root / "run/issue.d/sssd-configure.issue").exists()
        configure(root, URI)
        assert list((root / "run/issue.d").iterdir()) == []

    def test_own_file(self, root: Path) -> None:
        """A sssd.conf that somebody else wrote is left alone, whatever the environment says."""
        own = root / "etc/sssd/sssd.conf"
        own.write_text("[sssd]\n")
        done = configure(root, {})
        assert (done.returncode, done.stderr) == (0, "")
        assert own.read_text() == "[sssd]\n"


def hand_on(root: Path, env: Mapping[str, str | bytes]) -> subprocess.CompletedProcess[str]:
    return run("container-environment", environ(root.parent, env), root)


def passed(root: Path, env: Mapping[str, str | bytes]) -> list[str]:
    """Return the variables that systemd is told to pass to each service."""
    folder = root / "generated"
    done = run("container-environment", folder, folder, folder, environ(root.parent, env))
    assert (done.returncode, done.stdout) == (0, "")
    made = folder / "service.d/50-container-environment.conf"
    if not made.exists():
        return []
    (names,) = re.findall(r"^\[Service\]\nPassEnvironment=(.+)$", made.read_text(), re.MULTILINE)
    return str(names).split()


class TestEnvironment:
    """/etc/environment and what stands beside it."""

    @pytest.mark.parametrize(
        ("value", "line"),
        [
            ("plain", "'plain'"),
            ("", "''"),
            (" two  words ", "' two  words '"),
            (r"$HOME `id` \n \\ \ ", r"'$HOME `id` \n \\ \ '"),
            ("ends with \\", "'ends with \\'"),
            ('say "yes"', "'say \"yes\"'"),
            ("it's", '"it\'s"'),
            (r"it's $HOME \n", r'''"it's $HOME \n"'''),
            ("""{"it": "isn't"}""", """{"it": "isn't"}"""),
            ("tab\there; caf\u00e9", "'tab\there; caf\u00e9'"),
        ],
    )
    def test_common_form(self, root: Path, value: str, line: str) -> None:
        """A value that pam_env and systemd can read alike stands in the file in that form."""
        assert hand_on(root, {"NAME": value}).stdout == ""
        assert (root / "etc/environment").read_text().splitlines()[1:] == [f"NAME={line}"]
        assert passed(root, {"NAME": value}) == []

    @pytest.mark.parametrize(
        "value",
        [
            "two\nPATH=/evil",
            "colour #fff",
            b"latin \xe9",
            """'"both" first'""",
            """"it's" \\ mixed""",
            "it's \\",
            """it's \\$ so""",
            """it's "so" """,
            """it's "so"\r then""",
        ],
    )
    def test_no_common_form(self, root: Path, value: str | bytes) -> None:
        """A value that one of the two would misread goes other ways to services and to shells."""
        env = {"BEFORE": "1", "NAME": value, "AFTER": "2"}
        done = hand_on(root, env)
        lines = (root / "etc/environment").read_text().splitlines()[1:]
        assert lines == ["BEFORE='1'", "AFTER='2'"]
        # systemd takes UTF-8 alone (env_assignment_is_valid in src/basic/env-util.c).
        assert passed(root, env) == ([] if isinstance(value, bytes) else ["NAME"])
        assert ("NAME is not UTF-8" in done.stdout) == isinstance(value, bytes)
        exports = root / "run/container-environment.sh"
        read = subprocess.run(
            ["sh", "-c", f'. {exports}; printf %s "$NAME"'], capture_output=True, check=True
        )
        raw = value if isinstance(value, bytes) else value.encode()
        assert read.stdout == raw
        of_sshd = (root / "run/container-environment.sshd").read_bytes()
        assert (of_sshd == b"") == (b"\n" in raw)
        assert ("NAME has several lines" in done.stdout) == (b"\n" in raw)

    def test_for_sshd(self, root: Path) -> None:
        """All that sshd is told is one SetEnv, since it takes no second one."""
        hand_on(root, {"ONE": "a #b", "TWO": """'"\\'"""})
        text = (root / "run/container-environment.sshd").read_text()
        assert text == """SetEnv "ONE=a #b" "TWO='\\"\\\\'"\n"""

    @pytest.mark.parametrize(
        "name",
        [
            *("LDAP_BIND_SECRET", "SSSD_DEFAULT_AUTHTOK", "SSSD_LDAP_DEFAULT_AUTHTOK"),
            *("HOME", "TERM", "container", "container_uuid"),
        ],
    )
    @pytest.mark.parametrize("value", ["simple", "one\n#two"])
    def test_withheld(self, root: Path, name: str, value: str) -> None:
        """The directory's secrets and what is init's own reach nobody."""
        hand_on(root, {name: value})
        for file in ("etc/environment", "run/container-environment.sh"):
            assert f"{name}=" not in (root / file).read_text()
        assert passed(root, {name: value}) == []

    def test_secrets_are_withheld(self) -> None:
        """Every variable that holds a secret of the directory is one that is withheld."""
        text = (BASE / "container-environment").read_text()
        assert " | ".join(dict(TABLE)["ldap_default_authtok"]) in text

    def test_what_the_image_wrote(self, root: Path) -> None:
        """What stood in the file stays, above what each boot writes anew."""
        own = "# of the image\nLANG=C.UTF-8\n"
        (root / "etc/environment").write_text(own)
        for value in ("first", "second"):
            hand_on(root, {"NAME": value})
            text = (root / "etc/environment").read_text()
            assert text.startswith(own + "# Below:")
            assert text.endswith(f"NAME='{value}'\n")
        assert (root / "etc/environment").stat().st_mode & 0o777 == 0o644

    def test_odd_names(self, root: Path) -> None:
        """A name that no shell takes is left out, and the first of two equal names counts."""
        file = root.parent / "environ"
        file.write_bytes(b"A-B=1\0A\n=it's #1\0GOOD=2\0GOOD=3\0no value\0")
        done = run("container-environment", file, root)
        assert "left out" in done.stdout
        assert (root / "etc/environment").read_text().splitlines()[1:] == ["GOOD='2'"]
        for other in ("container-environment.sh", "container-environment.sshd"):
            assert (root / "run" / other).read_text() == ""
