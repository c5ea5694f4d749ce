"""What the scripts in the workflows' steps do, each run as a runner runs it.

The programs that speak with GitHub and with registries are replaced on PATH; bash, python3 and git
are real.  How the workflow's jobs hang together is read off in `tests/test_images.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]


class Runner:
    """A runner's folders and programs, for one step at a time."""

    def __init__(self, folder: Path) -> None:
        self.temp = folder / "temp"
        self.programs = folder / "programs"
        self.output = folder / "output"
        self.workspace = folder / "workspace"
        self.temp.mkdir()
        self.programs.mkdir()
        self.workspace.mkdir()
        who = ("-c", "user.name=runner", "-c", "user.email=runner@example.org")
        for words in (
            ("init", "--quiet"),
            ("commit", "--quiet", "--allow-empty", "-m", "An image"),
        ):
            subprocess.run(["git", "-C", self.workspace, *who, *words], check=True)

    def program(self, name: str, script: str) -> None:
        """Put a shell script on PATH, before everything else."""
        path = self.programs / name
        path.write_text(f"#!/bin/bash\n{script}")
        path.chmod(0o755)

    def run(
        self, workflow: str, job: str, step: str, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the script of a step by its name, with bash as the workflow's defaults have it."""
        content = yaml.safe_load((ROOT / ".github" / "workflows" / workflow).read_text())
        (found,) = [one for one in content["jobs"][job]["steps"] if one.get("name") == step]
        assert content["defaults"]["run"]["shell"] == "bash"
        self.output.write_text("")
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", found["run"]],
            env={
                "PATH": f"{self.programs}:{os.environ['PATH']}",
                "RUNNER_TEMP": str(self.temp),
                "GITHUB_WORKSPACE": str(self.workspace),
                "GITHUB_OUTPUT": str(self.output),
                **env,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    def outputs(self) -> dict[str, str]:
        """Return what the step has written to GITHUB_OUTPUT, in both of its notations."""
        found: dict[str, str] = {}
        lines = iter(self.output.read_text().splitlines())
        for line in lines:
            if "<<" in line:
                name, end = line.split("<<")
                found[name] = "\n".join(iter(lambda: next(lines), end))
            else:
                name, found[name] = line.split("=", 1)
        return found


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


BASE = "ghcr.io/acme/images/base"


def parent(*tags: str, built: bool, is_base: bool = True) -> dict[str, Any]:
    return {
        "context": "localhost/base:latest",
        "name": "base",
        "repository": BASE,
        "built": built,
        "is_base": is_base,
        "tags": tags,
    }


def pin(runner: Runner, *parents: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run the step that pins parents against a registry that has base:latest alone."""
    runner.program(
        "docker",
        f'[ "${{@: -1}}" = {BASE}:latest ] || {{ echo "${{@: -1}}: not found" >&2; exit 1; }}\n'
        "echo sha256:latest\n",
    )
    step = "Pin what the image builds on"
    return runner.run("build-level.yml", "build", step, NAME="nodejs", PARENTS=json.dumps(parents))


def test_parent_of_this_run(runner: Runner) -> None:
    """What this run has built is what the next level builds on, whatever the tags say."""
    (runner.temp / "parents").mkdir()
    (runner.temp / "parents" / "base").write_text("sha256:new\n")
    done = pin(runner, parent("latest", built=True))
    assert done.returncode == 0, done.stderr
    found = runner.outputs()
    assert found["contexts"] == f"localhost/base:latest=docker-image://{BASE}@sha256:new"
    assert found["labels"].splitlines() == [
        f"org.opencontainers.image.base.name={BASE}:latest",
        "org.opencontainers.image.base.digest=sha256:new",
    ]


def test_parent_that_files_are_taken_from(runner: Runner) -> None:
    """The labels name what the image is based on, not what it copies from; both are pinned."""
    tool = parent("latest", built=False, is_base=False) | {"context": "localhost/tool"}
    base = parent("latest", built=False)
    assert pin(runner, base, tool).returncode == 0
    found = runner.outputs()
    assert [line.partition("=")[0] for line in found["contexts"].splitlines()] == [
        "localhost/base:latest",
        "localhost/tool",
    ]
    assert len(found["labels"].splitlines()) == 2
    assert pin(runner, tool).returncode == 0
    assert runner.outputs()["labels"] == ""


@pytest.mark.parametrize("attempt", [None, ""], ids=["never began", "failed"])
def test_parent_that_failed(runner: Runner, attempt: str | None) -> None:
    """What builds on a failed image fails with its name, though the registry has last week's."""
    if attempt is not None:
        (runner.temp / "parents").mkdir()
        (runner.temp / "parents" / "base").write_text(attempt)
    done = pin(runner, parent("latest", built=True))
    assert done.returncode == 1
    assert "::error::images/nodejs builds on base, which this run was to build and did not" in (
        done.stdout
    )
    assert runner.outputs() == {}


def test_parent_of_an_earlier_run(runner: Runner) -> None:
    """A parent that this run does not build is the first of its tags that exists, and is told."""
    done = pin(runner, parent("mine", "latest", built=False))
    assert runner.outputs()["contexts"].endswith(f"//{BASE}@sha256:latest")
    assert f"::notice::images/nodejs builds on {BASE}:latest" in done.stdout


def test_parent_that_was_never_built(runner: Runner) -> None:
    """A parent that exists under none of its tags is an error that lists them."""
    done = pin(runner, parent("mine", "main", built=False))
    assert done.returncode == 1
    assert f"but {BASE} has none of these tags: mine main" in done.stdout


def test_no_parents(runner: Runner) -> None:
    """An image on no neighbour gets no contexts, and its time from the commit."""
    assert pin(runner).returncode == 0
    found = runner.outputs()
    assert (found["contexts"], found["labels"]) == ("", "")
    assert int(found["epoch"]) > 0


@pytest.mark.parametrize(
    ("labels", "own"),
    [
        ("null", []),
        (
            json.dumps(
                {
                    "org.opencontainers.image.title": "base",
                    "org.opencontainers.image.description": "One\nline\nEND",
                    "org.opencontainers.image.revision": "its parent's",
                    "else": "x",
                }
            ),
            ["title=base", "description=One line END"],
        ),
    ],
)
def test_described(runner: Runner, labels: str, own: list[str]) -> None:
    """Annotations are the labels of the run, and what the image's own say that it is."""
    runner.program("docker", f"cat <<'TEXT'\n{labels}\nTEXT")
    told = "org.opencontainers.image.revision=c0ffee\norg.opencontainers.image.vendor=acme\n\n"
    done = runner.run("build-level.yml", "build", "Describe", IMAGE="localhost/x", LABELS=told)
    assert done.returncode == 0, done.stderr
    found = runner.outputs()
    assert found["labels"].strip() == told.strip()
    prefix = "index,manifest:org.opencontainers.image."
    assert found["annotations"].splitlines() == [
        f"{prefix}{line}" for line in (*own, "revision=c0ffee", "vendor=acme")
    ]


@pytest.mark.parametrize("file", ["build-images.yml", "build-level.yml", "release.yml"])
def test_stand_ins(file: str) -> None:
    """Each action has a stand-in for the end-to-end tests that knows the inputs given to it."""
    workflow = yaml.safe_load((ROOT / ".github/workflows" / file).read_text())
    steps = [step for job in workflow["jobs"].values() for step in job.get("steps", ())]
    for step in steps:
        if "uses" in step:
            name = step["uses"].partition("@")[0].rpartition("/")[2]
            action = ROOT / "tests/e2e/runner/actions" / name / "action.yml"
            known = yaml.safe_load(action.read_text()).get("inputs", {})
            assert step.get("with", {}).keys() <= known.keys(), name


def test_digest_is_kept(runner: Runner) -> None:
    """An image says that it is not built until it is, and then by which digest."""
    told = runner.temp / "built" / "base"
    first = runner.run("build-level.yml", "build", "Empty what says that it is built", NAME="base")
    assert (first.returncode, told.read_text()) == (0, "")
    lost = runner.run("build-level.yml", "build", "Keep the digest", NAME="base", DIGEST="")
    assert lost.returncode != 0
    runner.run("build-level.yml", "build", "Keep the digest", NAME="base", DIGEST="sha256:1")
    assert told.read_text() == "sha256:1\n"


def look_for_the_last_build(runner: Runner) -> subprocess.CompletedProcess[str]:
    """Run the step of the plan that asks GitHub for the last good build of main."""
    step = ("build-images.yml", "plan", "Find what was built last")
    return runner.run(*step, GITHUB_REPOSITORY="acme/images", GITHUB_REF_NAME="main")


@pytest.mark.parametrize(
    ("answer", "commit"),
    [
        ("echo c0ffee", "c0ffee"),
        ("echo", "0" * 40),
        ('echo \'{"message": "oops"}\'; exit 1', "unknown"),
    ],
    ids=["a build", "none yet", "a fault"],
)
def test_what_was_built_last(runner: Runner, answer: str, commit: str) -> None:
    """GitHub's answer is passed on; a fault of its API is told and passed on as not known."""
    runner.program("gh", answer)
    done = look_for_the_last_build(runner)
    assert done.returncode == 0
    assert runner.outputs() == {"commit": commit}
    assert ("::warning::" in done.stdout) == (commit == "unknown")


@pytest.mark.parametrize(("tag", "commit"), [("main", "unknown"), ("v1", "c0ffee")])
def test_git_tag_of_the_branch_name(runner: Runner, tag: str, commit: str) -> None:
    """Where a git tag has the branch's name, its runs are listed as the branch's: nobody knows."""
    runner.program("gh", "echo c0ffee")
    runner.program("git", f'[ "$*" = "show-ref --verify --quiet refs/tags/{tag}" ]')
    assert look_for_the_last_build(runner).returncode == 0
    assert runner.outputs() == {"commit": commit}


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("printf 'c0ffee\\trefs/heads/main\\n'", 0),
        ("printf 'c0ffee0\\trefs/heads/main\\n'", 1),
        ("printf 'c0ffee\\trefs/heads/x/refs/heads/main\\n'", 1),
        ("printf 'c0ffee\\trefs/heads/main-2\\n'", 1),
        ("true", 1),
        ("exit 128", 1),
    ],
    ids=["the same", "gone on", "another branch", "a longer name", "deleted", "a fault"],
)
def test_branch_has_gone_on(runner: Runner, answer: str, status: int) -> None:
    """A run that is run again goes on only where the branch is still at its commit."""
    login = "AUTHORIZATION: basic eC1hY2Nlc3MtdG9rZW46czNjcmV0"  # x-access-token:s3cret
    asked = '"ls-remote https://github.com/acme/images refs/heads/main"'
    runner.program(
        "git", f'[ "$GIT_CONFIG_VALUE_0" = "{login}" ] && [ "$*" = {asked} ] || exit 9\n{answer}'
    )
    done = runner.run(
        "build-level.yml",
        "build",
        "See that the branch has not gone on",
        TOKEN="s3cret",
        GITHUB_SERVER_URL="https://github.com",
        GITHUB_REPOSITORY="acme/images",
        GITHUB_REF="refs/heads/main",
        GITHUB_SHA="c0ffee",
    )
    assert done.returncode == status
    assert ("::error::refs/heads/main is not at this run's commit" in done.stdout) == bool(status)
