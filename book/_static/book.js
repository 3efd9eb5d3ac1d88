// Tables, equations and code wider than their column: named, within reach of the keyboard, and
// marked as long as there is more of them to the right.
"use strict";

const KINDS = {
  ".pst-scrollable-table-container": "Table",
  "mjx-container[display='true']": "Equation",
  "article pre": "Code",
};

function look(box) {
  const hidden = box.scrollWidth - box.clientWidth;
  box.toggleAttribute("data-more", hidden > 1 && box.scrollLeft < hidden - 1);
  if (hidden > 1) {
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", `${box.dataset.name}, scrolls sideways`);
  } else {
    for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
  }
}

addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  const sized = new ResizeObserver((seen) => seen.forEach((entry) => look(entry.target)));
  for (const [selector, kind] of Object.entries(KINDS)) {
    document.querySelectorAll(selector).forEach((box, place) => {
      box.dataset.name = `${kind} ${place + 1}`; // no two regions of a page share a name
      box.addEventListener("scroll", () => look(box), { passive: true });
      sized.observe(box); // also when a dropdown around it opens
    });
  }
});
