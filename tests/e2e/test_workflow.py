"""The workflows, run: each event of a repository's life, and what is in the registry afterwards.

`act` runs the workflow files as they are (but see `GitHub.in_place`), `tests.e2e.runner` stands in
for the actions of others; the registry is Debian's, the daemon at the end syncd's own.  The
repository takes workflow and plan over by the commands of `docs/adopt.md`.  The events happen once,
in order; each test looks at one of them.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.adoption import WORKFLOW, adopted
from tests.e2e.command import run, wait_for
from tests.e2e.daemon import API_TOKEN, Syncd
from tests.e2e.github import ACTOR, TOKEN, GitHub, Run
from tests.e2e.pushes import COMMIT, EVENTS, FINDINGS, NAME, ON_LIB, PLACE, Row, change
from tests.e2e.registry import Registry

CHUNKED = ("first_push", "sunday")
"""The events whose images are pushed as zstd:chunked, as all are by default."""
MANIFEST = r"^/v2/(?P<name>.+)/manifests/(?P<tag>[^:]+)$"


@dataclass(frozen=True)
class Played:
    """What became of an event: the commit, its run if there was one, the tags that were moved."""

    commit: str
    run: Run | None
    moved: Mapping[str, Sequence[str]]


class Story:
    """The repository, its registry, and the events that have been played."""

    def __init__(self, github: GitHub, registry: Registry) -> None:
        self.github = github
        self.registry = registry
        self.played: dict[str, Played] = {}

    def play(self, row: Row) -> None:
        """Play an event and keep what became of it."""
        mark = self.registry.mark()
        self.github.in_place = bool(row.failing)
        self.github.vars["ZSTD_CHUNKED"] = str(row.name in CHUNKED).lower()
        run = row.event(self.github)
        moved: dict[str, list[str]] = {}
        for request in self.registry.requests("PUT", MANIFEST, mark):
            repository, _, tag = request.path.removeprefix("/v2/").partition("/manifests/")
            if not tag.startswith("sha256:"):
                moved.setdefault(repository, []).append(tag)
        self.played[row.name] = Played(self.github.head, run, moved)

    def run(self, name: str) -> Run:
        """Return the run of an event that started one."""
        found = self.played[name].run
        assert found is not None
        return found

    def inspect(self, reference: str) -> Any:
        """Return a manifest or index of the registry, as it is."""
        return json.loads(self._skopeo("inspect", "--raw", f"docker://{self._at(reference)}"))

    def labels(self, name: str, tag: str) -> dict[str, str]:
        """Return the labels of an image."""
        found = self._skopeo("inspect", "--config", f"docker://{self._at(f'{name}:{tag}')}")
        labels: dict[str, str] = json.loads(found)["config"]["Labels"]
        return labels

    def digest(self, name: str, tag: str) -> str:
        """Return the digest of what a tag names."""
        found = self._skopeo("inspect", f"docker://{self._at(f'{name}:{tag}')}")
        digest: str = json.loads(found)["Digest"]
        return digest

    def blob(self, digest: str) -> Any:
        """Return a blob that is JSON."""
        return json.loads(self.registry.blob_file(digest).read_bytes())

    def tags(self, name: str) -> set[str]:
        """Return the tags of an image."""
        found = self._skopeo("list-tags", f"docker://{self._at(name)}")
        return set(json.loads(found)["Tags"])

    def _at(self, reference: str) -> str:
        return f"{self.registry.address}/acme/images/{reference}"

    def _skopeo(self, *words: str) -> str:
        return run("skopeo", *words, "--tls-verify=false", f"--creds={ACTOR}:{TOKEN}")


@pytest.fixture(scope="module")
def story(scratch: Path) -> Iterator[Story]:
    """Adopt the workflow in a repository, and play all events there."""
    folder = scratch / "workflow"
    with Registry(folder / "registry", ACTOR, TOKEN) as registry:
        github = adopted(folder / "github", NAME, registry)
        text = (github.work / WORKFLOW).read_text()
        assert '"docs/**"]' in text
        github.write(WORKFLOW, text.replace('"docs/**"]', '"shared/**"]'))
        found = Story(github, registry)
        for row in EVENTS:
            found.play(row)
        yield found


@pytest.mark.parametrize("row", EVENTS, ids=lambda row: row.name)
def test_event(story: Story, row: Row) -> None:
    """An event builds the images of the table, which end as it says, and moves its tags alone."""
    played = story.played[row.name]
    tags = [played.commit if tag == COMMIT else tag for tag in row.tags]
    pushed = [one for one, end in row.jobs.items() if end == "success" and row.pushes]
    assert played.moved == {f"acme/images/{one}": tags for one in pushed}
    if played.run is None:
        assert not row.images
        return
    jobs = dict(played.run.jobs)
    assert (jobs.pop("plan") == "success") == (row.ok or bool(row.images))
    told = jobs.pop("tell-syncd", "none")
    assert jobs == row.jobs
    assert told == ("success" if jobs and "pull_request" not in row.name else "none")
    assert played.run.ok == row.ok


def test_nothing_runs(story: Story) -> None:
    """What touches no image, Dependabot's branches and deleted branches start no run."""
    found = [name for name, played in story.played.items() if played.run is None]
    assert found == ["nothing_of_an_image", "deleted_branch", "branch_of_dependabot"]


def test_tags(story: Story) -> None:
    """In the registry are the tags of the table and no others, and no name was run as a script."""
    expected: dict[str, set[str]] = {}
    for played in story.played.values():
        for repository, tags in played.moved.items():
            expected.setdefault(repository.removeprefix("acme/images/"), set()).update(tags)
    assert {name: story.tags(name) for name in expected} == expected
    assert {"a-b", "a--b", "v1", "branch-v1", "latest", "branch-latest"} <= expected["base"]
    assert {"pr-7", "feature--login"} <= expected["lib"]
    assert not [*story.github.folder.rglob("owned")]


def test_labels_and_annotations(story: Story) -> None:
    """Image, manifest and index tell commit, time, source and what is built on, by digest."""
    commit = story.played["one_image"].commit
    time = int(story.github.git("log", "-1", "--format=%ct", commit))
    page, prefix = "https://github.com/Acme/Images", "org.opencontainers.image."
    found = story.labels("app", commit)
    found.pop("io.buildah.version")
    index = story.inspect(f"app:{commit}")
    manifest = story.inspect(f"app@{index['manifests'][0]['digest']}")
    assert found == index["annotations"] == manifest["annotations"]
    assert found == {
        f"{prefix}title": "app",
        f"{prefix}created": f"{datetime.fromtimestamp(time, UTC):%Y-%m-%dT%H:%M:%SZ}",
        f"{prefix}revision": commit,
        f"{prefix}version": "main",
        f"{prefix}source": page,
        f"{prefix}url": page,
        f"{prefix}documentation": f"{page}/blob/{commit}/images/README.md",
        f"{prefix}vendor": "Acme",
        f"{prefix}base.name": f"{PLACE}/lib:main",
        f"{prefix}base.digest": story.digest("lib", story.played["first_push"].commit),
    }


@pytest.mark.parametrize(
    ("event", "image", "name"),
    [
        ("first_push", "lib", f"base:{COMMIT}"),
        ("one_image", "site", f"app:{COMMIT}"),
        ("push_to_a_branch", "site", "app:feature--login"),
        ("merge", "app", f"lib:{COMMIT}"),
        ("one_by_hand", "site", "app:main"),
        ("main_where_latest_is_released", "site", "app:main"),
        ("pull_request", "lib", "base:main"),
        ("pull_request", "app", "lib:pr-7"),
    ],
)
def test_what_is_built_on(story: Story, event: str, image: str, name: str) -> None:
    """An image is built on this run's neighbour, or else on that of its branch or tag."""
    commit = story.played[event].commit
    tag = "pr-7" if event == "pull_request" else commit
    found = story.labels(image, tag)["org.opencontainers.image.base.name"]
    assert found == f"{PLACE}/{name.replace(COMMIT, commit)}"


@pytest.mark.parametrize("name", ["base", "tool", "lib", "app", "site"])
def test_attestations(story: Story, name: str) -> None:
    """What is pushed is an index: the image, and its SBOM and provenance beside it."""
    index = story.inspect(f"{name}:latest")
    image, attestations = index["manifests"]
    assert attestations["annotations"] == {
        "vnd.docker.reference.digest": image["digest"],
        "vnd.docker.reference.type": "attestation-manifest",
    }
    layers = story.inspect(f"{name}@{attestations['digest']}")["layers"]
    assert [one["annotations"]["in-toto.io/predicate-type"] for one in layers] == [
        "https://spdx.dev/Document",
        "https://slsa.dev/provenance/v1",
    ]
    assert "annotations" not in image


@pytest.mark.parametrize("event", CHUNKED)
def test_chunked(story: Story, event: str) -> None:
    """Layers have a table of their parts, and what names the image names what was pushed."""
    signed = story.run(event).signed
    assert len(signed) == len(story.played[event].moved) > 0
    for reference in signed:
        place, _, digest = reference.partition("@")
        name = place.rpartition("/")[2]
        image, attestations = story.inspect(f"{name}@{digest}")["manifests"]
        for layer in story.inspect(f"{name}@{image['digest']}")["layers"]:
            assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+zstd"
            assert any("zstd-chunked.manifest-checksum" in key for key in layer["annotations"])
        for layer in story.inspect(f"{name}@{attestations['digest']}")["layers"]:
            (subject,) = story.blob(layer["digest"])["subject"]
            assert subject["digest"] == {"sha256": image["digest"].removeprefix("sha256:")}


def test_signed(story: Story) -> None:
    """Each image that a run pushed is signed once, by the digest that its tags have."""
    for row in EVENTS:
        played = story.played[row.name]
        signed = sorted(played.run.signed) if played.run else []
        assert [one.partition("@")[0] for one in signed] == sorted(
            f"ghcr.io/{repository}" for repository in played.moved
        )
    (site,) = story.run("one_by_hand").signed
    assert site == f"{PLACE}/site@{story.digest('site', story.played['one_by_hand'].commit)}"


@pytest.mark.parametrize(
    ("event", "fresh"), [("sunday", "true"), ("all_by_hand", "true"), ("git_tag", "false")]
)
def test_fresh(story: Story, event: str, fresh: str) -> None:
    """On Sunday, and by hand where it is wanted, nothing comes from the cache."""
    built = [one for one in story.run(event).built if one["load"] == "true"]
    assert {one["no-cache"] for one in built} == {fresh}
    assert all(one["cache-to"] == f"{one['cache-from']},mode=max" for one in built)


@pytest.mark.parametrize(
    ("event", "failed", "names"),
    [
        ("level_0_fails", "base", ["lib"]),
        ("level_1_fails", "lib", ["app"]),
        ("level_2_fails", "app", ["site"]),
    ],
)
def test_what_builds_on_a_failed_image(
    story: Story, event: str, failed: str, names: Sequence[str]
) -> None:
    """What builds on a failed image says so, though the registry has an older one."""
    told = story.run(event).annotations("error")
    for name in names:
        assert any(f"images/{name} builds on {failed}, which this run" in one for one in told)
    later = ON_LIB[ON_LIB.index(names[-1]) + 1 :]
    assert all(any(f"images/{one} builds on" in line for line in told) for one in later)


def test_older_run_again(story: Story) -> None:
    """An older run that is run again says why it takes no tag back."""
    told = story.run("older_run_again").annotations("error")
    assert "refs/heads/main is not at this run's commit any more" in told[0]


def test_findings(story: Story) -> None:
    """A critical finding warns, and one that is listed keeps its image from the push."""
    (warning,) = story.run("finding_that_warns").annotations("warning")
    assert f"{FINDINGS[0]} in openssl 1, no fix yet; to have it block" in warning
    (error,) = story.run("finding_that_blocks").annotations("error")
    assert f"{FINDINGS[1]} in openssl 1, no fix yet; blocks since 2020-01-01" in error


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ("one_image", "Plan: changed: app, and what builds on it."),
        ("release", "Plan: v1 is built as a tag, and main is the latest."),
        ("nobody_knows_what_was_built", "GitHub did not tell what was built last"),
        ("parent_that_cannot_be_seen", "plan: images/lib/Dockerfile:1: base is the Docker Hub's"),
        ("deleted_image", '"reason": "no image changed"'),
        ("one_by_hand", f"images/site builds on {PLACE}/app:main, which this run does not build"),
    ],
)
def test_reasons(story: Story, event: str, said: str) -> None:
    """A run says why it builds what it builds."""
    assert said in story.run(event).log


def test_whole_repository(story: Story, tmp_path: Path) -> None:
    """A build that sees the whole repository can ask git for its version: all history is there."""
    reference = f"docker://{story.registry.address}/acme/images/described:main"
    options = ("--quiet", "--src-tls-verify=false", f"--src-creds={ACTOR}:{TOKEN}")
    run("skopeo", "copy", *options, reference, f"dir:{tmp_path}/image")
    manifest = json.loads((tmp_path / "image/manifest.json").read_text())
    (layer,) = manifest["layers"]
    with tarfile.open(tmp_path / "image" / layer["digest"].removeprefix("sha256:")) as tar:
        names = tar.getnames()
        tar.extractall(tmp_path, filter="data")
    assert "git/shallow" not in names
    described = run("git", f"--git-dir={tmp_path}/git", "describe", "--tags")
    assert described.startswith("v1-")


def test_tell_syncd(story: Story) -> None:
    """At the end of a run the daemon is told, and has a template of what was pushed."""
    names = ("base", "lib", "app")
    watched = [f"{story.registry.address}/acme/images/{name}:latest" for name in names]
    folder = story.github.folder.parent / "syncd"
    story.github.vars["ZSTD_CHUNKED"] = "true"
    with Syncd(folder, watched, ACTOR, TOKEN) as daemon:
        wait_for("the first templates", lambda: len(daemon.templates) == len(names), timeout=120)
        before = {file.name for file in daemon.templates}
        story.github.secrets |= {
            "SYNCD_URL": f"http://127.0.0.1:{daemon.port}/",
            "SYNCD_API_TOKEN": API_TOKEN,
        }
        change(story.github, "lib")
        told = story.github.push("main")
        assert told is not None
        assert told.ok
        assert {"lib", "app", "tell-syncd"} <= told.jobs.keys()
        assert not told.annotations("warning")
        assert API_TOKEN not in told.log
        expected = before | {template_name(story, watched[1], "lib")}
        expected |= {template_name(story, watched[2], "app")}
        wait_for(
            "the templates",
            lambda: {file.name for file in daemon.templates} >= expected,
            timeout=120,
        )
        assert "attestations not kept" not in daemon.log.read_text()


def template_name(story: Story, reference: str, name: str) -> str:
    """Return the name of the template of what a reference names now."""
    image = story.inspect(f"{name}:latest")["manifests"][0]
    config = story.inspect(f"{name}@{image['digest']}")["config"]["digest"]
    made = reference.replace("/", "_").replace(":", "_")
    return f"{made}_{config.removeprefix('sha256:')[:12]}.tar.zst"
