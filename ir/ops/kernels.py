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
from treadle.ir.ops.contract_spec import letter_sizes, letters, read_spec, unwound
from treadle.ir.ops.linalg import wide_product
from treadle.ir.ops.sampling import NO_SAMPLES
from treadle.ir.scalar import Kernel
from treadle.ir.types import Shape, TensorType, bool_, type_of_array

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
    """`spec`: einsum's notation for the first two operands, such as "bmk,bnk->bmn"; see
    `treadle.ir.ops.contract_spec`."""

    spec: str


def _contract_infer(a: ContractAttrs, x: TensorType, y: TensorType) -> TensorType:
    if x.dtype != y.dtype or x.dtype is bool_:
        raise DTypeError(
            f"contract needs two operands of one numeric dtype, found {x.dtype} and {y.dtype}"
        )
    sizes = letter_sizes(a.spec, x, y)
    return x.with_shape([sizes[letter] for letter in read_spec(a.spec).out])


def _contract_ref(a: ContractAttrs, x: Array, y: Array) -> Array:
    spec = read_spec(a.spec)
    found = letter_sizes(a.spec, type_of_array(x), type_of_array(y))
    sizes = {letter: size for letter, size in found.items() if isinstance(size, int)}
    wide = wide_product(x.dtype)
    second, y = unwound(spec.right, sizes, y)
    text = f"{letters(spec.left)},{second}->{spec.out}"
    product = np.einsum(text, x.astype(wide), y.astype(wide))
    return np.asarray(product).astype(x.dtype, order="C")


# Left operand, right operand, spec: what convolutions become, and more.
_WINDOWED: tuple[tuple[tuple[int, ...], tuple[int, ...], str], ...] = (
    ((5, 3, 3, 3), (2, 3, 6, 19), "ockl,nc[y+k-1][z+l-1]->noyz where y=6, z=19"),
    ((4, 3, 3, 2), (2, 3, 9, 20), "ockl,nc[2y+k-1][3z+2l-2]->noyz where y=5, z=7"),
    ((5, 3, 3, 3), (2, 5, 4, 5), "ockl,no[(y-k+1)/2][(z-l+1)/2]->ncyz where y=8, z=9"),
    ((2, 5, 6, 19), (2, 3, 6, 19), "noyz,nc[y+k-1][z+l-1]->ockl where k=3, l=3"),
    ((2, 5, 4, 5), (2, 3, 8, 9), "noyz,nc[2y+k-1][2z+l-1]->ockl where k=3, l=2"),
    ((2, 3, 4, 3), (5, 2, 4, 17), "gock,ngc[z+k-1]->ngoz where z=17"),
    ((3, 4, 3), (2, 4, 0), "ock,nc[z+k-1]->noz where z=2"),
    ((3, 3), (5, 6), "kl,[y+k][z+l]->yz where y=3, z=4"),
)


def _contract_samples(rng: np.random.Generator) -> Iterable[Sample]:
    def sample(spec: str, dtype: Any = np.float32, **sizes: int) -> Sample:
        left, right = spec.split("->")[0].split(",")
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
    for first, second, spec in _WINDOWED:
        x, y = (rng.standard_normal(shape).astype(np.float32) for shape in (first, second))
        yield Sample((x, y), ContractAttrs(spec), differentiable=False, ulps=2, scale=8)
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
