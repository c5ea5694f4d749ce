"""What the status page promises to a reader without a script: all of it, failures first."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from syncd.sync.conditions import Failed, Gone, Lack, Place
from syncd.sync.job import Cause, Outcome, Result, SyncJob
from syncd.sync.job_log import LogLine
from syncd.web import overview
from tests.fakes.registry import Registry
from tests.harness import Harness, sample
from tests.web.scenes import DENIED, HOUSE, harness_of, run, stage


async def shown(harness: Harness, path: str = "/") -> str:
    """Return the page, without its style and its script."""
    answer = await harness.ask("GET", path, token=None)
    assert answer.status == 200
    assert answer.content_type == "text/html"
    page = await answer.text()
    return re.sub("<(style|script)>.*?</(style|script)>", "", page, flags=re.DOTALL)


def words(page: str) -> str:
    """Return the words of a page as a reader sees them, one space between two."""
    parted = re.sub("</(p|li|h[1-6]|td|th|summary|dt|dd|span)>", " ", page)
    return " ".join(re.sub("<[^>]*>", "", parted).split())


def section(page: str, key: str) -> str:
    """Return what stands in a section of the page."""
    return re.split(rf'<(?:section|div) id="{key}"[^>]*>', page)[1].split("</main>")[0]


async def test_nothing_watched(tmp_path: Path, registry: Registry) -> None:
    """A page of a daemon that watches nothing says what to do."""
    async with Harness(tmp_path, registry) as harness:
        harness.configure(image=())
        page = await shown(harness)
    assert '<h2 class="none">Nothing is watched yet</h2>' in page
    assert "[[image]]" in page
    assert "syncd init" in page
    assert "No job has ended yet" in page


async def test_not_looked_at(tmp_path: Path, registry: Registry) -> None:
    """A tag that nobody looked at yet is listed as that, with the target that lacks it."""
    async with Harness(tmp_path, registry) as harness:
        told = words(await shown(harness))
    assert "1 of 1 watched tag not looked at yet" in told
    assert "latest unknown – – – local" in told


async def test_published(tmp_path: Path, registry: Registry) -> None:
    """A tag that was brought up to date is shown with digest, age, target and volume."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(harness.repository.repository, "latest", sample())
        outcome = await harness.bring()
        page = await shown(harness)
    digest = str(sample().digest)
    assert "The watched tag is up to date" in page
    assert f'<code title="{digest}">{digest[7:19]}</code>' in page
    assert outcome.volumes[0] in words(page)
    assert re.search(r'<td data-label="Age"><time datetime="[0-9TZ:-]+" data-kind="age">', page)
    assert 'id="attention"></section>' in page


async def test_failing(tmp_path: Path, registry: Registry) -> None:
    """What fails comes first: grouped by its reason, since when, how often, and what is left."""
    async with harness_of(tmp_path, registry, "failing") as harness:
        stage(harness, "failing")
        page = await shown(harness)
    told = words(page)
    assert "14 of 27 watched tags need attention" in told
    assert page.index('id="attention"') < page.index('id="running"') < page.index('id="watched"')
    first, second = (told.index(text) for text in (DENIED, "/mnt/backup is not mounted"))
    assert told.index("Needs attention") < first < second < told.index("Not there")
    assert told.count(DENIED) == 2  # once for nine tags, and once as a job's message
    assert "tried 3 times · next try with the sweep" in told
    assert "and 3 more" in told
    assert "in backup Try again" in told
    assert "postgres" in told[: told.index("Running now")]
    assert "backup (an older one is there)" in told
    assert "v0.9 absent" in told
    assert "syncd prune --gone" in told


async def test_file_that_is_gone(tmp_path: Path, registry: Registry) -> None:
    """A template whose file was deleted is missing where it was, and not published there."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(harness.repository.repository, "latest", sample())
        await harness.bring()
        place = Place(harness.latest, "local")
        gone = Gone(Lack.FILE, "the target does not list the template any more")
        harness.services.ledger.conditions.write([(place, gone)], datetime.now(UTC))
        page = await shown(harness)
    assert '<td data-label="Missing in">local</td>' in page
    assert 'data-label="Published in"' not in page
    assert "1 of 1 watched tag needs attention" in page


async def test_hostile_texts(tmp_path: Path, registry: Registry) -> None:
    """Names and messages from elsewhere are text, bounded, and fill no place of the page."""
    async with harness_of(tmp_path, registry, "failing") as harness:
        stage(harness, "failing")
        job = SyncJob(harness.latest, Cause.API)
        ledger = harness.services.ledger
        ledger.accept([job])
        evil = "</pre><script>alert(1)</script>{watched}"
        ledger.finish(job.id, Outcome(Result.FAILED, evil, (evil,)))
        ledger.logs.add(job.id, [LogLine(datetime.now(UTC), 'x" onclick="', evil)])
        page = await shown(harness)
        filtered = await shown(harness, "/?q=%22%3E%3Cscript%3E")
    assert "<script" not in page + filtered
    assert '<span class="x&quot; onclic…">' in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;{watched}" in page
    assert "&lt;script&gt;alert(&#x27;{jobs}{watched}&#x27;)" in page
    assert "x" * 600 not in page
    assert page.count("Also watched") == filtered.count("Also watched") + 4


async def test_running(tmp_path: Path, registry: Registry) -> None:
    """What runs is shown with its step and its bytes, and what waits with its number."""
    async with harness_of(tmp_path, registry, "good") as harness:
        stage(harness, "good")
        run(harness)
        page = await shown(harness)
    told = words(section(page, "running"))
    assert "Reading layers 48.2 MB of 182 MB by webhook" in told
    assert "Publishing 389 MB of 402 MB" in told
    assert "Looking at each watched tag" in told
    assert 'value="48200000" max="182000000"' in page
    assert "14 jobs wait for their turn" in told


async def test_history(tmp_path: Path, registry: Registry) -> None:
    """A job that ended has its start, duration, cause, message and log."""
    async with harness_of(tmp_path, registry, "good") as harness:
        stage(harness, "good")
        page = await shown(harness)
    told = words(section(page, "history"))
    assert re.search(rf"published {HOUSE}/base:latest by webhook 0\.\d s 20\d\d-\d\d-\d\d", told)
    assert "started cause=webhook" in told
    assert "layer subject=sha256:4f4f" in told
    assert "is published" in told


async def test_log_of_many_lines(tmp_path: Path, registry: Registry) -> None:
    """Of a long log the end is shown, and how to see all of it."""
    async with Harness(tmp_path, registry) as harness:
        job = SyncJob(harness.latest, Cause.API)
        ledger = harness.services.ledger
        ledger.accept([job])
        ledger.finish(job.id, Outcome(Result.UNCHANGED, "fine"))
        at = datetime.now(UTC)
        ledger.logs.add(job.id, [LogLine(at, "info", f"line number={n}") for n in range(70)])
        told = words(await shown(harness))
    assert "10 lines before these: syncd jobs ID" in told
    assert "line number=9 " not in told
    assert "line number=10 " in told
    assert "line number=69" in told


async def test_space(tmp_path: Path, registry: Registry) -> None:
    """How full cache, disk and storages are is told, and what syncd has published there."""
    async with harness_of(tmp_path, registry, "good") as harness:
        stage(harness, "good")
        page = await shown(harness)
        told = words(section(page, "room"))
        assert "Cache 7.6 GB of 21.5 GB free" in told
        assert f"{tmp_path}/state 38.0 GB of 100 GB free" in told
        assert "cephfs 7.4 TB of 20.0 TB free 12 templates, 4.9 GB" in told
        assert "backup, pve1 3.0 GB of 250 GB free 12 templates, 4.9 GB" in told
        assert "backup, pve2 120 GB of 250 GB free" in told
        assert "local 0 B used 0 templates, 0 B" in told
        assert page.count("<meter ") == 5


async def test_what_is_lacking(tmp_path: Path, registry: Registry) -> None:
    """What a container of a published image will lack is told beside it."""
    async with harness_of(tmp_path, registry, "good") as harness:
        stage(harness, "good")
        page = await shown(harness)
    assert '<p class="lacks">the image names no init' in page


async def test_when_it_runs_next(tmp_path: Path, registry: Registry) -> None:
    """The next sweep and the next weekly run are told, counted from what was done last."""
    async with Harness(tmp_path, registry, more='[schedule]\nweekly = "0 4 * * *"') as harness:
        begun = datetime.now(UTC) - timedelta(minutes=23)
        harness.services.ledger.mark_run("sweep", begun)
        harness.services.ledger.mark_run("weekly", datetime.now(UTC))
        page = await shown(harness)
        assert f'datetime="{begun + timedelta(hours=1):%FT%TZ}" data-kind="until"' in page
        assert re.search(r'Weekly run</dt><dd><time datetime="[0-9-]+T04:00:00Z"', page)
        harness.services.ledger.mark_run("sweep", begun - timedelta(hours=1))
        assert "Next sweep</dt><dd>now</dd>" in await shown(harness)
        schedule = harness.services.live.config.schedule
        harness.configure(schedule=schedule.model_copy(update={"sweep": None}))
        assert "Next sweep</dt><dd>off</dd>" in await shown(harness)


async def test_thousand_tags(tmp_path: Path, registry: Registry) -> None:
    """A thousand tags are shown in their natural order, and a filter finds one of them."""
    async with harness_of(tmp_path, registry, "large") as harness:
        stage(harness, "large")
        began = time.process_time()
        page = await shown(harness)
        took = time.process_time() - began
        found = await shown(harness, "/?q=service-07+V1.10.")
    assert page.count("<tr data-standing") == 1001
    assert page.index("v1.<wbr>9.") < page.index("v1.<wbr>10.")
    assert took < 5
    assert found.count("<tr data-standing") == 1
    assert 'value="service-07 v1.10."' in found
    assert "All 1,001 watched tags are up to date" in found


async def test_more_tags_than_are_shown(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page has a bound: what fails is within it, and how many are left out is told."""
    monkeypatch.setattr("syncd.web.status.TAGS_MAX", 3)
    async with harness_of(tmp_path, registry, "good") as harness:
        stage(harness, "good")
        place = Place(harness.latest, "cephfs")
        failed = [(place, Failed("down", passing=True))]
        harness.services.ledger.conditions.write(failed, datetime.now(UTC))
        page = await shown(harness)
    assert page.count("<tr data-standing") == 3
    assert 'data-standing="failing"' in page
    assert "10 more tags are not shown" in words(page)


async def test_troubles_are_bounded(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many reasons and so many of their tags are shown, and how many more there are is told."""
    monkeypatch.setattr("syncd.web.page_sections.TROUBLES_MAX", 2)
    monkeypatch.setattr("syncd.web.page_sections.NAMED_MAX", 8)
    async with Harness(tmp_path, registry, image='tags = ["re:."]') as harness:
        places = [Place(harness.repository.with_tag(f"t{n}"), "local") for n in range(14)]
        found = [(place, Failed("down", passing=True)) for place in places[:12]]
        found += [(place, Failed(f"{place}", passing=False)) for place in places[12:]]
        harness.services.ledger.conditions.write(found, datetime.now(UTC))
        told = words(await shown(harness))
    attention = told[told.index("Needs attention") : told.index("Running now")]
    assert "and 6 more" in attention
    assert "and 4 that the filter and syncd status name" in attention
    assert attention.count("Failing") == 2
    assert "1 more reasons are told by syncd status" in attention


async def test_jobs_are_bounded(tmp_path: Path, registry: Registry) -> None:
    """So many jobs are shown and no more, however many wait or have ended."""
    async with Harness(tmp_path, registry) as harness:
        jobs = [SyncJob(harness.repository.with_tag(f"t{n}"), Cause.API) for n in range(170)]
        ledger = harness.services.ledger
        ledger.accept(jobs)
        for job in jobs[:60]:
            ledger.finish(job.id, Outcome(Result.UNCHANGED, "fine"))
        page = await shown(harness)
    assert page.count('<li class="waiting">') == overview.JOBS_MAX
    assert "110 jobs wait for their turn" in page
    assert "and 60 more" in page
    assert page.count('class="pill unchanged"') == overview.JOBS_MAX


async def test_policy(tmp_path: Path, registry: Registry) -> None:
    """The browser is told to run the page's own style and script, and to load nothing."""
    async with Harness(tmp_path, registry) as harness:
        answer = await harness.ask("GET", "/", token=None)
        page = await answer.text()
    policy = dict(
        part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["form-action"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    for kind in ("script", "style"):
        assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", policy[f"{kind}-src"])
    assert not re.search(r"""(src|href)=["']?(https?:)?//|url\(|@import""", page)
    assert not re.search(r'\s(style|on[a-z]+)="', re.sub("<script>.*", "", page, flags=re.DOTALL))
