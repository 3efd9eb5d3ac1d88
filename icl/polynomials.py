"""Equivariant polynomials of a context's statistics: listed as graphs, named, evaluated.

With linear attention the weights ŵ of L layers are a polynomial in the entries of the Gram matrix,
S = (1/n) Σ x xᵀ, r̂ = (1/n) Σ x y and (1/n) Σ y², of degree 1, 4, 13 for L = 1, 2, 3: states of
degree p have values, keys and queries of degree p, whose product with G has degree 3p + 1. Where
features are independent, of variance 1, and neither their order nor their signs matter, the average
of Pᵀ ŵ(P context) over signed permutations P has at most the mean risk of ŵ, which is convex. So
of any degree the best ŵ is equivariant: ŵ(P context) = P ŵ(context).

The equivariant monomials are multigraphs. Vertices are indices of features, the free one 0 and the
others summed over. An edge ab is a factor C_ab of C = S − I, a loop C_aa, a half-edge at a is r̂_a,
and a power of q, which is (1/n) Σ y² less its mean, may stand beside them: the span of all up to a
degree is the same as that of S and (1/n) Σ y² themselves, and they are less alike. A change of the
sign of a feature takes a factor −1 from every end of an edge that has this index. So where indices
differ, an average over all signs leaves the products in which every summed vertex has an even
degree and the free one an odd one; and sums in which they may coincide have the same span, because
to identify two vertices of such a graph gives another.
"""

import string
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations

import torch
from torch import Tensor

from icl.contexts import Contexts
from icl.errors import whole
from icl.predictors import LinearPredictor
from icl.tasks import require_alike

Edges = tuple[tuple[int, int], ...]
LARGEST = 5  # degree up to which monomials are listed, 272 in all


@dataclass(frozen=True, order=True)
class Monomial:
    """q^power Π C_ab Π r̂_a over edges ab and half-edges a, summed over all indices but 0."""

    power: int
    edges: Edges
    halves: tuple[int, ...]

    @property
    def degree(self) -> int:
        """In the entries of the Gram matrix."""
        return self.power + len(self.edges) + len(self.halves)

    @property
    def vertices(self) -> tuple[int, ...]:
        """All indices, the free one first."""
        return tuple(sorted({0, *self.halves, *(v for edge in self.edges for v in edge)}))

    def canonical(self) -> "Monomial":
        """The least of the graphs that differ from this one in the names of summed indices only."""
        _, *summed = self.vertices
        found = []
        for order in permutations(range(1, len(summed) + 1)):
            new = {0: 0} | dict(zip(summed, order, strict=True))
            edges = sorted((min(new[a], new[b]), max(new[a], new[b])) for a, b in self.edges)
            found.append((tuple(edges), tuple(sorted(new[a] for a in self.halves))))
        return Monomial(self.power, *min(found))

    def __str__(self) -> str:
        return _named(self)


def monomials(degree: int) -> tuple[Monomial, ...]:
    """All equivariant monomials up to a degree: 1, 5, 21, 77, 272 of them, the lowest first."""
    whole("degree", degree, 1, LARGEST)
    return _monomials(degree)


@cache
def _monomials(degree: int) -> tuple[Monomial, ...]:
    found = set()
    for total in range(1, degree + 1):
        for halves in range(1, total + 1, 2):
            for edges in range(total - halves + 1):
                for ends in _endings(2 * edges + halves):
                    pairs = tuple(zip(ends[: 2 * edges : 2], ends[1 : 2 * edges : 2], strict=True))
                    power = total - halves - edges
                    found.add(Monomial(power, pairs, tuple(ends[2 * edges :])).canonical())
    return tuple(sorted(found, key=lambda m: (m.degree, m)))


def _endings(count: int) -> Iterator[list[int]]:
    """Vertices for so many ends of edges: an odd number for 0, an even one for all others."""

    def extend(ends: list[int], named: int) -> Iterator[list[int]]:
        odd = [v for v in range(named) if ends.count(v) % 2]
        if len(odd) > count - len(ends) + 1:  # too few ends are left to make all but one even
            return
        if len(ends) == count:
            yield [0 if v == odd[0] else odd[0] if v == 0 else v for v in ends]
            return
        for v in range(named + 1):
            yield from extend([*ends, v], max(named, v + 1))

    return extend([], 0)


def label_energy(contexts: Contexts) -> Tensor:
    """q, which is (1/n) Σ y² less its mean, (B,)."""
    return contexts.gram[..., -1, -1] - contexts.task.s - contexts.task.noise**2


def evaluate(of: Sequence[Monomial], contexts: Contexts) -> Tensor:
    """The monomials in every context, (B, P, d)."""
    require_alike(contexts.task)
    c = contexts.xx - torch.eye(contexts.task.d, dtype=contexts.gram.dtype)
    r, q = contexts.xy, label_energy(contexts)
    known: dict[tuple, Tensor] = {}

    def part(edges: Edges, halves: tuple[int, ...], free: bool) -> Tensor:
        """A connected part: (B, d) if it has the free index, or else (B, 1)."""
        if (edges, halves) not in known:
            # From the far end: products of matrices with vectors, not with matrices.
            terms = sorted([*edges, *((v,) for v in halves)], key=max, reverse=True)
            names = ["B" + "".join(string.ascii_lowercase[v] for v in term) for term in terms]
            tensors = (c if len(term) == 2 else r for term in terms)
            found = torch.einsum(f"{','.join(names)}->B{'a' * free}", *tensors)
            known[edges, halves] = found if free else found[:, None]
        return known[edges, halves]

    def value(m: Monomial) -> Tensor:
        found = q[:, None] ** m.power
        for vertices in _parts(m):
            free = 0 in vertices
            new = {v: i for i, v in enumerate(vertices, not free)}
            edges = tuple((new[a], new[b]) for a, b in m.edges if a in new)
            found = found * part(edges, tuple(new[a] for a in m.halves if a in new), free)
        return found

    return torch.stack([value(m) for m in of], dim=1)


def _parts(m: Monomial) -> list[list[int]]:
    """The vertices of every connected part, that of the free index first."""
    parts = [{v} for v in m.vertices]
    for edge in m.edges:
        touched = [part for part in parts if part & {*edge}]
        parts = [set().union(*touched), *(part for part in parts if not part & {*edge})]
    return sorted(map(sorted, parts))


@dataclass(frozen=True)
class Polynomial(LinearPredictor):
    """ŵ = Σ c_m m over monomials m, with coefficients c (..., P)."""

    monomials: tuple[Monomial, ...]
    coefficients: Tensor

    def weights(self, contexts: Contexts) -> Tensor:
        """ŵ (..., B, d)."""
        blocks = contexts.blocks(4096)
        found = [
            torch.einsum("...p,bpd->...bd", self.coefficients, evaluate(self.monomials, block))
            for block in blocks
        ]
        return torch.cat(found, dim=-2)

    def without(self, _group: int) -> "Polynomial":
        """The same: coefficients are no contexts, of which some could be left out."""
        return self


def project(weights: Tensor, of: tuple[Monomial, ...], contexts: Contexts) -> Polynomial:
    """The combination of monomials nearest to weights ŵ (..., B, d), by least squares.

    Signed permutations leave the distribution of contexts as it is, so over many of them this is
    the average of gᵀ ŵ(g context) over all g, if that is a polynomial of the degree.
    """
    values = evaluate(of, contexts).mT.flatten(0, 1)
    scale = values.norm(dim=0)
    values = values / scale
    wanted = weights.to(values).flatten(-2)
    found = torch.linalg.solve(values.T @ values, values.T @ wanted.unsqueeze(-1)).squeeze(-1)
    return Polynomial(of, found / scale)


_Edge = tuple[int, int, int]  # of a graph on its way to a name: its ends, and a power of C
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def _named(m: Monomial) -> str:
    """Its name in powers of C, entrywise products (∘), traces and sums.

    Edges are taken together until the free index alone is left: two in series are a product of
    matrices, a loop is a diagonal, and all that leads from a vertex to another an entrywise product
    that is applied to what stands at its end, or to a vector of ones. It is enough up to degree 5.
    """
    vectors = {v: ["r̂"] * m.halves.count(v) for v in m.vertices}
    edges: list[_Edge] = [(a, b, 1) for a, b in m.edges]
    scalars = ["q"] * m.power
    while len(vectors) > 1 or edges:
        for loop in [edge for edge in edges if edge[0] == edge[1]]:
            edges.remove(loop)
            vectors[loop[0]].append(f"diag({_power('C', loop[2])})")
        for v in sorted(list(vectors)[1:], key=lambda v: bool(vectors[v])):
            mine = [(a + b - v, power) for a, b, power in edges if v in (a, b)]
            rest = [edge for edge in edges if v not in edge[:2]]
            ends = {end for end, _ in mine}
            if len(mine) == 2 and not vectors[v]:
                (a, first), (b, second) = mine
                edges = [*rest, (a, b, first + second)]
            elif not mine:
                scalars.append(_total(vectors[v]))
            elif len(ends) == 1:
                matrix = "∘".join(sorted(_power("C", power) for _, power in mine))
                matrix = f"({matrix})" if len(mine) > 1 else matrix
                vectors[ends.pop()].append(f"{matrix} {_entrywise(vectors[v])}")
                edges = rest
            else:
                continue
            del vectors[v]
            break
    factors = [_power(*item) for item in sorted(Counter(scalars).items())]
    return " ".join([*factors, _entrywise(vectors[0])])


def _power(symbol: str, count: int) -> str:
    if count == 1:
        return symbol
    base = symbol if len(symbol) <= 2 or symbol.endswith(")") else f"({symbol})"
    return base + str(count).translate(_SUPERSCRIPTS)


def _entrywise(vectors: list[str]) -> str:
    counts = Counter(sorted(vectors, key=lambda x: (len(x), x)))
    found = [_power(*item) for item in counts.items()]
    return " ∘ ".join(found or ["1"]) if len(found) < 2 else f"({' ∘ '.join(found)})"


def _total(vectors: list[str]) -> str:
    """The sum over entries of what stands at a vertex."""
    if vectors == ["r̂", "r̂"]:
        return "|r̂|²"
    if len(vectors) == 1 and vectors[0].startswith("diag("):
        return f"tr{vectors[0][4:]}"
    return f"Σ{_entrywise(vectors)}"
