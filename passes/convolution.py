"""Convolutions and their derivatives become contractions over windows.

    %2: f32[16, 64, 32, 32] = conv(%0, %1, stride=(1, 1), padding=((1, 1), (1, 1)), ..)
  ->
    %2: f32[16, 64, 32, 32] = contract(%1, %0,
                              spec="ockl,nc[y+k-1][z+l-1]->noyz where y=32, z=32")

The three ops are one form with another letter set left out; see `treadle.ir.ops.convolution`. A
kernel of one tap that moves by ones over an input without padding is a product of matrices, whose
windows would say nothing. Groups are a letter of their own, by free views.

Claimed is what has fixed sizes, at least one element each, and one or two spatial axes. Everything
else stays a composite, for expand.
"""

from __future__ import annotations

from math import prod
from typing import Any, Final

from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Instr, Level, Value
from treadle.ir.ops.contract_spec import Window
from treadle.ir.types import TensorType
from treadle.passes.manager import Pass, PassContext
from treadle.passes.rewrite import RuleSet, rewrite

RULES = RuleSet()
_PIXELS: Final = ("y", "z")  # the letters of spatial axes; one axis has the last of them
_TAPS: Final = ("k", "l")


def run(fn: Function, ctx: PassContext) -> Function:
    """`fn` with contractions for the convolutions that the engine takes."""
    return rewrite(fn, lambda i: RULES.of(i.op.name), ctx)


@RULES.rule("conv")
def convolution_as_product(b: Builder, i: Instr) -> Value | None:
    """y[n, o, p] = the sum over c and k of w[o, c, k] times x at p's window"""
    x, w = i.args
    return _product(b, i, w, x, "ock", "ncw", "nop", (w.type, x.type, i.result.type))


@RULES.rule("conv_input_grad")
def input_gradient_as_product(b: Builder, i: Instr) -> Value | None:
    """x[n, c, q] = the sum over o and k of w[o, c, k] times g where its window has q"""
    g, w = i.args
    return _product(b, i, w, g, "ock", "nov", "ncp", (w.type, i.result.type, g.type))


@RULES.rule("conv_weight_grad")
def weight_gradient_as_product(b: Builder, i: Instr) -> Value | None:
    """w[o, c, k] = the sum over n and p of g[n, o, p] times x at p's window"""
    x, g = i.args
    return _product(b, i, g, x, "nop", "ncw", "ock", (i.result.type, x.type, g.type))


def _product(
    b: Builder, i: Instr, left: Value, right: Value, first: str, second: str, out: str,
    types: tuple[TensorType, TensorType, TensorType],
) -> Value | None:  # fmt: skip
    """The contraction of `left` and `right`, whose axes are channels, the batch, and p: positions,
    k: taps, w: a window over an input, v: a window over a cotangent. `types`: of weight, input and
    convolution."""
    if not _is_claimed(types):
        return None
    attrs: Any = i.attrs
    weight, inputs, outputs = (t.static_shape for t in types)
    rank, groups = len(weight) - 2, attrs.groups
    if _is_plain(attrs, weight):
        rank = 1
        terms = [part.replace("w", "p").replace("v", "p").replace("k", "") for part in
                 (first, second, out)]  # fmt: skip
    else:
        spelled = {"p": "".join(_PIXELS[-rank:]), "k": "".join(_TAPS[-rank:])}
        spelled["w"] = spelled["v"] = "".join(map(str, _windows(attrs, rank, "w" in second, out)))
        terms = ["".join(spelled.get(x, x) for x in part) for part in (first, second, out)]
    if groups > 1:
        terms = [_grouped(part) for part in terms]
        left, right = (_split(b, v, t, groups) for v, t in zip((left, right), terms, strict=False))
    if _is_plain(attrs, weight):
        left, right = (_flat(b, v, t) for v, t in zip((left, right), terms, strict=False))
    spec = f"{terms[0]},{terms[1]}->{terms[2]}"
    if not _is_plain(attrs, weight):
        sizes = {"nop": outputs[2:], "ncp": inputs[2:], "ock": weight[2:]}[out]
        names = _TAPS[-rank:] if out == "ock" else _PIXELS[-rank:]
        spec += " where " + ", ".join(f"{x}={n}" for x, n in zip(names, sizes, strict=True))
    return b.reshape(b.call("contract", left, right, spec=spec), i.result.type.shape)


def _is_claimed(types: tuple[TensorType, TensorType, TensorType]) -> bool:
    return all(t.is_static and prod(t.static_shape) > 0 and t.rank <= 4 for t in types)


def _is_plain(attrs: Any, weight: tuple[int, ...]) -> bool:
    """Is it a product of matrices, one for each image?"""
    taps, pads = set(weight[2:]), {p for pads in attrs.padding for p in pads}
    return taps == {1} and set(attrs.stride) == {1} and pads == {0}


def _windows(attrs: Any, rank: int, over_input: bool, out: str) -> list[Window]:
    """What indexes the right operand's spatial axes. Its letters: position, then tap."""
    found = []
    steps = zip(attrs.stride, attrs.padding, attrs.dilation, strict=True)
    for p, k, (s, (low, _), d) in zip(_PIXELS[-rank:], _TAPS[-rank:], steps, strict=True):
        found.append(Window(p, k, s, d, -low) if over_input else Window(p, k, 1, -d, low, s))
    return found


def _grouped(term: str) -> str:
    """With a letter for the group in front of the channels."""
    return term.replace("o", "go") if "c" not in term else (
        f"g{term}" if term.startswith("oc") else term.replace("c", "gc")
    )  # fmt: skip


def _split(b: Builder, value: Value, term: str, groups: int) -> Value:
    """With an axis for the group: before an axis of channels."""
    shape = value.type.static_shape
    at = term.index("g")
    return b.reshape(value, (*shape[:at], groups, shape[at] // groups, *shape[at + 1 :]))


def _flat(b: Builder, value: Value, term: str) -> Value:
    """With one axis for all positions, or none for a single tap."""
    shape = value.type.static_shape
    kept = len(term) - term.count("p")
    return b.reshape(value, (*shape[:kept], *[prod(shape[kept:])] * term.count("p")))


PASS = Pass("convolution", run, requires=Level.TRACED, ensures=Level.TRACED)
