"""Movement, indexing, scan and matrix ops, where the table of all ops does not look: errors,
symbolic dimensions, faults, repeated indices, and the index arithmetic of lowerings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from treadle.ir.builder import Builder
from treadle.ir.errors import DTypeError, IndexFault, ShapeError
from treadle.ir.eval_ops import NumpyOps
from treadle.ir.op import Array, OpDef, all_ops, get_op
from treadle.ir.ops.indexing import fault_message
from treadle.ir.ops.movement import reshape_groups
from treadle.ir.scalar import Index
from treadle.ir.scalar_numpy import NumpyScalarOps, evaluate_lowering
from treadle.ir.types import Dim, Shape, TensorType, bool_, float32, int64, type_of_array

O = NumpyOps()  # noqa: E741  what rules call it
N = Dim.of("n")


def infer(name: str, *shapes: Shape, **attrs: Any) -> Shape:
    """The result shape of the op's type rule."""
    op = get_op(name)
    types = [TensorType(float32, s) for s in shapes]
    (result,) = op.infer_types(op.attrs(**attrs), types)
    return result.shape


def run(name: str, *arrays: Any, **attrs: Any) -> Array:
    """The op's reference, checked against its lowering where it has one for one element."""
    op = get_op(name)
    found = O.call(name, *(np.asarray(a) for a in arrays), **attrs)
    if isinstance(op.lower, Index):
        lowered = evaluate_lowering(op, op.attrs(**attrs), [np.asarray(a) for a in arrays])
        np.testing.assert_array_equal(lowered, found)
    return found


# --- type rules ------------------------------------------------------------------------------

BAD_SHAPES: list[tuple[str, tuple[Shape, ...], dict[str, Any], str]] = [
    ("reshape", ((2, 3),), {"shape": (4, 2)}, r"\(2, 3\) \(6 elements\) to \(4, 2\) \(8 elements"),
    ("reshape", ((2, 3),), {"shape": (-2, -3)}, "must be at least 0"),
    ("reshape", ((N, 3),), {"shape": (N, 4)}, r"\(3\*n elements\) to \(n, 4\)"),
    ("permute", ((2, 3),), {"perm": (0, 0)}, r"each axis of shape \(2, 3\) once"),
    ("permute", ((2, 3),), {"perm": (0,)}, "each axis"),
    ("broadcast_to", ((2, 3),), {"shape": (3, 3)}, r"\(2, 3\) to \(3, 3\)"),
    ("broadcast_to", ((2, 3),), {"shape": (3,)}, r"\(2, 3\) to \(3,\)"),
    ("flip", ((2, 3),), {"axes": (2,)}, "axis 2 is out of range"),
    ("concat", (), {"axis": 0}, "one operand or more"),
    ("concat", ((2, 3), (2, 4)), {"axis": 0}, r"agree on all other axes, found \(2, 3\) and"),
    ("concat", ((2, 3), (2,)), {"axis": 0}, "agree on all other axes"),
    ("concat", ((2, 3), (2, 3)), {"axis": 2}, "axis 2 is out of range"),
    ("slice", ((4,),), {"starts": (1,), "steps": (2,), "shape": (3,)}, "elements 1 to 5 along"),
    ("slice", ((4,),), {"starts": (1,), "steps": (-1,), "shape": (3,)}, "elements 1 to -1"),
    ("slice", ((4,),), {"starts": (0,), "steps": (0,), "shape": (1,)}, "step along axis 0 is 0"),
    ("slice", ((4,),), {"starts": (0, 0), "steps": (1,), "shape": (1,)}, "one start, step and"),
    ("slice", ((4,),), {"starts": (0,), "steps": (1,), "shape": (-1,)}, "must be at least 0"),
    ("slice_update", ((4,), (3,)), {"starts": (2,), "steps": (1,)}, "elements 2 to 4"),
    ("slice_update", ((4,), (1, 1)), {"starts": (0,), "steps": (1,)}, "of the same rank"),
    ("pad", ((4,),), {"low": (-1,), "high": (0,)}, "at least 0, found .*slice to crop"),
    ("pad", ((4,),), {"low": (1, 1), "high": (0,)}, "needs 1 pads before and after"),
    ("matmul", ((2, 3), (4, 5)), {}, r"inner sizes 3 \(last axis of the left\) and 4"),
    ("matmul", ((3,), (3, 5)), {}, "rank 2 or more"),
    ("matmul", ((2, 4, 3), (3, 3, 5)), {}, "do not broadcast"),
    ("contract", ((2, 3), (4, 5)), {"spec": "mk,kn->mn"}, "'k' has sizes 3 and 4"),
    ("contract", ((2, 3), (3, 5)), {"spec": "mk,kn"}, "needs a spec such as"),
    ("contract", ((2, 3), (3, 5)), {"spec": "mk,kn->m"}, "a letter in one operand only"),
    ("contract", ((2, 3), (3, 5)), {"spec": "bmk,kn->bmn"}, "has shape"),
    ("cumsum", ((2, 3),), {"axis": 2}, "axis 2 is out of range"),
    ("iota", (), {"shape": (2, 3), "axis": 2, "dtype": int64}, "axis 2 is out of range"),
    ("reshape", ((2,), (2,)), {"shape": (2,)}, r"takes 1 operand\(s\), found 2"),
]


@pytest.mark.parametrize(("name", "shapes", "attrs", "message"), BAD_SHAPES)
def test_a_type_rule_says_what_does_not_fit(
    name: str, shapes: tuple[Shape, ...], attrs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        infer(name, *shapes, **attrs)


def test_operands_of_another_dtype_are_refused() -> None:
    floats, ints = TensorType(float32, (2, 2)), TensorType(int64, (2, 2))
    bools = TensorType(bool_, (2, 2))
    for name, attrs, types in (
        ("matmul", {}, (floats, ints)),
        ("matmul", {}, (bools, bools)),
        ("concat", {"axis": 0}, (floats, ints)),
        ("slice_update", {"starts": (0, 0), "steps": (1, 1)}, (floats, ints)),
        ("cumsum", {"axis": 0}, (bools,)),
        ("gather", {"axes": (0,)}, (floats, floats)),
        ("scatter_add", {"axes": (0,)}, (bools, bools, ints)),
        ("iota", {"shape": (2,), "axis": 0, "dtype": bool_}, ()),
    ):
        op = get_op(name)
        with pytest.raises(DTypeError, match=r"found|must have one dtype"):
            op.infer_types(op.attrs(**attrs), types)


def test_indices_that_do_not_fit_are_refused() -> None:
    gather, x, i = get_op("gather"), TensorType(float32, (4, 5)), TensorType(int64, (3,))
    empty, other = TensorType(float32, (0, 5)), TensorType(int64, (2,))
    for axes, types, message in (
        ((0, 0), (x, i, i), "distinct axes"),
        ((2,), (x, i), "axes from 0 to 1"),
        ((), (x,), "distinct axes"),
        ((0, 1), (x, i), "one index tensor an axis"),
        ((0, 1), (x, i, other), "index tensors of one shape"),
        ((0,), (empty, i), "axis 0 of shape .* has size 0"),
    ):
        with pytest.raises(ShapeError, match=message):
            gather.infer_types(gather.attrs(axes=axes), types)
    scatter = get_op("scatter")
    with pytest.raises(ShapeError, match=r"needs values of shape \(3, 5\), found \(3, 4\)"):
        scatter.infer_types(scatter.attrs(axes=(0,)), (x, TensorType(float32, (3, 4)), i))


def test_type_rules_take_symbolic_dimensions() -> None:
    assert infer("reshape", (N, 6), shape=(N * 2, 3)) == (N * 2, 3)
    assert infer("permute", (N, 3), perm=(1, 0)) == (3, N)
    assert infer("broadcast_to", (1, 3), shape=(N, 3)) == (N, 3)
    assert infer("flip", (N, 3), axes=(0,)) == (N, 3)
    assert infer("concat", (N, 3), (4, 3), axis=0) == (N + 4, 3)
    assert infer("slice", (N, 3), starts=(N - 1, 0), steps=(-1, 1), shape=(N, 2)) == (N, 2)
    assert infer("slice_update", (N, 3), (N, 1), starts=(0, 2), steps=(1, 1)) == (N, 3)
    assert infer("pad", (N, 3), low=(N, 0), high=(1, 0)) == (N * 2 + 1, 3)
    assert infer("matmul", (N, 5, 3), (3, 4)) == (N, 5, 4)
    assert infer("contract", (N, 5, 3), (4, 3), spec="bmk,nk->bmn") == (N, 5, 4)
    assert infer("cumsum", (N, 3), axis=0) == (N, 3)
    assert infer("iota", shape=(N, 3), axis=0, dtype=int64) == (N, 3)
    gather = get_op("gather")
    types = (TensorType(float32, (7, N)), TensorType(int64, (N, 2)))
    assert gather.infer_types(gather.attrs(axes=(0,)), types)[0].shape == (N, 2, N)
    with pytest.raises(ShapeError, match="not inside its size n"):
        infer("slice", (N,), starts=(0,), steps=(1,), shape=(N + 1,))


def test_derivative_rules_take_symbolic_dimensions() -> None:
    for name, shapes, attrs in (
        ("slice", ((N, 5),), {"starts": (0, 1), "steps": (1, 1), "shape": (N, 3)}),
        ("slice", ((N, 5),), {"starts": (N - 1, 1), "steps": (-1, 2), "shape": (N, 2)}),
        ("concat", ((N, 3), (N * 2, 3)), {"axis": 0}),
        ("matmul", ((N, 5, 3), (3, 4)), {}),
        ("matmul", ((N, 5, 3), (N, 3, 4)), {}),
        ("matmul", ((5, 3), (N, 3, 4)), {}),
        ("pad", ((N, 3),), {"low": (1, N), "high": (0, 2)}),
    ):
        b, op = Builder(), get_op(name)
        args = [b.param(TensorType(float32, s), f"x{i}") for i, s in enumerate(shapes)]
        outs = b.emit(op, args, op.attrs(**attrs))
        ct = b.param(outs[0].type, "ct")
        assert callable(op.vjp)
        for arg, ct_arg in zip(args, op.vjp(b, op.attrs(**attrs), args, outs, (ct,)), strict=True):
            assert ct_arg.type == arg.type


# --- slices ----------------------------------------------------------------------------------


@st.composite
def parts(draw: Any) -> tuple[tuple[int, ...], list[slice]]:
    """A shape, and for each axis a slice, negative steps included."""
    shape = tuple(draw(st.lists(st.integers(0, 5), min_size=1, max_size=3)))
    bound = st.none() | st.integers(-6, 6)
    step = st.sampled_from([None, 1, 2, 3, -1, -2, -3])
    return shape, [slice(draw(bound), draw(bound), draw(step)) for _ in shape]


def part_attrs(shape: tuple[int, ...], key: list[slice]) -> dict[str, Any]:
    ranges = [range(*k.indices(n)) for k, n in zip(key, shape, strict=True)]
    return {
        "starts": tuple(r.start for r in ranges),
        "steps": tuple(r.step for r in ranges),
        "shape": tuple(map(len, ranges)),
    }


@given(parts())
@settings(max_examples=150, deadline=None)
def test_a_slice_and_its_update_are_numpys(case: Any) -> None:
    shape, key = case
    x = np.arange(np.prod(shape, dtype=int), dtype=np.float64).reshape(shape)
    attrs = part_attrs(shape, key)
    np.testing.assert_array_equal(run("slice", x, **attrs), x[tuple(key)])
    v = -1 - np.arange(np.prod(attrs["shape"], dtype=int), dtype=np.float64)
    v = v.reshape(attrs["shape"])
    expected = x.copy()
    expected[tuple(key)] = v
    found = run("slice_update", x, v, starts=attrs["starts"], steps=attrs["steps"])
    np.testing.assert_array_equal(found, expected)


@given(parts())
@settings(max_examples=100, deadline=None)
def test_the_derivative_of_a_slice_places_the_cotangent_among_zeros(case: Any) -> None:
    shape, key = case
    op, attrs = get_op("slice"), part_attrs(shape, key)
    x, ct = np.zeros(shape), 1 + np.arange(np.prod(attrs["shape"], dtype=int), dtype=np.float64)
    ct = ct.reshape(attrs["shape"])
    a = op.attrs(**attrs)
    assert callable(op.vjp)
    (found,) = op.vjp(O, a, (x,), op.run_ref(a, (x,)), (ct,))
    expected = x.copy()
    expected[tuple(key)] = ct
    np.testing.assert_array_equal(found, expected)


def test_the_derivative_of_a_plain_slice_is_a_pad() -> None:
    b, op = Builder(), get_op("slice")
    x = b.param(TensorType(float32, (5, 4)), "x")
    a = op.attrs(starts=(1, 0), steps=(1, 1), shape=(3, 4))
    (y,) = b.emit(op, (x,), a)
    assert callable(op.vjp)
    (ct,) = op.vjp(b, a, (x,), (y,), (y,))
    assert ct.producer.op.name == "pad"


# --- reshape ---------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 4), max_size=4), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_reshape_groups_are_the_finest_runs_of_equal_size(old: list[int], random: Any) -> None:
    factors = [f for size in old for f in ((2, 2) if size == 4 else (size,))]
    random.shuffle(factors)
    cut = random.randint(0, len(factors))
    new = [*factors[:cut], int(np.prod(factors[cut:], dtype=int))]
    groups = reshape_groups(old, new)
    assert [i for left, _ in groups for i in left] == list(range(len(old)))
    assert [j for _, right in groups for j in right] == list(range(len(new)))
    for left, right in groups:
        assert np.prod([old[i] for i in left]) == np.prod([new[j] for j in right])
    x = np.arange(np.prod(old, dtype=int)).reshape(old)
    np.testing.assert_array_equal(run("reshape", x, shape=tuple(new)), x.reshape(new))


def test_a_reshape_divides_only_the_indices_of_axes_that_change() -> None:
    class Counting(NumpyScalarOps):
        divisions = 0

        def index_divmod(self, i: Array, by: int) -> tuple[Array, Array]:
            self.divisions += 1
            return super().index_divmod(i, by)

    op = get_op("reshape")
    assert isinstance(op.lower, Index)
    for old, new, divisions in (((8, 6, 5), (8, 2, 3, 5), 0), ((8, 6, 5), (48, 5), 1)):
        s = Counting()
        index = tuple(np.ogrid[tuple(slice(n) for n in new)])
        types = (TensorType(float32, old),)
        op.lower.fn(s, op.attrs(shape=new), types, index, lambda k, i: i)
        assert s.divisions == divisions


# --- affine lowerings ------------------------------------------------------------------------


def affine_cases() -> list[Any]:
    return [
        pytest.param(op, sample, id=f"{op.name}-{i}")
        for op in all_ops()
        if isinstance(op.lower, Index) and op.lower.affine
        for i, sample in enumerate(op.samples(np.random.default_rng(0)))
        if sample.args[0].size
    ]


class AffineOnly(NumpyScalarOps):
    """Refuses what a strided view cannot express."""

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("not affine")

    index_divmod = index_clamp = index_in = index_of = select = _refuse


@pytest.mark.parametrize(("op", "sample"), affine_cases())
def test_an_op_that_says_it_is_affine_only_adds_and_multiplies(op: OpDef, sample: Any) -> None:
    assert isinstance(op.lower, Index)
    loads: list[int] = []

    def load(k: int, index: Any) -> Array:
        loads.append(k)
        return np.asarray(sample.args[k][tuple(index)])

    types = tuple(type_of_array(a) for a in sample.args)
    (result,) = op.infer_types(sample.attrs, types)
    index = tuple(np.ogrid[tuple(slice(n) for n in result.static_shape)])
    op.lower.fn(AffineOnly(), sample.attrs, types, index, load)
    assert loads == [0]


# --- indices ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gather", "scatter", "scatter_add"])
@pytest.mark.parametrize("bad", [3, -4, 2**40])
def test_an_index_out_of_range_is_a_fault_that_names_it(name: str, bad: int) -> None:
    x, i, j = np.zeros((5, 3)), np.array([4, -5]), np.array([2, bad])
    values = [] if name == "gather" else [np.ones(2)]
    message = f"{fault_message(name, 1, 3)}, found {bad}"
    with pytest.raises(IndexFault, match=message):
        run(name, x, *values, i, j, axes=(0, 1))
    if name == "gather":
        op = get_op(name)
        with pytest.raises(IndexFault, match=message):
            evaluate_lowering(op, op.attrs(axes=(0, 1)), (x, i, j))


def test_unchecked_indices_are_clamped() -> None:
    x, i = np.array([1.0, 2.0, 3.0]), np.array([-9, -1, 0, 7])
    assert run("gather", x, i, axes=(0,), checked=False).tolist() == [1, 3, 1, 3]
    ones = np.ones(4)
    assert run("scatter_add", x, ones, i, axes=(0,), checked=False).tolist() == [3, 2, 5]


def test_of_writes_to_one_place_the_last_wins() -> None:
    x, v, i = np.zeros(4), np.arange(1.0, 7.0), np.array([2, 0, 2, 2, 0, -1])
    assert run("scatter", x, v, i, axes=(0,)).tolist() == [5, 0, 4, 6]
    rows = run("scatter", np.zeros((2, 3)), np.arange(6.0).reshape(2, 3), [1, 1], axes=(0,))
    assert rows.tolist() == [[0, 0, 0], [3, 4, 5]]


@given(st.lists(st.integers(-3, 2), min_size=1, max_size=8), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_scatters_gradient_goes_to_the_last_writes_only(places: list[int], deep: bool) -> None:
    block = (2,) if deep else ()
    x, v, i = np.zeros((3, *block)), np.zeros((len(places), *block)), np.array(places)
    ct = 1 + np.arange(x.size, dtype=np.float64).reshape(x.shape)
    op = get_op("scatter")
    a = op.attrs(axes=(0,))
    assert callable(op.vjp)
    dx, dv, none = op.vjp(O, a, (x, v, i), op.run_ref(a, (x, v, i)), (ct,))
    last = {place % 3: number for number, place in enumerate(places)}
    expected_dx, expected_dv = ct.copy(), np.zeros_like(v)
    for place, number in last.items():
        expected_dx[place] = 0
        expected_dv[number] = ct[place]
    np.testing.assert_array_equal(dx, expected_dx)
    np.testing.assert_array_equal(dv, expected_dv)
    assert none is None


def test_derivatives_of_checked_indexing_do_not_fault_again() -> None:
    for name in ("gather", "scatter", "scatter_add"):
        b, op = Builder(), get_op(name)
        x = b.param(TensorType(float32, (5,)), "x")
        i = b.param(TensorType(int64, (3,)), "i")
        values = [] if name == "gather" else [b.param(TensorType(float32, (3,)), "v")]
        a = op.attrs(axes=(0,))
        outs = b.emit(op, (x, *values, i), a)
        before = len(b.instrs)
        assert callable(op.vjp)
        op.vjp(b, a, (x, *values, i), outs, outs)
        assert not any(getattr(n.attrs, "checked", False) for n in b.instrs[before:])


# --- sums of products ------------------------------------------------------------------------


def test_the_reference_of_a_float32_product_is_rounded_once() -> None:
    big = np.array([[1e8, 1.0, -1e8]], np.float32)
    ones = np.ones((3, 1), np.float32)
    assert run("matmul", big, ones).item() == 1.0
    assert run("contract", big, ones, spec="mk,kn->mn").item() == 1.0
    assert run("cumsum", big, axis=1)[0, -1] == 1.0


def test_a_weights_gradient_under_batches_is_one_product() -> None:
    b, op = Builder(), get_op("matmul")
    x = b.param(TensorType(float32, (8, 5, 3)), "x")
    w = b.param(TensorType(float32, (3, 4)), "w")
    outs = b.emit(op, (x, w))
    assert callable(op.vjp)
    _, dw = op.vjp(b, op.attrs(), (x, w), outs, outs)
    assert dw.producer.op.name == "matmul"
    assert [a.type.rank for a in dw.producer.args] == [2, 2]
