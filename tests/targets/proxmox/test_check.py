"""What `syncd check` tells of a cluster, and that its advice is right."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from syncd.errors import PublishError
from syncd.targets.target import CheckResult, Volume
from tests.clusters import LAUNCHING, TOKEN, target_on, token_for
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import Storage, Token

SEEING = {"/storage": ["Datastore.Audit"]}


def details(results: list[CheckResult], *, ok: bool) -> str:
    return "\n".join(result.detail for result in results if result.ok is ok)


def obey(token: Token, text: str) -> set[tuple[str, str]]:
    """Carry out the pveum commands of a text; return what was granted, as (path, privilege).

    Roles on one path add up, and together they replace what the path inherits.
    """
    roles: dict[str, set[str]] = {}
    granted = set()
    for command in re.findall(r"pveum [^\n;&]+", text):
        match shlex.split(command):
            case ["pveum", "role", "add", role, "--privs", privileges]:
                roles[role] = set(privileges.split(","))
            case ["pveum", "acl", "modify", path, "--roles", role, "--users", user, "--tokens", id]:
                assert (user, id) == ("syncd@pve", TOKEN)
                held = token.privileges(path)
                granted |= {(path, privilege) for privilege in roles[role] if privilege not in held}
                token.acl[path] = token.acl.get(path, frozenset()) | roles[role]
            case words:
                pytest.fail(f"not a command that is known here: {words}")
    return granted


@pytest.mark.parametrize("pve", ["9.2.11", "8.4.5"], indirect=True)
def test_all_well(pve: Pve, tmp_path: Path) -> None:
    """Version, nodes, storages, free space and duties are told."""
    token_for(pve)
    results = target_on(pve, tmp_path).check()
    assert details(results, ok=False) == ""
    passed = details(results, ok=True)
    for part in (
        f"https://127.0.0.1:{pve.port} is Proxmox VE {pve.cluster.version}",
        "nodes online: pve1, pve2",
        "storage cephfs: enabled, shared, content vztmpl",
        "templates go to local on pve2, uploaded: 107.4 GB free",
        "may list (/storage/local)",
        "may upload",
        "may delete",
        "without Sys.Audit",
    ):
        assert part in passed


def test_missing_privileges(pve: Pve, tmp_path: Path) -> None:
    """Each duty's missing privileges come with the commands that grant exactly them."""
    token = token_for(pve, SEEING)
    pve.cluster.storage(Storage("roots", "dir", ("rootdir",)))
    target = target_on(pve, tmp_path, rootfs_storage="roots", bridge="vmbr1")
    results = target.check()
    faults = details(results, ok=False)
    assert "may not upload: Datastore.AllocateTemplate on /storage/local" in faults
    assert "may not delete: Datastore.Allocate on /storage/local" in details(results, ok=True)
    granted = obey(token, f"{faults}\n{details(results, ok=True)}")
    assert "may not" not in str(target.check())
    assert "Datastore.Audit" in token.privileges("/storage/local")
    assert "may not replace: " in details(results, ok=True)
    refused = (
        "may not snapshot: VM.Snapshot on /vms is missing; so syncd replace --snapshot is refused"
    )
    assert refused in details(results, ok=True)
    vms = {"VM.Allocate", "VM.Audit", "VM.PowerMgmt", "VM.Snapshot"} | {
        f"VM.Config.{kind}" for kind in ("CPU", "Disk", "Memory", "Network", "Options")
    }
    assert granted == {
        ("/storage/local", "Datastore.AllocateTemplate"),
        ("/storage/local", "Datastore.Allocate"),
        ("/storage/roots", "Datastore.AllocateSpace"),
        ("/sdn/zones/localnetwork/vmbr1", "SDN.Use"),
    } | {("/vms", privilege) for privilege in vms}


def test_publishing_only(pve: Pve, tmp_path: Path) -> None:
    """A token that may list and upload passes; that it may not delete is told, with the way out."""
    token = token_for(pve, {"/storage": ["Datastore.Audit", "Datastore.AllocateTemplate"]})
    results = target_on(pve, tmp_path).check()
    assert details(results, ok=False) == ""
    told = details(results, ok=True)
    assert "may not delete: Datastore.Allocate on /storage/local is missing; so old" in told
    obey(token, told)
    assert "may delete (/storage/local)" in details(target_on(pve, tmp_path).check(), ok=True)


def test_replacing(pve: Pve, tmp_path: Path) -> None:
    """What replacing takes beyond creating is told where containers are made, and is no fault."""
    acl = {path: set(privileges) for path, privileges in LAUNCHING.items()}
    acl["/storage"].remove("Datastore.Audit")
    token = token_for(pve, acl)
    pve.cluster.storage(Storage("roots", "dir", ("rootdir",)))
    target = target_on(pve, tmp_path, rootfs_storage="roots")
    assert details(target.check(), ok=False) == ""
    told = details(target.check(), ok=True)
    assert "may replace (/vms)" in told
    assert "may not replace: Datastore.Audit on /storage/roots is missing" in told
    assert ("/storage/roots", "Datastore.Audit") in obey(token, told)
    assert "may not replace" not in str(target.check())
    assert "replace" not in str(target_on(pve, tmp_path).check())


def test_nothing_taken_away(pve: Pve, tmp_path: Path) -> None:
    """The printed role keeps what the token inherits, which a deeper role would replace."""
    many = [f"Datastore.{name}" for name in ("Audit", "AllocateSpace")] + [
        "Mapping.Audit", "Pool.Audit", "SDN.Audit", "Sys.Audit", "VM.Audit",
    ]  # fmt: skip
    token = token_for(pve, {"/": many})
    target = target_on(pve, tmp_path)
    obey(token, details(target.check(), ok=False))
    assert set(token.privileges("/storage/local")) == {*many, "Datastore.AllocateTemplate"}
    with pytest.raises(PublishError, match="grant it") as refusal:
        target.delete(Volume("local:vztmpl/a.tar", 1, "pve1"))
    obey(token, str(refusal.value))
    assert {"Datastore.Allocate", *many} < set(token.privileges("/storage/local"))


def test_hidden_storage(pve: Pve, tmp_path: Path) -> None:
    """A storage that the token does not see comes with the command that shows it."""
    token = token_for(pve, {})
    target = target_on(pve, tmp_path)
    for _ in range(2):
        obey(token, details(target.check(), ok=False))
    assert details(target.check(), ok=False) == ""


def test_pool(pve: Pve, tmp_path: Path) -> None:
    """With a pool the privileges on containers are asked for on the pool alone."""
    token = token_for(pve)
    target = target_on(pve, tmp_path, rootfs_storage="local-zfs", pool="web")
    granted = obey(token, details(target.check(), ok=False))
    assert {path for path, privilege in granted if privilege.startswith("VM.")} == {"/pool/web"}


def test_unreachable(pve: Pve, tmp_path: Path) -> None:
    """An endpoint that does not answer fails the check; another one that answers is enough."""
    token_for(pve)
    working = f"https://127.0.0.1:{pve.port}"
    results = target_on(pve, tmp_path, endpoints=("https://127.0.0.1:9", working)).check()
    assert "https://127.0.0.1:9 cannot be reached" in details(results, ok=False)
    assert "nodes online" in details(results, ok=True)
    (only,) = target_on(pve, tmp_path, endpoints=("https://127.0.0.1:9",)).check()
    assert not only.ok


def test_offline(pve: Pve, tmp_path: Path) -> None:
    """A node that is offline is told, and is no fault of the configuration."""
    token_for(pve)
    pve.cluster.nodes["pve2"].online = False
    results = target_on(pve, tmp_path).check()
    assert "nodes offline: pve2" in details(results, ok=True)
    assert details(results, ok=False) == ""
