"""Every registered op, by its own samples: type rule, reference, derivatives, expansion, lowering.

Whatever registers an op (a user's file too) is covered: the tests are parametrised over the table.
"""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any

import numpy as np
import pytest

from treadle.ir.builder import Builder, Ops
from treadle.ir.errors import DTypeError, ShapeError
from treadle.ir.eval_ops import NumpyOps
from treadle.ir.graph import Function, Result
from treadle.ir.interpreter import interpret
from treadle.ir.op import (
    NOT_DIFFERENTIABLE,
    ArrayData,
    OpDef,
    Sample,
    Trait,
    all_ops,
    get_op,
    register,
)
from treadle.ir.scalar import Kernel
from treadle.ir.scalar_numpy import evaluate_lowering
from treadle.ir.types import FLOATS, Dim, TensorType, bool_, float32, int32, type_of_array
from treadle.passes.autodiff import run as expand_gradients
from treadle.passes.manager import PassContext

O = NumpyOps()  # noqa: E741  what rules call it


def samples_of(op: OpDef) -> list[Sample]:
    """The op's samples; the same ones in every run."""
    return list(op.samples(np.random.default_rng(zlib.crc32(op.name.encode()))))


def cases(keep: Any) -> list[Any]:
    """(op, sample) pairs as parameters with readable ids."""
    return [
        pytest.param(op, sample, id=f"{op.name}-{i}")
        for op in all_ops()
        for i, sample in enumerate(samples_of(op))
        if keep(op, sample)
    ]


def types_of(sample: Sample) -> list[TensorType]:
    return [type_of_array(a) for a in sample.args]


def tolerance(sample: Sample, expected: np.ndarray) -> np.ndarray:
    """What `Sample.ulps` and `Sample.scale` allow, per element."""
    with np.errstate(all="ignore"):
        ulp = np.spacing(np.abs(expected))
    finite = [a[np.isfinite(a)] for a in sample.args if a.dtype.kind == "f"]
    largest = max((float(np.max(np.abs(a), initial=0)) for a in finite), default=0.0)
    widened = sample.scale * float(np.finfo(expected.dtype).eps) * largest
    return sample.ulps * np.where(np.isfinite(ulp), ulp, 0).astype(np.float64) + widened


def assert_within(found: np.ndarray, expected: np.ndarray, sample: Sample) -> None:
    """`found` is `expected` within the sample's bound; NaN for NaN, the same infinities; and bit
    for bit, signed zeros included, where the bound is 0."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(found, expected)
        return
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), nan)
    exact = nan | (found == expected)
    with np.errstate(invalid="ignore"):
        near = np.abs(found.astype(np.float64) - expected) <= tolerance(sample, expected)
    assert np.all(exact | (near & np.isfinite(expected))), (found[~exact], expected[~exact])
    if sample.ulps == 0 and sample.scale == 0:
        np.testing.assert_array_equal(np.signbit(found[~nan]), np.signbit(expected[~nan]))


# --- the type rule and the reference ----------------------------------------------------------


@pytest.mark.parametrize(("op", "sample"), cases(lambda op, s: True))
def test_the_type_rule_is_the_type_of_the_reference(op: OpDef, sample: Sample) -> None:
    inferred = op.infer_types(sample.attrs, types_of(sample))
    assert inferred == tuple(type_of_array(r) for r in op.run_ref(sample.attrs, sample.args))


@pytest.mark.parametrize(("op", "sample"), cases(lambda op, s: True))
def test_a_reference_leaves_its_operands_alone(op: OpDef, sample: Sample) -> None:
    before = [a.copy() for a in sample.args]
    for result in op.run_ref(sample.attrs, sample.args):
        if op.elementwise and result.ndim:
            assert not any(np.shares_memory(result, a) for a in sample.args)
    for a, b in zip(sample.args, before, strict=True):
        assert a.tobytes() == b.tobytes()


def must_take_symbols(op: OpDef) -> bool:
    """Ops whose attributes hold no sizes."""
    return op.elementwise or op.has(Trait.REDUCTION) or op.name in ("mean", "var", "softmax")


def symbolic(types: list[TensorType]) -> tuple[list[TensorType], int] | None:
    """The operand types with the leading size of the operands of highest rank called n."""
    rank = max((t.rank for t in types), default=0)
    if rank == 0:
        return None
    sizes = {t.shape[0] for t in types if t.rank == rank} - {1}
    if len(sizes) != 1:
        return None
    (size,) = sizes
    assert isinstance(size, int)
    named = [
        t.with_shape((Dim.of("n"), *t.shape[1:])) if t.rank == rank and t.shape[0] == size else t
        for t in types
    ]
    return named, size


def at_size(t: TensorType, n: int) -> TensorType:
    return t.with_shape([s.evaluate({"n": n}) if isinstance(s, Dim) else s for s in t.shape])


@pytest.mark.parametrize(("op", "sample"), cases(lambda op, s: symbolic(types_of(s)) is not None))
def test_the_type_rule_takes_a_symbolic_leading_dimension(op: OpDef, sample: Sample) -> None:
    named = symbolic(types_of(sample))
    assert named is not None
    types, size = named
    try:
        inferred = op.infer_types(sample.attrs, types)
    except ShapeError:
        # Attributes that hold sizes fit these sizes only; the op must say so by a ShapeError.
        assert not must_take_symbols(op)
        return
    fixed = op.infer_types(sample.attrs, types_of(sample))
    assert tuple(at_size(t, size) for t in inferred) == fixed


@pytest.mark.parametrize("op", [pytest.param(op, id=op.name) for op in all_ops() if samples_of(op)])
def test_samples_reach_size_zero_and_beyond(op: OpDef) -> None:
    samples = samples_of(op)
    sizes = [a.size for s in samples for a in (*s.args, *op.run_ref(s.attrs, s.args))]
    assert 0 in sizes
    assert max(sizes) > 1


FLOAT_ONLY = [
    op
    for op in all_ops()
    if op.elementwise and op.name != "where" and any(_.args for _ in samples_of(op))
    and all(a.dtype.kind == "f" for s in samples_of(op) for a in s.args)
]  # fmt: skip


@pytest.mark.parametrize("op", [pytest.param(op, id=op.name) for op in FLOAT_ONLY])
def test_float_ops_refuse_integers_and_bools_by_name(op: OpDef) -> None:
    sample = samples_of(op)[0]
    for dtype in (int32, bool_):
        with pytest.raises(DTypeError, match=rf"{op.name} takes float tensors.*found {dtype}\["):
            op.infer_types(sample.attrs, [t.with_dtype(dtype) for t in types_of(sample)])


MANY = [op for op in all_ops() if op.elementwise and any(len(s.args) > 1 for s in samples_of(op))]


@pytest.mark.parametrize("op", [pytest.param(op, id=op.name) for op in MANY])
def test_elementwise_operands_must_broadcast_and_agree(op: OpDef) -> None:
    sample = next(s for s in samples_of(op) if s.args)
    types = types_of(sample)
    bad = [t.with_shape((2 + i,)) for i, t in enumerate(types)]
    with pytest.raises(ShapeError, match="do not broadcast"):
        op.infer_types(sample.attrs, bad)
    with pytest.raises(DTypeError):
        op.infer_types(sample.attrs, [*types[:-1], types[-1].with_dtype(_another(types[-1]))])
    with pytest.raises(ShapeError):
        op.infer_types(sample.attrs, types[:1])


def _another(t: TensorType) -> Any:
    return next(d for d in (*FLOATS, int32) if d != t.dtype)


@pytest.mark.parametrize(
    ("op", "sample"), cases(lambda op, s: op.has(Trait.COMMUTATIVE) and len(s.args) == 2)
)
def test_commutative_means_bit_for_bit(op: OpDef, sample: Sample) -> None:
    (forth,) = op.run_ref(sample.attrs, sample.args)
    (back,) = op.run_ref(sample.attrs, sample.args[::-1])
    exact = dataclasses.replace(sample, ulps=0.0, scale=0.0)
    assert_within(back, forth, exact)


@pytest.mark.parametrize(
    ("op", "sample"), cases(lambda op, s: op.has(Trait.MONOTONE) and s.args[0].ndim == 1)
)
def test_monotone_means_never_falling(op: OpDef, sample: Sample) -> None:
    x = np.sort(sample.args[0])
    (y,) = op.run_ref(sample.attrs, (x,))
    y = y[~np.isnan(y.astype(np.float64))]
    assert np.all(y[1:] >= y[:-1])


# --- derivatives -------------------------------------------------------------------------------


def differentiable(op: OpDef, sample: Sample) -> bool:
    return sample.differentiable and op.vjp is not NOT_DIFFERENTIABLE


def cotangents(op: OpDef, sample: Sample) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """Random cotangents of the results, and what the rule makes of them for the operands."""
    rng = np.random.default_rng(1)
    outs = op.run_ref(sample.attrs, sample.args)
    cts = [rng.standard_normal(r.shape).astype(r.dtype) for r in outs]
    assert callable(op.vjp)
    found = op.vjp(O, sample.attrs, sample.args, outs, tuple(cts))
    assert len(found) == len(sample.args)
    return cts, [
        O.unbroadcast(ct, x.shape) if ct is not None and op.elementwise else ct
        for ct, x in zip(found, sample.args, strict=True)
    ]


def slope(fn: Any, args: tuple[np.ndarray, ...], k: int) -> np.ndarray:
    """d fn / d args[k], element by element, by a five-point stencil: exact to some 1e-11."""
    result = np.zeros(args[k].shape)
    for at in np.ndindex(args[k].shape):
        h = 1e-3
        values = []
        for step in (-2, -1, 1, 2):
            moved = [a.copy() for a in args]
            moved[k][at] += step * h
            values.append(fn(*moved))
        result[at] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
    return result


@pytest.mark.parametrize(("op", "sample"), cases(differentiable))
def test_derivative_is_the_slope_of_the_reference(op: OpDef, sample: Sample) -> None:
    cts, found = cotangents(op, sample)

    def weighed(*args: np.ndarray) -> float:
        outs = op.run_ref(sample.attrs, args)
        return sum(float(np.sum(r * ct)) for r, ct in zip(outs, cts, strict=True))

    for k, x in enumerate(sample.args):
        if x.dtype.kind != "f":
            assert found[k] is None
            continue
        expected = slope(weighed, sample.args, k)
        ct = found[k]
        if ct is None:
            ct = np.zeros(x.shape)
        assert ct.dtype == x.dtype
        assert ct.shape == x.shape
        np.testing.assert_allclose(ct, expected, rtol=1e-7, atol=1e-8)


def twice_differentiable(op: OpDef, sample: Sample) -> bool:
    return differentiable(op, sample) and op.name != "gradient" and len(sample.args) > 0


def gradient_program(op: OpDef, sample: Sample, order: int) -> Function:
    """The gradients with respect to the float operands, of given order, for fixed cotangents."""
    b = Builder(op.name)
    params = [b.param(t, f"x{i}") for i, t in enumerate(types_of(sample))]
    operands = [b.call("variable", p) if p.type.dtype.is_float else p for p in params]
    xs = [v for v in operands if v.type.dtype.is_float]
    ys = list(b.emit(op, operands, sample.attrs))
    rng = np.random.default_rng(2)
    for _ in range(order):
        ys = [y for y in ys if y.type.dtype.is_float]
        cts = [b.const(rng.standard_normal(y.type.static_shape), y.type.dtype) for y in ys]
        ys = list(b.call_multi("gradient", *ys, *cts, *xs, outputs=len(ys)))
    fn = b.finish([Result(y, str(i)) for i, y in enumerate(ys)])
    return expand_gradients(fn, PassContext())


@pytest.mark.parametrize(("op", "sample"), cases(twice_differentiable))
def test_second_derivative_is_the_slope_of_the_first(op: OpDef, sample: Sample) -> None:
    first, second = (gradient_program(op, sample, order) for order in (1, 2))
    rng = np.random.default_rng(2)
    for y in op.run_ref(sample.attrs, sample.args):
        rng.standard_normal(y.shape)
    weights = [rng.standard_normal(x.shape) for x in sample.args if x.dtype.kind == "f"]

    def weighed(*args: np.ndarray) -> float:
        return sum(
            float(np.sum(g * w)) for g, w in zip(interpret(first, args), weights, strict=True)
        )

    found = interpret(second, sample.args)
    floats = [k for k, x in enumerate(sample.args) if x.dtype.kind == "f"]
    for k, ct in zip(floats, found, strict=True):
        expected = slope(weighed, sample.args, k)
        np.testing.assert_allclose(ct, expected, rtol=1e-6, atol=1e-7)


SAFE = [
    pytest.param(op, s, id=f"{op.name}-{i}")
    for op in all_ops()
    for i, s in enumerate(samples_of(op))
    if op.elementwise and callable(op.vjp) and s.args and s.args[0].dtype.kind == "f"
]


@pytest.mark.parametrize(("op", "sample"), SAFE)
def test_a_branch_not_taken_adds_exactly_zero(op: OpDef, sample: Sample) -> None:
    """With the cotangent 0, whatever finite values the branch computed with."""
    args = tuple(np.where(np.isfinite(a), a, 0).astype(a.dtype) for a in sample.args)
    outs = op.run_ref(sample.attrs, args)
    cts = tuple(np.zeros(r.shape, r.dtype) for r in outs)
    assert callable(op.vjp)
    for ct in op.vjp(O, sample.attrs, args, outs, cts):
        assert ct is None or not np.any(ct != 0)


# --- expansion and lowering --------------------------------------------------------------------


def expands(op: OpDef, sample: Sample) -> bool:
    return op.expand is not None and not op.has(Trait.REGION)


@pytest.mark.parametrize(("op", "sample"), cases(expands))
def test_the_expansion_computes_the_reference(op: OpDef, sample: Sample) -> None:
    assert op.expand is not None
    found = op.expand(O, sample.attrs, *sample.args)
    outs = found if isinstance(found, tuple) else (found,)
    expected = op.run_ref(sample.attrs, sample.args)
    for a, b in zip(outs, expected, strict=True):
        assert_within(np.asarray(a), b, sample)


@pytest.mark.parametrize(
    ("op", "sample"), cases(lambda op, s: op.has(Trait.COMPOSITE) and expands(op, s))
)
def test_a_composite_expands_into_primitives_in_the_end(op: OpDef, sample: Sample) -> None:
    fine = _expanded_names(op, sample.attrs, types_of(sample))
    assert not any(get_op(name).has(Trait.COMPOSITE) for name in fine)


def _expanded_names(op: OpDef, attrs: Any, types: list[TensorType], depth: int = 0) -> set[str]:
    assert depth < 4, "an expansion that goes in circles"
    b = Builder()
    assert op.expand is not None
    op.expand(b, attrs, *(b.param(t, str(i)) for i, t in enumerate(types)))
    names: set[str] = set()
    for i in b.instrs:
        if i.op.has(Trait.COMPOSITE):
            names |= _expanded_names(i.op, i.attrs, [a.type for a in i.args], depth + 1)
        else:
            names.add(i.op.name)
    return names


def lowers(op: OpDef, sample: Sample) -> bool:
    return op.lower is not None and not isinstance(op.lower, Kernel) and op.name != "const"


@pytest.mark.parametrize(("op", "sample"), cases(lowers))
def test_the_lowering_computes_the_reference(op: OpDef, sample: Sample) -> None:
    expected = op.run_ref(sample.attrs, sample.args)[0]
    assert_within(evaluate_lowering(op, sample.attrs, sample.args), expected, sample)


# --- registration ------------------------------------------------------------------------------


def test_registration_names_every_missing_piece() -> None:
    relu: Any = get_op("relu")
    for change, named in [
        ({"name": "not a name"}, "identifier"),
        ({"maths": " "}, "a line of maths"),
        ({"lower": None}, "lower or expand"),
        ({"lower": get_op("sum").lower}, "lower=Scalar"),
        ({"infer": None}, "infer"),
        ({"ref": None}, "ref"),
        ({"samples": None}, "samples"),
        ({"vjp": None}, "NOT_DIFFERENTIABLE"),
        ({"attrs": int}, "attrs"),
    ]:
        with pytest.raises(ValueError, match=named):
            register(dataclasses.replace(relu, **{"name": "my_relu", **change}))
    assert "my_relu" not in {op.name for op in all_ops()}


def test_a_name_belongs_to_one_op() -> None:
    with pytest.raises(ValueError, match="registered already"):
        register(dataclasses.replace(get_op("relu"), maths="something else"))


def test_an_unknown_op_is_answered_with_the_nearest_names() -> None:
    with pytest.raises(KeyError, match="softmax"):
        get_op("softmaxx")


def test_ops_on_values_and_on_arrays_agree() -> None:
    """Rules see the same types whichever handles they run on."""
    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)

    def rule(o: Ops[Any], v: Any) -> Any:
        return o.div(o.exp(v), o.sum(o.exp(v), -1, keepdims=True))

    b = Builder()
    traced = rule(b, b.param(TensorType(float32, (3, 4)), "x"))
    assert traced.type == type_of_array(rule(O, x))
    assert O.const(2, float32) == ArrayData.of(np.array(2, np.float32)).array()
