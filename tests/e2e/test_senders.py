"""Senders that are not GitHub: Debian's docker-registry, and the script of docs/senders.md."""

from __future__ import annotations

from pathlib import Path

from tests.documents import blocks
from tests.e2e.command import attempt, run, wait_for
from tests.e2e.daemon import Job, Syncd
from tests.e2e.registry import Registry
from tests.harness import sample

SECRET = "0a9f-the-secret-of-a-sender"
REPOSITORY = "acme/bell"


def listening(folder: Path, registry: Registry, sender: str) -> Syncd:
    """Return a daemon that a sender of this type may call."""
    table = ["[[sender]]", f'type = "{sender}"', f'secret_file = "{folder}/{sender}-secret"']
    folder.mkdir(parents=True)
    (folder / f"{sender}-secret").write_text(f"{SECRET}\n")
    (folder / f"{sender}-secret").chmod(0o600)
    reference = f"{registry.address}/{REPOSITORY}:latest"
    return Syncd(folder / "syncd", [reference], more=table)


def published(daemon: Syncd, templates: int) -> list[Job]:
    """Wait until so many templates are there; return the ended jobs that deliveries made."""
    wait_for(f"{templates} templates", lambda: len(daemon.templates) == templates, timeout=60)
    made = [job for job in daemon.jobs() if job["cause"] == "webhook"]
    jobs = [job for job in made if job["reference"].endswith(REPOSITORY)]  # not those of its tags
    return [daemon.finished(job["id"]) for job in jobs]


def deliveries(daemon: Syncd, result: str) -> int:
    """Return how many deliveries had a result."""
    after = daemon.metrics().partition(f'syncd_deliveries_total{{result="{result}"}} ')[2]
    return int(float(after.partition("\n")[0]))


def test_docker_registry(tmp_path: Path) -> None:
    """A push to Debian's docker-registry rings by itself, also one that came while syncd was down.

    What the daemon then pulls, and the layers of a push, are told as well, and make no jobs.
    """
    registry = Registry(tmp_path / "registry")
    daemon = listening(tmp_path / "house", registry, "distribution")
    url = f"http://127.0.0.1:{daemon.port}/webhooks/distribution"
    registry.notify(url, f"Bearer {SECRET}")
    with registry, daemon:
        registry.push(REPOSITORY, "latest", sample("one"))
        assert len(published(daemon, 1)) == 1
        assert deliveries(daemon, "accepted") == 1
        wait_for("the layers' events", lambda: deliveries(daemon, "ignored") >= 3, timeout=30)
        assert deliveries(daemon, "refused") == 0
        daemon.stop()
        registry.push(REPOSITORY, "latest", sample("two"))
        daemon.start()
        assert len(published(daemon, 2)) == 2
    assert SECRET not in daemon.log.read_text()


def test_a_wrong_secret(tmp_path: Path) -> None:
    """A registry that has another secret is refused, told in the log, and syncd goes on."""
    registry = Registry(tmp_path / "registry")
    daemon = listening(tmp_path / "house", registry, "distribution")
    url = f"http://127.0.0.1:{daemon.port}/webhooks/distribution"
    registry.notify(url, "Bearer another-secret")
    with registry, daemon:
        registry.push(REPOSITORY, "latest", sample("one"))
        wait_for("a refusal", lambda: deliveries(daemon, "refused") >= 1, timeout=30)
        assert daemon.templates == []
        assert "wrong token" in daemon.log.read_text()
        assert "another-secret" not in daemon.log.read_text()


def test_the_script_of_the_page(tmp_path: Path) -> None:
    """The script that the page shows is let in, and with another secret it is not."""
    registry = Registry(tmp_path / "registry")
    daemon = listening(tmp_path / "house", registry, "generic")
    (script,) = [each.text for each in blocks("sh") if "X-Syncd-Signature" in each.text]
    for shown, here in (
        ("/etc/syncd/generic-secret", f"{tmp_path}/house/generic-secret"),
        ("registry.example.org/team/app", f"{registry.address}/{REPOSITORY}"),
        ("https://YOUR-HOST", f"http://127.0.0.1:{daemon.port}"),
    ):
        assert shown in script
        script = script.replace(shown, here)
    with registry, daemon:
        registry.push(REPOSITORY, "latest", sample("one"))
        assert '"jobs"' in run("sh", "-euc", script)
        assert len(published(daemon, 1)) == 1
        wrong = script.replace("secret=$(cat ", "secret=x$(cat ")
        refused = attempt("sh", "-euc", wrong)
        assert refused.returncode != 0
        assert "401" in refused.stderr
