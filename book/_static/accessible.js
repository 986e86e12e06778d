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
      if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };

  const start = () => {
    rename();
    land();
    reach();
    addEventListener("resize", reach);
  };
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", start);
  else start();
  addEventListener("load", reach);
})();
