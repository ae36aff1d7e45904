"""Ops of the KERNELS level, which only fusion makes: fused, fused_table, contract.

A `contract` may have a region, its epilogue, which takes the product and further operands and gives
the results; without one the product is the result.

`fused` and `fused_table` hold a region that says what they compute; their result types come from
it (`Builder.emit_typed`), so that they have no type rule and no reference of their own. What a
legal region is stands in `treadle.ir.regions`; `treadle.ir.interpreter` runs it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

import numpy as np

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import DTypeError, ShapeError
from treadle.ir.op import NOT_DIFFERENTIABLE, Array, Attrs, OpDef, Sample, Trait, register
from treadle.ir.ops.linalg import wide_product
from treadle.ir.ops.sampling import NO_SAMPLES
from treadle.ir.scalar import Kernel
from treadle.ir.types import Shape, Size, TensorType, bool_, shape_text

# --- regions ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FusedAttrs(Attrs):
    """The iteration `space`, and the axes of it that every reduction inside reduces."""

    space: Shape
    reduced: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class FusedTableAttrs(Attrs):
    """How many instances the region runs for."""

    count: int


def _types_from_region(a: Attrs, *types: TensorType) -> NoReturn:
    raise ShapeError("the types of fused and fused_table come from their region, not from a rule")


def _run_by_interpreter(a: Attrs, *arrays: Array) -> NoReturn:
    raise RuntimeError("a region runs in treadle.ir.interpreter; it has no reference of its own")


FUSED = register(
    OpDef(
        name="fused",
        maths="the region's results, in one loop nest over space",
        attrs=FusedAttrs,
        infer=_types_from_region,
        ref=_run_by_interpreter,
        vjp=NOT_DIFFERENTIABLE,
        lower=Kernel("fused"),
        traits=frozenset({Trait.REGION}),
        samples=NO_SAMPLES,
    )
)

FUSED_TABLE = register(
    OpDef(
        name="fused_table",
        maths="the region's results for each of count instances of flat operands",
        attrs=FusedTableAttrs,
        infer=_types_from_region,
        ref=_run_by_interpreter,
        vjp=NOT_DIFFERENTIABLE,
        lower=Kernel("fused_table"),
        traits=frozenset({Trait.REGION}),
        samples=NO_SAMPLES,
    )
)


# --- contract --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ContractAttrs(Attrs):
    """`spec`: einsum's notation for the first two operands, such as "bmk,bnk->bmn"."""

    spec: str


def parse_spec(spec: str) -> tuple[str, str, str]:
    """The axes' letters of the left operand, the right operand and the result.

    Raises ShapeError unless each letter stands at most once in each part, every letter of the
    result stands in an operand, and a letter of one operand alone stands in the result.
    """
    operands, arrow, out = spec.partition("->")
    left, comma, right = operands.partition(",")
    parts = (left, right, out)
    well_formed = arrow and comma and all(p.isalpha() or not p for p in parts)
    if not well_formed or any(len(set(p)) != len(p) for p in parts):
        raise ShapeError(f'contract needs a spec such as "bmk,bnk->bmn", found {spec!r}')
    alone = set(left) ^ set(right)
    if not alone <= set(out) <= set(left) | set(right):
        raise ShapeError(
            f"contract sums the letters that both operands have and the result lacks; {spec!r} "
            "has a letter in one operand only, or in the result only"
        )
    return parts


def _contract_infer(a: ContractAttrs, x: TensorType, y: TensorType) -> TensorType:
    left, right, out = parse_spec(a.spec)
    if x.dtype != y.dtype or x.dtype is bool_:
        raise DTypeError(
            f"contract needs two operands of one numeric dtype, found {x.dtype} and {y.dtype}"
        )
    sizes: dict[str, Size] = {}
    for letters, t in ((left, x), (right, y)):
        if len(letters) != t.rank:
            raise ShapeError(
                f"contract {a.spec!r}: the operand {letters!r} has shape {shape_text(t.shape)}"
            )
        for letter, size in zip(letters, t.shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise ShapeError(
                    f"contract {a.spec!r} of {shape_text(x.shape)} and {shape_text(y.shape)}: "
                    f"{letter!r} has sizes {sizes[letter]} and {size}"
                )
    return x.with_shape([sizes[letter] for letter in out])


def _contract_ref(a: ContractAttrs, x: Array, y: Array) -> Array:
    wide = wide_product(x.dtype)
    product = np.einsum(a.spec, x.astype(wide), y.astype(wide))
    return np.asarray(product).astype(x.dtype, order="C")


def _contract_samples(rng: np.random.Generator) -> Iterable[Sample]:
    def sample(spec: str, dtype: Any = np.float32, **sizes: int) -> Sample:
        left, right, _ = parse_spec(spec)
        shapes = [tuple(sizes[letter] for letter in part) for part in (left, right)]
        x, y = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
        return Sample((x, y), ContractAttrs(spec), differentiable=False, ulps=2, scale=8)

    for n in (0, 1, 3, 4, 5, 8, 15, 16, 17):
        yield sample("mk,kn->mn", m=3, k=n, n=2)
        yield sample("mk,kn->mn", m=2, k=5, n=n)
        yield sample("mk,kn->mn", m=n, k=3, n=4)
    for dtype in (np.float32, np.float64):
        for spec in ("mk,nk->mn", "km,kn->mn", "km,nk->mn", "mk,kn->nm"):
            yield sample(spec, dtype, m=5, k=7, n=18)
        yield sample("bmk,bkn->bmn", dtype, b=2, m=3, k=4, n=5)
        yield sample("bmk,bnk->bmn", dtype, b=2, m=3, k=4, n=5)
        yield sample("bmk,kn->bmn", dtype, b=2, m=3, k=4, n=5)
        yield sample("mk,bkn->bmn", dtype, b=2, m=3, k=4, n=5)
        yield sample("mbk,nbk->bmn", dtype, b=2, m=3, k=4, n=5)
        yield sample("bcmk,cnk->bcmn", dtype, b=2, c=3, m=3, k=4, n=5)
    for kind in (np.int32, np.int64, np.uint8, np.uint32):
        x = rng.integers(0, 100, (3, 4)).astype(kind)
        yield Sample((x, x), ContractAttrs("mk,nk->mn"), differentiable=False)


CONTRACT = register(
    OpDef(
        name="contract",
        maths="y[out] = sum over the letters not in out of a[left] * b[right]",
        attrs=ContractAttrs,
        infer=_contract_infer,
        ref=_contract_ref,
        vjp=NOT_DIFFERENTIABLE,
        lower=Kernel("contract"),
        traits=frozenset({Trait.EXPENSIVE}),
        samples=_contract_samples,
    )
)
