"""What `sync.room` promises: a job without room fails before it fetches, and says what it lacks."""

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


async def test_what_is_needed(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The need counts layers twice, and once more those that the cache lacks."""
    needs: list[int] = []
    monkeypatch.setattr("syncd.sync.room.require_free", lambda _, need, *__: needs.append(need))
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        size = sum(layer["size"] for layer in sample().document["layers"])
        await harness.bring()
        for made in (harness.templates[0], *(tmp_path / "state" / "made").iterdir()):
            made.unlink()
        await harness.bring()
        assert needs == [3 * size, 2 * size]
        harness.templates[0].unlink()
        await harness.bring()
        assert len(needs) == 2, "the finished template is here"


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
