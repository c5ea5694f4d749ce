"""What `syncd check` tells of a cluster, and that its advice is right."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from syncd.template import Finding
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import Storage, Token
from tests.targets import TOKEN, target_on, token_for

SEEING = {"/storage": ["Datastore.Audit"]}


def details(findings: list[Finding], *, ok: bool) -> str:
    return "\n".join(finding.detail for finding in findings if finding.ok is ok)


def obey(token: Token, text: str) -> set[tuple[str, str]]:
    """Carry out the pveum commands of a text; return what was granted, as (path, privilege)."""
    roles: dict[str, set[str]] = {}
    granted = set()
    for command in re.findall(r"pveum [^\n;&]+", text):
        match shlex.split(command):
            case ["pveum", "role", "add", role, "--privs", privileges]:
                roles[role] = set(privileges.split(","))
            case ["pveum", "acl", "modify", path, "--roles", role, "--users", user, "--tokens", id]:
                assert (user, id) == ("syncd@pve", TOKEN)
                held = set(token.privileges(path))
                token.acl[path] = frozenset(held | roles[role])
                granted |= {(path, privilege) for privilege in roles[role]}
            case words:
                pytest.fail(f"not a command that is known here: {words}")
    return granted


@pytest.mark.parametrize("pve", ["9.2.11", "8.4.5"], indirect=True)
def test_all_well(pve: Pve, tmp_path: Path) -> None:
    """Version, nodes, storages, free space and duties are told."""
    token_for(pve)
    findings = target_on(pve, tmp_path).check()
    assert details(findings, ok=False) == ""
    told = details(findings, ok=True)
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
        assert part in told


def test_missing_privileges(pve: Pve, tmp_path: Path) -> None:
    """Each duty's missing privileges come with the commands that grant exactly them."""
    token = token_for(pve, SEEING)
    pve.cluster.storage(Storage("roots", "dir", ("rootdir",)))
    target = target_on(pve, tmp_path, rootfs_storage="roots", bridge="vmbr1")
    faults = details(target.check(), ok=False)
    assert "may not upload: Datastore.AllocateTemplate on /storage/local" in faults
    assert "may not delete: Datastore.Allocate on /storage/local" in faults
    granted = obey(token, faults)
    assert details(target.check(), ok=False) == ""
    vms = {"VM.Allocate", "VM.Audit", "VM.PowerMgmt"} | {
        f"VM.Config.{kind}" for kind in ("CPU", "Disk", "Memory", "Network", "Options")
    }
    assert granted == {
        ("/storage/local", "Datastore.AllocateTemplate"),
        ("/storage/local", "Datastore.Allocate"),
        ("/storage/roots", "Datastore.AllocateSpace"),
        ("/sdn/zones/localnetwork/vmbr1", "SDN.Use"),
    } | {("/vms", privilege) for privilege in vms}


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
    """An endpoint that does not answer is a finding; a second one that does is enough to go on."""
    token_for(pve)
    working = f"https://127.0.0.1:{pve.port}"
    findings = target_on(pve, tmp_path, endpoints=("https://127.0.0.1:9", working)).check()
    assert "https://127.0.0.1:9 cannot be reached" in details(findings, ok=False)
    assert "nodes online" in details(findings, ok=True)
    (only,) = target_on(pve, tmp_path, endpoints=("https://127.0.0.1:9",)).check()
    assert not only.ok


def test_offline(pve: Pve, tmp_path: Path) -> None:
    """A node that is offline is told, and is no fault of the configuration."""
    token_for(pve)
    pve.cluster.nodes["pve2"].online = False
    findings = target_on(pve, tmp_path).check()
    assert "nodes offline: pve2" in details(findings, ok=True)
    assert details(findings, ok=False) == ""
