"""Contractions: any spec, any shape, any target, operands between forbidden pages."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from native_call import Array, Native, close, compiled, emitted_for, function_of

from treadle.codegen.plan_contract import ContractPlan
from treadle.codegen.target import NAMES, Target, host, named
from treadle.ir.builder import Builder
from treadle.ir.graph import Result
from treadle.ir.op import get_op
from treadle.ir.types import TensorType, float32

FAMILIES = [named(n) for n in NAMES if named(n).runs_here()]
CONTRACT = get_op("contract")
NUMPY = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64, "u8": np.uint8}


def contraction(spec: str, target: Target, dtype: Any = np.float32, **sizes: int) -> None:
    """Compile and run one einsum, and compare it with NumPy's in float64."""
    left, right = spec.split("->")[0].split(",")
    rng = np.random.default_rng(sum(sizes.values()))
    args = []
    for part in (left, right):
        shape = tuple(sizes[x] for x in part)
        drawn = rng.standard_normal(shape) if dtype in (np.float32, np.float64) else None
        args.append((rng.integers(0, 90, shape) if drawn is None else drawn).astype(dtype))
    attrs = CONTRACT.attrs(spec=spec)  # type: ignore[call-arg]
    native = compiled(function_of(CONTRACT, attrs, args), target)
    (got,) = native.results(*args)
    want = CONTRACT.run_ref(attrs, args)[0]
    length = max(1, want.size and args[0].size * args[1].size // max(want.size, 1))
    scale = 0.5 * length**0.5 if dtype in (np.float32, np.float64) else 0
    assert close(got, want, 4 if scale else 0, scale, args), native.plan


def plan_of(native: Native) -> ContractPlan:
    (kernel,) = native.plan.kernels
    assert isinstance(kernel.body, ContractPlan)
    return kernel.body


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize("spec", ["mk,kn->mn", "mk,nk->mn", "km,kn->mn", "km,nk->mn", "mk,kn->nm"])
def test_every_orientation(spec: str, target: Target) -> None:
    contraction(spec, target, m=45, n=70, k=33)


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
def test_sizes_around_tiles_and_blocks(target: Target) -> None:
    """Full tiles, tiles over both edges, several blocks of k."""
    width = target.lanes(float32)
    for m, n, k in (
        (14, 2 * width, 64),
        (29, 2 * width + 1, 65),
        (15, width - 1, 700),
        (97, 97, 1),
    ):
        contraction("mk,kn->mn", target, m=m, n=n, k=k)


@settings(max_examples=40, deadline=None)
@given(
    m=st.sampled_from([0, 1, 2, 7, 33]),
    n=st.sampled_from([0, 1, 3, 16, 50]),
    k=st.sampled_from([0, 1, 5, 40]),
    spec=st.sampled_from(["mk,kn->mn", "mk,nk->mn", "km,kn->mn", "mk,kn->nm"]),
    target=st.sampled_from(FAMILIES),
)
def test_degenerate_sizes(m: int, n: int, k: int, spec: str, target: Target) -> None:
    contraction(spec, target, m=m, n=n, k=k)


@pytest.mark.parametrize(
    "spec",
    ["bmk,bkn->bmn", "bmk,bnk->bmn", "bmk,kn->bmn", "mk,bkn->bmn", "bmk,bkn->mn", "bcmk,cnk->bcmn",
     "bmhk,bnhk->bhmn", "bhmn,bnhk->bmhk", "mbk,nbk->bmn", "bmk,bkn->mnb"],
)  # fmt: skip
@pytest.mark.parametrize("small", [True, False])
def test_batches_and_summed_batches(spec: str, small: bool) -> None:
    sizes = {"b": 3, "c": 2, "h": 2, "m": 5, "n": 6, "k": 4}
    if not small:
        sizes.update(m=31, n=37, k=40)
    contraction(spec, host(), **{x: s for x, s in sizes.items() if x in spec})


@pytest.mark.parametrize("dtype", ["f64", "i32", "i64", "u8"])
def test_other_dtypes(dtype: str) -> None:
    for spec, target in itertools.product(("mk,kn->mn", "km,nk->nm"), FAMILIES):
        contraction(spec, target, NUMPY[dtype], m=19, n=35, k=31)


@pytest.mark.parametrize("m,n", [(1, 300), (300, 1), (1, 1)])
def test_matrix_times_vector(m: int, n: int) -> None:
    for target in FAMILIES:
        contraction("mk,kn->mn", target, m=m, n=n, k=520)


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
def test_dot_products_at_every_edge(target: Target) -> None:
    """Few rows with many along a contiguous k, either way round: rows and columns that fill no
    tile, lengths that fill no vector."""
    width = target.lanes(float32)
    for few, many, k in itertools.product((1, 2, 3, 4, 7), (9, 32, 65), (8 * width, 8 * width + 3)):
        contraction("mk,nk->mn", target, m=few, n=many, k=k)
        contraction("mk,nk->mn", target, m=many, n=few, k=k)
    contraction("mk,nk->nm", target, m=3, n=33, k=9 * width - 1)
    contraction("bmk,nbk->mn", target, b=3, m=2, n=33, k=12 * width + 1)
    contraction("mk,nk->mn", target, np.float64, m=3, n=70, k=9 * width + 1)
    contraction("mk,nk->mn", target, m=1, n=9, k=600 * width + 5)


def test_a_matrix_times_a_vector_is_not_packed() -> None:
    for spec in ("mk,nk->mn", "mk,kn->mn"):
        x, y = np.zeros((500, 400), np.float32), np.zeros((1, 400), np.float32)
        attrs = CONTRACT.attrs(spec=spec)  # type: ignore[call-arg]
        plan = plan_of(compiled(function_of(CONTRACT, attrs, (x, y if "nk" in spec else y.T))))
        assert (plan.kind, plan.shared, plan.own) == ("dots", 0, 0)


@pytest.mark.parametrize("m", [1, 40])
def test_long_sums_keep_the_stated_bound(m: int) -> None:
    """(B + k / B) u times the sum of the products' sizes, B = 320: here every addition rounds the
    same way, so that a single chain of them would be off by 50 times that."""
    k, block, unit = 200_000, 320, 2.0**-24
    x, y = np.full((m, k), 1.1, np.float32), np.full((70, k), 1.3, np.float32)
    native = compiled(function_of(CONTRACT, CONTRACT.attrs(spec="mk,nk->mn"), (x, y)))  # type: ignore[call-arg]
    (got,) = native.results(x, y)
    want = k * float(x[0, 0]) * float(y[0, 0])
    assert np.abs(got - want).max() <= (block + k / block) * unit * want


def test_dot_products_do_not_mix_rows() -> None:
    """Infinities in one row stay there, in the vector behind the last whole one as well."""
    x, y = np.ones((3, 100), np.float32), np.ones((20, 100), np.float32)
    x[1, 82] = np.inf
    native = compiled(function_of(CONTRACT, CONTRACT.attrs(spec="mk,nk->mn"), (x, y)))  # type: ignore[call-arg]
    assert plan_of(native).kind == "dots"
    (got,) = native.results(x, y)
    np.testing.assert_array_equal(
        got, np.where([[False], [True], [False]], np.inf, np.full((3, 20), 100))
    )


def test_the_code_does_not_grow_with_the_number_of_products() -> None:
    def lines(count: int) -> int:
        b = Builder("f")
        x = b.param(TensorType(float32, (64, 64)), "x")
        y = x
        for _ in range(count):
            y = b.call("contract", x, y, spec="mk,kn->mn")
        fn = b.finish([Result(y, "y")])
        return emitted_for(fn, host())[2].ir.count("\n")

    assert lines(20) - lines(10) <= 10 * 12


def test_a_tile_that_the_module_has_is_used_again() -> None:
    b = Builder("f")
    x = b.param(TensorType(float32, (128, 128)), "x")
    y = b.param(TensorType(float32, (128, 130)), "y")
    outs = [b.call("contract", x, v, spec="mk,kn->mn") for v in (x, y)]
    plan = emitted_for(b.finish([Result(v, f"y{n}") for n, v in enumerate(outs)]), host())[1]
    tiles = {(k.body.mr, k.body.nr) for k in plan.kernels if isinstance(k.body, ContractPlan)}
    assert len(tiles) == 1


def test_the_plan_names_tiles_and_blocks() -> None:
    x: Array = np.zeros((100, 100), np.float32)
    native = compiled(function_of(CONTRACT, CONTRACT.attrs(spec="mk,kn->mn"), (x, x)))  # type: ignore[call-arg]
    plan = plan_of(native)
    assert plan.kind == "packed"
    assert f"registers {plan.mr} x {plan.nr}" in str(native.plan)
