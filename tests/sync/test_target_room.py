"""What `sync.target_room` promises: a job without room fetches nothing, and says what it lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.errors import NoRoomError, TargetUnavailableError
from syncd.sync.job import Result
from tests.clusters import target_on
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import Token
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, sample

BEYOND = 1 << 60


@pytest.mark.parametrize("table", ["state", "target"])
async def test_no_room(tmp_path: Path, registry: Registry, table: str) -> None:
    """Without room in the state or the target no blob is fetched; with room again all is well."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        config, live = harness.services.live.config, harness.services.live
        if table == "state":
            harness.configure(state=config.state.model_copy(update={"reserve": BEYOND}))
        else:
            live.targets["local"]._reserve = BEYOND  # type: ignore[attr-defined] # a folder has it
        with pytest.raises(
            TargetUnavailableError,
            match=r"has .* GB free, the job needs .* GB and .* GB in reserve",
        ) as failure:
            await harness.bring()
        assert failure.value.temporary
        assert registry.fetched() == [sample().document["config"]["digest"]]
        if table == "state":
            harness.configure(state=config.state)
        else:
            live.targets["local"]._reserve = 0  # type: ignore[attr-defined] # a folder has it
        assert (await harness.bring()).result is Result.PUBLISHED


def test_an_upload_is_spooled(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A storage on the disk of the spool needs the size twice, and the reserve stays free."""
    target = target_on(pve, tmp_path, storage="cephfs", reserve=1000)
    free = pve.cluster.storages["cephfs"].avail = 5000
    target.require_room("a.tar.zst", free - 1000)
    with pytest.raises(NoRoomError, match=r"^cephfs has .* free"):
        target.require_room("a.tar.zst", free - 999)
    for node in pve.cluster.nodes.values():
        node.spool_avail = 2000
    target._client.forget("*")
    token.acl["/nodes"] = frozenset({"Sys.Audit"})
    with pytest.raises(NoRoomError, match="the spool of cephfs has"):
        target.require_room("a.tar.zst", 1001)
