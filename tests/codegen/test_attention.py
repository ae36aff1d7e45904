"""Attention's kernels against the reference: odd sizes, masks, infinities, targets, threads.

All buffers lie against forbidden pages (`native_call`), so that no kernel reads beyond an operand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from native_call import compiled, emitted_for, function_of, lowered

from treadle.codegen.attention_tiles import columns
from treadle.codegen.plan_attention import AttentionPlan
from treadle.codegen.target import NAMES, Target, host, named
from treadle.ir.op import get_op
from treadle.ir.ops.attention_kernels import AttentionKernelAttrs, padded_queries
from treadle.runtime.native import assembly

Array = npt.NDArray[Any]
FAMILIES = ["host", *NAMES]


def the_target(name: str) -> Target:
    target = host() if name == "host" else named(name)
    if not target.runs_here():
        pytest.skip(f"this machine lacks instructions of {name}")
    return target


def drawn(shape: Sequence[int], sizes: tuple[int, int, int, int], dtype: Any, seed: int = 0
          ) -> list[Array]:  # fmt: skip
    rng = np.random.default_rng(seed)
    t, s, d, e = sizes
    return [rng.standard_normal((*shape, *x)).astype(dtype) for x in ((t, d), (s, d), (s, e))]


def check(
    operands: Sequence[Array], attrs: AttentionKernelAttrs, target: Target, bound: float
) -> None:
    """Forward and backward within `bound` of the reference, by the largest magnitude of each."""
    forward, backward = get_op("attention_forward"), get_op("attention_backward")
    wanted = forward.run_ref(attrs, operands)
    native = compiled(function_of(forward, attrs, operands), target)
    near(native.results(*operands), wanted, bound, native.plan)
    ct = np.random.default_rng(5).standard_normal(wanted[0].shape).astype(operands[0].dtype)
    operands = (*operands, *wanted, ct)
    native = compiled(function_of(backward, attrs, operands), target)
    near(native.results(*operands), backward.run_ref(attrs, operands), bound, native.plan)


def near(found: Sequence[Array], wanted: Sequence[Array], bound: float, about: object) -> None:
    for f, w in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(np.isnan(f), np.isnan(w), err_msg=str(about))
        known = np.isfinite(w)
        np.testing.assert_array_equal(f[~known], w[~known], err_msg=str(about))
        scale = max(1.0, float(np.max(np.abs(w[known]), initial=0)))
        np.testing.assert_allclose(f[known], w[known], rtol=0, atol=bound * scale)


SIZES = [
    (1, 1, 1, 1), (1, 65, 3, 2), (2, 3, 4, 16), (8, 8, 8, 8), (31, 33, 5, 17), (32, 64, 16, 32),
    (33, 65, 32, 31), (64, 63, 33, 1), (65, 130, 7, 48), (130, 31, 9, 15), (97, 300, 20, 40),
]  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("causal", [False, True])
def test_odd_sizes_agree_with_the_reference(name: str, causal: bool) -> None:
    target = the_target(name)
    for n, sizes in enumerate(SIZES):
        dtype = np.float64 if n % 3 == 0 else np.float32
        operands = drawn((2, 1) if n % 2 else (3,), sizes, dtype)
        bound = 1e-13 if dtype is np.float64 else 3e-6
        check(operands, AttentionKernelAttrs(0.3, causal), target, bound)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("kind", ["keep", "never", "fill", "bias", "keys", "queries"])
def test_masks_agree_with_the_reference(name: str, kind: str) -> None:
    """never: filled with -inf by an operand; keys and queries: one number for each."""
    target = the_target(name)
    rng = np.random.default_rng(3)
    for t, s in ((40, 33), (70, 150)):
        q, k, v = drawn((2, 3), (t, s, 8, 9), np.float32)
        keep = rng.uniform(size=(s, padded_queries(t))) > 0.5
        keep[: s // 3, :35] = False  # whole blocks at one end, and rows in the middle, see nothing
        keep[:, 37] = False
        more: dict[str, list[Array]] = {
            "keep": [keep],
            "never": [keep, np.array(-np.inf, np.float32)],
            "fill": [keep, np.array(-3.0, np.float32)],
            "bias": [rng.standard_normal((3, s, padded_queries(t))).astype(np.float32)],
            "keys": [rng.uniform(size=(2, 1, s, 1)) > 0.4],
            "queries": [np.tile(rng.uniform(size=(1, padded_queries(t))) > 0.2, (1, 1))],
        }
        for causal in (False, True):
            check((q, k, v, *more[kind]), AttentionKernelAttrs(0.4, causal), target, 3e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_large_logits_and_infinities_follow_softmax(name: str) -> None:
    """Logits of 1e4; keys that make logits of +inf share; one that is NaN poisons its rows."""
    target = the_target(name)
    for s in (20, 300):
        q, k, v = drawn((2,), (33, s, 4, 4), np.float64)
        check((np.round(q * 50), np.round(k * 50), v), AttentionKernelAttrs(1.0), target, 1e-12)
        q[:] = np.abs(q) + 0.1
        keys = k.copy()
        keys[0, [3, s - 2]] = np.inf
        keys[1, 5] = -np.inf
        attrs = AttentionKernelAttrs(1.0)
        forward = get_op("attention_forward")
        found = compiled(function_of(forward, attrs, (q, keys, v)), target).results(q, keys, v)
        near(found, forward.run_ref(attrs, (q, keys, v)), 1e-12, name)
        np.testing.assert_allclose(found[0][0], np.tile(v[0, [3, s - 2]].mean(0), (33, 1)))
        keys[1, 5] = np.nan
        found = compiled(function_of(forward, attrs, (q, keys, v)), target).results(q, keys, v)
        assert np.isnan(found[0][1]).all()
        assert not np.isnan(found[0][0]).any()


def test_a_query_that_sees_no_key_gives_zeros_and_gets_no_gradient() -> None:
    q, k, v = drawn((2,), (20, 20, 4, 4), np.float32)
    keep = np.zeros((20, 64), bool)
    keep[:, 3] = True
    attrs, forward = AttentionKernelAttrs(1.0), get_op("attention_forward")
    out, top, total = compiled(function_of(forward, attrs, (q, k, v, keep))).results(q, k, v, keep)
    dead = np.arange(20) != 3
    assert (out[:, dead] == 0).all()
    assert (top[:, dead] == -np.inf).all()
    assert (total[:, dead] == 0).all()
    given = (q, k, v, keep, out, top, total, np.ones_like(out))
    dq, _, _ = compiled(function_of(get_op("attention_backward"), attrs, given)).results(*given)
    assert (dq[:, dead] == 0).all()


@pytest.mark.parametrize("causal", [False, True])
def test_any_number_of_threads_gives_the_same_bits(causal: bool) -> None:
    attrs = AttentionKernelAttrs(0.25, causal)
    operands = drawn((3, 2), (150, 200, 16, 16), np.float32)
    forward = compiled(function_of(get_op("attention_forward"), attrs, operands))
    assert forward.plan.kernels[0].tiles > 3
    one = forward.results(*operands)
    given = (*operands, *one, np.ones_like(one[0]))
    backward = compiled(function_of(get_op("attention_backward"), attrs, given))
    assert backward.plan.kernels[0].tiles > 3
    grads = backward.results(*given)
    for threads in (2, 3):
        for first, again in (
            (one, forward.results(*operands, threads=threads)),
            (grads, backward.results(*given, threads=threads)),
        ):
            for x, y in zip(first, again, strict=True):
                assert x.tobytes() == y.tobytes()


def test_operands_and_results_lie_as_their_views_say() -> None:
    """Heads split from one array, and the gradients of them in another order of axes."""
    op = get_op("attention_forward")
    sample = list(op.samples(np.random.default_rng(0)))[-1]
    attrs = sample.attrs
    assert isinstance(attrs, AttentionKernelAttrs)
    assert attrs.views
    native = compiled(function_of(op, attrs, sample.args))
    near(native.results(*sample.args), op.run_ref(attrs, sample.args), 1e-6, native.plan)
    q, k, v = drawn((2, 3), (19, 21, 6, 5), np.float32)
    plain = AttentionKernelAttrs(0.5, True)
    out, top, total = op.run_ref(plain, (q, k, v))
    turned = np.ascontiguousarray(np.swapaxes(out, 1, 2))
    view = ((0,), (2, 3, 19, 5), (3 * 19 * 5, 5, 3 * 5, 1))
    orders = ((0, 2, 1, 3), (1, 0, 2, 3), ())
    attrs = replace(plain, views=((), (), (), view, view), orders=orders)
    given = (q, k, v, turned, top, total, turned)
    backward = get_op("attention_backward")
    native = compiled(function_of(backward, attrs, given))
    near(native.results(*given), backward.run_ref(attrs, given), 3e-6, native.plan)


@pytest.mark.parametrize("width", range(1, 70))
def test_columns_cover_a_row_once_or_in_one_group(width: int) -> None:
    for lanes in (2, 4, 16):
        seen: set[int] = set()
        for group in columns(width, lanes, 2):
            covered = {s + i for s in group.starts for i in range(group.lanes)}
            assert not covered & seen
            seen |= covered
        assert seen == set(range(width))


def test_the_plan_depends_on_shapes_and_target_alone_and_prints() -> None:
    q, k, v = drawn((2, 4), (100, 100, 32, 32), np.float32)
    fn = lowered(
        function_of(get_op("attention_forward"), AttentionKernelAttrs(0.5, True), (q, k, v))
    )
    plans = {str(emitted_for(fn, named(name))[1]) for name in ("sse2", "avx2", "avx512", "neon")}
    assert len(plans) == 4
    body = emitted_for(fn, named("avx512"))[1].kernels[0].body
    assert isinstance(body, AttentionPlan)
    assert "8 of 100 queries, 100 keys, 32 and 32 features f32, causal" in str(body)
    assert body.scratch < 64 * 1024


@pytest.mark.parametrize("name", ["attention_forward", "attention_backward"])
def test_neon_multiplies_and_adds_in_vectors(name: str) -> None:
    attrs = AttentionKernelAttrs(0.5, True)
    operands = drawn((2,), (40, 40, 16, 16), np.float32)
    if name == "attention_backward":
        left = get_op("attention_forward").run_ref(attrs, operands)
        operands = [*operands, *left, left[0]]
    target = named("neon")
    text = assembly(emitted_for(lowered(function_of(get_op(name), attrs, operands)), target)[2].ir,
                    target)  # fmt: skip
    assert text.count("fmla") > 50
    assert "expf" not in text
