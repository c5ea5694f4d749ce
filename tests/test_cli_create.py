"""`syncd create` and `syncd resolve` as processes, against a make-believe cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.pve import Pve
from tests.fakes.registry import Registry
from tests.houses import REPOSITORY, cluster_table, configure, sample
from tests.targets import LAUNCHING, names_on, token_for, uploads

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def syncd(pve: Pve, registry: Registry, tmp_path: Path) -> Run:
    """Run a command on a configuration whose one image goes to the cluster."""
    registry.push(REPOSITORY, "latest", sample())
    table = cluster_table(tmp_path, pve, token_for(pve, LAUNCHING))
    config = configure(tmp_path, registry, image='targets = ["cluster"]', more=table)

    def run(command: str, *options: str, ref: str = "") -> subprocess.CompletedProcess[str]:
        name = ref or f"{registry.address}/{REPOSITORY}"
        return subprocess.run(
            [sys.executable, "-m", "syncd", "--config", config, command, name, *options],
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_all_options(pve: Pve, syncd: Run, tmp_path: Path) -> None:
    """Every option gets to the API in its words; what is printed is where the container is."""
    keys = tmp_path / "keys.pub"
    keys.write_text("# of the office\nssh-ed25519 AAAA a@b\n\nssh-ed25519 BBBB c@d\n")
    pve.cluster.ostype = "unmanaged"
    words = "--hostname web --node pve2 --vmid 200 --cores 4 --memory 2048 --swap 0 --size 20"
    words += " --storage local-zfs --bridge vmbr7 --features nesting=1 --tags owner;web --start"
    done = syncd("create", *words.split(), "--ssh-key", str(keys))
    assert done.returncode == 0, done.stderr
    (name,) = names_on(pve, "local", "pve2")
    assert done.stdout == f"200 pve2 local:vztmpl/{name}\n"
    assert "warning: ostype is unmanaged" in done.stderr
    (sent,) = (r.params for r in pve.requests if r.method == "POST" and r.path.endswith("/lxc"))
    assert sent == {
        "vmid": "200",
        "ostemplate": f"local:vztmpl/{name}",
        "hostname": "web",
        "cores": "4",
        "memory": "2048",
        "swap": "0",
        "rootfs": "local-zfs:20",
        "net0": "name=eth0,ip=dhcp,bridge=vmbr7",
        "unprivileged": "1",
        "features": "nesting=1",
        "tags": "owner;web",
        "ssh-public-keys": "ssh-ed25519 AAAA a@b\nssh-ed25519 BBBB c@d",
    }
    assert pve.cluster.containers[200].running


def test_json(pve: Pve, syncd: Run) -> None:
    """For machines it is what the API answers, and nothing else is printed."""
    done = syncd("create", "--hostname", "web", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    made = json.loads(done.stdout)
    assert (made["vmid"], made["hostname"], made["running"], made["warnings"]) == (
        100,
        "web",
        False,
        [],
    )
    assert made["node"] in ("pve1", "pve2")


def test_private_key(pve: Pve, syncd: Run, tmp_path: Path) -> None:
    """A private key given by mistake goes nowhere, and is not shown."""
    file = tmp_path / "id"
    file.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\n")
    done = syncd("create", "--hostname", "web", "--ssh-key", str(file))
    assert (done.returncode, "private key" in done.stderr) == (2, True)
    assert "b3Blbn" not in done.stderr
    assert pve.requests == []


@pytest.mark.parametrize(
    ("options", "ref", "said"),
    [
        ("--hostname under_score --cores 0", "", "'under_score' is not a host name: letters"),
        ("--hostname under_score --cores 0", "", "cores: Input should be greater"),
        ("--hostname web --bridge b --net0 name=eth0", "", "give bridge or net0, not both"),
        ("--hostname web", "Not A Reference", "is not an image reference"),
        ("--hostname web --target other", "", "no cluster named 'other'; there is: cluster"),
        ("", "", "Missing option '--hostname'"),
        ("--hostname web --ssh-key /none", "", "/none"),
    ],
)
def test_refused(pve: Pve, syncd: Run, options: str, ref: str, said: str) -> None:
    """What is wrong as it was written is exit status 2, and says why."""
    done = syncd("create", *options.split(), ref=ref)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert pve.cluster.containers == {}


def test_failed(pve: Pve, syncd: Run) -> None:
    """A creation that fails is exit status 1 with the end of its log; a taken VMID too."""
    pve.cluster.create_failure = "unsupported distribution 'foo'"
    done = syncd("create", "--hostname", "web")
    assert (done.returncode, done.stdout) == (1, "")
    assert "its task's log ends: extracting archive" in done.stderr
    assert "unsupported distribution 'foo'" in done.stderr
    pve.cluster.create_failure = None
    assert syncd("create", "--hostname", "web", "--vmid", "200").returncode == 0
    done = syncd("create", "--hostname", "web", "--vmid", "200")
    assert (done.returncode, "CT 200 already exists" in done.stderr) == (1, True)
    done = syncd("create", "--hostname", "web", "--node", "pve9")
    assert (done.returncode, "node 'pve9' of target 'cluster'" in done.stderr) == (1, True)


def test_no_privilege(pve: Pve, syncd: Run) -> None:
    """A privilege that lacks is told with the command that grants it."""
    (token,) = pve.cluster.tokens.values()
    token.acl["/vms"] -= {"VM.Config.CPU"}
    done = syncd("create", "--hostname", "web")
    assert (done.returncode, "VM.Config.CPU" in done.stderr) == (1, True)
    assert "pveum acl modify /vms" in done.stderr
    assert "Traceback" not in done.stderr


def test_resolve(pve: Pve, syncd: Run, registry: Registry) -> None:
    """Resolving prints the volume id; without --pull it uploads nothing."""
    done = syncd("resolve")
    assert (done.returncode, done.stdout) == (1, "")
    assert "fetch it with --pull" in done.stderr
    assert {request.method for request in pve.requests} == {"GET"}
    pulled = syncd("resolve", "--pull")
    (name,) = names_on(pve, "local", "pve1")
    assert (pulled.returncode, pulled.stdout) == (0, f"local:vztmpl/{name}\n")
    assert len(uploads(pve)) == 2
    by_digest = f"{registry.address}/{REPOSITORY}@{sample().digest}"
    found = syncd("resolve", "--json", ref=by_digest)
    assert json.loads(found.stdout) == {
        "reference": by_digest,
        "volumes": [f"local:vztmpl/{name}"],
    }
    assert syncd("resolve", ref=f"{registry.address}/none").returncode == 1
    assert len(uploads(pve)) == 2
