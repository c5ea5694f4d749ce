"""What `syncd check` finds out about signatures: who has to sign, and whether they did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from syncd.config import Config
from syncd.errors import SyncdError
from syncd.oci import Platform, Reference, Repository, read_image
from syncd.targets import CheckResult
from syncd.trust import Judge, Policy, Subject, Voucher

_NOBODY = "there is no [image.verify]: whoever may push decides what becomes a template"


def signature_results(
    config: Config, open_repository: Callable[[Config, Reference], Repository]
) -> Iterator[CheckResult]:
    """Look at each watched image: at its policy, and at the tags that are given by name.

    An image without a policy is told, and is no fault.
    """
    judge = Judge(config.state.paths.trust)
    for image in config.image:
        subject, policy = f"signatures of {image.repository}", image.policy
        if policy is None:
            yield CheckResult(True, subject, _NOBODY)
            continue
        try:
            judge.prepare(policy)
        except SyncdError as exc:
            yield CheckResult(False, subject, str(exc))
            continue
        yield CheckResult(True, subject, f"wanted: {policy}")
        for tag in image.fixed_tags:
            reference = image.reference.with_tag(tag)
            repository = open_repository(config, reference)
            yield _tag(judge, policy, image.platforms, reference, repository)


def _tag(
    judge: Judge,
    policy: Policy,
    platforms: Sequence[Platform],
    reference: Reference,
    repository: Repository,
) -> CheckResult:
    subject = f"signatures of {reference}"
    try:
        top = repository.resolve(reference)
        vouchers: dict[Voucher, None] = {}
        for platform in platforms:
            found = read_image(repository, top, platform)
            digests = tuple(dict.fromkeys((found.digest, found.manifest_digest)))
            vouchers |= dict.fromkeys(
                judge.require(Subject(reference, repository, digests), policy)
            )
    except SyncdError as exc:
        return CheckResult(False, subject, str(exc))
    return CheckResult(True, subject, "; ".join(map(str, vouchers)))
