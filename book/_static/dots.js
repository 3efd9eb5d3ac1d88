/* What both interactive pages draw: a table whose middle column is a dot plot of risks on one
   logarithmic axis. A table, because that is how a screen reader best goes through it. */
"use strict";

/* Makes an element: attributes by name, children as elements or text. */
function make(tag, attributes = {}, ...children) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
  found.append(...children);
  return found;
}

function drawn(tag, attributes) {
  const found = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
  return found;
}

/* A number as a reader wants it: three digits, and 0 for what is practically nothing. */
function inWords(value) {
  if (!Number.isFinite(value)) return "beyond numbers";
  if (Math.abs(value) < 1e-6) return "0";
  if (Math.abs(value) < 1e6) {
    const digits = Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(3));
    const places = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
    return digits.toLocaleString("en", { minimumFractionDigits: Math.min(places, 8) });
  }
  return "10" + [...String(Math.floor(Math.log10(Math.abs(value))))]
    .map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("") + " or more";
}

/* The markers that estimators have in the figures of the book, in a box from -1 to 1. */
const MARKERS = {
  o: "M-.8 0a.8 .8 0 1 0 1.6 0a.8 .8 0 1 0 -1.6 0z",
  ".": "M-.45 0a.45 .45 0 1 0 .9 0a.45 .45 0 1 0 -.9 0z",
  s: "M-.7-.7H.7V.7H-.7z",
  D: "M0-1L1 0L0 1L-1 0z",
  "^": "M0-.9L.9 .7H-.9z",
  v: "M0 .9L.9-.7H-.9z",
  P: "M-.3-.9H.3V-.3H.9V.3H.3V.9H-.3V.3H-.9V-.3H-.3z",
  X: "M-.9-.5L-.5-.9L0-.4L.5-.9L.9-.5L.4 0L.9 .5L.5 .9L0 .4L-.5 .9L-.9 .5L-.4 0z",
  "*": "M0-1L.25-.3H1L.4 .1L.6 .85L0 .4L-.6 .85L-.4 .1L-1-.3H-.25z",
  h: "M0-.9L.8-.45V.45L0 .9L-.8 .45V-.45z",
  beyond: "M-.8-.8L.9 0L-.8 .8z",
};

/* A table with a caption, and what shows rows in it. A row has a label, a value and a look, an
   estimator's or none; perhaps a note below the label and a class of its own. Values beyond the
   axis, from `low` to `high`, are arrows at its ends. */
class DotTable {
  constructor(caption, first, last) {
    this.body = make("tbody");
    const header = make("tr", {}, ...[first, "", last].map((name) => (
      name ? make("th", { scope: "col" }, name) : make("td", { "aria-hidden": "true" }))));
    this.element = make("table", { class: "dots" },
      make("caption", {}, caption), make("thead", {}, header), this.body);
    this.ticks = header.children[1];
  }

  show(rows, low, high) {
    const place = (value) => Math.log(Math.max(value, 1e-300) / low) / Math.log(high / low);
    const exponents = [];
    for (let e = Math.ceil(Math.log10(low)); 10 ** e <= high; e++) exponents.push(e);
    const few = exponents.length > 5 ? exponents.filter((e) => e % 2 === 0) : exponents;
    const left = (value) => `left: ${(100 * place(value)).toFixed(2)}%`;
    const tick = (e) => make("span", { style: left(10 ** e) }, String(Number(`1e${e}`)));
    this.ticks.replaceChildren(make("div", { class: "axis" }, ...few.map(tick)));
    const line = (e) => make("i", { style: left(10 ** e) });
    this.body.replaceChildren(...rows.map((row) => {
      const at = place(row.value), inside = at >= 0 && at <= 1;
      const { colour = "currentColor", marker = "o" } = row.look ?? {};
      const turn = at < 0 ? "scale(-1)" : "scale(1)";
      const svg = drawn("svg", { viewBox: "-1.2 -1.2 2.4 2.4", "aria-hidden": "true",
        style: `left: ${100 * Math.min(Math.max(at, 0), 1)}%` });
      svg.append(drawn("path", { d: MARKERS[inside ? marker : "beyond"], fill: colour,
        transform: inside ? "scale(1)" : turn }));
      const label = make("th", { scope: "row" }, row.label);
      if (row.note) label.append(make("small", {}, row.note));
      return make("tr", row.kind ? { class: row.kind } : {}, label,
        make("td", { class: "plot", "aria-hidden": "true" },
          make("div", { class: "axis" }, ...few.map(line), svg)),
        make("td", {}, inWords(row.value)));
    }));
  }
}
