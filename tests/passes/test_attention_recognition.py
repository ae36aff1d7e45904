"""What recognition and the kernels are for: no matrix of scores, however attention is written."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import treadle
from treadle.nn.functional import scaled_dot_product_attention as attention

B, T, H, D = 2, 20, 3, 8
Form = Callable[[Any, Any, Any], Any]


def by_tril(q: Any, k: Any, v: Any) -> Any:
    scores = (q @ treadle.permute_dims(k, (0, 1, 3, 2))) * D**-0.5
    seen = treadle.tril(treadle.ones((T, T)))
    return treadle.softmax(treadle.where(seen == 0, -np.inf, scores), axis=-1) @ v


def by_positions(q: Any, k: Any, v: Any) -> Any:
    scores = (q @ k.mT) / D**0.5
    at = treadle.arange(T)
    scores = treadle.where(at[:, None] >= at[None, :], scores, -np.inf)
    e = treadle.exp(scores - treadle.max(scores, axis=-1, keepdims=True))
    return (e / treadle.sum(e, axis=-1, keepdims=True)) @ v


def by_scaled_queries(q: Any, k: Any, v: Any) -> Any:
    scores = (q * D**-0.5) @ k.mT
    seen = treadle.tril(treadle.ones((T, T), dtype=treadle.bool))
    return treadle.softmax(treadle.where(seen, scores, -np.inf), axis=-1) @ v


def by_the_library(q: Any, k: Any, v: Any) -> Any:
    return attention(q, k, v, is_causal=True)


FORMS = [by_tril, by_positions, by_scaled_queries, by_the_library]


def block(form: Form) -> Callable[[Any], Any]:
    """Heads split from one array and merged again, as in a GPT."""

    def run(x: Any) -> Any:
        q, k, v = treadle.permute_dims(x.reshape((B, T, 3, H, D)), (2, 0, 3, 1, 4))
        out = treadle.permute_dims(form(q, k, v), (0, 2, 1, 3))
        return out.reshape((B, T, H * D))

    return run


def steps(form: Form) -> tuple[Any, Any, Any]:
    """The block, its gradient, and an operand."""
    run = block(form)
    x = treadle.tensor(np.random.default_rng(0).standard_normal((B, T, 3 * H * D)).astype("f4"))
    loss = treadle.grad(lambda x: treadle.sum(run(x) ** 2))
    return treadle.jit(run), treadle.jit(lambda x: loss(x)), x


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
def test_no_value_of_all_queries_by_all_keys_is_left(form: Form) -> None:
    """Neither in the program nor in memory, forward and backward."""
    forward, backward, x = steps(form)
    for step in (forward, backward):
        for text in (step.ir("fuse", x), step.ir("memory", x)):
            assert not re.search(rf"\[(\d+, )*{T}, {T}\]", text), text
        assert "attention_forward" in step.ir("fuse", x)
    assert "attention_backward" in backward.ir("fuse", x)
    assert backward.ir("fuse", x).count("= attention_forward") == 1  # what backward needs is kept


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
def test_every_form_computes_what_it_computes_eagerly(form: Form) -> None:
    forward, backward, x = steps(form)
    wanted = np.asarray(block(form)(x))
    np.testing.assert_allclose(np.asarray(forward(x)), wanted, rtol=0, atol=2e-6)
    wanted = np.asarray(treadle.grad(lambda x: treadle.sum(block(form)(x) ** 2))(x))
    np.testing.assert_allclose(np.asarray(backward(x)), wanted, rtol=0, atol=3e-5)


def without_lines(text: str) -> str:
    return re.sub(r"  ;.*", "", text)


def test_the_hand_written_form_and_the_librarys_are_the_same_program() -> None:
    x = treadle.tensor(np.zeros((B, H, T, D), np.float32))
    for stage in ("cse", "fuse"):
        texts = set()
        for form in FORMS[:1] + FORMS[2:]:

            def step(q: Any, k: Any, v: Any, form: Form = form) -> Any:
                return treadle.grad(lambda *a: treadle.sum(form(*a) ** 2), (0, 1, 2))(q, k, v)

            texts.add(without_lines(treadle.jit(step).ir(stage, x, x, x)))
        assert len(texts) == 1, texts


def test_heads_are_read_and_written_where_they_lie() -> None:
    """No copy turns them: besides the kernel there are free views only."""
    forward, _, x = steps(by_tril)
    ops = re.findall(r"= (\w+)\(", forward.ir("fuse", x))
    assert set(ops) == {"attention_forward", "reshape"}


def test_an_operand_whose_features_are_apart_is_copied() -> None:
    """[.., D, T] turned: no view of whole rows, but right all the same."""
    rng = np.random.default_rng(0)
    q, k, v = (treadle.tensor(rng.standard_normal((2, 8, 20)).astype("f4")) for _ in range(3))

    def step(q: Any, k: Any, v: Any) -> Any:
        return attention(q.mT, k.mT, v.mT)

    np.testing.assert_allclose(
        np.asarray(treadle.jit(step)(q, k, v)), np.asarray(step(q, k, v)), rtol=0, atol=2e-6
    )


def test_a_mask_of_the_call_is_turned_once_for_all_layers() -> None:
    q = treadle.tensor(np.random.default_rng(0).standard_normal((2, 20, 4)).astype("f4"))
    hidden = treadle.tensor(np.triu(np.ones((20, 20), bool), 1))

    def layer(x: Any, hidden: Any) -> Any:
        return treadle.softmax(treadle.where(hidden, -np.inf, x @ x.mT), axis=-1) @ x

    step = treadle.jit(lambda x, hidden: layer(layer(x, hidden), hidden))
    text = step.ir("fuse", q, hidden)
    assert len(re.findall(r"bool\[20, 64\] = fused", text)) == 1
    wanted = np.asarray(layer(layer(q, hidden), hidden))
    np.testing.assert_allclose(np.asarray(step(q, hidden)), wanted, rtol=0, atol=2e-6)


def test_weights_that_are_asked_for_keep_the_plain_form() -> None:
    q = treadle.tensor(np.random.default_rng(0).standard_normal((2, 20, 4)).astype("f4"))

    def step(x: Any) -> Any:
        weights = treadle.softmax(x @ x.mT, axis=-1)
        return weights @ x, weights

    assert "attention" not in without_lines(treadle.jit(step).ir("fuse", q))


@pytest.mark.parametrize("queries", [1, 7, 8])
def test_a_few_queries_are_plain_products(queries: int) -> None:
    q = treadle.tensor(np.ones((2, queries, 4), np.float32))
    k = treadle.tensor(np.ones((2, 30, 4), np.float32))
    text = without_lines(treadle.jit(lambda q, k: attention(q, k, k)).ir("fuse", q, k))
    assert ("attention_forward" in text) == (queries >= 8)


@pytest.mark.parametrize("filler", [-1e9, -1e4, -5.0, 0.0])
def test_a_finite_fill_counts_where_a_row_sees_nothing(filler: float) -> None:
    rng = np.random.default_rng(0)
    q = treadle.tensor(rng.standard_normal((2, 40, 4)) * 3)
    keep = rng.uniform(size=(40, 40)) > 0.5
    keep[3] = False
    keep[:, 20:] = False
    kept = treadle.tensor(keep)

    def step(x: Any, kept: Any) -> Any:
        return treadle.softmax(treadle.where(kept, x @ x.mT, filler), axis=-1) @ x

    for fn in (step, lambda x, m: treadle.grad(lambda x: treadle.sum(step(x, m) ** 2))(x)):
        np.testing.assert_allclose(
            np.asarray(treadle.jit(fn)(q, kept)), np.asarray(fn(q, kept)), rtol=0, atol=1e-9
        )
