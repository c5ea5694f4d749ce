"""Several platforms of one tag: a template of each, one condition in each target."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.config import parse_config
from syncd.errors import ConfigError, ImageError
from syncd.oci import Digest
from syncd.sync.conditions import Current, Failed, Finding, Missing, Status, of_platforms
from syncd.sync.job import Result
from tests.archives import file
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, sample
from tests.images import Content, image, index, layer

BOTH = 'platform = ["linux/amd64", "linux/arm64"]\nkeep = 2'
ONE, TWO = Digest.of(b"1"), Digest.of(b"2")


def arm(text: str = "one") -> Content:
    """Return a small image for arm64 with this text in it."""
    return image(layer(file("text", text.encode())), platform="linux/arm64")


async def test_templates_of_both(tmp_path: Path, registry: Registry) -> None:
    """Each platform has its template; the name of one that is not for amd64 ends in it."""
    async with Harness(tmp_path, registry, image=BOTH) as harness:
        registry.push(REPOSITORY, "latest", index(sample(), arm()))
        outcome = await harness.bring()
        assert outcome.result is Result.PUBLISHED
        names = [path.name for path in harness.templates]
        assert len(names) == len(outcome.volumes) == 2
        assert [name.endswith("_arm64.tar.zst") for name in sorted(names)].count(True) == 1
        (row,) = harness.services.ledger.conditions.all()
        assert (row.status, set(row.volumes)) == (Status.OK, set(outcome.volumes))
        swept = await harness.services.sweep.look()
        assert swept.stale == []
        assert (await harness.bring()).result is Result.UNCHANGED
        found = await harness.services.engine.find_for_use(harness.latest)
        assert [volume.endswith("_arm64.tar.zst") for volume in found.volumes] == [False]


async def test_versions_of_each(tmp_path: Path, registry: Registry) -> None:
    """Of each platform so many versions are kept; those of one that is wanted no more go."""
    async with Harness(tmp_path, registry, image=BOTH) as harness:
        for text, number in (("one", 2), ("two", 4), ("three", 4)):
            registry.push(REPOSITORY, "latest", index(sample(text), arm(text)))
            await harness.bring()
            assert len(harness.templates) == number
        only = harness.services.live.config.image[0].model_copy(
            update={"platform": ("linux/amd64",)}
        )
        harness.configure(image=(only,))
        for text in ("four", "five"):
            registry.push(REPOSITORY, "latest", index(sample(text), arm(text)))
            await harness.bring()
        names = [path.name for path in harness.templates]
        assert [name.endswith("_arm64.tar.zst") for name in names] == [False, False]


async def test_one_that_is_gone(tmp_path: Path, registry: Registry) -> None:
    """A template that is lost is found missing, of whichever platform, and published again."""
    async with Harness(tmp_path, registry, image=BOTH) as harness:
        registry.push(REPOSITORY, "latest", index(sample(), arm()))
        await harness.bring()
        for path in harness.templates:
            path.unlink()
            swept = await harness.services.sweep.look()
            assert swept.stale == [harness.latest]
            assert (await harness.bring()).result is Result.PUBLISHED
            assert len(harness.templates) == 2


async def test_an_absent_platform(tmp_path: Path, registry: Registry) -> None:
    """A platform that the image lacks is a failure, and keeps no other from its template."""
    async with Harness(tmp_path, registry, image=BOTH) as harness:
        registry.push(REPOSITORY, "latest", index(sample()))
        with pytest.raises(ImageError, match="no manifest for linux/arm64"):
            await harness.bring()
        assert len(harness.templates) == 1
        (row,) = harness.services.ledger.conditions.all()
        assert (row.status, "linux/arm64" in row.reason) == (Status.FAILING, True)
        registry.push(REPOSITORY, "latest", index(sample(), arm()))
        await harness.bring()
        (row,) = harness.services.ledger.conditions.all()
        assert row.status is Status.OK


@pytest.mark.parametrize(
    ("findings", "whole"),
    [
        (
            [Current(ONE, ("a",), ("w",)), Current(ONE, ("b",), ("w",))],
            Current(ONE, ("a", "b"), ("w",)),
        ),
        ([Current(ONE, ("a",)), Missing(ONE)], Missing(ONE)),
        ([Missing(TWO), Failed("no", passing=False)], Failed("no", passing=False)),
        ([Current(ONE, ("a",))], Current(ONE, ("a",))),
    ],
)
def test_worst_finding(findings: list[Finding], whole: Finding) -> None:
    """A target is current where it holds all platforms; else the worst of them counts."""
    assert of_platforms([{"near": finding} for finding in findings]) == {"near": whole}
    assert of_platforms([{"near": findings[0]}, {}]) == (
        {} if isinstance(findings[0], Current) else {"near": findings[0]}
    )


@pytest.mark.parametrize(
    ("second", "shared"),
    [
        ('tags = ["latest"]\nplatform = "linux/arm64"', "latest"),
        ('tags = ["main", "latest"]\ntargets = ["other"]', "latest"),
        ('tags = ["v1", "re:^v", "not:x"]\nplatform = "linux/arm64"', "re:^v not:x"),
        ('tags = ["re:^v"]', None),
        ('tags = ["main"]', None),
    ],
)
def test_two_tables(second: str, shared: str | None) -> None:
    """A second table that would never be served is refused by the tag that both have."""
    targets = "".join(
        f'[[target]]\nname = "{name}"\ntype = "directory"\npath = "/srv/{name}"\n'
        for name in ("near", "other")
    )
    first = 'repository = "a.b/c"\ntags = ["latest", "re:^v", "not:x"]\ntargets = ["near"]'
    text = f'[[image]]\n{first}\n[[image]]\nrepository = "a.b/c"\n{second}\n{targets}'
    if shared is None:
        assert len(parse_config(text, Path("syncd.toml")).image) == 2
        return
    with pytest.raises(ConfigError, match="share a tag") as caught:
        parse_config(text, Path("syncd.toml"))
    assert f"a.b/c:{shared};" in str(caught.value)
