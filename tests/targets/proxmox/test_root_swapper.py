"""The steps of a new root under a container, on a make-believe cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from syncd.config.target_settings import ProxmoxTargetSettings
from syncd.errors import PublishError, RequestError
from syncd.formats import Format
from syncd.oci import Reference
from syncd.targets.container import Startup
from syncd.targets.origin import Origin
from syncd.targets.proxmox import privileges
from syncd.targets.proxmox.client import Client
from syncd.targets.proxmox.root_swapper import RootSwapper
from syncd.targets.root_swap import RootSwap, SwapOrder, SwapStep, volume_of
from tests.clusters import CREATING, TOKEN, token_for, when_asked
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import Container, RootVolume

OLD, NEW = "cephfs:vztmpl/old.tar", "cephfs:vztmpl/new.tar"
IMAGE = Origin(Reference.parse(f"ghcr.io/acme/web:latest@sha256:{'a' * 64}"))
ORDER = SwapOrder(IMAGE, NEW, Format.OCI, Startup(env="PATH=/bin"), Startup(env="A=1"))
V0 = "local-zfs:subvol-100-disk-0"
DATA = "local-zfs:subvol-100-disk-1"
SNAPPED = replace(ORDER, snapshot=True)
SNAPPING = CREATING | {"/vms": [*CREATING["/vms"], "VM.Snapshot"]}
ACTS = tuple(step for step in SwapStep if step is not SwapStep.READY)


def quiet(_: int) -> None:
    """Hear no progress."""


def container(pve: Pve, *, running: bool = True, **options: Any) -> Container:
    """Put a container with a data volume on the cluster, and the new template beside it."""
    template = pve.cluster.template(NEW, "pve1")
    template.parent.mkdir(parents=True, exist_ok=True)
    template.write_bytes(b"template")
    config = {
        "hostname": "web",
        "arch": "amd64",
        "ostype": "debian",
        "unprivileged": 1,
        "rootfs": f"{V0},acl=1,size=8G",
        "mp0": f"{DATA},mp=/data,size=1G",
        "net0": "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,ip=dhcp",
        "env": "A=1\0MINE=yes",
        "entrypoint": "/bin/old",
        "description": "of the web team\n",
    } | options
    made = Container(100, "pve1", {k: v for k, v in config.items() if v is not None}, running)
    pve.cluster.containers[100] = made
    pve.cluster.volumes[V0] = RootVolume(100, unprivileged=True, content=OLD)
    pve.cluster.volumes[DATA] = RootVolume(100, unprivileged=True, content="data")
    return made


def swapper(pve: Pve, folder: Path, acl: Mapping[str, Any] = SNAPPING) -> RootSwapper:
    """Return the swapper of a target on the cluster."""
    token_for(pve, acl)
    secret = folder / "token-secret"
    secret.write_text(f"secret-of-{TOKEN}\n")
    settings = ProxmoxTargetSettings(
        name="cluster",
        type="proxmox",
        endpoints=(f"https://127.0.0.1:{pve.port}",),
        token_id=TOKEN,
        token_secret_file=secret,
        ca_file=pve.certificate.file,
        storage="local",
    )
    return RootSwapper(Client(settings), settings)


def plan(swapper: RootSwapper, order: SwapOrder = ORDER) -> RootSwap:
    guest = swapper.guest(100)
    assert guest is not None
    return swapper.plan(guest, order)


def run(swapper: RootSwapper, swap: RootSwap, until: SwapStep | None = None) -> RootSwap:
    """Do the steps up to and with `until`."""
    for step in swap.steps:
        if step is not SwapStep.READY:
            swap = swapper.do(step, swap, quiet)
        if step is until:
            break
    return swap


def state(pve: Pve) -> Any:
    """Return everything that may not differ once a swap was undone."""
    cluster = pve.cluster
    guests = {vmid: (c.config, c.running, c.pending) for vmid, c in cluster.containers.items()}
    return deepcopy((guests, cluster.volumes))


def test_replaced(pve: Pve, tmp_path: Path) -> None:
    """The container has the new root with the old options, and everything else as it was."""
    made = container(pve)
    before = dict(made.config)
    swaps = swapper(pve, tmp_path)
    swap = run(swaps, plan(swaps))
    new = swap.new_volume
    assert pve.cluster.volumes[new].content == NEW
    assert pve.cluster.volumes[V0].content == OLD
    assert pve.cluster.volumes[DATA].content == "data"
    assert made.running
    assert list(pve.cluster.containers) == [100]
    assert made.config == before | {
        "rootfs": f"{new},size=8G,acl=1",
        swap.unused_key: V0,
        "env": "PATH=/bin\0MINE=yes",
        "entrypoint": "/bin/app",
        "cmode": "console",
        "description": f"of the web team\n\nsyncd: {IMAGE.image}",
    }


def test_old_removed(pve: Pve, tmp_path: Path) -> None:
    """The old root is destroyed when that is asked for, and never a volume in use."""
    container(pve)
    swaps = swapper(pve, tmp_path)
    swap = run(swaps, plan(swaps))
    assert swaps.remove_old(swap)
    assert set(pve.cluster.volumes) == {DATA, swap.new_volume}
    assert not swaps.remove_old(swap)
    back = replace(swap, old_root=swap.new_root)
    assert not swaps.remove_old(back)
    assert swap.new_volume in pve.cluster.volumes


@pytest.mark.parametrize("last", ACTS)
@pytest.mark.parametrize("running", [True, False])
def test_undone(pve: Pve, tmp_path: Path, last: SwapStep, *, running: bool) -> None:
    """After any step the container can be had back as it was, and nothing is left."""
    container(pve, running=running, protection=1)
    before = state(pve)
    swaps = swapper(pve, tmp_path)
    swap = run(swaps, plan(swaps, SNAPPED), last)
    swaps.undo(swap, quiet)
    assert state(pve) == before
    swaps.undo(swap, quiet)
    assert state(pve) == before


@pytest.mark.parametrize("last", ACTS)
def test_undone_unrecorded(pve: Pve, tmp_path: Path, last: SwapStep) -> None:
    """A step whose end was not written down is undone with what was known before the step."""
    container(pve, protection=1)
    before = state(pve)
    swaps = swapper(pve, tmp_path)
    known = swap = plan(swaps, SNAPPED)
    for step in swap.steps:
        known = swap
        if step is not SwapStep.READY:
            swap = swaps.do(step, swap, quiet)
        if step is last:
            break
    swaps.undo(known, quiet)
    assert state(pve) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lock": "backup"}, r"is locked \(backup\)"),
        ({"template": 1}, "is a template"),
        ({"lxc": [["lxc.idmap", "u 0 100000 65536"]]}, "lxc.idmap"),
        ({"unprivileged": None}, "is privileged"),
        ({"rootfs": "/srv/root"}, "no volume of a storage"),
        ({"rootfs": V0}, "has no size"),
        ({f"unused{n}": f"local-zfs:subvol-100-disk-{n + 9}" for n in range(255)}, "no free key"),
    ],
)
def test_refused(pve: Pve, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """What cannot be replaced is refused by name before anything is changed."""
    container(pve, **options)
    before = state(pve)
    with pytest.raises(RequestError, match=message):
        plan(swapper(pve, tmp_path))
    assert state(pve) == before


def test_pending_refused(pve: Pve, tmp_path: Path) -> None:
    """A container with pending changes is refused, and the changes are named."""
    container(pve).pending["env"] = "B=2"
    with pytest.raises(RequestError, match=r"pending changes \(env\)"):
        plan(swapper(pve, tmp_path))


def test_started_meanwhile(pve: Pve, tmp_path: Path) -> None:
    """A container that somebody starts is not given a disk while it runs; it goes back."""
    made = container(pve)
    before = state(pve)
    swaps = swapper(pve, tmp_path)
    swap = run(swaps, plan(swaps), SwapStep.STOP)
    made.running = True
    with pytest.raises(PublishError, match="somebody started container 100"):
        swaps.do(SwapStep.ALLOCATE, swap, quiet)
    swaps.undo(swap, quiet)
    assert state(pve) == before


def test_started_under_swap(pve: Pve, tmp_path: Path) -> None:
    """A swap that waits because somebody started the container is reverted."""
    made = container(pve)
    before = state(pve)
    swaps = swapper(pve, tmp_path)
    swap = run(swaps, plan(swaps), SwapStep.REMOVE)

    def started() -> None:
        made.running = True

    when_asked(pve, "/config", lambda: when_asked(pve, "/config", started))
    with pytest.raises(PublishError):
        swaps.do(SwapStep.SWAP, swap, quiet)
    assert made.running
    assert volume_of(made.config["rootfs"]) == V0
    swaps.undo(swap, quiet)
    assert state(pve) == before


def test_changed_meanwhile(pve: Pve, tmp_path: Path) -> None:
    """What somebody else changes between look and change is not overwritten."""
    made = container(pve)
    swaps = swapper(pve, tmp_path)
    swap = run(swaps, plan(swaps), SwapStep.REMOVE)
    when_asked(pve, "/config", lambda: made.config.update(cores=3) or None)

    class Late(list[Any]):
        def append(self, request: Any, /) -> None:
            super().append(request)
            if request.method == "PUT":
                made.config["cores"] = 4

    pve.cluster.requests = Late(pve.cluster.requests)
    with pytest.raises(PublishError, match="detected modified configuration"):
        swaps.do(SwapStep.SWAP, swap, quiet)
    assert volume_of(made.config["rootfs"]) == V0


def test_foreign_scratch(pve: Pve, tmp_path: Path) -> None:
    """A container that has the VMID of the throw-away one, and not its mark, is left alone."""
    container(pve)
    swaps = swapper(pve, tmp_path)
    swap = run(swaps, plan(swaps), SwapStep.RESERVE)
    assert swap.scratch == 101
    pve.cluster.containers[101] = Container(101, "pve1", {"hostname": "web", "rootfs": "x"})
    with pytest.raises(PublishError, match="already exists"):
        swaps.do(SwapStep.UNPACK, swap, quiet)
    swaps.undo(swap, quiet)
    assert set(pve.cluster.containers) == {100, 101}


def test_unpacking_fails(pve: Pve, tmp_path: Path) -> None:
    """A template that cannot be unpacked is told with the end of the log, and can be undone."""
    container(pve)
    before = state(pve)
    swaps = swapper(pve, tmp_path)
    pve.cluster.create_failure = "tar: exit code 2"
    swap = run(swaps, plan(swaps), SwapStep.RESERVE)
    with pytest.raises(PublishError, match="exit code 2"):
        swaps.do(SwapStep.UNPACK, swap, quiet)
    swaps.undo(swap, quiet)
    assert state(pve) == before


def test_creation_under_way(pve: Pve, tmp_path: Path) -> None:
    """A creation whose answer was lost is waited for before its container is removed."""
    container(pve)
    before = state(pve)
    swaps = swapper(pve, tmp_path)
    swap = run(swaps, plan(swaps), SwapStep.RESERVE)
    pve.cluster.tasks_may_finish.clear()
    pve.cluster.lost_answers = 1
    with pytest.raises(PublishError, match="broke off"):
        swaps.do(SwapStep.UNPACK, swap, quiet)
    assert 101 in pve.cluster.containers
    swaps.undo(swap, lambda _: pve.cluster.tasks_may_finish.set())
    assert state(pve) == before


def test_raw_lines(pve: Pve, tmp_path: Path) -> None:
    """Raw lines that the new image wants otherwise are told, since no call sets them."""
    container(pve, lxc=[["lxc.signal.halt", "SIGTERM"]])
    pve.cluster.image_config["lxc"] = [["lxc.signal.halt", "SIGINT"], ["lxc.init.uid", "33"]]
    swaps = swapper(pve, tmp_path)
    swap = run(swaps, plan(swaps), SwapStep.INSPECT)
    told = "\n".join(swap.warnings)
    assert "lxc.signal.halt = 'SIGINT'" in told
    assert "lxc.init.uid = '33'" in told
    assert "entrypoint changes from '/bin/old'" in told


def test_old_image_unknown(pve: Pve, tmp_path: Path) -> None:
    """Where the old image is not known, every variable of the container stays."""
    made = container(pve)
    swaps = swapper(pve, tmp_path)
    run(swaps, plan(swaps, replace(ORDER, old_startup=None)))
    assert made.config["env"] == "PATH=/bin\0A=1\0MINE=yes"


def test_rootfs_format(pve: Pve, tmp_path: Path) -> None:
    """For a rootfs template the image's startup goes to the throw-away container."""
    made = container(pve)
    template = pve.cluster.template("cephfs:vztmpl/new.tar.zst", "pve1")
    template.write_bytes(b"template")
    swaps = swapper(pve, tmp_path)
    startup = Startup("/bin/new", "B=2")
    order = replace(
        ORDER, form=Format.ROOTFS, template="cephfs:vztmpl/new.tar.zst", startup=startup
    )
    run(swaps, plan(swaps, order))
    assert made.config["entrypoint"] == "/bin/new"
    assert made.config["env"] == "B=2\0MINE=yes"


def test_text() -> None:
    """A swap is read from the ledger as it was written, and nothing else is read."""
    swap = RootSwap(
        vmid=100, node="pve1", image="a", template="t", mark="m", old_root=f"{V0},size=8G",
        mount_key="mp255", unused_key="unused255", size=8, hostname="web", was_running=True,
        unprivileged=True, protected=False, description="", before={"env": None},
        warnings=("one",),
    )  # fmt: skip
    assert RootSwap.parse(swap.text()) == swap
    for text in ("", "[]", "{}", '{"warnings": []}'):
        with pytest.raises((ValueError, TypeError)):
            RootSwap.parse(text)


def test_privileges(pve: Pve, tmp_path: Path) -> None:
    """On the container itself no VM.Allocate is needed, so the token cannot destroy it."""
    container(pve)
    acl = dict(CREATING)
    acl["/vms/100"] = ["VM.Audit", "VM.Config.Disk", "VM.Config.Options", "VM.PowerMgmt"]
    swaps = swapper(pve, tmp_path, acl)
    swap = run(swaps, plan(swaps))
    assert swaps.is_swapped(swap)


@pytest.mark.parametrize(
    ("path", "privilege"),
    [
        ("/vms/100", "VM.Config.Disk"),
        ("/vms/100", "VM.PowerMgmt"),
        *(("/vms", privilege) for privilege in privileges.ON_SCRATCH),
        ("/storage", "Datastore.AllocateSpace"),
        ("/storage", "Datastore.Audit"),
    ],
)
def test_missing_privilege(pve: Pve, tmp_path: Path, path: str, privilege: str) -> None:
    """A privilege that some step will need is asked for before the first step."""
    container(pve)
    acl = {where: list(names) for where, names in CREATING.items()}
    acl["/vms/100"] = [*privileges.ON_REPLACED]
    acl[path].remove(privilege)
    swaps = swapper(pve, tmp_path, acl)
    missing = re.escape(f"{privilege} on {path}") + "(/[a-z-]+)? is missing"
    with pytest.raises(PublishError, match=missing) as refusal:
        plan(swaps)
    assert "pveum role add" in refusal.value.hint
    assert {request.method for request in pve.requests} == {"GET"}


def test_privileges_of_pools(pve: Pve, tmp_path: Path) -> None:
    """What the token has on a container's pool counts for the container."""
    container(pve).pool = "web"
    acl = dict(CREATING)
    acl["/vms/100"] = []
    acl["/pool/web"] = [*privileges.ON_REPLACED]
    swaps = swapper(pve, tmp_path, acl)
    assert swaps.is_swapped(run(swaps, plan(swaps)))


def test_in_use_kept(pve: Pve, tmp_path: Path) -> None:
    """A new volume that somebody mounted meanwhile is not destroyed."""
    made = container(pve)
    swaps = swapper(pve, tmp_path)
    swap = run(swaps, plan(swaps), SwapStep.DETACH)
    made.config["mp1"] = f"{swap.new_volume},mp=/mine"
    swaps.undo(swap, quiet)
    assert made.config["unused0"] == swap.new_volume
