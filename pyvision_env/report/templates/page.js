"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const list = byId("list"), search = byId("search"), detail = byId("detail"), place = byId("episode");
  const welcome = byId("welcome"), viewer = byId("viewer"), body = document.body;
  const rows = [...list.querySelectorAll(".row")];
  const filters = [...document.querySelectorAll("[data-filter]")];
  const texts = new Map();
  let shown = rows, filter = "all", open = null, picked = null, picture = null;

  // The text of an episode, gathered only when somebody searches.
  function textOf(row) {
    if (!texts.has(row)) {
      const episode = byId(row.id.replace("row", "episode")).content;
      texts.set(row, episode.textContent.toLowerCase());
    }
    return texts.get(row);
  }

  function belongs(row) {
    const status = row.dataset.status;
    return filter === "all" || status === filter || (filter === "unfinished" && status === "failed");
  }

  function refresh() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    shown = rows.filter((row) => belongs(row) && words.every((word) => textOf(row).includes(word)));
    const keep = new Set(shown);
    for (const row of rows) row.parentElement.hidden = !keep.has(row);
    byId("none").hidden = shown.length > 0 || rows.length === 0;
    byId("shown").textContent = `${shown.length} of ${rows.length} shown`;
  }

  // Pictures are stored once, as text; an <img> gets its data when its episode is opened.
  function fillPictures() {
    for (const button of place.querySelectorAll("[data-picture]")) {
      const image = button.querySelector("img"), data = byId(button.dataset.picture);
      if (data && !image.src) image.src = data.textContent;
    }
  }

  function mark(row) {
    if (picked) picked.removeAttribute("aria-current");
    picked = row;
    if (row) {
      row.setAttribute("aria-current", "true");
      row.scrollIntoView({ block: "nearest" });
    }
  }

  function show(row) {
    const number = row.id.slice("row-".length);
    mark(row);
    open = row;
    place.replaceChildren(byId(`episode-${number}`).content.cloneNode(true));
    fillPictures();
    welcome.hidden = true;
    body.classList.add("reading");
    detail.scrollTop = 0;
    detail.focus({ preventScroll: true });
    history.replaceState(null, "", `#${number}`);
  }

  function close() {
    if (!open) return;
    const row = open;
    open = null;
    place.replaceChildren();
    welcome.hidden = false;
    body.classList.remove("reading");
    history.replaceState(null, "", "#");
    row.focus();
  }

  function move(step) {
    if (shown.length === 0) return;
    const at = shown.indexOf(picked);
    const next = at < 0 ? (step > 0 ? 0 : shown.length - 1) : Math.min(Math.max(at + step, 0), shown.length - 1);
    if (open) {
      if (shown[next] !== open) show(shown[next]);
    } else {
      mark(shown[next]);
      shown[next].focus();
    }
  }

  function enlarge(button) {
    picture = button;
    const image = byId("viewer-image"), small = button.querySelector("img");
    image.src = small.src;
    image.alt = small.alt;
    byId("viewer-caption").textContent = button.querySelector(".caption").textContent;
    if (!viewer.open) viewer.showModal();
  }

  function turnPicture(step) {
    const all = [...place.querySelectorAll("[data-picture]")];
    const next = all[all.indexOf(picture) + step];
    if (next) enlarge(next);
  }

  list.addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (row) show(row);
  });
  list.addEventListener("focusin", (event) => {
    if (!open && event.target.classList.contains("row")) mark(event.target);
  });
  place.addEventListener("click", (event) => {
    const button = event.target.closest("[data-picture]");
    if (button) enlarge(button);
    else if (event.target.closest("[data-close]")) close();
  });
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer || event.target.id === "viewer-image") viewer.close();
  });
  for (const button of filters) {
    button.addEventListener("click", () => {
      filter = button.dataset.filter;
      for (const other of filters) other.setAttribute("aria-pressed", String(other === button));
      refresh();
    });
  }
  search.addEventListener("input", refresh);

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const key = event.key;
    if (viewer.open) {
      if (key === "ArrowRight" || key === "ArrowLeft") turnPicture(key === "ArrowRight" ? 1 : -1);
      return;
    }
    if (document.activeElement === search) {
      if (key === "Escape") {
        search.value = "";
        refresh();
        search.blur();
      } else if (key === "ArrowDown") {
        picked = null;
        move(1);
      } else if (key === "Enter" && shown.length > 0) {
        show(shown[0]);
      } else {
        return;
      }
      event.preventDefault();
      return;
    }
    // In an open episode the arrow keys scroll, as everywhere; j and k turn the pages.
    const arrows = !detail.contains(document.activeElement);
    if (key === "j" || (key === "ArrowDown" && arrows)) move(1);
    else if (key === "k" || (key === "ArrowUp" && arrows)) move(-1);
    else if (key === "/") search.focus();
    else if (key === "Escape") close();
    else if (key === "Enter" && picked && !open && document.activeElement === body) show(picked);
    else return;
    event.preventDefault();
  });

  // A very large page is usable before its last picture is there.
  document.addEventListener("DOMContentLoaded", fillPictures);
  refresh();
  const linked = byId(`row-${location.hash.slice(1)}`);
  if (linked) show(linked);
})();
