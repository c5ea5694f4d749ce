"""What the test double does with volumes and a container's root, harm that is answered 200 too.

Each answer was measured on the real API (facts.md, "A new root under a container").
"""

from __future__ import annotations

from typing import Any

import pytest
from proxmoxer import ResourceException

from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import Token
from tests.test_fake_pve_lxc import VOLID, WANTED, creator

V0 = "local-zfs:subvol-100-disk-0"
V1 = "local-zfs:subvol-100-disk-1"


@pytest.fixture
def token(pve: Pve) -> Token:
    return creator(pve)


@pytest.fixture
def api(pve: Pve, token: Token) -> Any:
    """Make container 100; return the API of its node."""
    api = pve.client(token).nodes("pve1").lxc
    assert pve.cluster.result(api.post(**WANTED)) == "OK"
    return api


def config(api: Any, vmid: int = 100, **params: Any) -> dict[str, Any]:
    return dict(api(vmid).config.get(**params))


def put(api: Any, vmid: int = 100, **changes: object) -> None:
    api(vmid).config.put(**changes)


def unpack(pve: Pve, api: Any, **changes: object) -> str | None:
    """Make container 101 on the volume V1, which container 100 got by a mount point."""
    put(api, mp99="local-zfs:8,mp=/new")
    put(api, delete="mp99")
    wanted = WANTED | {"vmid": 101, "rootfs": V1} | changes
    del wanted["net0"]
    return pve.cluster.result(api.post(**wanted))


def test_swap(pve: Pve, api: Any) -> None:
    """A volume that 100 owns is filled by 101, outlives 101, and becomes the root of 100."""
    assert unpack(pve, api) == "OK"
    assert config(api)["unused0"] == V1
    removed = api(101).delete()
    assert pve.cluster.result(removed) == "OK"
    told = f"ignore deletion of '{V1}', CT 101 isn't the owner!"
    assert told in pve.cluster.tasks[removed].log
    put(api, rootfs=f"{V1},size=8G", unused1=V0)
    found = config(api)
    assert (found["rootfs"], found["unused1"]) == (f"{V1},size=8G", V0)
    assert "unused0" not in found
    assert pve.cluster.result(api(100).status.start.post()) == "OK"
    put(api, delete="unused1")
    assert set(pve.cluster.volumes) == {V1}


def test_back(pve: Pve, api: Any) -> None:
    """The mirrored change goes back to the former root."""
    unpack(pve, api)
    before = config(api)["rootfs"]
    put(api, rootfs=f"{V1},size=8G", unused1=V0)
    put(api, rootfs=before, unused1=V1)
    found = config(api)
    assert (found["rootfs"], found["unused1"]) == (before, V1)


def test_failed_creation(pve: Pve, api: Any) -> None:
    """A creation on an existing volume that fails leaves the volume, half filled."""
    pve.cluster.create_failure = "exit code 2"
    assert "exit code 2" in str(unpack(pve, api))
    assert 101 not in pve.cluster.containers
    assert pve.cluster.volumes[V1].content == f"half of {VOLID}"


def test_mount_point_unpacked(pve: Pve, api: Any) -> None:
    """A template is unpacked into the mount points of the new container, too."""
    put(api, mp0="local-zfs:8,mp=/data")
    data = "local-zfs:subvol-100-disk-1"
    pve.cluster.volumes[data].content = "data"
    wanted = WANTED | {"vmid": 101, "mp0": f"{data},mp=/data"}
    assert pve.cluster.result(api.post(**wanted)) == "OK"
    assert pve.cluster.volumes[data].content == VOLID


def test_not_allocated(pve: Pve, api: Any) -> None:
    """A root of STORAGE:GB is answered 200, and the container does not start any more."""
    put(api, rootfs="local-zfs:8")
    assert set(pve.cluster.volumes) == {V0}
    assert "does not exist" in str(pve.cluster.result(api(100).status.start.post()))


@pytest.mark.parametrize("volume", ["local-zfs:subvol-100-disk-7", "other", "privileged"])
def test_wrong_volume(pve: Pve, api: Any, volume: str) -> None:
    """An absent volume, another container's, or one of another mapping is taken all the same."""
    if volume != "local-zfs:subvol-100-disk-7":
        pve.cluster.tokens["syncd@pve!create"].acl["/"] = frozenset(["Sys.Modify"])
        mapped = int(volume == "other")
        api.post(**WANTED | {"vmid": 101, "unprivileged": mapped})
        pve.cluster.join_tasks()
        volume = "local-zfs:subvol-101-disk-0"
    put(api, rootfs=volume)
    assert config(api)["rootfs"] == volume


def test_size_not_filled_in(api: Any) -> None:
    """A root without a size keeps none."""
    put(api, rootfs=V0)
    assert config(api)["rootfs"] == V0


def test_unused_written_over(pve: Pve, api: Any) -> None:
    """Who writes a taken unused key orphans the volume that stood there."""
    put(api, mp99="local-zfs:8,mp=/new")
    put(api, delete="mp99")
    put(api, unused0=V0)
    assert V1 not in config(api).values()
    assert V1 in pve.cluster.volumes


def test_old_root_unasked(pve: Pve, api: Any) -> None:
    """The old root becomes unused only where the change says so."""
    unpack(pve, api)
    put(api, rootfs=f"{V1},size=8G")
    assert V0 not in config(api).values()
    assert V0 in pve.cluster.volumes


def test_running(pve: Pve, api: Any) -> None:
    """On a running container root and variables wait and can be reverted; a disk is plugged in."""
    pve.cluster.result(api(100).status.start.post())
    put(api, mp99="local-zfs:8,mp=/new")
    assert config(api, current=1)["mp99"].startswith(V1)
    put(api, rootfs=f"{V1},size=8G", unused1=V0, env="A=1")
    assert config(api, current=1)["rootfs"].startswith(V0)
    assert config(api)["rootfs"] == f"{V1},size=8G"
    put(api, revert="rootfs,unused1,env")
    assert config(api) == config(api, current=1)


def test_pending_applied(pve: Pve, api: Any) -> None:
    """What waits is applied by the next start."""
    pve.cluster.result(api(100).status.start.post())
    put(api, env="A=1")
    pve.cluster.result(api(100).status.shutdown.post(forceStop=1))
    pve.cluster.result(api(100).status.start.post())
    assert config(api, current=1)["env"] == "A=1"


def test_protection(api: Any) -> None:
    """Protection blocks disks and the end of protection in the same change, not a start."""
    put(api, protection=1)
    changes: list[dict[str, Any]] = [
        {"mp99": "local-zfs:8,mp=/new"},
        {"rootfs": V0},
        {"delete": "unused0"},
    ]
    for change in changes:
        with pytest.raises(ResourceException, match="protection mode enabled"):
            put(api, **change, protection=0)
    put(api, protection=0)
    put(api, mp99="local-zfs:8,mp=/new")


def test_lock(api: Any) -> None:
    """A token can set a lock, and no call removes it."""
    put(api, lock="disk")
    with pytest.raises(ResourceException, match=r"CT is locked \(disk\)"):
        put(api, delete="lock")


def test_digest(api: Any) -> None:
    """A change that names another digest than the present one is refused."""
    before = config(api)["digest"]
    put(api, cores=3, digest=before)
    with pytest.raises(ResourceException, match="detected modified configuration"):
        put(api, cores=4, digest=before)


def test_image_over_env(pve: Pve, api: Any) -> None:
    """With an OCI archive the variables of the image take the place of those that were given."""
    archive = pve.cluster.template("cephfs:vztmpl/image.tar", "pve1")
    archive.write_bytes(b"archive")
    wanted = WANTED | {"vmid": 101, "ostemplate": "cephfs:vztmpl/image.tar", "env": "A=1"}
    assert pve.cluster.result(api.post(**wanted)) == "OK"
    assert config(api, 101)["env"] == "PATH=/bin"


def test_shutdown(pve: Pve, api: Any) -> None:
    """A container that hears no signal is stopped only by force."""
    pve.cluster.result(api(100).status.start.post())
    pve.cluster.deaf = True
    assert pve.cluster.result(api(100).status.shutdown.post()) != "OK"
    assert pve.cluster.result(api(100).status.shutdown.post(forceStop=1)) == "OK"


def test_addresses(pve: Pve, api: Any) -> None:
    """A running container tells its addresses, unless its image asks for none."""
    assert api(100).interfaces.get() == []
    pve.cluster.result(api(100).status.start.post())
    assert [each.get("inet") for each in api(100).interfaces.get()] == [
        "127.0.0.1/8",
        "127.0.0.1/24",
    ]
    pve.cluster.mute_images.add(VOLID)
    assert "inet" not in api(100).interfaces.get()[1]
