"""What people do to a repository with images, in order, and what the workflow must make of it.

The images are tiny: `base`, `lib` on it, `app` on that and on `tool`, `site` on `app`; each names
what it builds on in another of the ways that there are.  An event goes on where the one before
ended, and returns the run that it started, or None.  `EVENTS` is the table: the jobs of each event
by image, and the tags that those whose job succeeded get.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from tests.e2e.github import GitHub, Run

NAME, PLACE = "Acme/Images", "ghcr.io/acme/images"
DOCKERFILES = {
    "base": "FROM scratch\nCOPY file /base\n",
    "tool": "# context: ../../shared\nFROM scratch\nCOPY note /note\n",
    "lib": "FROM localhost/base\nCOPY file /lib\n",
    "app": f"ARG LIB={PLACE}/lib:latest\nFROM ${{LIB}}\n"
    "COPY --from=localhost/tool /note /tool\nCOPY file /app\n",
    "site": f"FROM {PLACE}/app:latest\nCOPY file /site\n",
}
ON_LIB = ("lib", "app", "site")
ALL = ("base", "tool", *ON_LIB)
BROKEN = "COPY nothing-is-called-so /\n"
FINDINGS = ("CVE-2026-1", "CVE-2026-2")
COMMIT = "COMMIT"
MAIN = (COMMIT, "main", "latest")
HOSTILE = {
    "$(touch${IFS}owned)": "branch---touch--IFS-owned---28a0e61a",
    "'\";|&<>#%!`id`": "branch------------id---a87a64f6",
    "é/-dash": "branch-----dash--bc8c649d",
    "latest": "branch-latest",
    "pr-7": "branch-pr-7",
    "x" * 130 + "/" + "y" * 130: "x" * 111 + "--977f6cc1",
}

Event = Callable[[GitHub], Run | None]
_editions = count()


@dataclass(frozen=True)
class Row:
    """An event, the images whose jobs it starts, those that fail, and the tags of the others.

    `pushes` is false where the jobs only try; `ok` is whether the run ends well.
    """

    event: Event
    images: Sequence[str] = ()
    tags: Sequence[str] = ()
    failing: Sequence[str] = ()
    pushes: bool = True
    ok: bool = True

    @property
    def name(self) -> str:
        return self.event.__name__

    @property
    def jobs(self) -> Mapping[str, str]:
        """How the job of each image ends."""
        return {one: "failure" if one in self.failing else "success" for one in self.images}


def change(github: GitHub, *names: str, more: str = "") -> None:
    """Commit images that differ from all that they were; `more` ends their Dockerfiles."""
    for name in names:
        title = f'LABEL org.opencontainers.image.title="{name}"\n'
        github.write(f"images/{name}/Dockerfile", DOCKERFILES[name] + title + more)
        file = "shared/note" if name == "tool" else f"images/{name}/file"
        github.write(file, f"edition {next(_editions)}\n")
    github.commit()


def first_push(github: GitHub) -> Run | None:
    change(github, *ALL)
    return github.push("main")


def one_image(github: GitHub) -> Run | None:
    change(github, "app")
    return github.push("main")


def nothing_of_an_image(github: GitHub) -> Run | None:
    github.write("README.md", "Read me.\n")
    github.commit()
    return github.push("main")


def the_context_of_one(github: GitHub) -> Run | None:
    github.write("shared/note", "Another one.\n")
    github.commit()
    return github.push("main")


def new_branch(github: GitHub) -> Run | None:
    github.git("checkout", "--quiet", "-b", "feature/login")
    change(github, "lib")
    return github.push("feature/login")


def push_to_a_branch(github: GitHub) -> Run | None:
    change(github, "site")
    return github.push("feature/login")


def merge(github: GitHub) -> Run | None:
    github.git("checkout", "--quiet", "main")
    github.git("merge", "--quiet", "--no-ff", "--message=Merge", "feature/login")
    return github.push("main")


def force_push(github: GitHub) -> Run | None:
    github.git("checkout", "--quiet", "feature/login")
    github.git("reset", "--quiet", "--hard", "HEAD~1")
    change(github, "app")
    return github.push("feature/login", force=True)


def deleted_branch(github: GitHub) -> Run | None:
    github.git("checkout", "--quiet", "main")
    github.delete("feature/login")
    return None


def branch_of_dependabot(github: GitHub) -> Run | None:
    return github.push("dependabot/docker/debian")


def branch_with_a_slash(github: GitHub) -> Run | None:
    return github.dispatch("a/b", image="base")


def branch_with_a_dash(github: GitHub) -> Run | None:
    return github.dispatch("a-b", image="base")


def git_tag(github: GitHub) -> Run | None:
    return github.push_tag("v1")


def branch_called_like_a_tag(github: GitHub) -> Run | None:
    return github.dispatch("v1", image="base")


def one_by_hand(github: GitHub) -> Run | None:
    github.commit()
    return github.dispatch("main", image="site")


def all_by_hand(github: GitHub) -> Run | None:
    github.commit()
    return github.dispatch("main", fresh=True)


def sunday(github: GitHub) -> Run | None:
    return github.schedule()


def release(github: GitHub) -> Run | None:
    return github.release("v1")


def latest_is_released(github: GitHub) -> Run | None:
    github.vars["LATEST_FROM"] = "release"
    return github.release("v1")


def main_where_latest_is_released(github: GitHub) -> Run | None:
    change(github, "site")
    run = github.push("main")
    github.vars.clear()
    return run


def pull_request(github: GitHub) -> Run | None:
    github.git("checkout", "--quiet", "--detach")
    change(github, "lib")
    return github.pull_request(7, NAME)


def pull_request_of_a_fork(github: GitHub) -> Run | None:
    github.git("checkout", "--quiet", "--detach", "main")
    change(github, "lib")
    return github.pull_request(8, "somebody/images", actor="somebody")


def pull_request_of_dependabot(github: GitHub) -> Run | None:
    github.git("checkout", "--quiet", "--detach", "main")
    change(github, "app")
    return github.pull_request(9, NAME, actor="dependabot[bot]")


def level_0_fails(github: GitHub) -> Run | None:
    github.git("checkout", "--quiet", "main")
    change(github, "base", more=BROKEN)
    change(github, "tool")
    return github.push("main")


def level_1_fails(github: GitHub) -> Run | None:
    change(github, "base")
    change(github, "lib", more=BROKEN)
    return github.push("main")


def level_2_fails(github: GitHub) -> Run | None:
    change(github, "lib")
    change(github, "app", more=BROKEN)
    return github.push("main")


def level_3_fails(github: GitHub) -> Run | None:
    change(github, "app")
    change(github, "site", more=BROKEN)
    return github.push("main")


def mended(github: GitHub) -> Run | None:
    change(github, "site")
    return github.push("main")


def older_run_again(github: GitHub) -> Run | None:
    github.git("checkout", "--quiet", "--detach", "HEAD~1")
    run = github.run_again("main")
    github.git("checkout", "--quiet", "main")
    return run


def newest_run_again(github: GitHub) -> Run | None:
    return github.run_again("main")


def finding_that_warns(github: GitHub) -> Run | None:
    change(github, "site", more=f'LABEL e2e.finding="{FINDINGS[0]} openssl"\n')
    return github.push("main")


def finding_that_blocks(github: GitHub) -> Run | None:
    entry = f'vulnerability = "{FINDINGS[1]}"\npackage = "openssl"\nfrom = 2020-01-01\n'
    github.write("images/findings.toml", f"[[block]]\n{entry}")
    change(github, "site", more=f'LABEL e2e.finding="{FINDINGS[1]} openssl"\n')
    return github.push("main")


def nobody_knows_what_was_built(github: GitHub) -> Run | None:
    change(github, "site")
    github.api_answers(False)
    run = github.push("main")
    github.api_answers(True)
    return run


def parent_that_cannot_be_seen(github: GitHub) -> Run | None:
    github.git("checkout", "--quiet", "-b", "refused")
    github.write("images/lib/Dockerfile", "FROM base\n")
    github.commit()
    return github.push("refused")


def deleted_image(github: GitHub) -> Run | None:
    github.git("checkout", "--quiet", "main")
    github.git("rm", "--quiet", "-r", "images/site")
    github.commit()
    return github.push("main")


def whole_repository(github: GitHub) -> Run | None:
    text = "# context: ../..\nFROM scratch\nCOPY .git /git\n"
    github.write("images/described/Dockerfile", text)
    github.write("images/described/Dockerfile.dockerignore", "*\n!.git\n")
    github.commit()
    return github.dispatch("main", image="described")


def _hostile(branch: str) -> Event:
    def hostile(github: GitHub) -> Run | None:
        return github.dispatch(branch, image="base")

    hostile.__name__ = f"branch_{branch[:12]}"
    return hostile


EVENTS = [
    Row(first_push, ALL, MAIN),
    Row(one_image, ["app", "site"], MAIN),
    Row(nothing_of_an_image),
    Row(the_context_of_one, ["tool", "app", "site"], MAIN),
    Row(new_branch, ALL, [COMMIT, "feature--login"]),
    Row(push_to_a_branch, ["site"], [COMMIT, "feature--login"]),
    Row(merge, ON_LIB, MAIN),
    Row(force_push, ["app", "site"], [COMMIT, "feature--login"]),
    Row(deleted_branch),
    Row(branch_of_dependabot),
    Row(branch_with_a_slash, ["base"], [COMMIT, "a--b"]),
    Row(branch_with_a_dash, ["base"], [COMMIT, "a-b"]),
    Row(git_tag, ALL, [COMMIT, "v1"]),
    Row(branch_called_like_a_tag, ["base"], [COMMIT, "branch-v1"]),
    Row(one_by_hand, ["site"], MAIN),
    Row(all_by_hand, ALL, MAIN),
    Row(sunday, ALL, MAIN),
    Row(release),
    Row(latest_is_released, ALL, [COMMIT, "v1", "latest"]),
    Row(main_where_latest_is_released, ["site"], [COMMIT, "main"]),
    Row(pull_request, ON_LIB, ["pr-7"]),
    Row(pull_request_of_a_fork, ["lib"], pushes=False),
    Row(pull_request_of_dependabot, ["app"], pushes=False),
    Row(level_0_fails, ALL, MAIN, failing=["base", *ON_LIB], ok=False),
    Row(level_1_fails, ALL, MAIN, failing=ON_LIB, ok=False),
    Row(level_2_fails, ALL, MAIN, failing=["app", "site"], ok=False),
    Row(level_3_fails, ALL, MAIN, failing=["site"], ok=False),
    Row(mended, ALL, MAIN),
    Row(older_run_again, ["site"], failing=["site"], ok=False),
    Row(newest_run_again, ["site"], MAIN),
    Row(finding_that_warns, ["site"], MAIN),
    Row(finding_that_blocks, ["site"], MAIN, failing=["site"], ok=False),
    Row(nobody_knows_what_was_built, ALL, MAIN),
    Row(parent_that_cannot_be_seen, ok=False),
    Row(deleted_image),
    Row(whole_repository, ["described"], MAIN),
    *(Row(_hostile(branch), ["base"], [COMMIT, tag]) for branch, tag in HOSTILE.items()),
]
