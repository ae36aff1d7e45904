"""Winograd's convolutions as machine code: any sizes, any padding, any target, any threads; the
errors that docs/convolution.md states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from native_call import Native, emitted_for, function_of

from treadle.codegen import plan, plan_winograd
from treadle.codegen.plan_convolution import Convolution
from treadle.codegen.plan_winograd import WinogradPlan, applies, plan_squares
from treadle.codegen.target import NAMES, Target, named
from treadle.codegen.winograd_matrices import matrices
from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Result
from treadle.ir.op import Array, get_op
from treadle.ir.ops.convolution import ConvAttrs, ConvGradAttrs
from treadle.ir.types import DType, type_of_array
from treadle.passes import convolution, expand, fuse
from treadle.passes.manager import run_pipeline
from treadle.runtime.native import assembly, load

FAMILIES = [named(n) for n in NAMES if named(n).runs_here()]
Shape = tuple[int, ...]
Pads = tuple[tuple[int, int], tuple[int, int]]

# Input, output channels, padding.
CASES: list[tuple[Shape, int, Pads]] = [
    ((1, 1, 3, 3), 1, ((0, 0), (0, 0))),  # a single position
    ((2, 5, 1, 1), 3, ((1, 1), (1, 1))),  # taps that meet padding only
    ((2, 3, 8, 9), 5, ((1, 1), (1, 1))),
    ((1, 4, 7, 33), 9, ((0, 2), (1, 0))),  # sides of their own
    ((3, 7, 14, 14), 17, ((1, 1), (1, 1))),
    ((5, 6, 7, 7), 8, ((1, 1), (1, 1))),  # images together in a tile
    ((1, 3, 6, 150), 4, ((2, 2), (3, 3))),  # a line of many vectors
    ((2, 2, 20, 5), 3, ((3, 0), (0, 4))),
]


def forced(m: int) -> Any:
    """Squares of m x m wherever they apply, whatever they cost."""

    def planned(
        what: Convolution, dtype: DType, target: Target, region: Function | None, most: int,
        direct: float,
    ) -> WinogradPlan | None:  # fmt: skip
        if not applies(what, dtype) or not most:
            return None
        return plan_squares(what, dtype, target, region, m, direct)

    return planned


def native(fn: Function, target: Target, m: int) -> Native:
    kernels = run_pipeline(fn, (convolution.PASS, expand.PASS, fuse.PASS), [], verify="all")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "plan_winograd", forced(m))
        memory, chosen, emitted = emitted_for(kernels, target, winograd=m)
    return Native(kernels, memory, chosen, emitted, load(emitted.ir, target))


def bound(x: Array, w: Array, pads: Pads, m: int) -> Array:
    """An upper bound of the error of each element: what each operation can lose at most, in first
    order of u = 2^-24, when it works on the absolute values."""
    a, g, b = (
        np.abs(np.array(matrix, dtype=np.float64))
        for matrix in (matrices(m).output, matrices(m).weight, matrices(m).input)
    )
    n = m + 2
    data = np.pad(np.abs(x).astype(np.float64), ((0, 0), (0, 0), *pads))
    counts = data.shape[2] - 2, data.shape[3] - 2
    high, wide = (-(-count // m) for count in counts)
    data = np.pad(data, ((0, 0), (0, 0), (0, high * m + 2 - data.shape[2]),
                         (0, wide * m + 2 - data.shape[3])))  # fmt: skip
    u = np.einsum("ik,ockl,jl->ijoc", g, np.abs(w).astype(np.float64), g)
    found = np.empty((x.shape[0], w.shape[0], high * m, wide * m))
    for y in range(high):
        for z in range(wide):
            square = data[:, :, y * m : y * m + n, z * m : z * m + n]
            v = np.einsum("ik,nckl,jl->ijnc", b, square, b)
            products = np.einsum("ijoc,ijnc->ijno", u, v)
            there = np.einsum("ki,ijno,lj->nokl", a, products, a)
            found[:, :, y * m : y * m + m, z * m : z * m + m] = there
    # each row of a transform is a sum of at most n terms with rounded coefficients: twice for each
    # of the three transforms; the channels are summed one after the other
    operations = x.shape[1] + 2 * (n + n + n + 3)
    return found[:, :, : counts[0], : counts[1]] * operations * 2.0**-24


def operands(x: Shape, rows: int, pads: Pads, seed: int = 0) -> tuple[Array, Array, ConvAttrs]:
    rng = np.random.default_rng(seed)
    data = rng.standard_normal(x, dtype=np.float32)
    weight = rng.standard_normal((rows, x[1], 3, 3), dtype=np.float32)
    return data, weight, ConvAttrs((1, 1), pads, (1, 1), 1)


def exact(data: Array, weight: Array, a: ConvAttrs) -> Array:
    wide = [data.astype(np.float64), weight.astype(np.float64)]
    return get_op("conv").run_ref(a, wide)[0]


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize(("x", "rows", "pads"), CASES, ids=str)
def test_any_size_and_padding_stays_within_the_bound(
    x: Shape, rows: int, pads: Pads, target: Target, m: int
) -> None:
    data, weight, a = operands(x, rows, pads)
    code = native(function_of(get_op("conv"), a, [data, weight]), target, m)
    assert isinstance(code.plan.kernels[0].body, WinogradPlan)
    (got,) = code.results(data, weight)
    assert np.all(np.abs(got - exact(data, weight, a)) <= bound(data, weight, pads, m))


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
def test_the_inputs_gradient_is_one_too(target: Target, m: int) -> None:
    x, pads = (3, 6, 11, 21), ((0, 2), (1, 1))
    _, weight, a = operands(x, 9, pads)
    g = np.random.default_rng(1).standard_normal((3, 9, 11, 21), dtype=np.float32)
    attrs = ConvGradAttrs(x[2:], a.stride, a.padding, a.dilation, a.groups)
    op = get_op("conv_input_grad")
    code = native(function_of(op, attrs, [g, weight]), target, m)
    assert isinstance(code.plan.kernels[0].body, WinogradPlan)
    (got,) = code.results(g, weight)
    (want,) = op.run_ref(attrs, [g.astype(np.float64), weight.astype(np.float64)])
    turned = np.ascontiguousarray(np.swapaxes(weight, 0, 1)[:, :, ::-1, ::-1])
    other = tuple((2 - low, 2 - high) for low, high in pads)
    assert np.all(np.abs(got - want) <= bound(g, turned, (other[0], other[1]), m))


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
def test_groups_meet_their_own_kind(target: Target, m: int) -> None:
    a = ConvAttrs((1, 1), ((1, 1), (1, 1)), (1, 1), 3)
    rng = np.random.default_rng(2)
    data = rng.standard_normal((2, 12, 9, 10), dtype=np.float32)
    weight = rng.standard_normal((15, 4, 3, 3), dtype=np.float32)
    code = native(function_of(get_op("conv"), a, [data, weight]), target, m)
    assert isinstance(code.plan.kernels[0].body, WinogradPlan)
    (got,) = code.results(data, weight)
    want = exact(data, weight, a)
    for n in range(3):
        rows, channels = slice(5 * n, 5 * n + 5), slice(4 * n, 4 * n + 4)
        most = bound(data[:, channels], weight[rows], ((1, 1), (1, 1)), m)
        assert np.all(np.abs(got - want)[:, rows] <= most)


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize(
    ("x", "rows"), [((2, 24, 28, 28), 40), ((4, 40, 7, 7), 24), ((1, 16, 13, 45), 16)], ids=str
)
def test_threads_and_rounds_change_no_bit(
    x: Shape, rows: int, target: Target, m: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, weight, a = operands(x, rows, ((1, 1), (1, 1)))
    fn = function_of(get_op("conv"), a, [data, weight])
    once = native(fn, target, m)
    assert once.plan.kernels[0].body.spread
    want = once.results(data, weight)[0]
    assert np.array_equal(once.results(data, weight, threads=3)[0], want)
    monkeypatch.setattr(plan_winograd, "_SHARED", 1 << 13)
    rounds = native(fn, target, m)
    assert rounds.plan.kernels[0].body.rounds > 1
    for threads in (1, 2):
        assert np.array_equal(rounds.results(data, weight, threads=threads)[0], want)


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize("size", [(12, 16), (9, 11)], ids=str)
def test_an_epilogue_finishes_every_element(size: tuple[int, int], target: Target, m: int) -> None:
    """Bias, residual and activation, of maps whose lines end within vectors too."""
    x = (2, 5, *size)
    data, weight, a = operands(x, 6, ((1, 1), (1, 1)))
    rng = np.random.default_rng(3)
    bias = rng.standard_normal((6, 1, 1), dtype=np.float32)
    residual = rng.standard_normal((2, 6, *size), dtype=np.float32)
    args = [data, weight, bias, residual]
    b = Builder("f")
    x_, w_, bias_, more = (b.param(type_of_array(v), f"p{n}") for n, v in enumerate(args))
    (y,) = b.emit(get_op("conv"), [x_, w_], a)
    z = b.add(b.add(y, b.broadcast_to(bias_, (2, 6, *size))), more)
    fn = b.finish([Result(b.call("relu", z), "z")])
    code = native(fn, target, m)
    (kernel,) = code.plan.kernels
    assert isinstance(kernel.body, WinogradPlan) and kernel.body.epilogue is not None
    wide = [v.astype(np.float64) for v in args]
    want = np.maximum(exact(data, weight, a) + wide[2] + wide[3], 0)
    most = bound(data, weight, ((1, 1), (1, 1)), m) + 2.0**-22 * (1 + np.abs(want))
    for threads in (1, 3):
        (got,) = code.results(*args, threads=threads)
        assert np.all(np.abs(got - want) <= most)


# --- what docs/convolution.md says of errors -------------------------------------------------


def _errors(channels: int, positive: bool, m: int) -> tuple[float, float]:
    """The largest error of F(m x m, 3 x 3), and of the direct algorithm, in one layer."""
    rng = np.random.default_rng(channels)
    data = rng.standard_normal((1, channels, 12, 12), dtype=np.float32)
    data = np.abs(data) if positive else data
    weight = rng.standard_normal((16, channels, 3, 3), dtype=np.float32)
    a = ConvAttrs((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    fn, target = function_of(get_op("conv"), a, [data, weight]), FAMILIES[-1]
    kernels = run_pipeline(fn, (convolution.PASS, expand.PASS, fuse.PASS), [])
    memory, chosen, emitted = emitted_for(kernels, target)
    direct = Native(kernels, memory, chosen, emitted, load(emitted.ir, target))
    want = exact(data, weight, a)
    found = [code.results(data, weight)[0] - want for code in (native(fn, target, m), direct)]
    return float(np.abs(found[0]).max()), float(np.abs(found[1]).max())


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("channels", [16, 64, 512])
def test_squares_of_two_lose_no_more_than_the_direct_algorithm(
    channels: int, positive: bool
) -> None:
    squares, direct = _errors(channels, positive, 2)
    assert squares <= 1.25 * direct


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("channels", [16, 64, 512])
def test_squares_of_four_lose_a_few_times_what_the_direct_algorithm_does(
    channels: int, positive: bool
) -> None:
    squares, direct = _errors(channels, positive, 4)
    assert squares <= 5 * direct


def test_a_huge_element_is_heard_in_its_windows_only_with_squares_of_two() -> None:
    data, weight, a = operands((1, 4, 12, 12), 4, ((0, 0), (0, 0)))
    data[0, 0, 5, 6] = 1e8
    fn = function_of(get_op("conv"), a, [data, weight])
    (got,) = native(fn, FAMILIES[-1], 2).results(data, weight)
    off = np.abs(got - exact(data, weight, a)).max(axis=(0, 1))
    off[3:6, 4:7] = 0
    assert off.max() < 1e-4


def test_a_huge_element_is_heard_in_all_of_a_square_of_four() -> None:
    """The error goes with the largest element of a square, not of a window: why squares of four are
    asked for and never chosen."""
    data, weight, a = operands((1, 4, 12, 12), 4, ((0, 0), (0, 0)))
    data[0, 0, 1, 1] = 1e8
    fn = function_of(get_op("conv"), a, [data, weight])
    (got,) = native(fn, FAMILIES[-1], 4).results(data, weight)
    off = np.abs(got - exact(data, weight, a)).max(axis=(0, 1))
    assert off[2:4, 2:4].max() > 0.1  # of windows that do not hold it
    off[:4, :4] = 0
    assert off.max() < 1e-3


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("m", [2, 4])
def test_bad_values_are_never_lost(m: int, bad: float) -> None:
    """With squares of two they are where the direct algorithm has them; with squares of four in all
    of each square."""
    data, weight, a = operands((1, 4, 13, 13), 4, ((1, 1), (1, 1)))
    data[0, 1, 5, 6] = bad
    fn = function_of(get_op("conv"), a, [data, weight])
    (got,) = native(fn, FAMILIES[-1], m).results(data, weight)
    finite = np.isfinite(got).all(axis=(0, 1))
    assert not np.isfinite(got[..., 4:7, 5:8]).any()
    finite[4:7, 5:8] = True
    if m == 4:
        finite[4:8, 4:8] = True
    assert finite.all()


def test_squares_of_two_are_exact_on_small_integers() -> None:
    rng = np.random.default_rng(5)
    data = rng.integers(-50, 50, (2, 16, 15, 17)).astype(np.float32)
    weight = rng.integers(-9, 9, (7, 16, 3, 3)).astype(np.float32)
    a = ConvAttrs((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    fn = function_of(get_op("conv"), a, [data, weight])
    for target in FAMILIES:
        (got,) = native(fn, target, 2).results(data, weight)
        np.testing.assert_array_equal(got, exact(data, weight, a))


@pytest.mark.parametrize("m", [2, 4])
def test_the_matrices_make_a_convolution(m: int) -> None:
    """In exact arithmetic: for each pair of unit vectors."""
    found = matrices(m)
    for tap in range(3):
        for at in range(m + 2):
            products = [
                row[tap] * other[at] for row, other in zip(found.weight, found.input, strict=True)
            ]
            for k, row in enumerate(found.output):
                total = sum(x * y for x, y in zip(row, products, strict=True))
                assert total == (at == k + tap)


def test_what_is_no_three_by_three_by_ones_stays_direct() -> None:
    rng = np.random.default_rng(0)
    data = rng.standard_normal((1, 8, 16, 16), dtype=np.float32)
    for taps, a in [
        (3, ConvAttrs((2, 2), ((1, 1), (1, 1)), (1, 1), 1)),
        (3, ConvAttrs((1, 1), ((2, 2), (2, 2)), (2, 2), 1)),
        (5, ConvAttrs((1, 1), ((2, 2), (2, 2)), (1, 1), 1)),
    ]:
        weight = rng.standard_normal((8, 8, taps, taps), dtype=np.float32)
        code = native(function_of(get_op("conv"), a, [data, weight]), FAMILIES[-1], 4)
        assert not isinstance(code.plan.kernels[0].body, WinogradPlan)
    wide = [x.astype(np.float64) for x in (data, weight[..., :3, :3])]
    a = ConvAttrs((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    code = native(function_of(get_op("conv"), a, wide), FAMILIES[-1], 4)
    assert not isinstance(code.plan.kernels[0].body, WinogradPlan)


@pytest.mark.parametrize("m", [2, 4])
def test_neon_multiplies_and_transforms_in_vectors(m: int) -> None:
    data, weight, a = operands((2, 16, 20, 20), 24, ((1, 1), (1, 1)))
    target, fn = named("neon"), function_of(get_op("conv"), a, [data, weight])
    kernels = run_pipeline(fn, (convolution.PASS, expand.PASS, fuse.PASS), [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "plan_winograd", forced(m))
        _, chosen, emitted = emitted_for(kernels, target, winograd=m)
    assert isinstance(chosen.kernels[0].body, WinogradPlan)
    text = assembly(emitted.ir, target)
    assert text.count("fmla") > 50
    assert text.count(".4s") > 20 * text.count("fmadd")


def test_the_plan_prints_both_counts_of_cycles() -> None:
    data, weight, a = operands((8, 64, 56, 56), 64, ((1, 1), (1, 1)))
    fn = function_of(get_op("conv"), a, [data, weight])
    kernels = run_pipeline(fn, (convolution.PASS, expand.PASS, fuse.PASS), [])
    for target in map(named, NAMES):
        for m in (2, 4):
            text = str(emitted_for(kernels, target, winograd=m)[1])
            assert f"winograd F({m}x{m}, 3x3): 64 channels, 3 x 3 taps, 64 rows" in text
            assert "cycles, direct" in text
        assert "winograd" not in str(emitted_for(kernels, target)[1])
