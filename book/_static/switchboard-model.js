/* A trained transformer of linear attention that runs in the page.

   It computes what icl/transformer.py does, in double precision. Attention is linear, so a context
   enters by its Gram matrix G alone (d+1 by d+1, labels last), and the states of all tokens are
   linear in those of T = d+1 basis tokens: X (T by D), at first the embedding. A head adds
   X Q (KᵀXᵀ G X V) O to X, and the weights ŵ of the model's answer <ŵ, x> are the first d
   read-outs of X. Shapes: T tokens, D width, k head dimension; all matrices lie row by row. */
"use strict";

const TRIM = 0.01; // the share of contexts, those with the largest risks, that a mean leaves out

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

const singles = (text) => Float64Array.from(new Float32Array(bytes(text).buffer));

/* Numbers in half precision, decoded by hand: few browsers can do it, and this is exact. */
function halves(text) {
  const view = new DataView(bytes(text).buffer);
  return Float64Array.from({ length: view.byteLength / 2 }, (_, i) => {
    const half = view.getUint16(2 * i, true);
    const exponent = (half >> 10) & 31, fraction = (half & 1023) / 1024;
    const size = exponent ? (1 + fraction) * 2 ** (exponent - 15) : fraction * 2 ** -14;
    return half >> 15 ? -size : size;
  });
}

/* out = a b, with a (rows, inner) and b (inner, columns). */
function multiply(out, a, b, rows, inner, columns) {
  out.fill(0);
  for (let i = 0; i < rows; i++) {
    for (let p = 0; p < inner; p++) {
      const factor = a[i * inner + p];
      for (let j = 0; j < columns; j++) out[i * columns + j] += factor * b[p * columns + j];
    }
  }
  return out;
}

/* out = aᵀ b, with a (inner, rows) and b (inner, columns). */
function multiplyTransposed(out, a, b, rows, inner, columns) {
  out.fill(0);
  for (let p = 0; p < inner; p++) {
    for (let i = 0; i < rows; i++) {
      const factor = a[p * rows + i];
      for (let j = 0; j < columns; j++) out[i * columns + j] += factor * b[p * columns + j];
    }
  }
  return out;
}

/* One model on its contexts. What a head adds is kept until a layer before it changes, so that a
   switch costs no more than the layers after it. */
class Model {
  constructor(about) {
    const { features: d, width: D, headWidth: k, heads, contexts } = about;
    Object.assign(this, { about, d, D, k, heads, T: d + 1, B: contexts });
    this.truth = singles(about.truth);
    this.grams = this.unfold(singles(about.grams));
    const weights = halves(about.weights);
    let at = 0;
    const next = (size) => weights.subarray(at, (at += size));
    const embed = next(this.T * D);
    this.maps = heads.map((count) => Array.from({ length: count }, () => (
      { query: next(D * k), key: next(D * k), value: next(D * k), output: next(k * D) })));
    this.readout = next(D);
    // Of the last layer only the read-out is ever asked for, so its heads write nothing else.
    for (const map of this.maps.at(-1)) {
      map.output = multiply(new Float64Array(k), map.output, this.readout, k, D, 1);
    }
    this.states = [new Float64Array(this.B * this.T * D)]; // those that enter each layer
    for (let b = 0; b < this.B; b++) this.states[0].set(embed, b * embed.length);
    this.added = heads.map(() => []);
    this.kept = heads.map(() => "");
  }

  /* Gram matrices from their lower triangles. */
  unfold(triangles) {
    const { T, B } = this, grams = new Float64Array(B * T * T);
    for (let b = 0, from = 0; b < B; b++) {
      for (let i = 0; i < T; i++) {
        for (let j = 0; j <= i; j++, from++) {
          grams[(b * T + i) * T + j] = grams[(b * T + j) * T + i] = triangles[from];
        }
      }
    }
    return grams;
  }

  /* ŵ in every context, (B, d), when the heads marked 1 in `kept`, a string per layer, work. */
  weights(kept) {
    const { heads, T, B, d } = this;
    let changed = false;
    for (let layer = 0; layer < heads.length; layer++) {
      if (changed) this.added[layer] = [];
      changed ||= kept[layer] !== this.kept[layer];
      if (changed) this.states[layer + 1] = this.after(layer, kept[layer]);
    }
    this.kept = [...kept];
    const read = this.states.at(-1);
    return Float64Array.from({ length: B * d }, (_, i) => read[Math.floor(i / d) * T + (i % d)]);
  }

  /* The states that leave a layer, (B, T, D), or their read-outs (B, T) after the last one. */
  after(layer, kept) {
    const { heads, B, T, D, readout } = this, states = this.states[layer];
    const out = layer < heads.length - 1 ? states.slice()
      : multiply(new Float64Array(B * T), states, readout, B * T, D, 1);
    for (let head = 0; head < heads[layer]; head++) {
      if (kept[head] !== "1") continue;
      const added = (this.added[layer][head] ??= this.adds(layer, head));
      for (let i = 0; i < out.length; i++) out[i] += added[i];
    }
    return out;
  }

  /* What one head adds to the states, or to their read-outs. */
  adds(layer, head) {
    const { B, T, D, k } = this, { query, key, value, output } = this.maps[layer][head];
    const wide = output.length / k, size = T * wide, out = new Float64Array(B * size);
    const [q, keys, values, mixed, read] = Array.from({ length: 5 }, () => new Float64Array(T * k));
    const state = new Float64Array(k * k);
    for (let b = 0; b < B; b++) {
      const x = this.states[layer].subarray(b * T * D, (b + 1) * T * D);
      const gram = this.grams.subarray(b * T * T, (b + 1) * T * T);
      multiply(q, x, query, T, D, k);
      multiply(keys, x, key, T, D, k);
      multiply(values, x, value, T, D, k);
      multiply(mixed, gram, values, T, T, k);
      multiplyTransposed(state, keys, mixed, k, T, k);
      multiply(read, q, state, T, k, k);
      multiply(out.subarray(b * size, (b + 1) * size), read, output, T, k, wide);
    }
    return out;
  }

  /* Excess risk |ŵ − w|² in every context: features are independent, of variance 1. */
  risks(weights) {
    return Float64Array.from({ length: this.B }, (_, b) => {
      let sum = 0;
      for (let i = b * this.d; i < (b + 1) * this.d; i++) sum += (weights[i] - this.truth[i]) ** 2;
      return sum;
    });
  }
}

function summary(risks) {
  const sorted = risks.slice().sort(), count = sorted.length;
  const mean = (values) => values.reduce((sum, x) => sum + x, 0) / values.length;
  return {
    risk: mean(sorted.subarray(0, count - Math.floor(TRIM * count))),
    mean: mean(sorted),
    median: (sorted[(count - 1) >> 1] + sorted[count >> 1]) / 2,
    worst: sorted[count - 1],
  };
}
