"""`syncd run` as a process of its own, spoken to as the world does: HTTP, signals, files.

Nothing of the package is imported here: what these tests know of syncd is what an administrator
and GitHub know.  The deliveries are made from `tests/data/github/`, cut down from GitHub's own
examples (https://docs.github.com/en/webhooks/webhook-events-and-payloads#package).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

from tests.e2e.command import CHECKOUT, CommandError, free_port, stop, wait_for

SYNCD = Path(sys.executable).with_name("syncd")
PACKAGE_EVENT = CHECKOUT / "tests" / "data" / "github" / "package.published.container.json"
WEBHOOK_SECRET = "a secret between GitHub and us"
API_TOKEN = "token-of-the-api"
STOPS_WITHIN = 20

Job = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What the daemon answered over HTTP."""

    status: int
    body: dict[str, Any]


def package_event(reference: str) -> bytes:
    """Return the body that GitHub sends when the image `reference` was pushed."""
    name, tag = reference.rsplit(":", 1)
    _, owner, image = name.split("/", 2)
    event = json.loads(PACKAGE_EVENT.read_bytes())
    event["package"] |= {"name": image, "namespace": owner}
    event["package"]["package_version"]["package_url"] = reference
    event["package"]["package_version"]["container_metadata"]["tag"]["name"] = tag
    return json.dumps(event).encode()


class Client:
    """Speaks HTTP to a daemon on a port of loopback, as GitHub and the API's users do."""

    def __init__(self, port: int, webhook_secret: str, api_token: str) -> None:
        self.port = port
        self._webhook_secret = webhook_secret
        self._api_token = api_token

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}
    ) -> Answer:
        """Send one HTTP request and return what was answered, whatever the status."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", body, dict(headers), method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return Answer(response.status, json.loads(response.read()))
        except urllib.error.HTTPError as refusal:
            with refusal:
                return Answer(refusal.code, json.loads(refusal.read()))

    def deliver(self, body: bytes, secret: str | None = None, delivery: str = "") -> Answer:
        """Post a `package` event with the headers that GitHub sends, signed with `secret`.

        Without one it is the daemon's.  Every delivery has an id of its own, unless `delivery`
        says which.
        """
        key = self._webhook_secret if secret is None else secret
        signature = hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "GitHub-Hookshot/0123456",
            "X-GitHub-Event": "package",
            "X-GitHub-Delivery": delivery or str(uuid4()),
            "X-Hub-Signature-256": f"sha256={signature}",
        }
        return self.ask("POST", "/webhooks/github", body, headers)

    def push_event(self, reference: str) -> str:
        """Tell the daemon as GitHub does that `reference` was pushed; return its one job's id."""
        answer = self.deliver(package_event(reference))
        if answer.status != 202 or len(answer.body.get("jobs", [])) != 1:
            raise CommandError(f"the delivery for {reference} got {answer}")
        job: str = answer.body["jobs"][0]
        return job

    def request_sync(self, references: Sequence[str]) -> Answer:
        """Ask the API, with its token, to sync `references`."""
        body = json.dumps({"refs": list(references)}).encode()
        headers = {"Content-Type": "application/json", **self.bearer}
        return self.ask("POST", "/api/v1/sync", body, headers)

    def job(self, job: str) -> Job:
        """Return one job as the API tells it."""
        answer = self.ask("GET", f"/api/v1/jobs/{job}", headers=self.bearer)
        if answer.status != 200:
            raise CommandError(f"job {job} got {answer}")
        return answer.body

    def jobs(self) -> list[Job]:
        """Return the newest jobs as the API tells them."""
        found: list[Job] = self.ask("GET", "/api/v1/jobs", headers=self.bearer).body["jobs"]
        return found

    def finished(self, job: str, timeout: float = 120) -> Job:
        """Return a job once it is done, whatever its outcome."""
        reference = self.job(job)["reference"]

        def done() -> Job | None:
            found = self.job(job)
            return found if found["state"] == "done" else None

        return wait_for(f"the end of job {job} about {reference}", done, timeout)

    def sync(self, reference: str, timeout: float = 120) -> Job:
        """Announce a push of `reference` and return its job once that is done."""
        return self.finished(self.push_event(reference), timeout)

    def metrics(self) -> str:
        """Return the metrics in Prometheus' text format."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    @property
    def bearer(self) -> dict[str, str]:
        """The header of who may use the API."""
        return {"Authorization": f"Bearer {self._api_token}"}


class Syncd(Client):
    """The daemon with a configuration in `folder`, running while the context is open.

    It watches `images` (`HOST:PORT/OWNER/NAME:TAG`) of one registry on loopback, brings any other
    that the API asks for, and publishes to a directory target; it does nothing on its own schedule.
    With `user` it gives `password` to the registry, which has `mirrors`.  `within` is a command
    that the daemon is started by, `server` are lines of that table, and `more` are lines at the end
    of its configuration.  It knows the registries `hosts`, too.
    """

    def __init__(
        self,
        folder: Path,
        images: Sequence[str],
        user: str = "",
        password: str = "",
        storage: Path | None = None,
        *,
        within: Sequence[str] = (),
        mirrors: Sequence[str] = (),
        server: Sequence[str] = (),
        hosts: Sequence[str] = (),
        more: Sequence[str] = (),
    ) -> None:
        super().__init__(free_port(), WEBHOOK_SECRET, API_TOKEN)
        self.folder = folder
        self.storage = storage or folder / "storage"
        self.cache = folder / "state" / "cache"
        self.spool = folder / "state" / "spool"
        self.log = folder / "syncd.log"
        self.config = folder / "syncd.toml"
        self._process: subprocess.Popen[bytes] | None = None
        self._within = within
        self._watched = len(set(images))
        folder.mkdir(parents=True)
        self.storage.mkdir(exist_ok=True)
        for name, secret in [
            ("webhook-secret", WEBHOOK_SECRET),
            ("api-token", API_TOKEN),
            ("registry-password", password),
        ]:
            (folder / name).write_text(f"{secret}\n")
            (folder / name).chmod(0o600)
        lines = self._settings(images, user, mirrors)
        at = lines.index("[state]")
        lines[at:at] = server
        for host in hosts:
            lines += ["[[registry]]", f'host = "{host}"', "plain_http = true"]
        self.config.write_text("\n".join([*lines, *more, ""]))

    def __enter__(self) -> Syncd:
        self.start()
        # A daemon that starts for the first time looks at everything it watches.
        wait_for("the end of the first jobs", self._began, timeout=120)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, AssertionError):
            error.add_note(self.log.read_text(errors="replace")[-8000:])
        if self._process is not None:
            self.stop()

    @property
    def pid(self) -> int:
        """The process id of the daemon that runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def templates(self) -> list[Path]:
        """What stands where Proxmox VE lists templates, hidden names included."""
        return sorted((self.storage / "template" / "cache").glob("*"))

    def start(self) -> None:
        """Start `syncd run`; returns once `/readyz` says yes."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._within, SYNCD, "--config", self.config, "run"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_for("/readyz", self._ready, timeout=30)

    def stop(self) -> None:
        """Send SIGTERM; the daemon must end by itself, cleanly and in time."""
        assert self._process is not None
        process, self._process = self._process, None
        status = stop(process, STOPS_WITHIN)
        if status:
            raise CommandError(f"syncd run ended with {status} on SIGTERM\n{self.log.read_text()}")

    def kill(self) -> None:
        """End the daemon as a power cut does: SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the daemon."""
        assert self._process is not None
        self._process.send_signal(number)

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run another command of syncd with the daemon's configuration."""
        return subprocess.run(
            [SYNCD, "--config", self.config, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def _began(self) -> bool:
        """Tell whether what is watched was looked at once."""
        jobs = self.jobs()
        return len(jobs) >= self._watched and all(job["state"] == "done" for job in jobs)

    def _ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise CommandError(f"syncd run ended at once:\n{self.log.read_text()}")
        try:
            url = f"http://127.0.0.1:{self.port}/readyz"
            with urllib.request.urlopen(url, timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def _settings(self, images: Sequence[str], user: str, mirrors: Sequence[str]) -> list[str]:
        host = images[0].split("/")[0]
        password = f'password_file = "{self.folder}/registry-password"'
        login = [f'username = "{user}"', password] if user else []
        lines = [
            "[server]",
            f'listen = "127.0.0.1:{self.port}"',
            f'webhook_secret_file = "{self.folder}/webhook-secret"',
            f'api_token_file = "{self.folder}/api-token"',
            'on_demand = ["*/**"]',
            "[state]",
            f'directory = "{self.folder}/state"',
            'reserve = "1MiB"',
            "[schedule]",
            'sweep = "off"',
            "[[registry]]",
            f'host = "{host}"',
            "plain_http = true",
            *login,
            f"mirrors = {json.dumps([*mirrors])}",
            "[[target]]",
            'name = "local"',
            'type = "directory"',
            f'path = "{self.storage}"',
            'reserve = "0B"',  # the disks of some tests are small
        ]
        for image in images:
            repository, tag = image.rsplit(":", 1)
            lines += [
                "[[image]]",
                f'repository = "{repository}"',
                f'tags = ["{tag}"]',
                'format = "rootfs"',
            ]
        return lines
