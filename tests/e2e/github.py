"""A repository on GitHub and its Actions, as far as a workflow can see them, on this machine.

The workflows are run by `act` (https://nektosact.com): jobs, conditions, matrices, contexts, called
workflows and scripts are its work.  The triggers' filters are read here, since `act` does not.  The
origin is a bare repository that is cloned by the name it has on GitHub, the registry that of
`tests.e2e.registry` by the name ghcr.io, and for what it has below `docker.io/` by that name; what
stands in for actions and programs is in `tests.e2e.runner`.

What GitHub does and this does not: permissions of tokens, concurrency, caches between machines,
bounds of time.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.command import CACHE, CHECKOUT, attempt, run
from tests.e2e.registry import Registry

ACT = Path(sys.executable).with_name("act")
ZEROS = "0" * 40
ACTOR, TOKEN = "octocat", "a-token-of-the-run"
_RUNNER = Path(__file__).parent / "runner"
_PROGRAMS = ("docker", "gh", "cosign", "skopeo")
_USES = re.compile(r"uses: ([\w.-]+/([\w.-]+)@[0-9a-f]{40})")


@dataclass(frozen=True)
class Run:
    """A finished run of a workflow: how it and its jobs ended, and what the steps wrote.

    A job of a matrix is known by the name of its image, any other by its id.  `built` holds the
    inputs of each build in order, the image's name as `built`; `signed` the references signed.
    """

    ok: bool
    jobs: Mapping[str, str]
    log: str
    built: Sequence[Mapping[str, str]] = ()
    signed: Sequence[str] = ()

    def annotations(self, kind: str) -> list[str]:
        """Return the messages of a kind (error, warning, notice), as steps wrote them."""
        return re.findall(rf"^::{kind}::(.+)", self.log, re.MULTILINE)


class GitHub:
    """The repository `name` below `folder`; its events start what the workflow's triggers say.

    With `in_place` a called workflow is put in the place of its call before a run: `act` ends a run
    when a called workflow fails (https://github.com/nektos/act/issues/1793), where GitHub goes on
    with the jobs whose conditions allow it.
    """

    def __init__(self, folder: Path, name: str, registry: Registry) -> None:
        self.name = name
        self.folder = folder
        self.work = folder / "work"
        self.in_place = False
        self.vars: dict[str, str] = {}
        self.secrets: dict[str, str] = {}
        self._origin = folder / "origins" / name
        self._registry = registry
        self._runs: list[dict[str, str]] = []
        self._env = self._settings()
        run("git", "init", "--quiet", "--bare", "--initial-branch=main", self._origin)
        # GitHub gives out every commit that it still has.
        run("git", "-C", self._origin, "config", "uploadpack.allowAnySHA1InWant", "true")
        run("git", "init", "--quiet", "--initial-branch=main", self.work)
        self.git("remote", "add", "origin", f"https://github.com/{name}")
        self.api_answers(True)

    def api_answers(self, yes: bool) -> None:
        """Let GitHub's API tell of the runs, or fail."""
        if yes:
            (self.folder / "runs.json").write_text(json.dumps(self._runs))
        else:
            (self.folder / "runs.json").unlink()

    def git(self, *words: str) -> str:
        """Run git in the working copy."""
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        return run("git", "-C", self.work, *who, *words, env=self._env).strip()

    def write(self, path: str, content: str) -> None:
        """Write a file of the working copy."""
        file = self.work / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def commit(self) -> None:
        """Commit the working copy with whatever changed."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=A change")

    @property
    def head(self) -> str:
        """The commit that the working copy is at."""
        return self.git("rev-parse", "HEAD")

    def push(self, branch: str, *, force: bool = False) -> Run | None:
        """Push HEAD to a branch; return the run, if the push started one."""
        ref = f"refs/heads/{branch}"
        before = self._known(ref)
        self.git("push", "--quiet", *(["--force"] if force else []), "origin", f"HEAD:{ref}")
        triggers = self._triggers()["push"]
        if not _meets(branch, triggers["branches"]):
            return None
        paths = triggers["paths"]
        if before != ZEROS and not any(_meets(path, paths) for path in self._changed(before)):
            return None
        payload = {"ref": ref, "before": before, "after": self.head, "forced": force}
        return self._act("push", payload, branch=branch)

    def run_again(self, branch: str) -> Run:
        """Start the run of a push to the branch again, whose commit is HEAD."""
        before = self.git("rev-parse", "HEAD~1")
        payload = {"ref": f"refs/heads/{branch}", "before": before, "after": self.head}
        attempt = ("--env", "GITHUB_RUN_ATTEMPT=2")
        return self._act("push", payload, branch=branch, options=attempt)

    def push_tag(self, tag: str) -> Run:
        """Tag HEAD and push the tag: filters of paths do not hold for tags."""
        self.git("tag", tag)
        self.git("push", "--quiet", "origin", f"refs/tags/{tag}")
        payload = {"ref": f"refs/tags/{tag}", "before": ZEROS, "after": self.head}
        return self._act("push", payload)

    def delete(self, branch: str) -> None:
        """Delete a branch, for which no workflow runs: there is no commit to take it from."""
        self.git("push", "--quiet", "origin", f":refs/heads/{branch}")

    def dispatch(self, branch: str, *, image: str = "", fresh: bool = False) -> Run:
        """Run the workflow by hand on HEAD, which is at a branch."""
        self.git("push", "--quiet", "origin", f"HEAD:refs/heads/{branch}")
        inputs = {"image": image, "fresh": str(fresh).lower()}  # texts, as in GitHub's event
        return self._act("workflow_dispatch", {"ref": f"refs/heads/{branch}", "inputs": inputs})

    def schedule(self) -> Run:
        """Run what the schedule runs, on the main branch at HEAD."""
        return self._act("schedule", {"ref": "refs/heads/main"})

    def release(self, tag: str) -> Run:
        """Publish a release of a tag at HEAD."""
        return self._act("release", {"action": "released", "release": {"tag_name": tag}})

    def pull_request(self, number: int, source: str, *, actor: str = ACTOR) -> Run | None:
        """Ask for the merge of HEAD into main, from the repository `source`."""
        head, base = self.head, self._known("refs/heads/main")
        self.git("checkout", "--quiet", "--detach", base)
        self.git("merge", "--quiet", "--no-ff", "--message=Merge", head)
        self.git("push", "--quiet", "origin", f"+HEAD:refs/pull/{number}/merge")
        changed = self._changed(base)
        if not any(_meets(path, self._triggers()["pull_request"]["paths"]) for path in changed):
            return None
        request = {
            "number": number,
            "base": {"sha": base, "ref": "main", "repo": {"full_name": self.name}},
            "head": {"sha": head, "ref": "change", "repo": {"full_name": source}},
        }
        payload = {"action": "synchronize", "number": number, "pull_request": request}
        return self._act("pull_request", payload, actor=actor)

    def run_workflow(
        self, file: str, event: str, payload: Mapping[str, Any], options: Sequence[str]
    ) -> Run:
        """Run a workflow for an event, whatever its triggers say; `options` are those of act."""
        return self._act(event, payload, file=file, options=options)

    def _act(
        self,
        event: str,
        payload: Mapping[str, Any],
        *,
        branch: str = "",
        actor: str = ACTOR,
        file: str = "build-images.yml",
        options: Sequence[str] = (),
    ) -> Run:
        """Run a workflow as HEAD has it, and note how it ended where the API tells of it."""
        number = len(list(self.folder.glob("run-*"))) + 1
        folder = self.folder / f"run-{number}"
        (folder / "artifacts").mkdir(parents=True)
        repository = {"full_name": self.name, "default_branch": "main"}
        (folder / "event.json").write_text(json.dumps({**payload, "repository": repository}))
        workflows = self._workflows(folder)
        settings = [f"--var={key}={value}" for key, value in self.vars.items()]
        settings += [f"--secret={key}={value}" for key, value in self.secrets.items()]
        done = attempt(
            *(ACT, event, "--json", "--workflows", workflows / file, "--actor", actor),
            *("--eventpath", folder / "event.json", "--no-skip-checkout", "--no-cache-server"),
            *("--rm", "--action-cache-path", folder / "machines", "--secret-file", os.devnull),
            *("--platform=ubuntu-24.04=-self-hosted", "--platform=ubuntu-24.04-arm=-self-hosted"),
            *(f"--secret=GITHUB_TOKEN={TOKEN}", *settings, *_stand_ins(), *options),
            env={
                **self._env,
                "STANDIN_ARTIFACTS": str(folder / "artifacts"),
                "STANDIN_BUILT": str(folder / "built"),
                "STANDIN_SIGNED": str(folder / "signed"),
            },
            cwd=self.work,
            timeout=1200,
        )
        (folder / "log").write_text(done.stdout + done.stderr)
        found = _finished(done, folder)
        conclusion = "success" if found.ok else "failure"
        entry = {"head_branch": branch, "head_sha": self.head, "event": event}
        self._runs.insert(0, {**entry, "conclusion": conclusion})
        if (self.folder / "runs.json").exists():
            self.api_answers(True)
        return found

    def _workflows(self, folder: Path) -> Path:
        """Return the folder of the workflows, as HEAD has them or with calls replaced."""
        kept = self.work / ".github/workflows"
        if not self.in_place:
            return kept
        made = folder / "workflows"
        made.mkdir()
        for file in kept.glob("*.yml"):
            workflow = _load(file)
            for job in workflow["jobs"].values():
                if "uses" in job:
                    called = _load(self.work / job.pop("uses"))
                    _put_in_place(job, called)
            (made / file.name).write_text(json.dumps(workflow))  # JSON is YAML, and `on` a text
        return made

    def _triggers(self) -> dict[str, Any]:
        triggers: dict[str, Any] = _load(self.work / ".github/workflows/build-images.yml")["on"]
        return triggers

    def _known(self, ref: str) -> str:
        return self.git("ls-remote", "origin", ref).partition("\t")[0] or ZEROS

    def _changed(self, before: str) -> list[str]:
        changed = self.git("diff", "--name-only", "--no-renames", "-z", before, "HEAD")
        return [path for path in changed.split("\0") if path]

    def _settings(self) -> dict[str, str]:
        """Make the files and programs that a run finds; return its environment."""
        programs, config = self.folder / "programs", self.folder / "gitconfig"
        programs.mkdir(parents=True)
        for name in _PROGRAMS:
            program = programs / name
            start = f'exec {sys.executable} -m tests.e2e.runner.{name} "$@"'
            program.write_text(f"#!/bin/sh\nPYTHONPATH={CHECKOUT} {start}\n")
            program.chmod(0o755)
        config.write_text(
            f'[url "file://{self.folder}/origins/"]\n\tinsteadOf = https://github.com/\n'
            "[safe]\n\tdirectory = *\n"
        )
        registries = self.folder / "registries.conf"
        address = self._registry.address
        places = {"ghcr.io": address, "docker.io": f"{address}/docker.io"}
        registries.write_text(
            "".join(
                f'[[registry]]\nprefix = "{name}"\nlocation = "{place}"\ninsecure = true\n'
                for name, place in places.items()
            )
        )
        return {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "GIT_CONFIG_GLOBAL": str(config),
            "GIT_CONFIG_NOSYSTEM": "1",
            "PIP_CACHE_DIR": str(CACHE / "pip"),
            "STANDIN_PROGRAMS": str(programs),
            "STANDIN_REGISTRIES": str(registries),
            "STANDIN_REGISTRY": self._registry.address,
            "STANDIN_USER": ACTOR,
            "STANDIN_PACKAGES": sys.prefix,
            "STANDIN_RELEASES": str(self.folder / "releases"),
            "STANDIN_RUNS": str(self.folder / "runs.json"),
            "STANDIN_STORAGE": str(self.folder / "storage"),
        }


def _load(file: Path) -> dict[str, Any]:
    """Return a workflow; YAML 1.1 reads its key `on` as True."""
    content: dict[Any, Any] = yaml.safe_load(file.read_text())
    return {"on" if key is True else key: value for key, value in content.items()}


def _put_in_place(job: dict[str, Any], called: Mapping[str, Any]) -> None:
    """Make a job that calls a workflow of one job into that one, its inputs put in."""
    ((_, own),) = called["jobs"].items()
    text = json.dumps({key: own[key] for key in ("runs-on", "strategy", "steps")})
    for name, value in job.pop("with").items():
        expression = value.removeprefix("${{").removesuffix("}}").strip()
        text = text.replace(f"inputs.{name}", f"({expression})")
    job.update(json.loads(text))


def _stand_ins() -> list[str]:
    """Return the options that replace each action of the workflows; each must have its stand-in."""
    used = {
        match
        for file in (CHECKOUT / ".github/workflows").glob("*.yml")
        for match in _USES.findall(file.read_text())
    }
    return [
        f"--local-repository={reference}={_RUNNER / 'actions' / name}"
        for reference, name in sorted(used)
    ]


def _meets(text: str, patterns: Sequence[str]) -> bool:
    """Whether a name meets a filter: the last pattern that fits decides, `!` in front refuses.

    Source: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax,
    "Filter pattern cheat sheet".
    """
    met = False
    for pattern in patterns:
        parts = re.split(r"(\*\*|\*)", pattern.removeprefix("!"))
        texts = {"**": ".*", "*": "[^/]*"}
        if re.fullmatch("".join(texts.get(part, re.escape(part)) for part in parts), text):
            met = not pattern.startswith("!")
    return met


def _finished(done: subprocess.CompletedProcess[str], folder: Path) -> Run:
    jobs: dict[str, str] = {}
    log: list[str] = []
    for line in done.stdout.splitlines():
        entry: dict[str, Any] = json.loads(line) if line.startswith("{") else {"msg": line}
        matrix: Mapping[str, Any] = entry.get("matrix") or {}
        image = matrix.get("image")
        name = image["name"] if image else entry.get("jobID", "")
        if entry.get("stepResult") == "failure":
            jobs[name] = "failure"
        elif result := entry.get("jobResult"):
            # One image's failure is told as the result of every job of the matrix that ends later.
            jobs.setdefault(name, "success" if image else result)
        if "arg" in entry:
            log.append(f"::{entry['command']}::{entry['arg']}")
        log.append(entry.get("content", entry["msg"]).rstrip("\n"))
    built, signed = folder / "built", folder / "signed"
    return Run(
        ok=done.returncode == 0,
        jobs=jobs,
        log="\n".join(log) + done.stderr,
        built=[json.loads(line) for line in built.read_text().splitlines()]
        if built.exists()
        else [],
        signed=signed.read_text().splitlines() if signed.exists() else [],
    )
