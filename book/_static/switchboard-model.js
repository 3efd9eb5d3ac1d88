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

/* out = a b, with a (rows, inner) and b (inner, columns). Four rows of b at a time: nearly all of
   the time goes here, and so it takes half of it. */
function multiply(out, a, b, rows, inner, columns) {
  out.fill(0);
  for (let i = 0; i < rows; i++) {
    const to = i * columns, from = i * inner, four = inner - (inner % 4);
    for (let p = 0; p < four; p += 4) {
      const f0 = a[from + p], f1 = a[from + p + 1], f2 = a[from + p + 2], f3 = a[from + p + 3];
      const b0 = p * columns, b1 = b0 + columns, b2 = b1 + columns, b3 = b2 + columns;
      for (let j = 0; j < columns; j++) {
        out[to + j] += f0 * b[b0 + j] + f1 * b[b1 + j] + f2 * b[b2 + j] + f3 * b[b3 + j];
      }
    }
    for (let p = four; p < inner; p++) addRow(out, to, a[from + p], b, p * columns, columns);
  }
  return out;
}

/* out = aᵀ b, with a (inner, rows) and b (inner, columns). */
function multiplyTransposed(out, a, b, rows, inner, columns) {
  out.fill(0);
  for (let p = 0; p < inner; p++) {
    for (let i = 0; i < rows; i++) addRow(out, i * columns, a[p * rows + i], b, p * columns, columns);
  }
  return out;
}

/* Adds a row of b, times a factor, to a row of out. */
function addRow(out, to, factor, b, from, columns) {
  for (let j = 0; j < columns; j++) out[to + j] += factor * b[from + j];
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
    // Of the last layer only read-outs are asked for: there a head's values are one number a token.
    for (const map of this.maps.at(-1)) {
      const read = multiply(new Float64Array(k), map.output, this.readout, k, D, 1);
      map.value = multiply(new Float64Array(D), map.value, read, D, k, 1);
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
    const { heads, B, T, D } = this, states = this.states[layer];
    const last = layer === heads.length - 1;
    const out = last ? multiply(new Float64Array(B * T), states, this.readout, B * T, D, 1)
      : states.slice();
    for (let head = 0; head < heads[layer]; head++) {
      if (kept[head] !== "1") continue;
      this.added[layer][head] ??= last ? this.reads(head) : this.adds(layer, head);
      const added = this.added[layer][head];
      for (let i = 0; i < out.length; i++) out[i] += added[i];
    }
    return out;
  }

  /* The states that enter a layer and the Gram matrix, of one context. */
  at(layer, b) {
    const { T, D } = this;
    return [this.states[layer].subarray(b * T * D, (b + 1) * T * D),
      this.grams.subarray(b * T * T, (b + 1) * T * T)];
  }

  /* What one head adds to the states, (B, T, D): X Q (KᵀXᵀ G X V) O. */
  adds(layer, head) {
    const { B, T, D, k } = this, { query, key, value, output } = this.maps[layer][head];
    const out = new Float64Array(B * T * D), state = new Float64Array(k * k);
    const [q, keys, values, mixed, read] = Array.from({ length: 5 }, () => new Float64Array(T * k));
    for (let b = 0; b < B; b++) {
      const [x, gram] = this.at(layer, b);
      multiply(q, x, query, T, D, k);
      multiply(keys, x, key, T, D, k);
      multiply(values, x, value, T, D, k);
      multiply(mixed, gram, values, T, T, k);
      multiplyTransposed(state, keys, mixed, k, T, k);
      multiply(read, q, state, T, k, k);
      multiply(out.subarray(b * T * D, (b + 1) * T * D), read, output, T, k, D);
    }
    return out;
  }

  /* What one head of the last layer adds to the read-outs, (B, T): X Q (KᵀXᵀ G X v), v = V O w_out,
     from right to left, so that no product is larger than a matrix with a vector. */
  reads(head) {
    const { B, T, D, k, heads } = this, layer = heads.length - 1;
    const { query, key, value } = this.maps[layer][head], out = new Float64Array(B * T);
    const [values, mixed] = [new Float64Array(T), new Float64Array(T)];
    const [direction, state] = [new Float64Array(D), new Float64Array(k)];
    for (let b = 0; b < B; b++) {
      const [x, gram] = this.at(layer, b);
      multiply(values, x, value, T, D, 1);
      multiply(mixed, gram, values, T, T, 1);
      multiplyTransposed(direction, x, mixed, D, T, 1);
      multiplyTransposed(state, key, direction, k, D, 1);
      multiply(direction, query, state, D, k, 1);
      multiply(out.subarray(b * T, (b + 1) * T), x, direction, T, D, 1);
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
