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

  // What scrolls sideways must be reachable without a mouse; what does not needs no extra stop.
  const reach = () => {
    for (const box of document.querySelectorAll("article table.table, article pre, article figure, .math.block")) {
      if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };

  const start = () => {
    rename();
    reach();
    addEventListener("resize", reach);
  };
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", start);
  else start();
  addEventListener("load", reach);
})();
