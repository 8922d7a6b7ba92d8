// Follows a job by server-sent events and fetches the part of its page that changes; polls where there is no stream.
"use strict";

(() => {
  const POLL_MS = 5000;
  // Beside a stream, for durations and for what the history adds.
  const REFRESH_MS = 30000;
  const ANSWER_MS = 10000;
  const page = document.getElementById("sy-job");
  if (!page) return;
  const part = document.getElementById("sy-live");
  const bar = document.getElementById("sy-livebar");
  const age = document.getElementById("sy-age");
  const pause = document.getElementById("sy-pause");
  const announce = document.getElementById("sy-announce");
  let state = part.firstElementChild.dataset.state;
  let seen = Date.now();
  let source = null;
  let streams = false; // an event has come: a proxy that buffers lets none through
  let timer = 0;
  let fetching = false;
  let again = false;
  let failed = false;
  let paused = false;
  let settled = false;

  const ended = () => "ended" in part.firstElementChild.dataset;
  const resting = () => paused || document.hidden;

  function show(html) {
    const next = new DOMParser().parseFromString(html, "text/html").body.firstElementChild;
    if (!next || !next.dataset.state) throw new Error("no job in the answer");
    const active = part.contains(document.activeElement) ? document.activeElement : null;
    const focused = active?.getAttribute("href") ? `a[href="${CSS.escape(active.getAttribute("href"))}"]`
      : active?.id ? `#${CSS.escape(active.id)}` : "";
    part.replaceChildren(next);
    if (focused) part.querySelector(focused)?.focus({ preventScroll: true });
    if (next.dataset.state !== state) {
      state = next.dataset.state;
      announce.textContent = `The job is ${state}.`;
    }
    seen = Date.now();
  }

  function showProgress({ done, total, note }) {
    const section = document.getElementById("sy-progress");
    if (!section || !(total > 0)) return;
    const percent = Math.min(Math.floor((100 * done) / total), 100);
    const text = `${done.toLocaleString("en")} of ${total.toLocaleString("en")}`;
    section.querySelector("p").textContent = note ? `${text}, ${note}` : text;
    section.querySelector("progress").value = percent;
    section.querySelector("progress").textContent = `${percent} %`;
    section.hidden = false;
  }

  async function fetchPart() {
    const answer = await fetch(page.dataset.live, {
      credentials: "same-origin", redirect: "manual", signal: AbortSignal.timeout(ANSWER_MS),
    });
    if (answer.type === "opaqueredirect" || answer.status === 403 || answer.status === 404) {
      location.reload(); // the session, the right or the job is gone: the page says which
      return;
    }
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const html = await answer.text();
    if (!paused) show(html);
  }

  async function refresh() {
    again = true;
    if (fetching) return;
    fetching = true;
    try {
      while (again && !resting()) {
        again = false;
        await fetchPart();
        failed = false;
      }
    } catch {
      failed = true;
    } finally {
      fetching = false;
    }
    tell();
    plan();
  }

  function plan() {
    clearTimeout(timer);
    if (resting() || settled) return;
    if (ended()) close();
    settled = ended() && !failed; // once more: the history has the attempt and its log lines a moment later
    timer = setTimeout(refresh, streams && !failed ? REFRESH_MS : POLL_MS);
  }

  function open() {
    if (page.dataset.events && window.EventSource) {
      source = new EventSource(page.dataset.events);
      source.addEventListener("state", () => {
        streams = true;
        refresh();
      });
      source.addEventListener("progress", (event) => {
        streams = true;
        showProgress(JSON.parse(event.data));
      });
      source.addEventListener("end", () => {
        close();
        refresh();
      });
      source.onerror = () => {
        // A refused source stays closed; after any other error the browser connects again, and this comes every time.
        if (!streams) return;
        streams = false;
        plan();
      };
    }
    plan();
  }

  function close() {
    source?.close();
    source = null;
    streams = false;
  }

  // A hidden page holds no stream: over HTTP/1.1 a browser has six connections to a server, for all tabs together.
  function rest() {
    close();
    clearTimeout(timer);
    tell();
  }

  function wake() {
    close();
    refresh();
    if (!ended()) open();
  }

  function tell() {
    const seconds = Math.round((Date.now() - seen) / 1000);
    page.classList.toggle("sy-stale", failed && !paused);
    page.classList.toggle("sy-paused", paused);
    const word = paused ? "Paused" : failed ? "Stale, last answer" : "Live,";
    age.textContent = streams && !failed ? "Live" : `${word} ${seconds} s ago`;
    bar.hidden = settled;
  }

  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Resume updates" : "Pause updates";
    if (resting()) rest();
    else wake();
  });
  document.addEventListener("visibilitychange", () => {
    if (resting()) rest();
    else if (!settled) wake();
  });
  setInterval(tell, 1000);
  bar.hidden = false;
  if (!resting()) open();
  tell();
})();
