"""The spec of a contraction: einsum's notation, in which an axis may be indexed by windows.

    "mk,kn->mn"                                           a product of matrices
    "ockl,nc[y+k-1][z+l-1]->noyz where y=32, z=32"        a convolution of 3 x 3 taps, padded by 1
    "noyz,nc[2y+k-1][2z+l-1]->ockl where k=3, l=3"        the weight's gradient for stride 2
    "ockl,no[(y-k+1)/2][(z-l+1)/2]->ncyz where y=8, z=8"  the input's gradient for stride 2

An axis in brackets is indexed by a sum of two letters, each times a number, and a number. Where
that lies outside of the axis, or is no multiple of the divisor, the element is 0. Windows stand in
the right operand. A letter that has no axis of its own in an operand has its size behind `where`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

import numpy as np

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import ShapeError
from treadle.ir.op import Array
from treadle.ir.types import Size, TensorType, shape_text

_WINDOW = re.compile(
    r"(?P<open>\()?(?P<step>[1-9]\d*)?(?P<first>[a-zA-Z])(?P<sign>[+-])(?P<tap_step>[1-9]\d*)?"
    r"(?P<second>[a-zA-Z])(?P<offset>[+-]\d+)?(?(open)\)/(?P<every>[1-9]\d*))"
)
_SIZE = re.compile(r"(?P<letter>[a-zA-Z])=(?P<size>\d+)")
_AXIS = re.compile(r"(?P<letter>[a-zA-Z])|\[(?P<window>[^\[\]]*)\]")


@dataclass(frozen=True, slots=True)
class Window:
    """An axis indexed by (`step` * `first` + `tap_step` * `second` + `offset`) / `every`."""

    first: str
    second: str
    step: int
    tap_step: int
    offset: int
    every: int = 1

    def __str__(self) -> str:
        sign = "+" if self.tap_step > 0 else "-"
        text = f"{_factor(self.step)}{self.first}{sign}{_factor(abs(self.tap_step))}{self.second}"
        text += f"{self.offset:+d}" if self.offset else ""
        return f"[({text})/{self.every}]" if self.every != 1 else f"[{text}]"


def _factor(number: int) -> str:
    return str(number) if number != 1 else ""


Term = tuple[str | Window, ...]  # what indexes each axis of an operand


@dataclass(frozen=True, slots=True)
class Spec:
    """Both operands' axes, the result's letters, and the sizes behind `where`."""

    left: Term
    right: Term
    out: str
    sizes: tuple[tuple[str, int], ...] = ()

    @property
    def windows(self) -> tuple[Window, ...]:
        return tuple(x for x in self.right if isinstance(x, Window))

    def __str__(self) -> str:
        left, right = ("".join(map(str, term)) for term in (self.left, self.right))
        sizes = ", ".join(f"{letter}={size}" for letter, size in self.sizes)
        return f"{left},{right}->{self.out}" + (f" where {sizes}" if sizes else "")


def letters(term: Term) -> str:
    """The letters of an operand, those of windows in their places."""
    return "".join(x if isinstance(x, str) else x.first + x.second for x in term)


@cache
def read_spec(spec: str) -> Spec:
    """The parts of a spec.

    Raises ShapeError unless each letter stands at most once in each part, every letter of the
    result stands in an operand, a letter of one operand alone stands in the result, and windows
    stand in the right operand.
    """
    product, where, given = spec.partition(" where ")
    operands, arrow, out = product.partition("->")
    left, comma, right = operands.partition(",")
    terms = [_read_term(part) for part in (left, right)]
    sizes = [_SIZE.fullmatch(part) for part in given.split(", ")] if where else []
    well_formed = arrow and comma and (out.isalpha() or not out) and None not in (*terms, *sizes)
    if not well_formed:
        raise ShapeError(f'contract needs a spec such as "bmk,bnk->bmn", found {spec!r}')
    first, second = (t or () for t in terms)
    parts = (letters(first), letters(second), out)
    if any(len(set(p)) != len(p) for p in parts):
        raise ShapeError(f'contract needs a spec such as "bmk,bnk->bmn", found {spec!r}')
    alone = set(parts[0]) ^ set(parts[1])
    if not alone <= set(out) <= set(parts[0]) | set(parts[1]):
        raise ShapeError(
            f"contract sums the letters that both operands have and the result lacks; {spec!r} "
            "has a letter in one operand only, or in the result only"
        )
    if any(isinstance(x, Window) for x in first):
        raise ShapeError(f"contract takes windows over its right operand, found {spec!r}")
    plain = {x for x in (*first, *second) if isinstance(x, str)}
    wanted = [x for x in letters(second) if x not in plain]
    found = tuple((s["letter"], int(s["size"])) for s in sizes if s)
    if sorted(wanted) != sorted(letter for letter, _ in found):
        listed = ", ".join(wanted) or "no letter"
        raise ShapeError(f"contract needs the size of {listed} behind where, found {spec!r}")
    return Spec(first, second, out, found)


def _read_term(text: str) -> Term | None:
    found: list[str | Window] = []
    at = 0
    while at < len(text):
        axis = _AXIS.match(text, at)
        if axis is None:
            return None
        if axis["letter"]:
            found.append(axis["letter"])
        else:
            window = _WINDOW.fullmatch(axis["window"])
            if window is None:
                return None
            tap_step = int(window["tap_step"] or 1)
            found.append(
                Window(
                    window["first"],
                    window["second"],
                    int(window["step"] or 1),
                    -tap_step if window["sign"] == "-" else tap_step,
                    int(window["offset"] or 0),
                    int(window["every"] or 1),
                )
            )
        at = axis.end()
    return tuple(found)


def letter_sizes(spec: str, left: TensorType, right: TensorType) -> dict[str, Size]:
    """The size of each letter. Raises ShapeError where the operands do not fit the spec."""
    parts = read_spec(spec)
    found: dict[str, Size] = dict(parts.sizes)
    for term, t in ((parts.left, left), (parts.right, right)):
        if len(term) != t.rank:
            shown = "".join(map(str, term))
            have = shape_text(t.shape)
            raise ShapeError(f"contract {spec!r}: the operand {shown!r} has shape {have}")
        for letter, size in zip(term, t.shape, strict=True):
            if isinstance(letter, str) and found.setdefault(letter, size) != size:
                raise ShapeError(
                    f"contract {spec!r} of {shape_text(left.shape)} and "
                    f"{shape_text(right.shape)}: {letter!r} has sizes {found[letter]} and {size}"
                )
    return found


def unwound(term: Term, sizes: Mapping[str, int], x: Array) -> tuple[str, Array]:
    """The operand with two axes for each window, and its letters."""
    axis = 0
    for part in term:
        if isinstance(part, str):
            axis += 1
            continue
        first, second = (np.arange(sizes[letter]) for letter in (part.first, part.second))
        at = part.step * first[:, None] + part.tap_step * second + part.offset
        index, rest = np.divmod(at, part.every)
        inside = (rest == 0) & (index >= 0) & (index < x.shape[axis])
        if x.shape[axis]:
            x = np.take(x, np.where(inside, index, 0), axis)
        else:
            x = np.zeros((*x.shape[:axis], *inside.shape, *x.shape[axis + 1 :]), x.dtype)
        x = np.where(inside.reshape(*inside.shape, *(1,) * (x.ndim - axis - 2)), x, 0)
        axis += 2
    return letters(term), x
