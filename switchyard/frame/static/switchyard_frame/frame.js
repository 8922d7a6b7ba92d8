// Keys, the clock, and the strip of every page of the room. The pages do everything without it.
"use strict";

(() => {
  const FIRST_MS = 2000; // the page may show a verdict that is some seconds old
  const STRIP_MS = 10000;
  const STALE_MS = 30000;
  const ANSWER_MS = 8000;
  const CHORD_MS = 1500;
  const FIELDS = "input:not([type=checkbox], [type=radio], [type=submit], [type=button]), textarea, select, [contenteditable]";
  const ROWS = "main tbody tr, main [data-row-list] > *, main .sy-hits > li";
  const said = document.getElementById("sy-said");
  const user = document.querySelector("details.sy-user");
  const list = document.getElementById("sy-keys");

  const say = (text) => { if (said) said.textContent = text; };
  const shown = (element) => element !== null && element.getClientRects().length > 0;

  // The clock of the server: a browser's own may be wrong.
  const clock = document.getElementById("sy-clock");
  if (clock) {
    const ahead = Date.parse(clock.dateTime) - performance.timeOrigin - performance.now();
    setInterval(() => {
      const now = new Date(performance.timeOrigin + performance.now() + ahead);
      clock.textContent = `${now.toISOString().slice(11, 19)} UTC`;
    }, 1000);
  }

  // Buttons, choices and links that need the broker, while it is away; a part that is live is made anew by the server.
  function switchOff(why) {
    for (const each of document.querySelectorAll("main [data-broker]")) {
      if (each.closest("#sy-live") || Boolean(why) === (each.disabled ?? each.ariaDisabled === "true")) continue;
      if (each.matches("button, option")) each.disabled = Boolean(why);
      else if (why) {
        each.removeAttribute("href");
        each.setAttribute("role", "link");
        each.ariaDisabled = "true";
      } else {
        each.href = each.dataset.broker;
        each.removeAttribute("role");
        each.ariaDisabled = null;
      }
      each.title = why;
    }
    for (const each of document.querySelectorAll("main .sy-off")) if (!each.closest("#sy-live")) each.textContent = why;
  }

  // The strip: fetched while the page is seen and its updates are not paused.
  let answered = Date.now();
  async function fetchStrip() {
    const strip = document.getElementById("sy-strip");
    if (!strip || document.hidden || document.querySelector(".sy-paused")) return;
    try {
      const answer = await fetch(strip.dataset.strip, {
        credentials: "same-origin", redirect: "error", signal: AbortSignal.timeout(ANSWER_MS),
      });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const next = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("sy-strip");
      if (!next) throw new Error("no strip in the answer");
      answered = Date.now();
      switchOff(next.dataset.off);
      if (next.textContent === strip.textContent && !strip.classList.contains("sy-strip-stale")) return;
      const focused = strip.contains(document.activeElement);
      strip.replaceWith(next);
      if (focused) next.querySelector("a")?.focus({ preventScroll: true });
      say(next.querySelector("p").textContent);
    } catch {
      if (Date.now() - answered < STALE_MS || strip.classList.contains("sy-strip-stale")) return;
      strip.className = "sy-strip sy-strip-stale";
      strip.querySelector(".sy-word").className = "sy-word";
      strip.querySelector(".sy-word").textContent = "Not live";
      strip.querySelector("p").prepend(`As of ${new Date(answered).toISOString().slice(11, 19)} UTC: `);
    }
  }
  setTimeout(fetchStrip, FIRST_MS);
  setInterval(fetchStrip, STRIP_MS);

  // Rows: the focus is the mark, so that Enter opens a row as it opens any link.
  function rows() {
    return [...document.querySelectorAll(ROWS)].filter((row) => shown(row) && row.querySelector("a[href], input"));
  }
  const rowOf = (element) => element?.closest?.(ROWS) ?? null;
  let last = 0;
  function move(step) {
    const all = rows();
    if (!all.length) return say("This page has no rows.");
    const at = all.indexOf(rowOf(document.activeElement));
    last = at < 0 ? (last && all[last] ? last : step > 0 ? 0 : all.length - 1) : at + step;
    last = Math.min(Math.max(last, 0), all.length - 1);
    const row = all[last];
    (row.querySelector("a[data-open]") ?? row.querySelector("th a[href], td a[href], a[href]") ?? row.querySelector("input")).focus();
    row.scrollIntoView({ block: "nearest" });
  }
  function choose() {
    const box = rowOf(document.activeElement)?.querySelector("input[type=checkbox]");
    if (!box) return say("No row to choose: j and k go to one.");
    box.click();
    say(box.checked ? "Chosen." : "Not chosen.");
  }

  function page(relation, words) {
    const links = [...document.querySelectorAll("main a[href]")].filter(shown);
    const link = links.find((each) => each.relList.contains(relation)) ?? links.find((each) => words.test(each.textContent.trim()));
    if (link) link.click();
    else say(relation === "next" ? "Nothing is older." : "Nothing is newer.");
  }

  function find() {
    const field = [document.getElementById("sy-find"), document.getElementById("find-again")].find(shown);
    if (!field) location.hash = "menu";
    const target = field ?? document.getElementById("menu-find");
    target.focus();
    target.select();
  }
  function showKeys() {
    if (list && !list.open) list.showModal();
  }
  function pause() {
    const button = document.getElementById("sy-pause");
    if (!shown(button)) return say("This page has no updates to pause.");
    button.click();
    say(button.textContent);
  }
  function go(letter) {
    const link = document.querySelector(`#menu a[data-key="${CSS.escape(letter)}"]`);
    if (link) location.assign(link.href);
    else say(`g ${letter} leads nowhere.`);
  }

  const acts = {
    "/": find, "?": showKeys, ".": pause, x: choose,
    j: () => move(1), k: () => move(-1),
    n: () => page("next", /^(older|next)\b/i), p: () => page("prev", /^(newer|newest|previous)\b/i),
  };
  let chord = 0;
  document.addEventListener("keydown", (event) => {
    const inField = event.target.closest?.(FIELDS);
    if (event.key === "Escape") {
      if (list?.open) return;
      if (inField) inField.blur();
      if (user?.open) {
        user.open = false;
        user.querySelector("summary").focus();
      }
      if (location.hash === "#menu") closeMenu();
      return;
    }
    if (inField || event.ctrlKey || event.metaKey || event.altKey || event.isComposing || list?.open) return;
    if (document.body.dataset.keys !== "on") return;
    if (Date.now() - chord < CHORD_MS) {
      chord = 0;
      event.preventDefault();
      go(event.key);
    } else if (event.key === "g") {
      chord = Date.now();
    } else if (Object.hasOwn(acts, event.key)) {
      event.preventDefault();
      acts[event.key]();
    }
  });

  // The menu of a narrow screen: the address shows it, also without this script.
  function closeMenu() {
    location.replace("#content-start");
    document.querySelector(".sy-menu-open")?.focus();
  }
  document.querySelector(".sy-menu-open")?.addEventListener("click", () => {
    requestAnimationFrame(() => document.querySelector("#menu .sy-menu-close")?.focus());
  });
  document.addEventListener("click", (event) => {
    if (user?.open && !user.contains(event.target)) user.open = false;
  });
  for (const link of document.querySelectorAll('a[href$="/operations/keys/"]')) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      showKeys();
    });
  }
})();
