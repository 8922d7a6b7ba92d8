// Suggestions below a field of the search. Without this script, and for what it does not know, Enter searches.
"use strict";

(() => {
  const WAIT_MS = 150; // after the last key
  const LEAST = 2;
  const ANSWER_MS = 4000;
  const said = document.getElementById("sy-said");

  function attach(form) {
    const field = form.querySelector('input[name="q"]');
    const list = document.createElement("ul");
    let chosen = -1;
    let timer = 0;
    let asking = null;

    list.id = `${field.id}-suggestions`;
    list.className = "sy-suggestions";
    list.hidden = true;
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-label", "Suggestions");
    form.append(list);
    for (const [name, value] of Object.entries({
      role: "combobox", "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": list.id,
    })) field.setAttribute(name, value);

    function close() {
      clearTimeout(timer);
      asking?.abort();
      list.hidden = true;
      list.replaceChildren();
      chosen = -1;
      field.setAttribute("aria-expanded", "false");
      field.removeAttribute("aria-activedescendant");
    }

    function choose(at) {
      const rows = [...list.children];
      chosen = at < -1 ? rows.length - 1 : at >= rows.length ? -1 : at; // -1: the text itself
      rows.forEach((row, place) => row.setAttribute("aria-selected", String(place === chosen)));
      if (chosen < 0) field.removeAttribute("aria-activedescendant");
      else field.setAttribute("aria-activedescendant", rows[chosen].id);
      rows[chosen]?.scrollIntoView({ block: "nearest" });
    }

    function part(word, name) {
      const found = document.createElement("span");
      found.className = name;
      found.textContent = word;
      return found;
    }

    function show(found) {
      if (!found.length) return close();
      list.replaceChildren(...found.map((one, place) => {
        const row = document.createElement("li");
        row.id = `${list.id}-${place}`;
        row.setAttribute("role", "option");
        row.setAttribute("aria-selected", "false");
        row.dataset.address = one.address;
        row.append(part(one.name, "sy-suggestion"), part(one.kind, "sy-small"));
        return row;
      }));
      chosen = -1;
      list.hidden = false;
      field.setAttribute("aria-expanded", "true");
      field.removeAttribute("aria-activedescendant");
      if (said) said.textContent = `${found.length} suggestion${found.length === 1 ? "" : "s"}, down to choose.`;
    }

    async function ask() {
      const text = field.value.trim();
      asking?.abort();
      if (text.length < LEAST) return close();
      const mine = asking = new AbortController();
      const giveUp = setTimeout(() => mine.abort(), ANSWER_MS);
      try {
        const answer = await fetch(`${form.dataset.suggest}?${new URLSearchParams({ q: text })}`, {
          credentials: "same-origin", redirect: "error", signal: mine.signal,
        });
        const { suggestions } = answer.ok ? await answer.json() : { suggestions: [] };
        if (mine === asking && document.activeElement === field) show(suggestions);
      } catch {
        if (mine === asking) close(); // Enter still searches
      } finally {
        clearTimeout(giveUp);
      }
    }

    field.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(ask, WAIT_MS);
    });
    field.addEventListener("keydown", (event) => {
      if (list.hidden || event.isComposing) return;
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        event.preventDefault();
        choose(chosen + (event.key === "ArrowDown" ? 1 : -1));
      } else if (event.key === "Enter" && chosen >= 0) {
        event.preventDefault();
        location.assign(list.children[chosen].dataset.address);
      } else if (event.key === "Escape") {
        event.stopPropagation(); // the next one leaves the field
        close();
      }
    });
    field.addEventListener("blur", close);
    list.addEventListener("pointerdown", (event) => event.preventDefault()); // the field keeps the focus
    list.addEventListener("click", (event) => {
      const row = event.target.closest("[data-address]");
      if (row) location.assign(row.dataset.address);
    });
  }

  for (const form of document.querySelectorAll("form[data-suggest]")) attach(form);
})();
