"""`make install` on Debian 12, repeated, kept through the upgrade to Debian 13, and taken away.

What is typed is typed in a root that is not booted; what systemd makes of the units is in
`test_service`.
"""

from __future__ import annotations

from pathlib import Path

from tests.e2e import checkout
from tests.e2e.debian import mirror

PACKAGES = ("ca-certificates", "git", "make", "python3", "python3-venv")

TWICE = """\
umask 077
make --quiet install
sed -i 's/^#settle = .*/settle = "3s"/' /etc/syncd/syncd.toml
sha256sum /etc/syncd/* >/kept
make --quiet install
sha256sum --check --quiet /kept
stat -c %a /etc/syncd/webhook-secret /etc/syncd/api-token /etc/syncd/syncd.toml
ls -d /opt/syncd/releases/* | wc -l
ls /opt/syncd/current/lib/python3.11/site-packages
setpriv --reuid=nobody --regid=nogroup --clear-groups /usr/local/bin/syncd --version
"""

UPGRADE = """\
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get --yes -qq --no-install-recommends install python3 python3-pip-whl python3-venv >/dev/null
python3 --version
syncd --version
apt-get --yes -qq autoremove --purge >/dev/null
syncd --version 2>&1 || echo "exit $?"
"""

AGAIN = """\
make --quiet install
sha256sum --check --quiet /kept
syncd --version
readlink -m /opt/syncd/current/bin/python
make --quiet uninstall
ls -d /opt/syncd /usr/local/bin/syncd /usr/local/share/man/man1/syncd.1 2>/dev/null || true
ls /etc/systemd/system /etc/syncd
"""


def test_install(tmp_path: Path) -> None:
    """Each installation is whole, keeps what is one's own, and tells when its Python is gone."""
    root = checkout.unpack(PACKAGES, tmp_path / "root", "bookworm")
    *first, version = checkout.run_inside(root, TWICE, timeout=600).splitlines()[1:]
    assert version.startswith("syncd ")
    modes, releases, libraries = first[1:4], first[4], first[5:]
    assert (modes, releases) == (["600", "600", "644"], "1")
    assert "aiohttp" in libraries
    assert not {"pytest", "atheris", "mypy", "hypothesis", "pip", "hatchling"} & {*libraries}

    (root / "etc/apt/sources.list").write_text(f"deb {mirror()} trixie main\n")
    python, old, *told = checkout.run_inside(root, UPGRADE, timeout=900).splitlines()
    assert python.startswith("Python 3.13")
    assert old == version
    assert told == [
        "syncd: /usr/bin/python3.11 is gone since syncd was installed: "
        "run make install again in its sources",
        "exit 1",
    ]
    said = checkout.run_inside(root, AGAIN, timeout=600).splitlines()
    assert said[1:3] == [version, "/usr/bin/python3.13"]
    assert said[3].startswith("What is left: rm -r /etc/syncd ")
    assert "syncd.service" not in said
    assert "webhook-secret" in said
