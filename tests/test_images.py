"""The images' Dockerfiles, scripts and workflows keep the rules that can be read off them.

What a running container does is tested end to end, in `tests/e2e/test_images.py`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from images import plan
from images.dockerfile import references
from images.folder import parse_image, read_images
from images.tags import Event

ROOT = Path(plan.__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
IMAGES = read_images(ROOT / "images", "ghcr.io/owner/repository")
PROGRAMS = Path(sys.executable).parent


def workflow(name: str) -> dict[Any, Any]:
    """Return a workflow; YAML 1.1 reads its key `on` as True."""
    content: dict[Any, Any] = yaml.safe_load((ROOT / ".github/workflows" / name).read_text())
    return content


BUILD, LEVEL = workflow("build-images.yml"), workflow("build-level.yml")


def lint(program: str, *arguments: str | Path) -> None:
    done = subprocess.run(
        [PROGRAMS / program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_workflows_lint() -> None:
    """The workflows satisfy actionlint, and their scripts shellcheck."""
    lint("actionlint", "-shellcheck", PROGRAMS / "shellcheck", "-pyflakes=", *WORKFLOWS)


def test_dockerfiles_lint() -> None:
    """The Dockerfiles satisfy hadolint, but for what its configuration explains."""
    files = [ROOT / "images" / name / "Dockerfile" for name in IMAGES]
    lint("hadolint", "--config", ROOT / "images" / ".hadolint.yaml", *files)


def test_scripts_lint() -> None:
    """The scripts that go into the images, or install syncd, satisfy shellcheck."""
    scripts = [
        path
        for folder in ("images", "config")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.read_bytes().startswith(b"#!/bin/sh")
    ]
    assert scripts
    lint("shellcheck", *scripts)


def test_schedule() -> None:
    """The workflow runs weekly when the plan says, and on each push below an image's folder."""
    triggers = BUILD[True]
    assert triggers["schedule"] == [{"cron": plan.WEEKLY}]
    assert triggers["push"] == {
        "branches": ["**", "!dependabot/**"],
        "tags": ["**"],
        "paths": ["images/*/**", "docs/**"],
    }
    assert triggers["pull_request"] == {"paths": ["images/*/**", "docs/**"]}
    contexts = {one.context for one in IMAGES.values() if not one.context.startswith("images/")}
    assert {f"{context}/**" for context in contexts} <= set(triggers["push"]["paths"])
    assert triggers["release"] == {"types": ["released"]}


def test_levels() -> None:
    """The workflow has a job for each level of the plan, in order, each fed by the plan alone."""
    names = [f"level-{number}" for number in range(plan.LEVELS)]
    assert [name for name in BUILD["jobs"] if name.startswith("level-")] == names
    assert BUILD["jobs"]["plan"]["outputs"] == {
        name: f"${{{{ steps.plan.outputs.{name} }}}}" for name in names
    }
    for number, name in enumerate(names):
        job = BUILD["jobs"][name]
        assert job["uses"] == "./.github/workflows/build-level.yml"
        assert job["with"]["images"] == f"${{{{ needs.plan.outputs.{name} }}}}"
        assert job["needs"] == (["plan", f"level-{number - 1}"] if number else "plan")
        assert job["if"] == (
            "${{ !cancelled() && needs.plan.result == 'success'"
            f" && needs.plan.outputs.{name} != '[]' }}}}"
        )
    matrix = LEVEL["jobs"]["build"]["strategy"]["matrix"]
    assert matrix == {"image": "${{ fromJSON(inputs.images) }}"}


def test_matrix_fields() -> None:
    """What a level reads of an image is what the plan writes, and the other way round."""
    event = Event("schedule", "refs/heads/main", "c0ffee")
    made = plan.plan(event, IMAGES, None, "ghcr.io/owner/name")
    text = (ROOT / ".github" / "workflows" / "build-level.yml").read_text()
    read = set(re.findall(r"matrix\.image\.(\w+)", text))
    assert {frozenset(image) for level in made["levels"] for image in level} == {frozenset(read)}


@pytest.mark.parametrize("name", IMAGES)
def test_no_workflow_names_an_image(name: str) -> None:
    """Adding an image is adding its folder: no workflow knows any by name."""
    for workflow in ("build-images.yml", "build-level.yml"):
        path = ROOT / ".github" / "workflows" / workflow
        assert not re.search(rf"images/{name}\b|/{name}:|\b{name}:(?!//)", path.read_text())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_pinned_actions(path: Path) -> None:
    """Each action is pinned by its commit, with the version beside it for people."""
    used = re.findall(r"uses: (.+)", path.read_text())
    foreign = [action for action in used if not action.startswith("./")]
    assert foreign
    for action in foreign:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[0-9]+(\.[0-9]+)*", action)


@pytest.mark.parametrize("content", [BUILD, LEVEL], ids=["build-images", "build-level"])
def test_permissions(content: dict[Any, Any]) -> None:
    """Nothing is permitted but what a job asks for, and only building may push and sign."""
    building = {"contents": "read", "packages": "write", "id-token": "write"}
    expected = {"plan": {"contents": "read", "actions": "read"}, "tell-syncd": {}}
    assert content["permissions"] == {}
    for name, job in content["jobs"].items():
        assert job["permissions"] == expected.get(name, building)


def test_cache_scopes() -> None:
    """Each image has a cache of its own that keeps every stage, and none is used on Sunday."""
    steps = {step.get("name"): step for step in LEVEL["jobs"]["build"]["steps"]}
    scope = "type=gha,scope=image-${{ matrix.image.name }}"
    build = steps["Build"]["with"]
    assert (build["cache-from"], build["cache-to"]) == (scope, f"{scope},mode=max")
    assert build["no-cache"] == "${{ inputs.fresh }}"
    for number in range(plan.LEVELS):
        assert (
            "github.event_name == 'schedule'" in BUILD["jobs"][f"level-{number}"]["with"]["fresh"]
        )


def test_nothing_is_pushed_unscanned() -> None:
    """An image is pushed after its scan's findings were judged, then signed by digest."""
    names = [step.get("name") for step in LEVEL["jobs"]["build"]["steps"]]
    order = [
        "Build",
        "Scan",
        "Keep the scan's report",
        "Judge the findings",
        "Push",
        "Sign",
        "Summarise",
    ]
    assert [name for name in names if name in order] == order
    steps = {step.get("name"): step for step in LEVEL["jobs"]["build"]["steps"]}
    assert steps["Scan"]["with"]["output-format"] == "json"
    assert steps["Judge the findings"].keys() == {"name", "env", "run"}
    assert steps["Judge the findings"]["env"] == {"REPORT": "${{ steps.scan.outputs.json }}"}
    assert steps["Judge the findings"]["run"] == 'python3 -m images.findings "$REPORT"'
    assert "push" not in steps["Build"]["with"]
    assert {"provenance": "mode=max", "sbom": True}.items() <= steps["Push"]["with"].items()
    assert steps["Sign"]["run"].endswith('@$DIGEST"')


def test_what_is_built_on_is_of_this_run() -> None:
    """An image takes its word back before anything else, and gives it when it is signed."""
    names = [step.get("name") for step in LEVEL["jobs"]["build"]["steps"]]
    assert names[:2] == ["Empty what says that it is built", "Say that it is not built"]
    order = ["Take what this run has built", "Pin what the image builds on", "Build"]
    assert [name for name in names if name in order] == order
    order = ["Sign", "Keep the digest", "Say what was built"]
    assert [name for name in names if name in order] == order
    steps = {step.get("name"): step for step in LEVEL["jobs"]["build"]["steps"]}
    for name in ("Say that it is not built", "Say what was built"):
        assert steps[name]["with"] == {
            "name": "built-${{ matrix.image.name }}",
            "path": "${{ runner.temp }}/built",
            "overwrite": True,
            "retention-days": 30,
        }
    assert steps["Take what this run has built"]["with"]["pattern"] == "built-*"


def test_what_is_not_pushed() -> None:
    """A pull request from elsewhere is built and scanned, and nothing of it leaves the runner."""
    steps = LEVEL["jobs"]["build"]["steps"]
    names = [step.get("name", step.get("uses", "").partition("@")[0]) for step in steps]
    assert [
        name
        for name, step in zip(names, steps, strict=True)
        if "matrix.image.push" in str(step.get("if"))
    ] == [
        "See that the branch has not gone on",
        "Describe",
        "Push",
        "Push as zstd:chunked",
        "sigstore/cosign-installer",
        "Sign",
        "Keep the digest",
        "Say what was built",
    ]
    (planning,) = [step for step in BUILD["jobs"]["plan"]["steps"] if step.get("name") == "Plan"]
    pushes = planning["env"]["PUSH"]
    assert "github.event.pull_request.head.repo.full_name == github.repository" in pushes
    assert "github.event_name != 'pull_request'" in BUILD["jobs"]["tell-syncd"]["if"]


@pytest.mark.parametrize("name", IMAGES)
def test_labels(name: str) -> None:
    """Each image says in labels what it is; where it comes from, the workflow adds."""
    text = (ROOT / "images" / name / "Dockerfile").read_text()
    found = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]+)"', text))
    assert found["title"] == name
    assert found["licenses"] == "Apache-2.0"
    assert found["description"]


@pytest.mark.parametrize("name", IMAGES)
def test_dependabot_sees_what_is_foreign(name: str) -> None:
    """What an image takes from elsewhere stands in a FROM, by digest, where Dependabot looks."""
    text = (ROOT / "images" / name / "Dockerfile").read_text()
    foreign = {one.text for one in references(text)} - set(IMAGES[name].parents)
    for reference in foreign:
        assert re.search(f"^FROM {re.escape(reference)}( AS .+)?$", text, re.MULTILINE)
        assert re.search("@sha256:[0-9a-f]{64}$", reference)


@pytest.mark.parametrize("name", IMAGES)
def test_context(name: str) -> None:
    """An image's build sees only what its .dockerignore lets in, and all of that exists."""
    folder, ignored = ROOT / "images" / name, ".dockerignore"
    if IMAGES[name].context != f"images/{name}":
        ignored = "Dockerfile.dockerignore"
    lines = (folder / ignored).read_text().splitlines()
    patterns = [line for line in lines if not line.startswith("#")]
    assert patterns[0] == "*"
    for pattern in patterns[1:]:
        assert pattern.startswith("!")
        assert list((ROOT / IMAGES[name].context).glob(pattern[1:]))


README = (ROOT / "images" / "README.md").read_text()


@pytest.mark.parametrize("name", IMAGES)
def test_readme_lists_the_image(name: str) -> None:
    """The README's table has each image, what it builds on, and its path in the registry."""
    (row,) = [line for line in README.splitlines() if line.startswith(f"| [`{name}`]({name}/)")]
    _, _, builds_on, _, path, _, _ = (cell.strip() for cell in row.split("|"))
    assert path == f"`ghcr.io/OWNER/REPOSITORY/{name}`"
    for parent in IMAGES[name].parents.values():
        assert builds_on == f"`{parent}`"


def test_readme_names_the_variables() -> None:
    """The README explains exactly the variables that the first boot reads, in both spellings."""
    program = (ROOT / "images" / "base" / "sssd-configure").read_text()
    names = re.findall(r"^ldap_\w+ +\S+ +(\w+) (\w+)$", program, re.MULTILINE)
    rows = re.findall(r"^\| `(LDAP_\w+)` \| `(SSSD_\w+)` \|", README, re.MULTILINE)
    assert sorted(rows) == sorted(names)


def test_readme_example() -> None:
    """The README's example of a new image builds on base as the plan understands it."""
    adding = README.partition("## Adding an image")[2]
    (example,) = re.findall(r"```dockerfile\n(.+?)```", adding, re.DOTALL)
    new = parse_image("new", example, ["base"], "ghcr.io/owner/repository")
    assert new.parents == {"localhost/base:latest": "base"}


def test_documents_link_to_what_exists() -> None:
    """Every relative link of the two documents leads to a file."""
    for document in ("images/README.md", "docs/from-push-to-container.md"):
        path = ROOT / document
        links = re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text())
        assert links
        for link in links:
            assert (path.parent / link).exists(), link
