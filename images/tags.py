"""Under which tags the images of an event are pushed, so that no two refs fight over one.

A tag of an image belongs to one branch, git tag or pull request, or it is `latest`.  Two names
never become one tag: `a/b` is `a--b`, since `a-b` may be a branch as well.  Whatever could take
another's says what it is: `branch-v1`, `tag-main`.  Decisions alone: nothing is read here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

MAIN = "main"
"""The branch whose images are `latest`, unless releases are."""

RELEASE = "release"
"""The event whose images are `latest` where the setting says so."""

_NO_COMMIT = "0" * 40
_LONGEST_TAG = 128
_MADE = re.compile(r"(branch|tag)-.*|.*--[0-9a-f]{8}", re.DOTALL)
_OTHERS = re.compile(r"[0-9a-f]{40}|pr-[0-9]+|sha256-[0-9a-f]{64}(\..*)?")
_VERSION = re.compile(r"v[0-9]+(\.[0-9]+)*([-+].*)?|[0-9]+(\.[0-9]+)+([-+].*)?")


@dataclass(frozen=True)
class Event:
    """What started the workflow, in the words of GitHub's contexts.

    `before` holds the commits that the branch may have been built from, or the pull request's base:
    zeros when there is none, the word unknown when nobody could be asked.  `image` is the one that
    was asked for by hand, if one was; `base` the branch that a pull request is for; `latest_from`
    is MAIN or RELEASE, and `pushes` whether the run may push.
    """

    name: str
    ref: str
    sha: str
    before: Sequence[str] = ()
    image: str = ""
    base: str = ""
    latest_from: str = MAIN
    pushes: bool = True

    @property
    def branch(self) -> str:
        """The branch's name, or nothing."""
        return self._below("refs/heads/")

    @property
    def tag(self) -> str:
        """The git tag's name, or nothing."""
        return self._below("refs/tags/")

    @property
    def pull(self) -> str:
        """The pull request's number, or nothing."""
        return self._below("refs/pull/").partition("/")[0]

    @property
    def is_first(self) -> bool:
        """Whether a push is to a branch from which nothing has been built."""
        return not self.before or _NO_COMMIT in self.before

    @property
    def is_latest(self) -> bool:
        """Whether what the event builds is `latest`."""
        if self.latest_from == RELEASE:
            return self.name == RELEASE
        return self.branch == MAIN

    def _below(self, prefix: str) -> str:
        return self.ref.removeprefix(prefix) if self.ref.startswith(prefix) else ""


def tags(event: Event, git_tags: Collection[str]) -> list[str]:
    """Return the tags that an image built for the event gets.

    The commit's is first, but a pull request's images have `pr-NUMBER` alone: their commit is one
    that GitHub made to try the merge.  `git_tags` are the names of the repository's git tags.
    """
    if event.pull:
        return [f"pr-{event.pull}"]
    found = [event.sha]
    if event.branch:
        found.append(_of_branch(event.branch, git_tags))
    if event.tag:
        found.append(_valid("tag", event.tag))
    if event.is_latest:
        found.append("latest")
    return found


def earlier(event: Event, git_tags: Collection[str]) -> list[str]:
    """Return the tags of the builds to take where the event itself builds none, best first."""
    own = [_of_branch(event.base, git_tags)] if event.base else tags(event, git_tags)[1:]
    return list(dict.fromkeys([*own, "latest"]))


def _of_branch(name: str, git_tags: Collection[str]) -> str:
    """Return a branch's tag; it yields to a git tag's, and to a version's before there is one."""
    valid = _valid("branch", name)
    if _VERSION.fullmatch(valid) or valid in {_valid("tag", tag) for tag in git_tags}:
        return f"branch-{valid}"
    return valid


def _valid(kind: str, name: str) -> str:
    """Turn the name of a branch or tag into a tag as the distribution specification wants it.

    `/` becomes `--`.  Where the name cannot be read back from that, a piece of the name's digest
    makes up for it: where something else must change (`v1+a` and `v1@a` are two names), where there
    is a `--` already, and where a name looks like what this function makes of another one.  What
    would take another ref's tag says what it is: a branch called `latest`, a tag called `main`,
    anything that looks like a commit, like a pull request's, or like a signature's (cosign's
    `sha256-DIGEST.sig`, the specification's `sha256-DIGEST` for referrers).

    Grammar: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests
    """
    plain = name.replace("/", "--")
    valid = re.sub(r"[^A-Za-z0-9_.-]", "-", plain)
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    returns = valid.replace("--", "/") == name and not _MADE.fullmatch(valid)
    if not returns or len(valid) > _LONGEST_TAG - len("branch-"):
        valid = f"{valid[: _LONGEST_TAG - len('branch---') - len(digest)]}--{digest}"
    taken = valid == "latest" or (valid == MAIN and (kind, name) != ("branch", MAIN))
    if taken or _OTHERS.fullmatch(valid) or valid[0] in ".-":
        valid = f"{kind}-{valid}"
    return valid
