// What the theme leaves out: a name for the search, and a way to scroll wide code and tables by the keyboard.
document$.subscribe(() => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  document.querySelectorAll(".md-code__nav").forEach((nav, i) => nav.setAttribute("aria-label", `Code ${i + 1}`));
  document.querySelectorAll(".md-code__button").forEach((button) => button.setAttribute("aria-label", "Copy"));
  document.querySelectorAll(".md-typeset pre > code, .md-typeset__scrollwrap").forEach((wide) => wide.setAttribute("tabindex", "0"));
});
