// Keeps a page of the operations room live: fetches the part that changes, says how old it is, and stops when asked to.
"use strict";

(() => {
  const EVERY_MS = 2000;
  const STALE_MS = 10000;
  const PRESS_MS = 1000; // a press must end on what it began on, so nothing is exchanged meanwhile
  const room = document.getElementById("sy-room");
  if (!room) return;
  const part = document.getElementById("sy-live");
  const bar = document.getElementById("sy-livebar");
  const age = document.getElementById("sy-age");
  const pause = document.getElementById("sy-pause");
  const announce = document.getElementById("sy-announce");
  let verdict = part.firstElementChild.dataset.verdict;
  let seen = Date.now();
  let paused = false;
  let asking = false;
  let pressed = 0;

  // A link by its address, a button by that of its form; a page names the same address more than once.
  const boxOf = ({ name, value }) => `input[name="${CSS.escape(name)}"][value="${CSS.escape(value)}"]`;
  function selectorOf(element) {
    if (element.matches("input")) return boxOf(element);
    const link = element.getAttribute("href");
    if (link) return `a[href="${CSS.escape(link)}"]`;
    const press = element.getAttribute("formaction");
    if (press) return `[formaction="${CSS.escape(press)}"]`;
    const form = element.closest("form")?.getAttribute("action");
    return form ? `form[action="${CSS.escape(form)}"] button` : null;
  }
  function placeOf(element) {
    const selector = selectorOf(element);
    return selector ? { selector, at: [...part.querySelectorAll(selector)].indexOf(element) } : null;
  }
  function focus({ selector, at }) {
    const all = part.querySelectorAll(selector);
    (all[at] ?? all[0])?.focus({ preventScroll: true });
  }

  function show(html) {
    const next = new DOMParser().parseFromString(html, "text/html").body.firstElementChild;
    if (!next || !next.dataset.verdict) throw new Error("no part of the page in the answer");
    const focused = part.contains(document.activeElement) ? placeOf(document.activeElement) : null;
    const ticked = [...part.querySelectorAll("input[type=checkbox]:checked")].map(boxOf);
    part.replaceChildren(next);
    for (const selector of ticked) {
      const box = part.querySelector(selector);
      if (box) box.checked = true;
    }
    if (focused) focus(focused);
    if (next.dataset.verdict !== verdict) {
      verdict = next.dataset.verdict;
      announce.textContent = verdict;
    }
    seen = Date.now();
  }

  async function fetchPart() {
    if (paused || asking || document.hidden) return;
    asking = true;
    try {
      const answer = await fetch(room.dataset.live, {
        credentials: "same-origin", redirect: "error", signal: AbortSignal.timeout(STALE_MS),
      });
      const html = answer.ok ? await answer.text() : "";
      if (html && !paused && Date.now() - pressed > PRESS_MS) {
        show(html);
        tell();
      }
    } catch {
      // The age below says it: the page keeps what it has.
    } finally {
      asking = false;
    }
  }

  // The web answers while the broker is away: what it shows then is as old as the broker's last answer.
  function tell() {
    const { away, behindS } = part.firstElementChild.dataset;
    const seconds = Math.round((Date.now() - seen) / 1000);
    const stale = !paused && Date.now() - seen > STALE_MS;
    room.classList.toggle("sy-stale", stale);
    room.classList.toggle("sy-paused", paused);
    bar.classList.toggle("sy-not-live", away !== undefined);
    const word = paused ? "Paused" : stale ? "Stale, last answer" : away !== undefined ? "Not live, last" : "Live,";
    const noFigures = away !== undefined && !behindS && !paused && !stale;
    age.textContent = noFigures ? "Not live" : `${word} ${seconds + (paused ? 0 : Number(behindS ?? 0))} s ago`;
  }

  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Resume updates" : "Pause updates";
    tell();
    fetchPart();
  });
  part.addEventListener("pointerdown", () => { pressed = Date.now(); });
  bar.hidden = false;
  setInterval(fetchPart, EVERY_MS);
  setInterval(tell, 1000);
  tell();
})();
