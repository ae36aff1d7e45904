"""How much work an instruction is: floating-point operations, and bytes read and written.

Counted from the program alone, the same for every target:

- a product of m x k by k x n is 2 m n k operations;
- an elementwise operation with a float result is one operation for each element, an exponential
  like an addition; casts and selections are none;
- a reduction, a running sum and an added scatter are one for each element that they take;
- a convolution and each of its derivatives are two operations for each output channel, window,
  input channel of the group and tap, taps on padding included;
- attention is its products, and five operations for each weight;
- a loop is its steps, a choice the largest branch;
- a fused kernel is what its region holds, a composite what it expands into;
- every operand is read once and every result written once; what a region only picks elements from
  (a gather, a slice) is read as far as these are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, Final, cast

from treadle.ir.builder import Builder
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr, Value, uses
from treadle.ir.op import Trait
from treadle.ir.ops.attention_kernels import strided_operands, viewed_shape
from treadle.ir.ops.contract_spec import letter_sizes, read_spec
from treadle.ir.types import TensorType

_NO_ARITHMETIC: Final = frozenset({"cast", "where", "variable", "stop_gradient"})

# Of attention's kernels: how many products run over the features of q and k, and over those of v.
_ATTENTION: Final = {"attention_forward": (1, 1), "attention_backward": (3, 2)}
# Of the ops that convolve: which value is the cotangent (or the result), and which the weight.
_CONVOLUTION: Final = {"conv": (2, 1), "conv_input_grad": (0, 1), "conv_weight_grad": (1, 2)}
_OF_A_WEIGHT: Final = 5  # scale, maximum, difference, exponential, sum


@dataclass(frozen=True, slots=True)
class Work:
    """Operations, bytes read and written, and the bytes of an element of the widest float."""

    flops: int
    read: int
    written: int
    itemsize: int

    @property
    def moved(self) -> int:
        """Bytes read and written."""
        return self.read + self.written


def work_of(instr: Instr, in_place: bool = False) -> Work:
    """The work of one instruction with fixed shapes.

    `in_place`: a scatter adds into its operand, which then is neither read nor written as a whole.
    """
    results = sum(r.type.nbytes for r in instr.results)
    operands = list(dict.fromkeys(instr.args))
    if in_place and instr.op.name in ("scatter", "scatter_add", "add_along"):
        touched = instr.args[1].type.nbytes
        others = sum(v.type.nbytes for v in operands[1:])
        return Work(_flops(instr), touched + others, touched, _itemsize(instr))
    read = sum(_bytes_read(instr, v) for v in operands)
    return Work(_flops(instr), read, results, _itemsize(instr))


def _itemsize(instr: Instr) -> int:
    """Of the widest float among what has more than one element; 4 where there is none."""
    types = [v.type for v in (*instr.args, *instr.results)]
    return max((t.dtype.itemsize for t in types if t.dtype.is_float and t.size != 1), default=4)


# --- operations ----------------------------------------------------------------------------------


def _flops(instr: Instr) -> int:
    if instr.op.name == "fused_table":
        return _flops_of_table(instr)
    own = _flops_alone(instr)
    inside = [sum(_flops(i) for i in region.instrs) for region in instr.regions]
    if instr.op.name == "switch":
        return own + max(inside)
    return own + _times(instr) * sum(inside)


def _times(instr: Instr) -> int:
    """How often the regions run; a loop that may end early counts as one that does not."""
    length = cast(Any, instr.attrs).length if instr.op.name == "scan" else 1
    return 1 if length is None else int(length)


def _flops_alone(instr: Instr) -> int:
    """Without those of its regions."""
    op = instr.op
    if op.name == "contract":
        return _flops_of_product(cast(Any, instr.attrs).spec, *(a.type for a in instr.args[:2]))
    if op.name in _ATTENTION:
        return _flops_of_attention(instr)
    if op.name in _CONVOLUTION:
        return _flops_of_convolution(instr)
    if op.name == "matmul":
        left, out = instr.args[0].type, instr.result.type
        return 2 * prod(out.static_shape) * left.static_shape[-1]
    if op.has(Trait.COMPOSITE):
        return sum(_flops(i) for i in _expanded(instr))
    if op.name in ("scatter_add", "add_along"):
        return _count(instr.args[1].type)
    if op.has(Trait.REDUCTION) or op.name in ("cumsum", "cumprod", "linear_scan"):
        return _count(instr.args[0].type)
    if op.elementwise and op.name not in _NO_ARITHMETIC:
        return _count(instr.results[0].type)
    return 0


def _count(type: TensorType) -> int:
    return prod(type.static_shape) if type.dtype.is_float else 0


def _flops_of_product(spec: str, left: TensorType, right: TensorType) -> int:
    """Twice the number of products: one for each index of all letters, of which a window that
    divides leaves out all but each n-th."""
    sizes = [size for size in letter_sizes(spec, left, right).values() if isinstance(size, int)]
    return 2 * prod(sizes) // prod(window.every for window in read_spec(spec).windows)


def _flops_of_table(instr: Instr) -> int:
    """The region's operations on elements, for each element of all instances, and those on single
    numbers once for each instance."""
    (region,) = instr.regions
    count = cast(Any, instr.attrs).count
    each = len(instr.results) // max(count, 1)
    elements = sum(prod(r.type.static_shape) for r in instr.results[::each])
    total = 0
    for inner in region.instrs:
        if inner.op.elementwise and inner.op.name not in _NO_ARITHMETIC:
            type = inner.results[0].type
            if type.dtype.is_float:
                total += count if type.is_static else elements
    return total


def _flops_of_attention(instr: Instr) -> int:
    """Forward the products q k and weights v, backward five; a few operations for each weight.
    Under a causal mask only the weights that are not 0 by it."""
    a = cast(Any, instr.attrs)
    types = [x.type for x in instr.args]
    numbers = strided_operands(instr.op.name, len(types))[:3]
    views = a.views[:3] or ((), (), ())
    seen = [viewed_shape(types[n], view) for n, view in zip(numbers, views, strict=True)]
    q, k, v = (cast(tuple[int, ...], shape) for shape in seen)
    queries, keys = q[-2], k[-2]
    pairs = sum(min(n + 1, keys) for n in range(queries)) if a.causal else queries * keys
    over_features, over_values = _ATTENTION[instr.op.name]
    each = 2 * (over_features * q[-1] + over_values * v[-1]) + _OF_A_WEIGHT
    return prod(q[:-2]) * pairs * each


def _flops_of_convolution(instr: Instr) -> int:
    """Each of the three ops sums the same products: for each element of the cotangent, those of
    one output channel's weights."""
    types = [v.type for v in (*instr.args, instr.result)]
    cotangent, weight = (types[k].static_shape for k in _CONVOLUTION[instr.op.name])
    return 2 * prod(cotangent) * prod(weight[1:])


def _expanded(instr: Instr) -> Sequence[Instr]:
    """What a composite expands into."""
    assert instr.op.expand is not None
    b = Builder(instr.op.name)
    instr.op.expand(b, instr.attrs, *instr.args)
    return b.instrs


# --- bytes ---------------------------------------------------------------------------------------


def _bytes_read(instr: Instr, operand: Value) -> int:
    whole = operand.type.nbytes
    picked = [_bytes_picked(region, p) for region, p in _inside(instr, operand)]
    if not picked or None in picked:
        return whole
    return min(whole, sum(n for n in picked if n is not None))


def _inside(instr: Instr, operand: Value) -> Iterator[tuple[Function, Value]]:
    """The parameters of a fused region that stand for `operand`."""
    if instr.op.name == "fused":
        (region,) = instr.regions
        for value, param in zip(instr.args, region.inputs, strict=True):
            if value is operand:
                yield region, param


def _bytes_picked(region: Function, param: Value) -> int | None:
    """Bytes of the elements that movements take from `param`; None where something else reads it,
    or the region returns it."""
    users = uses(region).get(param, [])
    if param in region.outputs or not all(u.op.has(Trait.MOVEMENT) for u in users):
        return None
    return sum(prod(u.result.type.static_shape) for u in users) * param.type.dtype.itemsize
