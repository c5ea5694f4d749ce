"""`syncd create` and `syncd resolve` as processes, against a make-believe cluster."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from syncd.oci.reference import Digest
from tests.clusters import LAUNCHING, names_on, token_for, uploads
from tests.daemons import running
from tests.fakes.pve import Pve
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, cluster_table, configure, sample
from tests.images import image, index, layer

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def syncd(pve: Pve, registry: Registry, tmp_path: Path) -> Run:
    """Run a command on a configuration whose one image goes to the cluster."""
    registry.push(REPOSITORY, "latest", sample())
    table = cluster_table(tmp_path, pve, token_for(pve, LAUNCHING))
    config = configure(tmp_path, registry, image='targets = ["cluster"]', more=table)

    def run(command: str, *options: str, ref: str = "") -> subprocess.CompletedProcess[str]:
        names = [ref or f"{registry.address}/{REPOSITORY}"] if command != "containers" else []
        return subprocess.run(
            [sys.executable, "-m", "syncd", "--config", config, command, *names, *options],
            capture_output=True,
            text=True,
            check=False,
            input="correct horse\nand more\n",
        )

    return run


def test_all_options(pve: Pve, syncd: Run, tmp_path: Path) -> None:
    """Every option gets to the API in its words; what is printed is where the container is."""
    keys = tmp_path / "keys.pub"
    keys.write_text("# of the office\nssh-ed25519 AAAA a@b\n\nssh-ed25519 BBBB c@d\n")
    words = "--hostname web --node pve2 --vmid 200 --cores 4 --memory 2048 --swap 0 --size 20"
    words += " --storage local-zfs --bridge vmbr7 --features nesting=1 --tags owner;web --start"
    words += " --net2 name=eth2 --net10=name=b,tag=7 --mp0 local-zfs:4,mp=/srv,ro=1 --cpulimit 1.5"
    words += " --nameserver 10.0.0.1 --searchdomain lan --ostype debian --cmode tty --onboot"
    words += " --startup order=1 --no-protection --timezone host --pool web --env A=b=c"
    pve.cluster.image_config = {"env": "PATH=/bin"}
    (token,) = pve.cluster.tokens.values()
    token.acl["/pool/web"] = token.acl["/vms"]
    spaced = ["--description", "My web", "--env", "D=e f", "--entrypoint", "/bin/x -y"]
    done = syncd("create", *words.split(), *spaced, "--ssh-key", str(keys), "--password-stdin")
    assert done.returncode == 0, done.stderr
    (name,) = names_on(pve, "local", "pve2")
    assert done.stdout == f"200 pve2 local:vztmpl/{name}\n"
    assert "correct" not in done.stdout + done.stderr
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
        "net2": "name=eth2",
        "net10": "name=b,tag=7",
        "mp0": "local-zfs:4,mp=/srv,ro=1",
        "cpulimit": "1.5",
        "nameserver": "10.0.0.1",
        "searchdomain": "lan",
        "ostype": "debian",
        "cmode": "tty",
        "onboot": "1",
        "startup": "order=1",
        "protection": "0",
        "timezone": "host",
        "pool": "web",
        "password": "correct horse",
        "description": sent["description"],
    }
    assert re.fullmatch(
        rf"My web\n\nsyncd-request: [0-9a-f]+\nsyncd: .*:latest@{sample().digest}",
        sent["description"],
    )
    (changed,) = (r.params for r in pve.requests if r.method == "PUT")
    assert changed == {"env": "PATH=/bin\0A=b=c\0D=e f", "entrypoint": "/bin/x -y"}
    assert pve.cluster.containers[200].running


def test_profile(pve: Pve, syncd: Run, tmp_path: Path) -> None:
    """A profile and a host name are enough; what is typed counts before the profile."""
    with (tmp_path / "syncd.toml").open("a") as config:
        config.write(
            '[[profile]]\nname = "web"\ncores = 4\nmemory = 2048\nstart = true\nnode = "pve2"\n'
            'net1 = "name=eth1,bridge=vmbr0"\nmp0 = "local-zfs:4,mp=/srv"\nenv = { TZ = "UTC" }\n'
        )
    pve.cluster.ostype = "unmanaged"
    done = syncd("create", "--profile", "web", "--hostname", "a", "--memory", "512", "--no-start")
    assert done.returncode == 0, done.stderr
    assert "warning: ostype is unmanaged" in done.stderr
    made = pve.cluster.containers[100]
    assert (made.node, made.running) == ("pve2", False)
    wanted = {"hostname": "a", "cores": 4, "memory": 512, "net1": "name=eth1,bridge=vmbr0"}
    assert made.config.items() >= wanted.items()
    assert "mp=/srv" in str(made.config["mp0"])
    assert str(made.config["env"]).endswith("\0TZ=UTC")
    done = syncd("create", "--profile", "db", "--hostname", "a")
    assert (done.returncode, "there is: web" in done.stderr) == (2, True)


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
        ("--hostname web --net32 name=a", "", "net32: Extra inputs"),
        ("--hostname web --mp0", "", "requires an argument"),
        ("--hostname web --env A", "", "--env 'A' has no ="),
        ("--hostname web --profile no", "", "there is no profile 'no'; add a [[profile]]"),
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
    assert "creating" not in done.stderr
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


def test_resolve_for_node(pve: Pve, syncd: Run, registry: Registry, tmp_path: Path) -> None:
    """Of several platforms, the volume id is of the one that runs on the named node."""
    pve.cluster.nodes["pve2"].machine = "aarch64"
    arm = image(layer(), platform="linux/arm64")
    registry.push(REPOSITORY, "latest", index(sample(), arm))
    table = cluster_table(tmp_path, pve, token_for(pve, LAUNCHING))
    both = 'targets = ["cluster"]\nplatform = ["linux/amd64", "linux/arm64"]'
    config = configure(tmp_path, registry, image=both, more=table)
    assert "_arm64" in syncd("resolve", "--pull", "--node", "pve2").stdout
    assert "_arm64" not in syncd("resolve", "--node", "pve1").stdout
    with running(tmp_path, Path(config)):
        assert "_arm64" in syncd("resolve", "--node", "pve2").stdout


def test_containers(pve: Pve, syncd: Run, registry: Registry) -> None:
    """`syncd containers` tells what was made from which digest, and what is behind its tag."""
    assert syncd("create", "--hostname", "web", "--node", "pve1").returncode == 0
    registry.push(REPOSITORY, "latest", sample("newer"))
    shown = syncd("containers", ref="")
    assert shown.returncode == 0, shown.stderr
    old, new = (Digest.parse(str(i.digest)).encoded[:12] for i in (sample(), sample("newer")))
    image = f"{registry.address}/{REPOSITORY}:latest"
    assert shown.stdout == f"100 pve1 web stopped {image} {old} behind {new}\n"
    (found,) = json.loads(syncd("containers", "--json", "--all").stdout)["containers"]
    assert (found["vmid"], found["behind"]) == (100, True)
