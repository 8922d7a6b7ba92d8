// Adds a box that chooses every row of a list, and says how many are chosen. Without this script rows are ticked one by one.
"use strict";

(() => {
  function attach(bar) {
    const rows = document.getElementById(bar.dataset.chooses);
    if (!rows) return;
    const boxes = () => [...rows.querySelectorAll(".sy-choose input")];
    const label = document.createElement("label");
    const all = document.createElement("input");
    const text = document.createElement("span");
    label.className = "sy-choose sy-choose-all";
    all.type = "checkbox";
    label.append(all, text);

    function tell() {
      const found = boxes();
      const chosen = found.filter((box) => box.checked).length;
      all.checked = chosen > 0 && chosen === found.length;
      all.indeterminate = chosen > 0 && chosen < found.length;
      text.textContent = chosen ? `${chosen} chosen` : `Choose all ${found.length}`;
      label.hidden = !found.length;
      rows.querySelectorAll("tr").forEach((row) => {
        row.classList.toggle("sy-row-ticked", Boolean(row.querySelector(".sy-choose input:checked")));
      });
    }

    all.addEventListener("change", () => {
      boxes().forEach((box) => {
        box.checked = all.checked;
      });
      tell();
    });
    rows.addEventListener("change", tell);
    new MutationObserver(tell).observe(rows, { childList: true, subtree: true }); // rows of a live list are exchanged
    bar.prepend(label);
    tell();
  }

  for (const bar of document.querySelectorAll("[data-chooses]")) attach(bar);
})();
