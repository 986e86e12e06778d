// Small repairs of the theme's own parts, for keyboards and screen readers (see also _ext/tidy.py).
"use strict";

(() => {
  // A name that is read aloud must contain the words that are seen.
  const rename = () => {
    for (const button of document.querySelectorAll(".search-button-field[aria-label]"))
      button.removeAttribute("aria-label");
    for (const icon of document.querySelectorAll(".theme-switch-button .theme-switch")) {
      icon.removeAttribute("title");
      icon.querySelector("title")?.remove(); // where the icon has become a drawing already
      icon.removeAttribute("aria-labelledby");
      icon.setAttribute("aria-hidden", "true");
    }
  };

  // Every part of a page belongs to a landmark; the name of the book above its contents did not.
  const land = () => {
    const name = document.querySelector(".sidebar-primary-item:has(> .navbar-brand)");
    name?.setAttribute("role", "navigation");
    name?.setAttribute("aria-label", "First page");
  };

  // What scrolls sideways must be reachable without a mouse; what does not needs no extra stop.
  const reach = () => {
    const boxes = "article table.table, article pre, article figure, .math.block";
    for (const box of document.querySelectorAll(boxes)) {
      const scrolls = box.scrollWidth > box.clientWidth + 1;
      box.classList.toggle("scrolls", scrolls);
      if (scrolls) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };

  // Where a number comes from: by mouse, finger or keyboard, in one small box.
  const explain = () => {
    const box = document.createElement("div");
    Object.assign(box, { id: "result-origin", role: "tooltip", hidden: true });
    document.body.append(box);
    const hide = () => (box.hidden = true);
    for (const number of document.querySelectorAll("abbr.result[title]")) {
      const origin = number.title;
      const show = () => {
        box.textContent = origin;
        box.hidden = false;
        const { left, bottom } = number.getBoundingClientRect();
        const room = document.documentElement.clientWidth - box.offsetWidth - 8;
        box.style.left = `${scrollX + Math.max(8, Math.min(left, room))}px`;
        box.style.top = `${scrollY + bottom + 4}px`;
      };
      number.removeAttribute("title"); // else the browser shows it a second time
      number.tabIndex = 0;
      number.setAttribute("aria-description", origin);
      for (const event of ["mouseenter", "focus", "click"]) number.addEventListener(event, show);
      for (const event of ["mouseleave", "blur"]) number.addEventListener(event, hide);
    }
    addEventListener("keydown", (event) => event.key === "Escape" && hide());
  };

  const start = () => {
    rename();
    land();
    explain();
    reach();
    addEventListener("resize", reach);
  };
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", start);
  else start();
  addEventListener("load", reach);
})();
