"""What a legal region is: the contract between fusion, the interpreter and code generation.

`fused(args; space, reduced) { region }` is one loop nest over the iteration space `space`
(d0, .., dr-1); `kept` below is `space` with 1 at the axes `reduced`.

  1. The region's parameters are the operands, whole arrays of any shape; its results are the
     instruction's. An operand is never a constant of rank 0: those stand inside.
  2. Each instruction inside is a constant of rank 0, or of an op whose lowering is Scalar, Index,
     Reduce or ArgReduce. Nothing inside has a region.
  3. Every result has shape `space` or, where `reduced` is not empty, `kept`.
  4. A reduction (Reduce, ArgReduce) has an operand of shape `space`, axes `reduced`, keepdims=True.
     Without reduced axes there is none: the region is a pure map.
  5. A value is read AT THE POINT where it is a result, a reduction's operand, or an operand of an
     elementwise op or of `broadcast_to` that is itself read at the point. Its shape broadcasts to
     `space`, counted from the last axis as in NumPy: at point p its index is p's last axes, with 0
     where its size is 1. A value may be used at the point and elsewhere.
  6. An operand of any other Index op (permute, slice, gather, reshape, ..) is PULLED: read at an
     index which that op computes. So is everything that a pulled value is computed from. Nothing
     pulled is, or is computed from, a reduction: its value is known at the point only.

So a reduction's value is needed only where its own row is at hand, and a region runs as: for each
point of the kept axes, one loop over the reduced axes for each depth of reductions, the last of
them also writing the results of shape `space`. Its meaning is the instructions run one by one.

`fused_table(args; count) { region }` runs one pure map `count` times over flat arrays, each time
of its own length n:

  7. The region's values have shape (n,), n symbolic, or (); all its ops are elementwise or
     constants of rank 0, so no attribute holds n; each result has shape (n,).
  8. Operands and results are listed instance by instance: parameter j of instance i is operand
     i * parameters + j. Those of shape (n,) have shape (length of that instance,) outside, those of
     shape () have shape (). Reshape instructions around the table make the flat views.
  9. No instance reads what another writes: operands are defined before the table.

`contract(a, b, args..; spec) { region }` finishes each piece of the product while it is at hand, in
an epilogue:

  10. The region's first parameter is the product, of the type that the spec gives; the others are
      the operands behind the first two, of shapes that broadcast to the product's; its results are
      the instruction's.
  11. It is a pure map over the product's shape in which every value is read at the point: its ops
      are elementwise ones that cannot fault, constants of rank 0, `broadcast_to`, `iota` and what
      is computed from an element's number.
  12. Each result has the product's shape, and one at least has its dtype: the first such result's
      buffer holds the product while its sums are made. So no result is written over an operand.
  13. No letter of the result is a window's tap: the gradient of a convolution's weight is complete
      only when all of it is.

It may have a second region, its tail: see `treadle.ir.tails`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from treadle.ir.graph import Function, Instr, Value
from treadle.ir.op import OpDef, can_fail
from treadle.ir.ops.contract_spec import read_spec
from treadle.ir.scalar import ArgReduce, Index, Numbered, Reduce, Scalar
from treadle.ir.tails import tail_faults
from treadle.ir.types import Dim, Shape, TensorType, reduced_shape, shape_text

FLAT_LENGTH = Dim.of("n")  # of one instance of a fused_table


def is_reduction(op: OpDef) -> bool:
    """Folds a row: its value is known once the row's loop has ended."""
    return isinstance(op.lower, (Reduce, ArgReduce))


def reads_at_point(op: OpDef) -> bool:
    """Operands are read where the result is, up to broadcasting; other Index ops pull."""
    return isinstance(op.lower, Scalar) or op.name == "broadcast_to"


def broadcasts_to(shape: Shape, space: Shape) -> bool:
    """Can a value of `shape` be read at each point of `space`?"""
    extra = len(space) - len(shape)
    return extra >= 0 and all(
        have == 1 or have == want for have, want in zip(shape, space[extra:], strict=True)
    )


def check_region(instr: Instr) -> list[str]:
    """What is illegal about the region of a `fused`, `fused_table` or `contract`; nothing for
    other ops."""
    if instr.op.name == "contract" and instr.regions:
        return list(_check_epilogue(instr))
    if instr.op.name == "fused":
        return list(_check_fused(instr))
    if instr.op.name == "fused_table":
        return list(_check_table(instr))
    return []


def _check_fused(instr: Instr) -> Iterator[str]:
    if len(instr.regions) != 1:
        yield f"needs one region, found {len(instr.regions)}"
        return
    (region,) = instr.regions
    space: Shape = tuple(getattr(instr.attrs, "space", ()))
    reduced: tuple[int, ...] = tuple(getattr(instr.attrs, "reduced", ()))
    if list(reduced) != sorted(set(reduced)) or any(not 0 <= a < len(space) for a in reduced):
        yield f"reduced axes {reduced} are not sorted axes of the space {shape_text(space)}"
        return
    yield from _constant_operands(instr)
    yield from _ops_inside(region)
    kept = reduced_shape(space, reduced, keepdims=True)
    for number, value in enumerate(region.outputs):
        if value.type.shape not in (space, kept):
            yield (
                f"result {number} of the region has shape {shape_text(value.type.shape)}, "
                f"expected {shape_text(space)} or {shape_text(kept)}"
            )
    for inner in region.instrs:
        if is_reduction(inner.op):
            yield from _reduction(inner, space, reduced)
    yield from _accesses(region, space)


def _constant_operands(instr: Instr) -> Iterator[str]:
    for number, arg in enumerate(instr.args):
        if arg.producer is not None and arg.producer.op.name == "const" and arg.type.rank == 0:
            yield f"operand {number} is a constant scalar, which belongs inside the region"


def _ops_inside(region: Function) -> Iterator[str]:
    for inner in region.instrs:
        if inner.op.name == "const" and inner.result.type.rank == 0:
            continue
        if inner.op.name == "const":
            yield f"a constant of shape {shape_text(inner.result.type.shape)} inside a region"
        elif inner.regions or not isinstance(inner.op.lower, (Scalar, Index, Reduce, ArgReduce)):
            yield f"{inner.op.name} inside a region: it has no form for one element"


def _reduction(inner: Instr, space: Shape, reduced: tuple[int, ...]) -> Iterator[str]:
    axes = getattr(inner.attrs, "axes", None)
    if not reduced or axes != reduced:
        yield f"{inner.op.name} reduces axes {axes}, the region reduces {reduced}"
    if not getattr(inner.attrs, "keepdims", False):
        yield f"{inner.op.name} inside a region must keep its reduced axes (keepdims=True)"
    if inner.args[0].type.shape != space:
        yield (
            f"{inner.op.name} reduces a value of shape {shape_text(inner.args[0].type.shape)}, "
            f"expected the space {shape_text(space)}"
        )


def _accesses(region: Function, space: Shape) -> Iterator[str]:
    """Rules 5 and 6: two walks from the results upwards, in one sweep over the instructions."""
    at_point: set[Value] = set(region.outputs)
    pulled: set[Value] = set()
    for inner in region.instrs:
        if is_reduction(inner.op):
            at_point.update(inner.args)
    for inner in reversed(region.instrs):
        here = not at_point.isdisjoint(inner.results)
        if not pulled.isdisjoint(inner.results):
            if is_reduction(inner.op):
                yield f"{inner.op.name} is read at an index that is not its own row's"
            pulled.update(inner.args)
        if here and reads_at_point(inner.op):
            at_point.update(inner.args)
        elif here and not is_reduction(inner.op):
            pulled.update(inner.args)
    yield from _misaligned(at_point, space)


def _misaligned(values: Iterable[Value], space: Shape) -> Iterator[str]:
    for value in values:
        if not broadcasts_to(value.type.shape, space):
            yield (
                f"a value of shape {shape_text(value.type.shape)} is read at the point, but does "
                f"not broadcast to the space {shape_text(space)}"
            )


def is_epilogue_op(instr: Instr) -> bool:
    """May `instr` stand in the epilogue of a contraction, as far as its op goes?"""
    if instr.op.name == "const":
        return instr.result.type.rank == 0
    if instr.op.name in ("broadcast_to", "iota") or isinstance(instr.op.lower, Numbered):
        return True
    return isinstance(instr.op.lower, Scalar) and not can_fail(instr.op, instr.attrs)


def takes_epilogue(instr: Instr) -> bool:
    """May a contraction have an epilogue, as far as its spec goes?"""
    spec = read_spec(getattr(instr.attrs, "spec", ""))
    return not any(window.second in spec.out for window in spec.windows)


def _check_epilogue(instr: Instr) -> Iterator[str]:
    if len(instr.regions) > 2:
        yield f"needs one region, or a second one, its tail, found {len(instr.regions)}"
        return
    region = instr.regions[0]
    if not region.params:
        yield "the epilogue needs the product as its first parameter"
        return
    if not takes_epilogue(instr):
        yield "a contraction whose result has a window's taps takes no epilogue"
    product = region.inputs[0].type
    for number, arg in enumerate(instr.args[2:], 2):
        if arg.producer is not None and arg.producer.op.name == "const" and arg.type.rank == 0:
            yield f"operand {number} is a constant scalar, which belongs inside the region"
    for inner in region.instrs:
        if not is_epilogue_op(inner):
            yield f"{inner.op.name} inside an epilogue: it is not computed at the point"
    values = [*region.inputs, *(r for i in region.instrs for r in i.results)]
    yield from _misaligned(values, product.shape)
    for number, value in enumerate(region.outputs):
        if value.type.shape != product.shape:
            yield f"result {number} of the region has type {value.type}, the product {product}"
    if all(v.type.dtype != product.dtype for v in region.outputs):
        yield f"no result of the region is {product.dtype}, as the product is"
    if len(instr.regions) == 2:
        yield from _check_tail(instr, region)


def _check_tail(instr: Instr, epilogue: Function) -> Iterator[str]:
    product = epilogue.inputs[0].type
    if product.rank != 4 or not product.is_static or "[" not in getattr(instr.attrs, "spec", ""):
        yield f"a contraction to {product} takes no tail"
        return
    yield from tail_faults(instr.regions[1], len(epilogue.results), product.shape)


def _check_table(instr: Instr) -> Iterator[str]:
    if len(instr.regions) != 1:
        yield f"needs one region, found {len(instr.regions)}"
        return
    (region,) = instr.regions
    yield from _constant_operands(instr)
    yield from _ops_inside(region)
    values = [*region.inputs, *(r for i in region.instrs for r in i.results)]
    for value in values:
        if value.type.shape not in ((), (FLAT_LENGTH,)):
            yield f"a value inside has shape {shape_text(value.type.shape)}, expected () or (n,)"
    for inner in region.instrs:
        if inner.op.name != "const" and not isinstance(inner.op.lower, Scalar):
            yield f"{inner.op.name} inside a table: only elementwise ops and constants may be"
    for number, value in enumerate(region.outputs):
        if value.type.shape != (FLAT_LENGTH,):
            yield f"result {number} of the region has shape {value.type}, expected (n,)"
    yield from _instances(instr, region)


def _instances(instr: Instr, region: Function) -> Iterator[str]:
    count = getattr(instr.attrs, "count", 0)
    takes, gives = len(region.params), len(region.results)
    if len(instr.args) != count * takes or len(instr.results) != count * gives:
        yield (
            f"{count} instances of {takes} operands and {gives} results, found "
            f"{len(instr.args)} and {len(instr.results)}"
        )
        return
    inside = [v.type for v in (*region.inputs, *region.outputs)]
    for i in range(count):
        values = (
            *instr.args[i * takes : (i + 1) * takes],
            *instr.results[i * gives : (i + 1) * gives],
        )
        outside = [v.type for v in values]
        lengths = {t.shape for t, t_in in zip(outside, inside, strict=True) if t_in.shape}
        (length, *others) = lengths or {(0,)}
        expected = [TensorType(t.dtype, length if t.shape else ()) for t in inside]
        if others or len(length) != 1 or expected != outside:
            found = ", ".join(map(str, outside))
            yield f"instance {i} has types {found}: one flat length, or (), was expected for each"
