"""The status page in Debian's Chromium, as its readers use it: seen, heard, typed at, on a phone.

Screenshots of each scene are kept in `.e2e/screens`, for people to look at.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_FILE_PATH  # axe-core, https://www.deque.com/axe/
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from tests.e2e.command import SCRATCH
from tests.fakes.registry import Registry
from tests.harness import TOKEN, Harness, sample
from tests.web.gates import Gate
from tests.web.scenes import HOUSE, harness_of, run, stage

SCREENS = SCRATCH / "screens"
SIZES = {390: 844, 1280: 800, 1920: 1080}
SCENES = ["empty", "good", "running", "failing", "large"]
AXE = Path(AXE_FILE_PATH).read_text("utf-8")
ROWS = 60
FEWER = "rows => [...document.querySelectorAll('tbody tr')].slice(rows).map((row) => row.remove())"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Start Debian's Chromium."""
    found = shutil.which("chromium")
    assert found, "install it: apt-get install chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        await browser.close()


@asynccontextmanager
async def reader(browser: Browser, **options: Any) -> AsyncIterator[tuple[BrowserContext, Page]]:
    """Give a reader in Berlin a page; fail if the browser complains of anything."""
    context = await browser.new_context(
        timezone_id="Europe/Berlin", **{"viewport": {"width": 1280, "height": 800}} | options
    )
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda told: complaints.append(told.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    try:
        yield context, page
    finally:
        await context.close()
    assert complaints == []


@asynccontextmanager
async def scene(folder: Path, registry: Registry, name: str) -> AsyncIterator[Harness]:
    """Serve a daemon in one of the scenes."""
    kind = "good" if name == "running" else name
    async with harness_of(folder, registry, kind) as harness:
        if name == "empty":
            harness.configure(image=())
        else:
            stage(harness, kind)
        if name == "running":
            run(harness)
        yield harness


def address(harness: Harness, path: str = "/") -> str:
    """Return where the page is."""
    return str(harness.client.make_url(path))


async def faults(page: Page) -> list[str]:
    """Return what axe-core finds wrong with the page as it is now."""
    await page.evaluate(AXE)
    found = await page.evaluate(
        "rules => axe.run(document, {runOnly: {type: 'tag', values: rules}})", RULES
    )
    return [
        f"{fault['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for fault in found["violations"]
        for node in fault["nodes"]
    ]


async def broken_words(page: Page) -> list[str]:
    """Return the words of prose that a line's end cuts, and what is wider than the page."""
    found: list[str] = await page.evaluate("""() => {
      const found = [];
      if (document.documentElement.scrollWidth > innerWidth) found.push("the page scrolls aside");
      const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      for (let text; (text = texts.nextNode()); ) {
        if (text.parentElement.closest("script, style, code, pre, dialog, .reason")) continue;
        for (const word of text.data.matchAll(/[\\p{L}\\p{N}]{2,}/gu)) {
          const range = document.createRange();
          range.setStart(text, word.index);
          range.setEnd(text, word.index + word[0].length);
          const lines = new Set([...range.getClientRects()].map((box) => Math.round(box.top)));
          if (lines.size > 1) found.push(word[0]);
        }
      }
      return found;
    }""")
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", SCENES)
async def test_seen_by_everybody(
    name: str, scheme: Any, browser: Browser, tmp_path: Path, registry: Registry
) -> None:
    """Each scene passes axe-core at every width, and no word of it is broken or off the page."""
    SCREENS.mkdir(parents=True, exist_ok=True)
    async with scene(tmp_path, registry, name) as harness:
        for width, height in SIZES.items():
            size = {"width": width, "height": height}
            async with reader(browser, viewport=size, color_scheme=scheme) as (_, page):
                await page.goto(address(harness))
                file = SCREENS / f"{name}-{width}-{scheme}.png"
                await page.screenshot(path=file, full_page=name != "large")
                await page.evaluate(FEWER, ROWS)
                assert await broken_words(page) == []
                await page.locator("details").evaluate_all("all => all.map(d => d.open = true)")
                assert await broken_words(page) == []
                assert await faults(page) == []


async def test_without_a_script(browser: Browser, tmp_path: Path, registry: Registry) -> None:
    """Without a script everything can be read and filtered, and there is no button that fails."""
    async with scene(tmp_path, registry, "failing") as harness:
        context = await browser.new_context(java_script_enabled=False)
        page = await context.new_page()
        await page.goto(address(harness))
        await expect(page.get_by_role("heading", name="14 of 27 watched tags")).to_be_visible()
        await expect(page.get_by_text("UTC").first).to_be_visible()
        assert await page.get_by_role("button").all_text_contents() == ["Filter"]
        await page.get_by_role("searchbox", name="Filter").fill("worker v1.3")
        await page.get_by_role("button", name="Filter").click()
        await expect(page.locator("tbody tr")).to_have_count(1)
        summary = page.locator("#history summary", has_text="failed")
        await summary.click()
        await expect(page.locator("#history pre:visible")).to_contain_text("started cause=retry")
        await context.close()


async def test_times_of_the_reader(browser: Browser, tmp_path: Path, registry: Registry) -> None:
    """Times are in the reader's zone, and the zone is shown."""
    async with scene(tmp_path, registry, "good") as harness, reader(browser) as (_, page):
        await page.goto(address(harness))
        await expect(page.locator("#zone")).to_have_text("Europe/Berlin")
        shown = await page.locator("#history time").all_text_contents()
        assert all(re.search(r"CES?T$", time) for time in shown)
        age = page.locator("td time[data-kind=age]").first
        assert re.fullmatch(r"\d+ (s|min|h|d)", await age.text_content() or "")


async def test_filter(browser: Browser, tmp_path: Path, registry: Registry) -> None:
    """Of a thousand tags those are left that match what was typed, within a blink."""
    async with scene(tmp_path, registry, "large") as harness, reader(browser) as (_, page):
        await page.goto(address(harness))
        await page.get_by_role("searchbox", name="Filter").fill("service-07 v1.4.")
        await expect(page.locator("#count")).to_have_text("1 of 1001")
        await expect(page.locator("tbody tr:visible")).to_have_count(1)
        assert page.url.endswith("?q=service-07%20v1.4.")
        took = await page.evaluate("""() => {
          const field = document.getElementById("words"), began = performance.now();
          field.value = "v1.9";
          field.dispatchEvent(new Event("input"));
          return performance.now() - began;
        }""")
        print(f"filtering took {took:.1f} ms")
        await expect(page.locator("tbody tr:visible")).to_have_count(20)
        await page.reload()
        await expect(page.locator("tbody tr")).to_have_count(20)


async def test_keyboard(browser: Browser, tmp_path: Path, registry: Registry) -> None:
    """Everything is reached and done by keys, and what has the focus is seen to have it."""
    async with Harness(tmp_path, registry) as harness, reader(browser) as (_, page):
        registry.push(harness.repository.repository, "latest", sample())
        await page.goto(address(harness))
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        for name in ("Live", "Enter token", "Sync everything that is watched"):
            await page.keyboard.press("Tab")
            button = page.get_by_role("button", name=name)
            await expect(button).to_be_focused()
            assert await button.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
        await page.keyboard.press("Enter")
        await expect(page.get_by_label("Token", exact=True)).to_be_focused()
        await page.keyboard.press("Escape")
        await expect(page.locator("dialog")).to_be_hidden()
        await expect(button).to_be_focused()
        await page.keyboard.press("Enter")
        await page.keyboard.type(TOKEN)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("status")).to_have_text("Asked for: 1 job")
        await expect(page.locator("#history")).to_contain_text("published", timeout=20_000)


async def test_wrong_token_is_the_only_complaint(
    browser: Browser, tmp_path: Path, registry: Registry
) -> None:
    """The dialog passes axe-core, with what is wrong and without."""
    async with scene(tmp_path, registry, "good") as harness:
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(address(harness))
        await page.get_by_role("button", name="Enter token").click()
        assert await faults(page) == []
        await page.get_by_label("Token", exact=True).fill("wrong")
        await page.get_by_role("button", name="Use it").click()
        await expect(page.get_by_role("alert")).to_contain_text("missing or wrong")
        assert await faults(page) == []
        await context.close()


async def test_a_job_is_asked_for_watched_and_cancelled(
    browser: Browser, tmp_path: Path, registry: Registry
) -> None:
    """With the token a job is begun by a button, seen running live, cancelled, and tried again."""
    gate = Gate()
    async with (
        Harness(tmp_path, registry, watch=lambda _: gate) as harness,
        reader(browser) as (context, page),
    ):
        try:
            registry.push(harness.repository.repository, "latest", sample())
            await page.goto(address(harness))
            await page.get_by_role("button", name=f"Sync {harness.latest}").click()
            await page.get_by_label("Token", exact=True).fill(TOKEN)
            await page.get_by_role("button", name="Use it").click()
            await expect(page.get_by_role("status")).to_have_text("Asked for: 1 job")
            await gate.reached()
            running = page.locator("#running")
            await expect(running).to_contain_text("Reading layers", timeout=20_000)
            await page.get_by_role("button", name=f"Cancel {harness.latest}").click()
            jobs = page.locator("#history")
            await expect(jobs).to_contain_text("cancelled", timeout=20_000)
            await expect(running).to_contain_text("Nothing runs")
            gate.open.set()
            await jobs.locator("summary").first.click()
            await jobs.get_by_role("button", name=f"Try again: {harness.latest}").click()
            await expect(jobs).to_contain_text("published", timeout=20_000)
            await expect(page.locator("#verdict")).to_contain_text("is up to date")
            await expect(jobs.locator("details[open]")).to_have_count(1)  # as it was left
            kept = await context.storage_state()
            assert TOKEN not in str(kept)
            assert await page.evaluate("document.cookie") == ""
        finally:
            gate.open.set()


async def test_progress_is_live(browser: Browser, tmp_path: Path, registry: Registry) -> None:
    """Bytes of a running job are told as they come, without the page being asked for again."""
    async with scene(tmp_path, registry, "good") as harness, reader(browser) as (_, page):
        advance = run(harness)
        await page.add_init_script(f"sessionStorage.setItem('syncd-token', {TOKEN!r})")
        await page.goto(address(harness))
        running = page.locator("#running li", has_text="base:latest")
        await expect(running).to_contain_text("48.2 MB of 182 MB")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        advance(42_800_000)
        await expect(running).to_contain_text("91.0 MB of 182 MB")
        assert await running.locator("progress").evaluate("one => one.value") == 91_000_000
        assert asked == []


async def test_stale(browser: Browser, tmp_path: Path, registry: Registry) -> None:
    """A page whose server is gone says that it is stale, and is live again when it is back."""
    async with scene(tmp_path, registry, "good") as harness:
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(address(harness))
        live = page.locator("#live")
        await live.click()
        await context.set_offline(True)
        await live.click()
        await expect(live).to_have_text("Stale")
        await context.set_offline(False)
        await live.click()
        await live.click()
        await expect(live).to_have_text("Live")
        await context.close()


async def test_another_version(browser: Browser, tmp_path: Path, registry: Registry) -> None:
    """A page that another version of syncd serves meanwhile is loaded anew, script and all."""
    async with scene(tmp_path, registry, "good") as harness, reader(browser) as (_, page):
        await page.goto(address(harness))
        await page.evaluate("document.documentElement.dataset.version = '0.0'")
        await page.locator("#live").click()
        async with page.expect_navigation():
            await page.locator("#live").click()
        await expect(page.locator("html")).not_to_have_attribute("data-version", "0.0")


async def test_pause(browser: Browser, tmp_path: Path, registry: Registry) -> None:
    """A paused page changes nothing by itself; when it is live again, it shows what is true."""
    async with scene(tmp_path, registry, "good") as harness, reader(browser) as (_, page):
        await page.add_init_script(f"sessionStorage.setItem('syncd-token', {TOKEN!r})")
        await page.goto(address(harness))
        live = page.locator("#live")
        await live.click()
        await expect(live).to_have_attribute("aria-pressed", "false")
        await expect(live).to_have_text("Paused")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        run(harness)
        await asyncio.sleep(3)  # longer than a change takes to be told
        assert asked == []
        await live.click()
        await expect(page.locator("#running")).to_contain_text(f"{HOUSE}/nodejs:22")
