"""What `upkeep` promises: pins, deletions and comparisons over HTTP, as commands have them."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, described, sample


async def test_pin_and_prune(tmp_path: Path, registry: Registry) -> None:
    """What is pinned stays; then it goes, unless nothing is to be done."""
    async with Harness(tmp_path, registry, image="keep = 1") as harness:
        for text in ("one", "two"):
            registry.push(REPOSITORY, "latest", sample(text))
            harness.configure(
                image=(harness.services.live.config.image[0].model_copy(update={"keep": 2}),)
            )
            await harness.bring()
        harness.configure(
            image=(harness.services.live.config.image[0].model_copy(update={"keep": 1}),)
        )

        async def pruned(**body: object) -> list[str]:
            answer = await harness.ask("POST", "/api/v1/prune", json=body)
            assert answer.status == 200
            told = described(answer, "/api/v1/prune")
            assert told["warnings"] == []
            return [volume for one in told["pruned"] for volume in one["volumes"]]

        (old,) = await pruned(dry_run=True)
        for pinned, left in ((True, []), (False, [old])):
            body = {"volume": old, "pinned": pinned}
            answer = await harness.ask("POST", "/api/v1/pin", json=body)
            assert described(answer, "/api/v1/pin") == body
            assert await pruned(dry_run=True) == left
        assert len(harness.templates) == 2
        assert await pruned() == [old]
        assert await pruned(gone=True, older_than=60) == []
        assert len(harness.templates) == 1


async def test_pinned_and_gone(tmp_path: Path, registry: Registry) -> None:
    """What stays of a tag that is gone, because it is pinned, is named."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        await harness.bring()
        registry.untag(REPOSITORY, "latest")
        await harness.services.sweep.look()
        (template,) = harness.services.ledger.templates()
        (volume,) = template.volumes
        harness.services.ledger.pin(volume, pinned=True)
        answer = await harness.ask("POST", "/api/v1/prune", json={"gone": True})
        assert described(answer, "/api/v1/prune") == {
            "pruned": [],
            "spared": [{"target": template.target, "volumes": [volume]}],
            "warnings": [],
        }


async def test_refusals(tmp_path: Path, registry: Registry) -> None:
    """A volume and a reference that nobody published, and bodies that are none, are told."""
    async with Harness(tmp_path, registry) as harness:
        for path, body, status, said in [
            ("pin", {"volume": "local:vztmpl/x"}, 404, "published no volume local:vztmpl/x"),
            ("pin", {}, 400, "volume"),
            ("prune", {"older_than": 5}, 400, "older_than goes together with gone"),
            ("prune", {"gone": "yes"}, 400, "gone"),
            ("verify", {"ref": "a.b/c"}, 404, "published no template of a.b/c"),
            ("verify", {"ref": "A"}, 400, "ref"),
        ]:
            answer = await harness.ask("POST", f"/api/v1/{path}", json=body)
            assert answer.status == status, path
            assert said in described(answer, f"/api/v1/{path}")["error"]


async def test_verify(tmp_path: Path, registry: Registry) -> None:
    """Each published file is compared, and a bad one is told."""
    registry.push(REPOSITORY, "latest", sample())
    async with Harness(tmp_path, registry) as harness:
        await harness.bring()
        for content, state in ((None, "ok"), (b"cut", "cut")):
            if content is not None:
                harness.templates[0].write_bytes(content)
            answer = await harness.ask("POST", "/api/v1/verify")
            (found,) = described(answer, "/api/v1/verify")["verified"]
            assert found["state"] == state


async def test_daemon(tmp_path: Path, registry: Registry) -> None:
    """The daemon says which state it has."""
    async with Harness(tmp_path, registry) as harness:
        answer = await harness.ask("GET", "/api/v1/daemon")
        assert described(answer, "/api/v1/daemon")["state"] == f"{tmp_path}/state"
