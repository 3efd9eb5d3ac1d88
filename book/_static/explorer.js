/* The risks of the estimators on a grid of tasks, at the task that three sliders choose. */
"use strict";

class Explorer {
  constructor(place, { looks, data }) {
    Object.assign(this, { looks, grid: data.grid, cells: data.cells });
    this.table = new DotTable("Mean excess risk of every estimator, on a logarithmic axis.",
      "estimator", "risk");
    this.status = make("output", { class: "status" });
    const names = { n: "examples n", noise: "noise σ", s: "non-zero weights s" };
    this.sliders = Object.entries(this.grid).map(([name, values]) => {
      const input = make("input", { type: "range", min: 0, max: values.length - 1,
        value: values.indexOf(data.shown[name]), id: `choose-${name}` });
      const shown = make("b");
      input.addEventListener("input", () => this.show());
      const ticks = make("div", { class: "marks", "aria-hidden": "true" },
        ...values.map((value) => make("span", {}, value)));
      return { name, values, input, shown, element: make("div", {},
        make("label", { for: input.id }, `${names[name]} = `, shown), input, ticks) };
    });
    // One axis for all tasks, so that a dot that moves is a risk that changes.
    const risks = this.cells.flatMap((cell) => Object.values(cell.found).map(([risk]) => risk));
    this.low = Math.min(...risks.filter((risk) => risk > 1e-6));
    this.high = Math.max(...risks);
    place.replaceChildren(
      make("div", { class: "board sliders" }, ...this.sliders.map((slider) => slider.element)),
      this.status, this.table.element);
    this.show();
  }

  show() {
    const at = {};
    for (const { name, values, input, shown } of this.sliders) {
      at[name] = values[input.value];
      shown.textContent = at[name];
      input.setAttribute("aria-valuetext", at[name]);
    }
    const { found } = this.cells.find((cell) => (
      Object.keys(at).every((name) => cell.at[name] === at[name])));
    const rows = Object.entries(found).map(([label, [value, note]]) => (
      { label, value, note, look: this.looks[label] }));
    this.table.show(rows, this.low / 1.5, this.high * 1.5);
    // Bayes knows the task and zero learns nothing, so neither can be the best of those that try.
    const trying = rows.filter(({ label }) => label !== "Bayes" && label !== "zero");
    const best = trying.reduce((one, other) => (other.value < one.value ? other : one));
    this.status.replaceChildren(make("b", {}, `Lowest risk: ${best.label}, ${inWords(best.value)}`),
      `, ${inWords(best.value / found.ridge[0])} times that of ridge. ` +
      `Bayes, the floor, has ${inWords(found.Bayes[0])}.`);
    this.status.dataset.risks = JSON.stringify(found);
  }
}

new Explorer(document.querySelector(".explorer"), BASELINES);
