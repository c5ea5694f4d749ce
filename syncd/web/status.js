
"use strict";
(() => {
  const SECTIONS = ["verdict", "attention", "running", "room", "watched", "history"];
  const KEY = "syncd-token";
  const ALONE = 30000, BUSY = 5000, TOGETHER = 1500, SOON = 300, AGAIN = 5000;
  const policy = window.trustedTypes
    ? trustedTypes.createPolicy("syncd", { createHTML: (text) => text })
    : { createHTML: (text) => text };
  const $ = (id) => document.getElementById(id);
  const drawn = new Map(SECTIONS.map((id) => [id, $(id).innerHTML]));
  let token = sessionStorage.getItem(KEY);
  let live = true, pending = null, timer = 0, due = Infinity, stream = null, quiet = 0;
  document.documentElement.classList.add("js");

  // Times: in the reader's zone, which each full time names.
  const form = (parts) => new Intl.DateTimeFormat("en-GB", { ...parts, timeZoneName: "short" });
  const FULL = form({ year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
  const SHORT = form({ month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
  const CLOCK = form({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const SPANS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const span = (seconds) => {
    const [unit, size] = SPANS.find(([, size]) => seconds >= size) ?? ["s", 1];
    return `${Math.floor(seconds / size)} ${unit}`;
  };
  const KINDS = {
    age: (at, ago) => span(Math.max(ago, 0)),
    ago: (at, ago) => `${span(Math.max(ago, 0))} ago`,
    since: (at, ago) => `${SHORT.format(at)}, ${span(Math.max(ago, 0))} ago`,
    until: (at, ago) => (ago >= 0 ? "now" : `in ${span(-ago)}`),
    short: (at) => SHORT.format(at),
    clock: (at) => CLOCK.format(at),
  };
  const tellTimes = (within) => {
    for (const time of within.querySelectorAll("time")) {
      const at = new Date(time.dateTime);
      const shown = KINDS[time.dataset.kind]?.(at, (Date.now() - at) / 1000) ?? FULL.format(at);
      if (time.textContent !== shown) time.textContent = shown;
      time.title = FULL.format(at);
    }
  };

  // The filter: rows that are here at once, and the server's answer a moment later.
  const filter = () => {
    const words = $("words").value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0, all = 0;
    for (const part of $("watched").querySelectorAll(".repo")) {
      const rows = part.querySelectorAll("tbody tr");
      const repository = part.querySelector("h3").textContent;
      let some = false;
      for (const row of rows) {
        row.told ??= `${repository}:${row.textContent} ${row.dataset.standing}`.toLowerCase();
        row.hidden = !words.every((word) => row.told.includes(word));
        some ||= !row.hidden;
        shown += !row.hidden;
      }
      all += rows.length;
      part.hidden = words.length > 0 && !some;
    }
    $("count").textContent = words.length ? `${shown} of ${all}` : "";
  };

  // The page again: a section whose HTML is another one takes the place of the old one.
  const mark = (element) =>
    element.id ? `#${element.id}` : `[data-act="${element.dataset.act}"]` +
      (element.dataset.job ? `[data-job="${CSS.escape(element.dataset.job)}"]` : "") +
      (element.dataset.refs ? `[data-refs="${CSS.escape(element.dataset.refs)}"]` : "");
  const swap = (old, fresh) => {
    for (const opened of old.querySelectorAll("details[open][id]")) {
      const same = fresh.querySelector(`#${CSS.escape(opened.id)}`);
      if (same) same.open = true;
    }
    const active = document.activeElement;
    let focused = null;
    if (old.contains(active)) {
      focused = active.matches("summary") ? `#${active.parentElement.id} > summary` : mark(active);
    }
    old.replaceChildren(...fresh.childNodes);
    if (focused) old.querySelector(focused)?.focus({ preventScroll: true });
    tellTimes(old);
  };
  const refresh = async () => {
    due = Infinity;
    try {
      const answer = await fetch(location.pathname + location.search, { cache: "no-store" });
      if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
      const html = policy.createHTML(await answer.text());
      const page = new DOMParser().parseFromString(html, "text/html");
      if (page.documentElement.dataset.version !== document.documentElement.dataset.version) {
        return location.reload(); // another syncd serves it, which has a script of its own
      }
      for (const id of SECTIONS) {
        const fresh = page.getElementById(id), html = fresh.innerHTML;
        if (drawn.get(id) !== html) {
          swap($(id), fresh);
          drawn.set(id, html);
        }
      }
      filter();
      $("live").textContent = live ? "Live" : "Paused";
      $("live").title = "";
    } catch (error) {
      $("live").textContent = "Stale";
      $("live").title = `The page cannot be renewed: ${error.message}`;
    }
    if (live) soon($("running").querySelector("[data-job]") && !stream ? BUSY : ALONE);
  };
  const soon = (wait) => {
    if (Date.now() + wait >= due) return;
    due = Date.now() + wait;
    clearTimeout(timer);
    timer = setTimeout(() => (document.hidden ? soon(ALONE) : refresh()), wait);
  };

  // Server-sent events by fetch, since EventSource sends no token.
  const size = (number) => {
    const units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let unit = 0;
    for (; number >= 1000 && unit < 5; unit++) number /= 1000;
    return `${number.toFixed(number >= 100 || !unit ? 0 : 1)} ${units[unit]}`;
  };
  const draw = (job, progress) => {
    const item = $("running").querySelector(`li[data-job="${CSS.escape(job)}"]`);
    if (!item || item.dataset.step !== progress.step) return soon(SOON);
    const { done, total } = progress, bar = item.querySelector("progress");
    if (total) [bar.max, bar.value] = [total, Math.min(done, total)];
    item.querySelector("[data-amount]").textContent =
      total ? `${size(done)} of ${size(total)}` : done ? size(done) : "";
  };
  const hear = (event) => {
    const [, name, data] = /^event: (\w+)\ndata: (.*)$/.exec(event) ?? [];
    if (name === "progress") {
      for (const [job, progress] of Object.entries(JSON.parse(data))) draw(job, progress);
    } else if (name) {
      soon(TOGETHER);
    }
  };
  const listen = async () => {
    stream?.abort();
    if (!token || !live) return void (stream = null);
    const mine = (stream = new AbortController());
    try {
      const answer = await ask("GET", "/api/v1/events", undefined, mine.signal);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = "", part; !(part = await reader.read()).done; ) {
        const events = (rest + part.value).split("\n\n");
        rest = events.pop();
        events.forEach(hear);
      }
    } catch (error) {
      if (mine.signal.aborted) return;
    }
    if (stream === mine) {
      stream = null;
      setTimeout(() => stream ?? listen(), AGAIN);
    }
  };

  // The API, for the holder of its token.
  const ask = async (method, path, body, signal) => {
    const headers = { Authorization: `Bearer ${token}` };
    const answer = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body) });
    if (answer.ok) return answer;
    if (answer.status === 401) forget();
    throw new Error((await answer.json().catch(() => ({}))).error ?? `the server answers ${answer.status}`);
  };
  const say = (text) => {
    $("said").textContent = text;
    clearTimeout(quiet);
    quiet = setTimeout(() => ($("said").textContent = ""), 8000);
  };
  const DONE = {
    sync: (jobs) => `Asked for: ${jobs.jobs.length === 1 ? "1 job" : `${jobs.jobs.length} jobs`}`,
    retry: (job) => `Asked for again: ${job.reference}`,
    cancel: (job) => `Cancelled: ${job.reference}`,
  };
  const act = async (button) => {
    const { act, job, refs } = button.dataset;
    if (button.getAttribute("aria-disabled")) return;
    button.setAttribute("aria-disabled", "true");
    const named = (refs ?? "").split(" ").filter(Boolean);
    try {
      const answer = act === "sync"
        ? await ask("POST", "/api/v1/sync", named.length ? { refs: named } : {})
        : await ask("POST", `/api/v1/jobs/${encodeURIComponent(job)}/${act}`);
      say(DONE[act](await answer.json()));
      soon(SOON);
    } catch (error) {
      say(`Not done: ${error.message}`);
      if (!token) enter(button);
    } finally {
      button.removeAttribute("aria-disabled");
    }
  };
  const enter = (button) => {
    pending = button;
    $("wrong").textContent = "";
    $("token").showModal();
    $("secret").focus();
  };
  const forget = () => {
    token = null;
    sessionStorage.removeItem(KEY);
    stream?.abort();
    stream = null;
    $("key").textContent = "Enter token";
  };
  const use = async (given) => {
    token = given;
    try {
      await ask("GET", "/api/v1/jobs?limit=1");
    } catch (error) {
      forget();
      $("wrong").textContent = error.message;
      return;
    }
    sessionStorage.setItem(KEY, given);
    $("secret").value = "";
    $("token").close();
    $("key").textContent = "Token";
    listen();
    if (pending) act(pending);
    pending = null;
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-act]");
    if (button) token ? act(button) : enter(button);
  });
  $("live").addEventListener("click", () => {
    live = !live;
    $("live").setAttribute("aria-pressed", String(live));
    $("live").textContent = live ? "Live" : "Paused";
    clearTimeout(timer);
    due = Infinity;
    if (live) refresh();
    listen();
  });
  $("key").addEventListener("click", () => enter(null));
  $("close").addEventListener("click", () => $("token").close());
  $("forget").addEventListener("click", () => {
    forget();
    $("secret").value = "";
    $("token").close();
    say("The token is forgotten");
  });
  $("token").querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    use($("secret").value.trim());
  });
  $("words").addEventListener("input", () => {
    const words = $("words").value.trim();
    history.replaceState(null, "", words ? `?q=${encodeURIComponent(words)}` : location.pathname);
    filter();
    soon(SOON);
  });
  $("filter").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && live) soon(0);
  });
  setInterval(() => tellTimes(document), ALONE);
  $("zone").textContent = Intl.DateTimeFormat().resolvedOptions().timeZone;
  tellTimes(document);
  filter();
  if (token) $("key").textContent = "Token";
  listen();
  soon(ALONE);
})();
