// Tables and equations wider than their column: named, within reach of the keyboard, and marked
// as long as there is more of them to the right.
"use strict";

function look(box) {
  const hidden = box.scrollWidth - box.clientWidth;
  box.toggleAttribute("data-more", hidden > 1 && box.scrollLeft < hidden - 1);
  if (hidden > 1) {
    const kind = box.matches("mjx-container") ? "Equation" : "Table";
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", `${kind}, scrolls sideways`);
  } else {
    for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
  }
}

addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  const wide = ".pst-scrollable-table-container, mjx-container[display='true']";
  const sized = new ResizeObserver((seen) => seen.forEach((entry) => look(entry.target)));
  for (const box of document.querySelectorAll(wide)) {
    box.addEventListener("scroll", () => look(box), { passive: true });
    sized.observe(box); // also when a dropdown around it opens
  }
});
