"""Exact mean products of equivariant monomials, for every n, noise, number of features and s.

Given w, tokens e = (x, y) are Gaussian with E e eᵀ = Γ: Γ_xx = I, Γ_xy = w, Γ_yy = τ = |w|² + σ².
Integration by parts in one factor of G = (1/n) Σ_i e_i e_iᵀ (Stein's identity,
E[e_b f] = Σ_c Γ_bc E[∂f/∂e_c]) turns a mean of k + 1 entries of G into means of k of them:

    E[G_ab Π G_cd] = Γ_ab E[Π G_cd] + (1/n) Σ_cd E[(Γ_bc G_ad + Γ_bd G_ac) Π_others].

On a graph whose vertices are summed over, Γ of two inputs makes two vertices one, Γ of an input and
a label leaves a factor w at the vertex, and Γ of two labels a factor τ. Where no entry is left, a
vertex with k factors of w is the power sum p_k = Σ_a w_a^k, with p_0 = d. Entries of two inputs or
two labels stand for G less its mean, I or E τ, here as in `icl.polynomials`: then the first term is
zero for two inputs, for two labels it is δ = τ − E τ, and where such an entry G_ad arises its mean
is added. So every mean is a polynomial in 1/n, τ, δ and power sums, with whole coefficients, and
the moments of the prior turn it into a number.
"""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import permutations, product
from math import comb, prod

import numpy as np
import torch
from torch import Tensor

from icl.polynomials import Monomial, Polynomial, monomials
from icl.tasks import SparseLinear, require_alike

Monomials = tuple[Monomial, ...]
LABEL = -1  # among the ends of entries of G, of which all others are vertices
Entry = tuple[int, int]
# Whole coefficients, by the powers of 1/n, τ and δ and the k of all p_k in a term.
Mean = dict[tuple[int, int, int, tuple[int, ...]], int]


def mean(entries: tuple[Entry, ...], powers: dict[int, int]) -> Mean:
    """E Π G_ab Π w_a^power over entries ab and vertices a, summed over all vertices."""
    touched = {v for entry in entries for v in entry}
    closed = tuple(k for v, k in powers.items() if v not in touched)
    if any(k % 2 for k in closed):
        return {}  # w_a is as likely as −w_a
    left = {v: k for v, k in powers.items() if v in touched}
    found = _unclosed(*_canonical(entries, left))
    return {(*head, tuple(sorted(ks + closed))): c for (*head, ks), c in found.items()}


def _canonical(entries: tuple[Entry, ...], powers: dict[int, int]) -> tuple:
    """The same graph with vertices 0, 1, ... in an order that does not depend on their names."""
    colours = powers
    for _ in range(3):  # rounds of refinement by the colours of neighbours
        near: dict[int, list[int]] = {v: [] for v in powers}
        for a, b in entries:
            for v, end in ((a, b), (b, a)):
                if v != LABEL:
                    near[v].append(-1 if end == LABEL else -2 if end == v else colours[end])
        seen = {v: (colours[v], *sorted(near[v])) for v in powers}
        order = sorted(set(seen.values()))
        colours = {v: order.index(seen[v]) for v in powers}
    alike = [[v for v in powers if colours[v] == colour] for colour in range(len(order))]
    found = []
    for choice in product(*map(permutations, alike)):
        names = {v: i for i, v in enumerate(v for part in choice for v in part)} | {LABEL: LABEL}
        ends = (sorted((names[a], names[b])) for a, b in entries)
        found.append(tuple(sorted(map(tuple, ends))))
    return min(found), tuple(powers[v] for part in alike for v in part)


def _times(pairs: list[Entry], entries: list[Entry], powers: dict[int, int]) -> Mean:
    """`mean` with a factor Γ of every pair."""
    if not pairs:
        return mean(tuple(entries), powers)
    (a, b), *pairs = pairs
    if a == b == LABEL:
        found = _times(pairs, entries, powers)
        return {(i, t + 1, u, ks): c for (i, t, u, ks), c in found.items()}
    if LABEL in (a, b):
        v = max(a, b)
        return _times(pairs, entries, powers | {v: powers[v] + 1})
    if a != b:  # they are one vertex
        powers = powers | {a: powers[a] + powers[b]}
        del powers[b]
        pairs, entries = (
            [tuple(a if v == b else v for v in x) for x in y] for y in (pairs, entries)
        )
    return _times(pairs, entries, powers)


@cache
def _unclosed(entries: tuple[Entry, ...], powers: tuple[int, ...]) -> Mean:
    """`mean` where every vertex is the end of an entry."""
    if not entries:
        return {(0, 0, 0, ()): 1}
    (a, b), *rest = entries
    # The powers of 1/n and δ and the sign of every term, what Γ is taken of, and what is left.
    terms: list[tuple[int, int, int, list[Entry], list[Entry]]] = []
    if a == b == LABEL:
        terms.append((0, 1, 1, [], rest))
    elif LABEL in (a, b):
        terms.append((0, 0, 1, [(a, b)], rest))
    for k, entry in enumerate(rest):
        others = rest[:k] + rest[k + 1 :]
        for c, d in (entry, entry[::-1]):
            terms.append((1, 0, 1, [(b, c)], [*others, (a, d)]))
            if (a == LABEL) == (d == LABEL):  # G_ad has a mean, I or τ − δ
                terms.append((1, 0, 1, [(b, c), (a, d)], others))
            if a == d == LABEL:
                terms.append((1, 1, -1, [(b, c)], others))
    found: Counter = Counter()
    for inverse, delta, sign, pairs, left in terms:
        for (i, t, u, ks), c in _times(pairs, left, dict(enumerate(powers))).items():
            found[i + inverse, t, u + delta, ks] += sign * c
    return {key: c for key, c in found.items() if c}


def product_mean(first: Monomial, second: Monomial | None = None) -> Mean:
    """E <φ, φ'> of two monomials, or E <φ, w> of one."""
    graphs = [first] if second is None else [first, second]
    entries, powers = [], {0: int(second is None)}
    for graph in graphs:
        new = {0: 0} | {v: len(powers) + i for i, v in enumerate(graph.vertices[1:])}
        powers |= {v: 0 for v in new.values() if v}
        entries += [(new[a], new[b]) for a, b in graph.edges]
        entries += [(new[a], LABEL) for a in graph.halves] + [(LABEL, LABEL)] * graph.power
    return mean(tuple(entries), powers)


@cache
def prior_mean(powers: tuple[int, ...], s: int, values: str) -> float:
    """E Π p_k over the prior, for even k above 0.

    A product of sums is a sum over the ways in which their indices can coincide, each with
    s (s − 1) ... choices of as many different indices and the mean of a product of powers: 1 for
    signs, Π (k − 1)!! for Gaussian values, and on the sphere that times
    s^K / (s (s + 2) ... (s + 2K − 2)), for powers with a sum of 2K.
    """
    total = 0.0
    for blocks in _partitions(powers):
        sums = [sum(block) for block in blocks]
        found = prod(range(s, s - len(blocks), -1))
        if values != "signs":
            found *= prod(prod(range(k - 1, 0, -2)) for k in sums)
        if values == "sphere":
            found *= prod(s / (s + 2 * i) for i in range(sum(sums) // 2))
        total += found
    return total


def _partitions(items: tuple[int, ...]) -> Iterator[list[list[int]]]:
    """All ways to put items into groups."""
    if not items:
        yield []
        return
    for rest in _partitions(items[1:]):
        yield [[items[0]], *rest]
        for i, block in enumerate(rest):
            yield [*rest[:i], [items[0], *block], *rest[i + 1 :]]


@cache
def _tables(degree: int) -> tuple[list, np.ndarray, np.ndarray]:
    """All terms that occur, and the coefficients of E <φ, φ'> (P, P, K) and of E <φ, w> (P, K)."""
    listed = monomials(degree)
    inner = {}
    for i, first in enumerate(listed):
        for j, second in enumerate(listed[: i + 1]):
            inner[i, j] = inner[j, i] = product_mean(first, second)
    cross = [product_mean(first) for first in listed]
    terms = sorted({key for found in (*inner.values(), *cross) for key in found})
    place = {key: i for i, key in enumerate(terms)}
    table = np.zeros((len(listed) + 1, len(listed), len(terms)))
    for (i, j), found in [*inner.items(), *(((-1, j), found) for j, found in enumerate(cross))]:
        for key, c in found.items():
            table[i, j, place[key]] = c
    return terms, table[:-1], table[-1]


def second_moments(task: SparseLinear, of: Monomials) -> tuple[np.ndarray, np.ndarray]:
    """E <φ, φ'> (P, P) and E <φ, w> (P,) of monomials, exact."""
    require_alike(task)
    degree = max(m.degree for m in of)
    rows = [monomials(degree).index(m) for m in of]
    terms, inner, cross = _tables(degree)
    numbers = np.array([_number(term, task) for term in terms])
    return inner[np.ix_(rows, rows)] @ numbers, cross[rows] @ numbers


def _number(term: tuple, task: SparseLinear) -> float:
    inverse, tau, delta, powers = term
    sums = tuple(k for k in powers if k)
    total = 0.0
    for i in range(tau + 1):  # τ = p_2 + σ², δ = p_2 − s
        for j in range(delta + 1):
            mean = prior_mean(tuple(sorted(sums + (2,) * (i + j))), task.s, task.values)
            total += (
                comb(tau, i)
                * task.noise ** (2 * (tau - i))
                * comb(delta, j)
                * (-task.s) ** (delta - j)
                * mean
            )
    return total * float(task.d) ** powers.count(0) / float(task.n) ** inverse


def optimum(task: SparseLinear, of: Monomials) -> Polynomial:
    """The combination of monomials that has the least mean risk."""
    inner, cross = second_moments(task, of)
    scale = np.sqrt(np.diag(inner))
    # Where there are few features, some monomials depend on others: any solution will do.
    found = np.linalg.lstsq(inner / scale / scale[:, None], cross / scale, rcond=1e-13)[0] / scale
    return Polynomial(of, torch.from_numpy(found))


def mean_risk(task: SparseLinear, polynomial: Polynomial) -> Tensor:
    """Exact mean excess risk (...) of a polynomial: E|w|² − 2 c·E<φ, w> + c·E<φ, φ'>·c."""
    inner, cross = map(torch.from_numpy, second_moments(task, polynomial.monomials))
    c = polynomial.coefficients
    return task.s - 2 * c @ cross + torch.einsum("...p,pq,...q->...", c, inner, c)


def length(task: SparseLinear, polynomial: Polynomial) -> Tensor:
    """Exact root mean square (...) of a polynomial's answers ŵ."""
    inner = torch.from_numpy(second_moments(task, polynomial.monomials)[0])
    c = polynomial.coefficients
    return torch.einsum("...p,pq,...q->...", c, inner, c).sqrt()


def sizes(task: SparseLinear, polynomial: Polynomial) -> Tensor:
    """Exact root mean squares (..., P) of the terms c_m m, with the signs of c_m."""
    inner, _ = second_moments(task, polynomial.monomials)
    return polynomial.coefficients * torch.from_numpy(inner).diagonal().sqrt()


def needed(task: SparseLinear, polynomial: Polynomial) -> Tensor:
    """By how much the mean risk (..., P) rises without each monomial, the others refitted: exact.

    Of all without m the nearest to the polynomial is c − A⁻¹_m c_m / A⁻¹_mm, with A the second
    moments of monomials: of all changes e with e_m = −c_m it has the least eᵀ A e.
    """
    inner = torch.from_numpy(second_moments(task, polynomial.monomials)[0])
    scale = inner.diagonal().sqrt()
    inverse = torch.linalg.inv(inner / scale / scale[:, None]) / scale / scale[:, None]
    c = polynomial.coefficients
    without = c[..., None, :] - (c / inverse.diagonal())[..., None] * inverse
    rest = Polynomial(polynomial.monomials, without)
    return mean_risk(task, rest) - mean_risk(task, polynomial)[..., None]
