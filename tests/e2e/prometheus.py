"""Debian's Prometheus on loopback, which scrapes one daemon by the rules that syncd ships."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.e2e.command import free_port, stop, wait_for

CONFIG = """\
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: [{rules}]
scrape_configs:
  - job_name: syncd
    static_configs: [targets: ["127.0.0.1:{port}"]]
"""


class Prometheus:
    """A Prometheus that scrapes the daemon on `port` while the context is open."""

    def __init__(self, folder: Path, port: int, rules: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._address = f"127.0.0.1:{free_port()}"
        (folder / "prometheus.yml").write_text(CONFIG.format(rules=rules, port=port))
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Prometheus:
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={self._folder}/prometheus.yml",
                    f"--storage.tsdb.path={self._folder}/data",
                    f"--web.listen-address={self._address}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_for("a scrape", self._scraped, timeout=60)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stop(self._process)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an expression now, labels as `metric` and number as `value`."""
        found: list[dict[str, Any]] = self._ask("query", query=expression)["result"]
        return found

    def value(self, expression: str) -> float | None:
        """Return the number of the only series of an expression, or None where there is none."""
        found = self.query(expression)
        assert len(found) < 2, found
        return float(found[0]["value"][1]) if found else None

    def rules(self) -> list[dict[str, Any]]:
        """Return the rules, with `health` and `state` as they are now."""
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def _scraped(self) -> bool:
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            return self.value('up{job="syncd"}') == 1
        except OSError:
            return False

    def _ask(self, path: str, **query: str) -> dict[str, Any]:
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            data: dict[str, Any] = json.load(answer)["data"]
        return data
