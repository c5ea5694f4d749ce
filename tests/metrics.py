"""What an exposition says, read as Prometheus reads it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.harness import Harness

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Scrape:
    """The samples of one exposition in Prometheus' text format."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.series: Series = {}
        for family in self.families.values():
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self.series, f"{key} is there twice"
                self.series[key] = sample.value

    def __call__(self, name: str, **labels: str) -> float:
        """Return the value of the series with exactly these labels."""
        return self.series[name, frozenset(labels.items())]

    def has(self, name: str, **labels: str) -> bool:
        """Tell whether there is a series with exactly these labels."""
        return (name, frozenset(labels.items())) in self.series

    @property
    def names(self) -> set[str]:
        """What an expression may name: every family and every sample, those without samples too."""
        names = {sample for sample, _ in self.series} | set(self.families)
        return names | {f"{f.name}_total" for f in self.families.values() if f.type == "counter"}

    def counters(self) -> Series:
        """Return the series that never go back."""
        monotonic = ("counter", "histogram")
        names = {
            sample.name
            for family in self.families.values()
            if family.type in monotonic and not family.name.startswith("process_")
            for sample in family.samples
        }
        return {key: value for key, value in self.series.items() if key[0] in names}


async def scrape(harness: Harness) -> Scrape:
    """Ask a daemon for its metrics."""
    answer = await harness.ask("GET", "/metrics", token=None)
    assert answer.status == 200
    return Scrape(await answer.text())
