"""Would the tests notice? Small mistakes, made one at a time in a copy of the library.

    python tests/mutants.py [--only REGEX] [--jobs 2]

Every mutant is a line of `MUTANTS`: what stands in a module, and what a mistake would make of it.
The tests of its module must fail. Prints which survive, and exits with 1 if more than one in twenty
do. Takes about an hour, so it is not part of `make test`.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

import psutil

ROOT = Path(__file__).parent.parent
CAUGHT = 0.95
SHORT = "not came_from_this_code and not every_model_trained"  # those take minutes
TIMEOUT = 300  # seconds; a mutant that hangs is caught

# By module: the tests that speak for it, and mutants, before ⇒ after. Each text occurs once.
MUTANTS = {
    "claims": ("test_claims test_scorecard", """
self.estimate.low > self.criterion.threshold ⇒ self.estimate.value > self.criterion.threshold
self.estimate.low > self.criterion.threshold ⇒ self.estimate.high > self.criterion.threshold
self.estimate.low > self.criterion.threshold ⇒ self.estimate.low >= self.criterion.threshold
if self.estimate.high < self.criterion.threshold ⇒ if self.estimate.value < self.criterion.threshold
order = (REPRODUCED, UNDECIDED, NOT_REPRODUCED) ⇒ order = (REPRODUCED, NOT_REPRODUCED, UNDECIDED)
order = (REPRODUCED, UNDECIDED, NOT_REPRODUCED) ⇒ order = (NOT_REPRODUCED, UNDECIDED, REPRODUCED)
max(found.get(f.setting, REPRODUCED) ⇒ min(found.get(f.setting, REPRODUCED)
return CONDITIONAL if REPRODUCED in decisions else UNDECIDED ⇒ return CONDITIONAL
return CONDITIONAL if REPRODUCED in decisions else UNDECIDED ⇒ return UNDECIDED
if len(decisions) == 1: ⇒ if len(decisions) <= 2:
1 - 0.05 / len(parts) ⇒ 1 - 0.05
1 - 0.05 / len(parts) ⇒ 1 - 0.5 / len(parts)
estimate.exp() if self.ratio else ⇒ estimate if self.ratio else
{name: x.log() for name, x in parts.items()} if self.ratio ⇒ parts if self.ratio
variances = stacked.tolist() ⇒ pass
min(self.claim.criteria, key=passing.get) ⇒ max(self.claim.criteria, key=passing.get)
reverse=unit.falls ⇒ reverse=not unit.falls
if len(names) <= NAMED else many ⇒ if len(names) < NAMED else many
if decision == REPRODUCED] ⇒ if decision != REPRODUCED]
estimate.within(*self.bounds) ⇒ estimate
"""),
    "intervals": ("test_intervals", """
- int(TRIMMED * values.shape[dim]) ⇒ - int(10 * TRIMMED * values.shape[dim])
- int(TRIMMED * values.shape[dim]) ⇒ - 0
np.partition(values.detach().cpu().numpy() ⇒ np.partition(-values.detach().cpu().numpy()
stdtrit(len(x) - 1, 0.5 + level / 2) ⇒ stdtrit(len(x) - 1, level)
stdtrit(len(x) - 1, 0.5 + level / 2) ⇒ stdtrit(len(x), 0.5 + level / 2)
x.var(ddof=1) / len(x) + variance ⇒ x.var(ddof=0) / len(x) + variance
x.var(ddof=1) / len(x) + variance ⇒ x.var(ddof=1) / len(x)
x.var(ddof=1) / len(x) + variance ⇒ x.var(ddof=1) + variance
(GROUPS - 1) * means.var ⇒ means.var
torch.arange(count) % GROUPS != group ⇒ torch.arange(count) % GROUPS == group
return over_seeds(values.double().log()).exp() ⇒ return over_seeds(values.double())
float(stdtrit(GROUPS - 1, 0.975)) * variance**0.5 ⇒ 0.67 * variance**0.5
over(risks.double(), dim=-1) / over(than.double(), dim=-1) ⇒ over((risks / than).double(), dim=-1)
low=max(self.low, low) ⇒ low=self.low
"trimmed": trimmed, ⇒ "trimmed": torch.mean,
"median": lambda x, dim: x.quantile(0.5, dim=dim) ⇒ "median": lambda x, dim: x.quantile(0.6, dim=dim)
"""),
    "contexts": ("test_contexts test_constructions", """
np.random.SeedSequence(seed, spawn_key=key) ⇒ np.random.SeedSequence(seed)
key = (STREAMS.index(choose("stream", stream, STREAMS)), step) ⇒ key = (0, step)
key = (STREAMS.index(choose("stream", stream, STREAMS)), step) ⇒ key = (STREAMS.index(stream), 0)
rng.spawn(1)[0] ⇒ generator(stream, seed, step)
e.swapaxes(1, 2) @ e / task.n ⇒ e.swapaxes(1, 2) @ e
(n - np.arange(d)) / 2 ⇒ (n - np.arange(d) - 1) / 2
task.noise**2 * 2 * rng.standard_gamma((n - d) / 2 ⇒ task.noise**2 * rng.standard_gamma((n - d) / 2
y = factor.swapaxes(1, 2) @ w[..., None] + z ⇒ y = factor @ w[..., None] + z
(y**2).sum(axis=(1, 2)) + rest ⇒ (y**2).sum(axis=(1, 2))
noise = task.noise * rng.standard_normal ⇒ noise = task.noise**2 * rng.standard_normal
return gram / n ⇒ return gram / (n - 1)
second.permute(0, 2, 1, 3) + second.permute(0, 2, 3, 1) ⇒ 2 * second.permute(0, 2, 1, 3)
z = task.noise * rng.standard_normal((batch, d, 1)) ⇒ z = rng.standard_normal((batch, d, 1))
np.linalg.cholesky(task.sigma) @ factor ⇒ np.linalg.cholesky(task.sigma).T @ factor
"""),
    "tasks": ("test_contexts test_one_layer test_nonlinear_responses", """
np.sqrt(self.s) / np.linalg.norm(values, axis=1, keepdims=True) ⇒ 1 / np.linalg.norm(values, axis=1, keepdims=True)
argsort(axis=1)[:, : self.s] ⇒ argsort(axis=1)[:, :1].repeat(self.s, 1)
self.s / self.d * np.eye(self.d) ⇒ np.eye(self.d)
2 * sigma @ omega @ sigma + power * sigma ⇒ sigma @ omega @ sigma + power * sigma
np.trace(omega @ sigma) + self.noise**2 ⇒ np.trace(omega @ sigma) + self.noise
np.sqrt(self.d / self.s) * weights ⇒ weights
u = np.einsum("bk,bkd->bd", a, v) / 2 ⇒ u = np.einsum("bk,bkd->bd", a, v)
(2 / UNITS) ** 0.5 ⇒ (1 / UNITS) ** 0.5
"""),
    "predictors": ("test_predictors test_transformer", """
((error @ sigma) * error).sum(dim=-1) ⇒ (error * error).sum(dim=-1)
error = weights - contexts.w.to(weights) ⇒ error = weights + contexts.w.to(weights)
(answers - truth.to(answers)).square().mean(dim=-1) ⇒ (answers - truth.to(answers)).abs().mean(dim=-1)
"""),
    "transformer": ("test_transformer test_heads", """
torch.einsum("mihk,mshk->mhis", query, key) ⇒ torch.einsum("mihk,mshk->mhsi", query, key)
return weight * self.gates[layer].to(weight)[..., None, None] ⇒ return weight
mapped(z, self._output(layer), x.shape[3:]) ⇒ block.output(z)
torch.einsum("mthk,mhkd->mhtd", value, self._output(layer)) ⇒ torch.einsum("mthk,mhkd->mhtd", value, block.output.weight)
block.value.weight, self._output(-1), readout) ⇒ block.value.weight, block.output.weight, readout)
torch.einsum("mbtd,mbd->mbt", x, readout[:, None] + direction) ⇒ torch.einsum("mbtd,mbd->mbt", x, direction)
return read[..., :-1] ⇒ return read[..., 1:]
self.config.d**0.5 * r / r.norm(dim=-1, keepdim=True) ⇒ r / r.norm(dim=-1, keepdim=True)
functional.pad(r, (0, 1), value=1.0) ⇒ functional.pad(r, (0, 1), value=0.0)
return x + added.unflatten(2, x.shape[2:]) ⇒ return added.unflatten(2, x.shape[2:])
return all(bool(gate.all()) for gate in self.gates) ⇒ return any(bool(gate.any()) for gate in self.gates)
rng = torch.Generator().manual_seed(seed) ⇒ rng = torch.Generator().manual_seed(m)
"""),
    "blocks": ("test_transformer", """
return through_state(q, k, v / v.shape[2]) ⇒ return through_state(q, k, v)
scores = torch.einsum("mbqhk,mbthk->mbhqt", q, k).relu_() ⇒ scores = torch.einsum("mbqhk,mbthk->mbhqt", q, k)
torch.einsum("mbhqt,mbthk->mbqhk", scores, v / v.shape[2]) ⇒ torch.einsum("mbhqt,mbthk->mbqhk", scores, v)
seen = x if examples is None else x[:, :, :examples] ⇒ seen = x
* scale / prod(self.inputs) ** 0.5 ⇒ * scale / prod(self.outputs) ** 0.5
torch.addcmul(self.bias, functional.layer_norm(x, x.shape[-1:]), self.gain) ⇒ self.bias + functional.layer_norm(x, x.shape[-1:])
return x + self.mlp(self.norm_mlp(x)) if self.mlp else x ⇒ return self.mlp(self.norm_mlp(x)) if self.mlp else x
"""),
    "threads": ("test_threads", """
if threads == 1: ⇒ if threads != 1:
torch.set_num_threads(threads) ⇒ pass
with one_thread(), ThreadPoolExecutor( ⇒ with ThreadPoolExecutor(
ThreadPoolExecutor(threads, ⇒ ThreadPoolExecutor(2,
"initargs": (gradients,) ⇒ "initargs": (True,)
"initargs": (gradients,) ⇒ "initargs": (False,)
"""),
    "training": ("test_training test_checkpoints", """
scale = (limit / norm).clamp(max=1) ⇒ scale = limit / norm
torch.stack([g.square().sum(dim=1) for g in grads]).sum(dim=0).sqrt() ⇒ torch.stack([g.square().sum(dim=1) for g in grads]).sum(dim=0)
group["lr"] = recipe.rate(self.step) ⇒ group["lr"] = recipe.lr
keys = [("train", seed, self.step) for seed in self.seeds] ⇒ keys = [("evaluate", seed, self.step) for seed in self.seeds]
keys = [("train", seed, self.step) for seed in self.seeds] ⇒ keys = [("train", 0, self.step) for seed in self.seeds]
return excess_risk(self.model, contexts).mean(dim=-1) ⇒ return excess_risk(self.model, contexts).sum(dim=-1)
self.optimiser.zero_grad() ⇒ pass
self.losses[: self.step] = state["losses"] ⇒ pass
self.optimiser.load_state_dict({**whole, "state": slots}) ⇒ pass
about == {"hash": self.config.hash, "seeds": json.dumps(self.seeds)} ⇒ bool(about)
momentum=recipe.betas[0] ⇒ momentum=0.0
if self.step in self.keep: ⇒ if self.step + 1 in self.keep:
torch.optim.AdamW if recipe.optimiser == "adamw" ⇒ torch.optim.Adam if recipe.optimiser == "adamw"
.log2().ceil() - 7) ⇒ .log2().ceil() - 4)
weights.abs().amax(dim=tuple(range(1, weights.ndim)), keepdim=True) ⇒ weights.abs().amax()
os.replace(temporary, path) ⇒ path.write_bytes(temporary.read_bytes())
"""),
    "recipe": ("test_training", """
(step - warmup) / (self.steps - warmup) ⇒ (step - warmup) / self.steps
self.lr * (step + 1) / (warmup + 1) ⇒ self.lr
self.lr * 0.5 * (1 + math.cos ⇒ self.lr * (1 + math.cos
"""),
    "checkpoints": ("test_checkpoints", """
k: v.half() for k, v in weights.items() ⇒ k: v for k, v in weights.items()
risks=self.risks[rows], ⇒ risks=self.risks[: len(rows)],
curve=self.curve[:, rows], ⇒ curve=self.curve[:, : len(rows)],
points.median(dim=1).values ⇒ points.mean(dim=1)
draw(config.task, count, "evaluate", 0, queries=queries) ⇒ draw(config.task, count, "tune", 0, queries=queries)
and not set(first.seeds) & set(second.seeds) ⇒
first.config == second.config ⇒ True
good and not found.isnan().any() ⇒ good
require(0 < len(set(self.seeds)) == count ⇒ require(0 < count
real("seconds", self.seconds, "[0, inf)") ⇒ pass
"""),
    "files": ("test_checkpoints", """
require(given == _digest(tensors, about) ⇒ require(bool(given)
hashlib.sha256(json.dumps(about, sort_keys=True).encode()) ⇒ hashlib.sha256()
total.update(tensor.reshape(-1).view(torch.uint8).numpy()) ⇒ pass
require(about["hash"] == config.hash ⇒ require(bool(about["hash"])
require(tensors.keys() == known ⇒ require(bool(known)
half if torch.equal(half.to(weights), weights) else weights ⇒ half
if not reader.eof or reader.unused_data: ⇒ if not reader.eof:
if not reader.eof or reader.unused_data: ⇒ if reader.unused_data:
reader.decompress(packed, LARGEST) ⇒ reader.decompress(packed)
"""),
    "replay": ("test_checkpoints test_training", """
return self.difference <= self.tolerance ⇒ return not self.difference > self.tolerance
.nan_to_num(torch.inf) ⇒ .nan_to_num(0.0)
apart.where(ours != theirs, 0.0).max() ⇒ apart.where(ours != theirs, 0.0).min()
"""),
    "runs": ("test_cli test_faults", """
tuple(seed for seed in plan.seeds if seed not in done.seeds) ⇒ plan.seeds
with FileLock(self.output.with_name(".lock")): ⇒ if True:
trained = trained.only(new) ⇒ pass
sorted(seconds, key=seconds.get, reverse=True) ⇒ sorted(seconds, key=seconds.get)
steps * (1 - self.share) ⇒ steps
done.config == plan.config ⇒ True
parent_process().join() ⇒ return
"""),
    "heads": ("test_heads test_head_utilization", """
average(self.masked, dim=-1) - average(self.full, dim=-1)[:, None, None] ⇒ average(self.masked, dim=-1)
positive = self.rise.clamp(min=0) ⇒ positive = self.rise.abs()
torch.where(count > 1, nats / count.clamp(min=2).log(), torch.nan) ⇒ torch.where(count > 1, nats, torch.nan)
nan_to_num(torch.inf).amin(dim=-1) ⇒ nan_to_num(torch.inf).amax(dim=-1)
return _later(found.top_share.nan_to_num(0.0)) ⇒ return _later(found.top_share.nan_to_num(1.0))
without = block.feed(after - added[:, :, head]) ⇒ without = block.feed(after + added[:, :, head])
added = added - means[layer] ⇒ added = added + means[layer]
found.entropy[:, :1].nan_to_num(0.0) - later ⇒ later - found.entropy[:, :1].nan_to_num(0.0)
rank < count for rank, count ⇒ rank <= count for rank, count
score.argsort(dim=1, descending=True) ⇒ score.argsort(dim=1)
total / sum(map(len, blocks)) ⇒ total / len(blocks)
average: str = "trimmed" ⇒ average: str = "mean"
"""),
    "starts": ("test_pruning test_training test_why_one_head", """
draw(whole.config.task, TUNING_CONTEXTS, "tune", seed=0, queries=queries) ⇒ draw(whole.config.task, TUNING_CONTEXTS, "evaluate", seed=0, queries=queries)
rows = [base.seeds.index(seed) for seed in seeds] ⇒ rows = [0 for seed in seeds]
part / part.sum(dim=1, keepdim=True) ⇒ part
base.config.hash == start.hash ⇒ True
"""),
    "descent": ("test_estimators test_baselines", """
1 - (1 - rate * self.values) ** steps ⇒ 1 - (1 - rate * self.values) ** (steps + 1)
u = u + rate * scale.square() * residual ⇒ u = u + rate * scale * residual
return u + residual ⇒ return residual
return self.rate / torch.linalg.eigvalsh(seen)[..., -1:] ⇒ return self.rate / torch.linalg.eigvalsh(seen)[..., :1]
return residual  # before the first step ⇒ return torch.ones_like(residual)  # before the first step
self.values[0] < value < self.values[-1] ⇒ self.values[0] <= value <= self.values[-1]
left**t - 1 ⇒ left ** (t - 1) - 1
"""),
    "estimators": ("test_estimators test_baselines test_one_layer", """
contexts.xx + self.penalty * eye ⇒ contexts.xx + self.penalty**2 * eye
target.clamp(-self.penalty, self.penalty) ⇒ target.clamp(0, self.penalty)
residual -= xx[j] * move ⇒ residual -= move
contexts = draw(task, TUNING_CONTEXTS, "tune", seed) ⇒ contexts = draw(task, TUNING_CONTEXTS, "evaluate", seed)
return min(family, key=risk) ⇒ return max(family, key=risk)
torch.linalg.pinv(contexts.xx, rtol=1e-10, hermitian=True) ⇒ torch.linalg.pinv(contexts.xx, rtol=0.5, hermitian=True)
contexts.xy @ self.matrix.T ⇒ contexts.xy
draw(task, HEAVY_TAILED if heavy else TUNING_CONTEXTS, "tune", seed) ⇒ draw(task, TUNING_CONTEXTS, "tune", seed)
"""),
    "bayes": ("test_bayes", """
scale, supports = contexts.task.n / self.task.noise**2 ⇒ scale, supports = contexts.task.n / self.task.noise
evidence.softmax(dim=0)[:, None] * means ⇒ means / len(means)
log_evidence += half[i] ** 2 / 2 - low[i, i].log() ⇒ log_evidence += half[i] ** 2 / 2
(a[:, i, i] + 1 - ⇒ (a[:, i, i] -
signs @ b - squares @ a.flatten(1, 2) / 2 ⇒ signs @ b - squares @ a.flatten(1, 2)
evidence[kept] += mass.log() ⇒ pass
(STEP if x else STEP / 2) ⇒ STEP
s * twice[..., 0] / 2 ⇒ s * twice[..., 0]
"""),
    "one_layer": ("test_one_layer test_one_step_gd", """
(task.n - 1) * cross @ task.sigma + task.label_moment ⇒ task.n * cross @ task.sigma + task.label_moment
return np.linalg.solve(second, cross).T ⇒ return np.linalg.solve(second, cross)
- 2 * gamma @ cross + task.omega ⇒ - gamma @ cross + task.omega
+ _outside(p, w) ⇒
(gamma - target).norm(dim=(-2, -1)) / target.norm() ⇒ (gamma - target).norm(dim=(-2, -1))
/ least - 1 ⇒ / least
return weights - contexts.xy @ effective_step(model).mT ⇒ return weights - contexts.xy @ effective_step(model)
"""),
    "constructions": ("test_constructions", """
heads * min(d_head, 2) / d ⇒ heads * d_head / d
block.value.weight[:, -1, head, 0] = -1 ⇒ block.value.weight[:, -1, head, 0] = 1
block.output.weight[:, head, 0, -1] = rate ⇒ block.output.weight[:, head, 0, -1] = -rate
block.value.weight[:, -2, j, 0] = 1 ⇒ block.value.weight[:, -1, j, 0] = 1
rate * part, head) ⇒ rate, head)
clamp(min=torch.finfo(torch.float64).eps) ⇒ clamp(min=1e-30)
"""),
    "probing": ("test_probing", """
inverse @ (rows.mT @ wanted) / size.mT ⇒ inverse @ (rows.mT @ wanted) * size.mT
readouts = [fit(x, fitting.w[..., None], fitting) for x in states(model, fitting)] ⇒ readouts = [fit(x, contexts.w[..., None], contexts) for x in states(model, contexts)]
error(read(x, probe)[..., 0], block) ⇒ error(read(x, readouts[0])[..., 0], block)
1 - over(kept * away, dim=-1) / over(kept * size, dim=-1) ⇒ over(kept * away, dim=-1) / over(kept * size, dim=-1)
return explained(self.away[label], self.size, average).amax(dim=0) ⇒ return explained(self.away[label], self.size, average)[-1]
size - 2 * inner + ⇒ size - inner +
explained(self.away[label], self.size).argmax(dim=0) ⇒ explained(self.away[label], self.size).argmin(dim=0)
return 1 - missed / size ⇒ return missed / size
again - along * r ⇒ again + along * r
kept = size <= size.quantile(share, dim=-1, keepdim=True) ⇒ kept = size <= size.quantile(0.5, dim=-1, keepdim=True)
"""),
    "costs": ("test_why_one_head", """
return 4 * (_nuclear(a) * _nuclear(b)).sqrt() ⇒ return 2 * (_nuclear(a) * _nuclear(b)).sqrt()
torch.linalg.svdvals(matrix).sum(dim=-1) ⇒ torch.linalg.svdvals(matrix).square().sum(dim=-1).sqrt()
cost.sum(dim=1).square() / cost.square().sum(dim=1) ⇒ cost.sum(dim=1) / cost.amax(dim=1)
cost.pow(3).sum() / cost.square().sum() ⇒ cost.square().sum() / cost.sum()
squares[:, 0] / squares.sum(dim=1) ⇒ squares.sqrt()[:, 0] / squares.sqrt().sum(dim=1)
"""),
    "symmetry": ("test_symmetry", """
predictor.weights(moved(contexts, g)).double() @ g ⇒ predictor.weights(moved(contexts, g)).double() @ g.T
"w": contexts.w @ g.T ⇒ "w": contexts.w @ g
found[0] = torch.eye(d) ⇒ pass
found[count] = total / count ⇒ found[count] = total / max(counts)
"""),
    "iterations": ("test_iterations", """
g = r - moved ⇒ g = r + moved
u = u + sum(parts) ⇒ u = sum(parts)
away.log1p().mean(dim=-1).sum().backward() ⇒ away.mean(dim=-1).sum().backward()
torch.einsum("bij,mbj->mbi", contexts.xx, g) - g, ⇒ torch.einsum("bij,mbj->mbi", contexts.xx, g),
"""),
    "two_layers": ("test_two_layers", """
(1 + β * p[..., None]) * one + α * s ⇒ (1 + β * p[..., None]) * one - α * s
δ + ε * s.diagonal(dim1=-2, dim2=-1) ⇒ δ + ε
b = torch.cat([η * r, 1 + ζ * p], dim=-1) ⇒ b = torch.cat([r, 1 + ζ * p], dim=-1)
ub * (μ * u + ν * b) ⇒ ub * (ν * u + μ * b)
((by_input, α, η), (by_label, γ - β * ε, ζ)) ⇒ ((by_input, α, η), (by_label, γ, ζ))
value[:, y, j, 1], output[:, j, 1, j] = 1, β ⇒ value[:, y, j, 1], output[:, j, 1, j] = 1, -β
model.embed.weight[:, d, z] = δ ⇒ model.embed.weight[:, d, z] = 0
key[:, j, d, j], query[:, j, d, j] = 1, ρ ⇒ key[:, j, d, j], query[:, j, d, j] = 1, 1
"""),
    "polynomials": ("test_polynomials test_moments", """
- contexts.task.s - contexts.task.noise**2 ⇒ - contexts.task.s
c = contexts.xx - torch.eye(contexts.task.d, dtype=contexts.gram.dtype) ⇒ c = contexts.xx
range(1, total + 1, 2) ⇒ range(1, total + 1)
return Polynomial(of, found / scale) ⇒ return Polynomial(of, found)
found = q[:, None] ** m.power ⇒ found = q[:, None]
"""),
    "moments": ("test_moments test_polynomials", """
terms.append((1, 1, -1, [(b, c)], others)) ⇒ terms.append((1, 1, 1, [(b, c)], others))
terms.append((1, 0, 1, [(b, c), (a, d)], others)) ⇒ pass
prod(s / (s + 2 * i) for i in range(sum(sums) // 2)) ⇒ prod(s / (s + i) for i in range(sum(sums) // 2))
prod(range(k - 1, 0, -2)) for k in sums ⇒ prod(range(k, 0, -2)) for k in sums
task.s - 2 * c @ cross ⇒ task.s - c @ cross
(-task.s) ** (delta - j) ⇒ task.s ** (delta - j)
float(task.d) ** powers.count(0) / float(task.n) ** inverse ⇒ float(task.d) ** powers.count(0)
"""),
    "experiments/comparison": ("test_comparison test_probing", """
trimmed(both, dim=-1).argmin(dim=0) ⇒ trimmed(both, dim=-1).argmax(dim=0)
tuned_gd(task, steps=depth - 1 ⇒ tuned_gd(task, steps=depth
return reduction(risks[8], risks[1]) ⇒ return reduction(risks[1], risks[8])
-distance(effective_step(model), optimal_one_step(contexts.task)).log10() ⇒ distance(effective_step(model), optimal_one_step(contexts.task)).log10()
"plain mean": lambda risk, zero: risk.mean(dim=-1) ⇒ "plain mean": lambda risk, zero: risk.median(dim=-1).values
contexts = draw(task, count, "evaluate", seed, queries=queries) ⇒ contexts = draw(task, count, "tune", seed, queries=queries)
"""),
    "experiments/emergence": ("test_emergence", """
.int().flip(0).cummin(dim=0).values.flip(0).bool() ⇒
least_first(found) > EVERY_HEAD.threshold ⇒ least_first(found) < EVERY_HEAD.threshold
"""),
    "cluster": ("test_cluster", """
require(named or not secure ⇒ require(True
require(secure or not given.require_encryption ⇒ require(True
"""),
    "errors": ("test_bad_input", """
room = min(room, int(LIMIT.read_text())) ⇒ pass
"""),
    "experiments/measures": ("test_conditions test_head_utilization test_practical_transformers", """
return values[:, 1:].nanmean(dim=1) ⇒ return values.nanmean(dim=1)
return 1 - trimmed(self.away[name], -1) / trimmed(self.size, -1) ⇒ return trimmed(self.away[name], -1) / trimmed(self.size, -1)
bar = min(on.baselines["ridge"], single ⇒ bar = max(on.baselines["ridge"], single
single = on.risk(alone).mean(dim=0) ⇒ single = on.risk(alone)[0]
"""),
}  # fmt: skip

# Survivors that make no difference, and why.
EQUIVALENT = {
    "one_layer: return np.linalg.solve(second, cross).T ⇒ return np.linalg.solve(second, cross)": (
        "the best step is symmetric: test_the_best_step_is_symmetric_whatever_the_second_moments"
    ),
}


def mutants():
    """Module, tests, before and after, of all."""
    for module, (tests, lines) in MUTANTS.items():
        for line in filter(None, map(str.strip, lines.splitlines())):
            before, _, after = line.partition("⇒")
            yield module, tests.split(), before.strip(), after.strip()


def survives(mutant, folder):
    """Whether the tests pass with one mistake in a copy of the checkout."""
    module, tests, before, after = mutant
    file = folder / "icl" / f"{module}.py"
    whole = (ROOT / "icl" / f"{module}.py").read_text(encoding="utf-8")
    if whole.count(before) != 1:
        raise SystemExit(f"{module}: {before!r} occurs {whole.count(before)} times; allowed is 1")
    file.write_text(whole.replace(before, after), encoding="utf-8")
    shutil.rmtree(file.parent / "__pycache__", ignore_errors=True)
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    command += ["-k", SHORT, *(f"tests/{name}.py" for name in tests)]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, timeout=TIMEOUT, check=False
        )
        return done.returncode == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        file.write_text(whole, encoding="utf-8")
        end(folder)


def end(folder):
    """End the processes of this copy that a mistake let live on."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("PYTHONPATH") == str(folder):
                process.kill()


def copied(folder):
    """A copy of the checkout without what was built; trained models are linked."""
    skip = shutil.ignore_patterns("_build", ".git", ".venv", "trained", "__pycache__")
    shutil.copytree(ROOT, folder, ignore=skip)
    (folder / "icl" / "trained").symlink_to(ROOT / "icl" / "trained")
    return folder


def main():
    """Try all of them and say which survive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="what a mutant's line must contain, as a regex")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    chosen = [m for m in mutants() if re.search(options.only, f"{m[0]}: {m[2]} ⇒ {m[3]}")]
    with tempfile.TemporaryDirectory() as scratch:
        free = SimpleQueue()
        for job in range(options.jobs):
            free.put(copied(Path(scratch) / str(job)))

        def attempt(mutant):
            folder = free.get()
            try:
                return survives(mutant, folder)
            finally:
                free.put(folder)

        left = []
        with ThreadPoolExecutor(options.jobs) as pool:
            for mutant, alive in zip(chosen, pool.map(attempt, chosen), strict=True):
                line = f"{mutant[0]}: {mutant[2]} ⇒ {mutant[3]}"
                why = EQUIVALENT.get(line, "")
                print(f"{'SURVIVES' if alive else 'caught  '} {line}{f' ({why})' if why else ''}")
                sys.stdout.flush()
                left += [line] if alive and not why else []
    counted = sum(f"{m[0]}: {m[2]} ⇒ {m[3]}" not in EQUIVALENT for m in chosen)
    print(f"{counted - len(left)} of {counted} mutants are caught")
    sys.exit(len(left) > (1 - CAUGHT) * counted)


if __name__ == "__main__":
    main()
