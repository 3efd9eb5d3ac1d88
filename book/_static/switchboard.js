/* The head switchboard, its page: buttons for heads, and what follows from them. The model itself
   is in switchboard-model.js, its numbers in switchboard-data.js, which the build writes. */
"use strict";

/* The page: one model at a time, the heads that work, and what follows from them. */
class Switchboard {
  constructor(place, { looks, data }) {
    this.looks = looks;
    this.models = data.map((about) => ({ about }));
    this.draws = 0;
    this.table = new DotTable("Mean excess risk on 256 contexts, on a logarithmic axis.",
      "predictor", "risk");
    this.parts = {
      about: make("p", { class: "about" }), presets: make("div", { class: "presets" }),
      layers: make("div"), status: make("output", { class: "status" }), rest: make("p"),
      context: make("input", { type: "range", min: 1, id: "context" }), name: make("p", { class: "name" }),
      bars: make("div"),
    };
    const { about, presets, layers, status, rest, context, name, bars } = this.parts;
    context.addEventListener("input", () => this.showContext());
    const choices = data.map((one, i) => {
      const radio = make("input", { type: "radio", name: "model", value: i });
      radio.addEventListener("change", () => this.choose(i));
      return make("label", {}, radio, ` ${one.title}`);
    });
    choices[0].firstChild.checked = true;
    place.replaceChildren(
      make("fieldset", {}, make("legend", {}, "Model"), ...choices), about,
      make("div", { class: "board" }, presets, make("p", { class: "hint" }, "Under each head: by " +
        "what factor the risk grows without it alone. Bar: its share of its layer’s importance."),
        layers, status), this.table.element, rest,
      make("section", { class: "answers" },
        make("label", { for: "context" }, "The answer in one context, from the one the whole " +
          "model answers best to the one it answers worst:"), context, name, bars));
    this.choose(0);
  }

  choose(i) {
    const entry = this.models[i], { about } = entry;
    this.model = entry.model ??= new Model(about);
    this.whole = about.presets["as trained"];
    const weights = this.model.weights(this.whole), risks = this.model.risks(weights);
    entry.order ??= [...risks.keys()].sort((a, b) => risks[a] - risks[b]);
    Object.assign(this, { order: entry.order, trained: { weights, ...summary(risks) } });
    this.ridge = singles(about.ridge);
    this.parts.about.replaceChildren(about.about, make("small", {},
      ` Task: ${about.task}. File: ${about.file}.`));
    this.parts.context.max = this.model.B;
    this.parts.context.value = this.model.B / 2;
    this.drawBoard();
    this.set(this.whole);
  }

  /* Buttons for the presets and, layer by layer, for every head. */
  drawBoard() {
    const { presets, random, heads, factors, shares } = this.model.about;
    const button = (name, press) => {
      const found = make("button", { type: "button" }, name);
      found.addEventListener("click", press);
      return found;
    };
    this.presets = Object.entries(presets).map(([name, kept]) => (
      { kept: [kept], button: button(name, () => this.set(kept)) }));
    this.presets.push({ kept: random, button: button("random half", () => (
      this.set(random[this.draws++ % random.length]))) });
    this.parts.presets.replaceChildren(...this.presets.map((preset) => preset.button));
    const unseen = (text) => make("span", { class: "visually-hidden" }, text); // but read aloud
    this.switches = heads.map((count, layer) => Array.from({ length: count }, (_, head) => {
      const found = button(unseen(`Layer ${layer + 1}, head `), () => {
        const kept = [...this.kept], row = [...kept[layer]];
        row[head] = row[head] === "1" ? "0" : "1";
        kept[layer] = row.join("");
        this.set(kept);
      });
      found.append(head + 1,
        make("small", {}, unseen(", risk without it alone "), `×${inWords(factors[layer][head])}`),
        make("i", { style: `width: ${100 * shares[layer][head]}%` }));
      return found;
    }));
    this.parts.layers.replaceChildren(...this.switches.map((row, layer) => (
      make("div", { class: "layer", role: "group", "aria-label": `Layer ${layer + 1}` },
        make("span", {}, `Layer ${layer + 1}`), make("div", {}, ...row)))));
  }

  /* Switches the heads and shows all that follows. */
  set(kept) {
    this.kept = kept;
    this.weights = this.model.weights(kept);
    this.risks = this.model.risks(this.weights);
    this.switches.forEach((row, layer) => row.forEach((button, head) => (
      button.setAttribute("aria-pressed", kept[layer][head] === "1"))));
    for (const preset of this.presets) {
      const same = preset.kept.some((other) => other.join() === kept.join());
      preset.button.setAttribute("aria-pressed", same);
    }
    this.showRisk();
    this.showContext();
  }

  showRisk() {
    const { references } = this.model.about, { status, rest } = this.parts;
    const { risk, mean, median, worst } = summary(this.risks);
    const all = [...this.kept.join("")], on = all.filter((one) => one === "1").length;
    const useless = risk > references.zero ? ", worse than answering 0 always" : "";
    status.replaceChildren(make("b", {}, `Excess risk ${inWords(risk)}`),
      `, ${inWords(risk / references.ridge)} times that of ridge${useless}. ` +
      `${on} of ${all.length} heads work.`);
    Object.assign(status.dataset, { risk, mean, median, worst });
    const row = (name) => ({ label: name === "zero" ? "zero, which learns nothing" : name,
      value: references[name], look: this.looks[name] });
    this.table.show([
      { label: "this model, now", value: risk, kind: "model", look: { marker: "s" } },
      { label: "as trained", value: this.trained.risk, kind: "model hollow", look: { marker: "s" } },
      ...Object.keys(references).map(row),
    ], this.trained.risk / 4, 1000 * references.zero);
    rest.textContent = "The mean leaves out the hundredth of the contexts with the largest risks, " +
      `as everywhere in this book. With them it is ${inWords(mean)}; the median is ` +
      `${inWords(median)}, the worst context has ${inWords(worst)}.`;
  }

  /* The weights of one context as bars, eight features side by side. */
  showContext() {
    const { d } = this.model, rank = Number(this.parts.context.value), at = this.order[rank - 1];
    const of = (values) => [...values.subarray(at * d, (at + 1) * d)];
    const truth = of(this.model.truth), ridge = of(this.ridge), ours = of(this.weights);
    const whole = of(this.trained.weights);
    // The scale belongs to the context, so that bars move and not the axis.
    const top = 1.25 * Math.max(...[...truth, ...ridge, ...whole].map(Math.abs));
    const wide = 340, high = 190, step = (wide - 30) / d, middle = high / 2 - 8;
    const y = (value) => middle - (middle - 4) * Math.max(-1, Math.min(1, value / top));
    const svg = drawn("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img" });
    const add = (tag, attributes, text = "") => {
      const part = drawn(tag, attributes);
      part.textContent = text;
      svg.append(part);
    };
    const bar = (kind, x, width, value) => add("rect", { class: kind, x, width,
      y: Math.min(y(0), y(value)), height: Math.abs(y(value) - y(0)) });
    for (const value of [-top / 1.25, top / 1.25]) {
      add("text", { x: 0, y: y(value) + 4 }, value.toFixed(1).replace("-", "−"));
      add("path", { class: "grid", d: `M26 ${y(value)}H${wide}` });
    }
    for (let i = 0; i < d; i++) {
      const x = 30 + i * step;
      bar("truth", x + 3, step - 6, truth[i]);
      bar(Math.abs(ours[i]) > top ? "ours beyond" : "ours", x + 9, step - 18, ours[i]);
      add("path", { class: "ridge", d: `M${x + 3} ${y(ridge[i])}h${step - 6}` });
      add("text", { x: x + step / 2, y: high - 4, "text-anchor": "middle" }, i + 1);
    }
    add("path", { class: "zero", d: `M26 ${y(0)}H${wide}` });
    const list = (values) => values.map((value) => value.toFixed(2)).join(", ");
    svg.setAttribute("aria-label", `Weights of the ${d} features. True: ${list(truth)}. ` +
      `Model: ${list(ours)}. Ridge: ${list(ridge)}.`);
    const beyond = ours.some((value) => Math.abs(value) > top)
      ? ` Dashed bars go on, to ${inWords(Math.max(...ours.map(Math.abs)))}.` : "";
    const key = (kind, text) => make("span", {}, make("i", { class: kind }), text);
    this.parts.bars.replaceChildren(svg, make("p", { class: "key" }, key("truth", "true w"),
      key("ours", "ŵ of the model"), key("ridge", "ŵ of ridge")));
    this.parts.name.textContent = `Context ${rank} of ${this.model.B}: excess risk ` +
      `${inWords(this.risks[at])}.${beyond}`;
    this.parts.context.setAttribute("aria-valuetext", this.parts.name.textContent);
  }
}

new Switchboard(document.querySelector(".switchboard"), SWITCHBOARD);
