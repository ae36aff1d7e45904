"""The matrices of Winograd's convolutions F(m x m, 3 x 3), and products with them in registers.

m results of a filter of three taps need n = m + 2 multiplications in place of 3 m:

    y = A^T ((G g) * (B^T d))        y: m results, g: 3 taps, d: n elements of the input

(Winograd 1980; in two dimensions, on both sides of a matrix, Lavin and Gray 2015, arXiv 1509.09308,
there from the points 0, 1, -1, 2, -2.) With finite points p_i and one at infinity, from Lagrange's
interpolation of the product of two polynomials (Toom 1963, Cook 1966):

    A^T[k, i] = p_i^k      G[i, k] = p_i^k / f_i      B^T[i, k] = [x^k] prod_{j != i} (x - p_j)

where f_i = prod_{j != i} (p_i - p_j); infinity's column of A^T and row of G are unit vectors, its
row of B^T the product over all j.

The points decide what rounding costs. For m = 4 those used here have a quarter of the error of the
customary 0, +-1, +-2, and all entries of A^T and B^T are exact in float32 (docs/convolution.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from math import prod
from typing import Final

from treadle.codegen.llvm import FunctionWriter, Val
from treadle.ir.dataclass import dataclass

TAPS: Final = 3
POINTS: Final = {
    2: (Fraction(0), Fraction(1), Fraction(-1)),
    4: (Fraction(0), Fraction(3, 4), Fraction(-3, 4), Fraction(3, 2), Fraction(-3, 2)),
}

Matrix = tuple[tuple[Fraction, ...], ...]


@dataclass(frozen=True, slots=True)
class Matrices:
    """`output`: A^T, m x n. `weight`: G, n x 3. `input`: B^T, n x n."""

    output: Matrix
    weight: Matrix
    input: Matrix


@cache
def matrices(m: int) -> Matrices:
    """Those of F(m x m, 3 x 3), m being 2 or 4."""
    points = POINTS[m]
    one, nothing = Fraction(1), Fraction(0)
    output = tuple(
        (*(p**k for p in points), one if k == m - 1 else nothing) for k in range(m)
    )  # fmt: skip
    weight, input = [], []
    for i, p in enumerate(points):
        others = [q for j, q in enumerate(points) if j != i]
        f = prod((p - q for q in others), start=one)
        weight.append(tuple(p**k / f for k in range(TAPS)))
        input.append((*_polynomial(others), nothing))
    weight.append((nothing,) * (TAPS - 1) + (one,))
    input.append(_polynomial(points))
    return Matrices(output, tuple(weight), tuple(input))


def _polynomial(roots: Sequence[Fraction]) -> tuple[Fraction, ...]:
    """The coefficients of prod (x - root), the constant first."""
    found = [Fraction(1)]
    for root in roots:
        above = [Fraction(0), *found]
        found = [x - root * y for x, y in zip(above, [*found, Fraction(0)], strict=True)]
    return tuple(found)


def multiplied(w: FunctionWriter, matrix: Matrix, values: Sequence[Val]) -> list[Val]:
    """The matrix times `values`, which are vectors of elements. Of two rows that differ in signs
    alone (those of points p and -p) what they share is computed once."""
    found: list[Val] = []
    rows = list(matrix)
    while rows:
        row = rows.pop(0)
        if rows and rows[0] != row and [*map(abs, rows[0])] == [*map(abs, row)]:
            other = rows.pop(0)
            same = [x if x == y else Fraction(0) for x, y in zip(row, other, strict=True)]
            turned = [x if x != y else Fraction(0) for x, y in zip(row, other, strict=True)]
            even, odd = _sum(w, same, values), _sum(w, turned, values)
            found += [w.fadd(even, odd), w.fsub(even, odd)]
        else:
            found.append(_sum(w, row, values))
    return found


def _sum(w: FunctionWriter, row: Sequence[Fraction], values: Sequence[Val]) -> Val:
    """One row times the values: what needs no multiplication first."""
    terms = [(x, v) for x, v in zip(row, values, strict=True) if x]
    terms.sort(key=lambda term: (term[0] != 1, term[0] != -1))
    factor, first = terms[0]
    total = first if factor == 1 else w.fmul(first, float(factor))
    for factor, value in terms[1:]:
        if abs(factor) == 1:
            total = w.fadd(total, value) if factor == 1 else w.fsub(total, value)
        else:
            total = w.muladd(value, w.const(float(factor), value.type), total)
    return total
