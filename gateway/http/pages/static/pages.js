"use strict";
(() => {
  const gone = document.getElementById("gone");
  const busy = (part) => part.contains(document.activeElement) || part.querySelector("details[open], input:checked");

  // Marked parts are fetched anew by their name; our own markup only, parsed as a document in which no script runs.
  async function fetched(name, address) {
    const answer = await fetch(address || location.href, { headers: { "X-Part": name }, cache: "no-store" });
    if (answer.status === 401) location.reload();
    if (!answer.ok) throw new Error(String(answer.status));
    return new DOMParser().parseFromString(await answer.text(), "text/html").body;
  }

  async function refresh(part) {
    if (document.hidden || busy(part)) return;
    try {
      const found = await fetched(part.dataset.part, part.dataset.from);
      if (gone) gone.hidden = true;
      if (!busy(part)) {
        part.replaceChildren(...found.childNodes);
        copies(part);
      }
      if (part.querySelector("[data-reload]")) location.reload();
    } catch (error) {
      if (gone) gone.hidden = false;
    }
  }

  function copies(within) {
    if (!navigator.clipboard) return;
    for (const code of within.querySelectorAll("pre[data-copy]")) {
      const text = code.textContent, button = document.createElement("button");
      button.type = "button";
      button.textContent = "Copy";
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      });
      code.append(button);
    }
  }

  for (const part of document.querySelectorAll("[data-part][data-every]")) {
    setInterval(() => refresh(part), Number(part.dataset.every) * 1000);
  }
  copies(document);

  // Ticks are counted, and one box ticks all.
  for (const form of document.querySelectorAll("form[data-ticks]")) {
    const boxes = [...form.querySelectorAll("input[name=id]")], all = form.querySelector("[data-all]");
    const shown = form.querySelector("[data-count]");
    if (!all || !boxes.length) continue;
    const count = () => {
      const n = boxes.filter((box) => box.checked).length;
      shown.textContent = n ? `${n} chosen` : "Choose all";
      all.checked = n === boxes.length;
      all.indeterminate = n > 0 && n < boxes.length;
    };
    all.addEventListener("change", () => {
      for (const box of boxes) box.checked = all.checked;
      count();
    });
    form.addEventListener("change", count);
    all.closest("[hidden]").hidden = false;
    count();
  }

  document.addEventListener("keydown", (event) => {
    const open = document.querySelector("details.drop[open], details.menu[open]");
    if (event.key === "Escape" && open) {
      open.open = false;
      open.querySelector("summary").focus();
    }
    const typing = event.target.closest("input, select, textarea");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      const box = document.querySelector("input[type=search][name=q]");
      if (box && box.offsetParent) {
        event.preventDefault();
        box.focus();
      }
    }
  });
  document.addEventListener("click", (event) => {
    for (const open of document.querySelectorAll("details.drop[open], details.menu[open]")) {
      if (!open.contains(event.target)) open.open = false;
    }
  });
})();
