// Keeps the first page of the list of jobs live: its rows change where they stand, new jobs are counted and not inserted.
"use strict";

(() => {
  const POLL_MS = 2000;
  const QUIET_MS = 10000; // while answers change nothing, each pause is twice the one before, up to this
  const ANSWER_MS = 10000;
  const page = document.getElementById("sy-jobs");
  if (!page) return;
  const rows = document.getElementById("sy-rows");
  const bar = document.getElementById("sy-livebar");
  const fresh = document.getElementById("sy-new");
  const age = document.getElementById("sy-age");
  const pause = document.getElementById("sy-pause");
  const announce = document.getElementById("sy-announce");
  let seen = Date.now();
  let asked = 0;
  let timer = 0;
  let wait = POLL_MS;
  let last = "";
  let fetching = false;
  let failed = false;
  let paused = false;

  const resting = () => paused || document.hidden;

  function showRow(next) {
    const old = rows?.querySelector(`tr[data-job="${CSS.escape(next.dataset.job)}"]`);
    if (!old || old.outerHTML === next.outerHTML) return;
    const active = old.contains(document.activeElement) ? document.activeElement : null;
    const focused = active?.getAttribute("href");
    const box = next.querySelector("input[name=job]");
    if (box && old.querySelector("input[name=job]")?.checked) box.checked = true;
    old.replaceWith(next);
    if (box && active?.matches("input[name=job]")) box.focus({ preventScroll: true });
    if (focused) next.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  function show(html) {
    const part = new DOMParser().parseFromString(html, "text/html").body.firstElementChild;
    if (!part || !part.dataset.new) throw new Error("no list in the answer");
    part.querySelectorAll("tr[data-job]").forEach(showRow);
    const count = Number(part.dataset.new);
    const text = `${count}${"more" in part.dataset ? " or more" : ""} new job${count === 1 ? "" : "s"}`;
    if (count && fresh.hidden) announce.textContent = `${text}.`;
    fresh.textContent = `${text}: show`;
    fresh.hidden = !count;
    if ("away" in part.dataset) throw new Error("broker or database is away");
    seen = Date.now();
  }

  async function fetchPart() {
    const answer = await fetch(page.dataset.live, {
      credentials: "same-origin", redirect: "manual", signal: AbortSignal.timeout(ANSWER_MS),
    });
    if (answer.type === "opaqueredirect" || answer.status === 403) {
      location.reload(); // the session or the right is gone: the page says which
      return;
    }
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const html = await answer.text();
    wait = html === last ? Math.min(2 * wait, QUIET_MS) : POLL_MS;
    last = html;
    if (!paused) show(html);
  }

  async function refresh() {
    if (fetching || resting()) return;
    fetching = true;
    asked = Date.now();
    try {
      await fetchPart();
      failed = false;
    } catch {
      failed = true;
      wait = POLL_MS;
    } finally {
      fetching = false;
    }
    tell();
    plan();
  }

  function plan() {
    clearTimeout(timer);
    if (!resting()) timer = setTimeout(refresh, Math.max(asked + wait - Date.now(), 0));
  }

  function tell() {
    const seconds = Math.round((Date.now() - seen) / 1000);
    page.classList.toggle("sy-stale", failed && !paused);
    page.classList.toggle("sy-paused", paused);
    const word = paused ? "Paused" : failed ? "Stale, last answer" : "Live,";
    age.textContent = `${word} ${seconds} s ago`;
  }

  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Resume updates" : "Pause updates";
    plan();
    tell();
  });
  document.addEventListener("visibilitychange", plan);
  setInterval(tell, 1000);
  bar.hidden = false;
  asked = Date.now(); // the page itself
  plan();
  tell();
})();
