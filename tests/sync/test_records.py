"""Templates that another syncd published, and that are believed by the record beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from syncd.config.load import load_config
from syncd.errors import ConfigError, PublishError
from syncd.oci.reference import Digest
from syncd.sync.job import Result
from syncd.sync.proof import ProofState
from syncd.targets.record import read_record, write_record
from tests.clusters import LAUNCHING, names_on, token_for
from tests.fakes.pve import Pve
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, cluster_table, on_cluster, sample


def house(folder: Path, registry: Registry, *, records: bool = True, image: str = "") -> Harness:
    """Return a syncd with a state of its own, whose target is the storage that all share."""
    folder.mkdir()
    target = f'[[target]]\nname = "shared"\ntype = "directory"\npath = "{folder.parent}/storage"\n'
    more = target + ("records = true\n" if records else "")
    return Harness(folder, registry, image=f'targets = ["shared"]\n{image}', more=more)


@pytest.fixture
async def template(tmp_path: Path, registry: Registry) -> Path:
    """Publish an image from another syncd, which keeps records; return the template."""
    registry.push(REPOSITORY, "latest", sample())
    async with house(tmp_path / "first", registry) as first:
        assert (await first.bring()).result is Result.PUBLISHED
    files = sorted((tmp_path / "storage" / "template" / "cache").iterdir())
    assert [file.suffix for file in files] == [".zst", ".json"]
    registry.requests.clear()
    return files[0]


def layers() -> set[str]:
    return {one["digest"] for one in sample().document["layers"]}


async def test_believed(tmp_path: Path, registry: Registry, template: Path) -> None:
    """With its record a template counts without a conversion, and without its layers."""
    async with house(tmp_path / "second", registry) as second:
        outcome = await second.bring()
        assert (outcome.result, outcome.volumes) == (
            Result.UNCHANGED,
            (f"shared:vztmpl/{template.name}",),
        )
        assert not layers() & set(registry.fetched())
        assert (await second.services.engine.find(second.latest)).volumes == outcome.volumes
        record = read_record(template.parent, template.name)
        assert record is not None
        proof = second.services.ledger.proofs.of("shared", template.name)
        assert proof is not None
        assert (proof.state, proof.size) == (ProofState.OK, record.size)
        assert second.services.ledger.templates() == []


def other_bytes(template: Path) -> None:
    template.write_bytes(b"x" * template.stat().st_size)


def other_size(template: Path) -> None:
    record = read_record(template.parent, template.name)
    assert record is not None
    write_record(template.parent, replace(record, size=record.size + 1))


def other_image(template: Path) -> None:
    record = read_record(template.parent, template.name)
    assert record is not None
    write_record(template.parent, replace(record, manifest_digest=Digest.of(b"another")))


def no_record(template: Path) -> None:
    template.with_name(f"{template.name}.json").unlink()


def no_json(template: Path) -> None:
    template.with_name(f"{template.name}.json").write_text("{}")


@pytest.mark.parametrize("change", [other_size, other_image, no_record, no_json])
async def test_not_believed(
    tmp_path: Path, registry: Registry, template: Path, change: Callable[[Path], None]
) -> None:
    """A record that is not the image's, or of another file, leaves the proof to the conversion."""
    change(template)
    async with house(tmp_path / "second", registry) as second:
        assert (await second.bring()).result is Result.UNCHANGED
        assert layers() <= set(registry.fetched())


async def test_other_bytes(tmp_path: Path, registry: Registry, template: Path) -> None:
    """A template whose bytes are not its record's never counts."""
    other_bytes(template)
    async with house(tmp_path / "second", registry) as second:
        with pytest.raises(PublishError, match="other bytes of the same size"):
            await second.bring()
        assert (await second.services.engine.find(second.latest)).volumes == ()


@pytest.mark.parametrize(("records", "image"), [(False, ""), (True, "strict = true")])
async def test_not_asked_for(
    tmp_path: Path, registry: Registry, template: Path, image: str, *, records: bool
) -> None:
    """Without the setting no record is believed, and of a strict image none ever."""
    async with house(tmp_path / "second", registry, records=records, image=image) as second:
        assert (await second.bring()).result is Result.UNCHANGED
        assert layers() <= set(registry.fetched())


async def test_gone_with_its_template(tmp_path: Path, registry: Registry) -> None:
    """Retention deletes the record with the template."""
    async with house(tmp_path / "only", registry, image="keep = 1") as only:
        for text in ("one", "two"):
            registry.push(REPOSITORY, "latest", sample(text))
            await only.bring()
    files = sorted((tmp_path / "storage" / "template" / "cache").iterdir())
    assert [file.suffix for file in files] == [".zst", ".json"]


async def test_not_written(tmp_path: Path, registry: Registry) -> None:
    """A template is published although its record cannot be written."""
    registry.push(REPOSITORY, "latest", sample())
    async with house(tmp_path / "first", registry) as first:
        await first.bring()
        (template, record) = sorted((tmp_path / "storage" / "template" / "cache").iterdir())
        template.unlink()
        record.unlink()
        record.mkdir()
        assert (await first.bring()).result is Result.PUBLISHED


async def test_mounted(
    pve: Pve, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a mounted storage the record lies beside the template, and Proxmox VE does not list it."""
    monkeypatch.setattr("socket.gethostname", lambda: "pve1")
    registry.push(REPOSITORY, "latest", sample())
    pve.cluster.template("cephfs:vztmpl/a", "pve1").parent.mkdir(parents=True)
    monkeypatch.setattr("os.path.ismount", lambda _: True)
    table = cluster_table(
        tmp_path, pve, token_for(pve, LAUNCHING), storage="cephfs", publish="path"
    )
    lines = 'targets = ["cluster"]\nkeep = 1'
    async with Harness(tmp_path, registry, image=lines, more=f"{table}records = true\n") as harness:
        await harness.bring()
        target = harness.services.live.targets["cluster"]
        (volume,) = target.volumes()
        assert names_on(pve, "cephfs", "pve1") == [volume.name, f"{volume.name}.json"]
        registry.push(REPOSITORY, "latest", sample("newer"))
        await harness.bring()
        (volume,) = target.volumes()
        assert names_on(pve, "cephfs", "pve1") == [volume.name, f"{volume.name}.json"]


async def test_uploaded(pve: Pve, registry: Registry, tmp_path: Path) -> None:
    """Where templates are uploaded there are no records, and asking for them is a fault."""
    async with on_cluster(tmp_path, registry, pve) as harness:
        text = harness.config.read_text()
    harness.config.write_text(f"{text}records = true\n")
    with pytest.raises(ConfigError) as fault:
        load_config(harness.config)
    assert 'records need publish = "path"' in str(fault.value)
