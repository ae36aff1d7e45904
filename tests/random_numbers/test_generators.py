"""Generators are state: what jit, derivatives and faults make of draws; what a seed promises."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import treadle
from treadle import Tensor
from treadle.nn.functional import dropout

X = treadle.tensor(np.linspace(-1, 1, 60, dtype=np.float32).reshape(4, 15))


def equal(a: Tensor, b: Tensor) -> bool:
    return np.array_equal(a.numpy(), b.numpy())


def number_of_draws(generator: treadle.Generator) -> int:
    return int(generator.get_state()[1])


# --- what a seed promises ----------------------------------------------------------------------


def test_the_same_seed_and_order_give_the_same_numbers() -> None:
    for start in (lambda: treadle.Generator(3), lambda: treadle.Generator().manual_seed(3)):
        a, b = start(), start()
        assert equal(treadle.rand(5, generator=a), treadle.rand(5, generator=b))
        assert equal(treadle.randint(9, (5,), generator=a), treadle.randint(9, (5,), generator=b))
    treadle.manual_seed(3)
    first = treadle.rand(5)
    assert not equal(first, treadle.rand(5))
    treadle.manual_seed(3)
    assert equal(first, treadle.rand(5))
    assert equal(first, treadle.rand(5, generator=treadle.Generator(3)))


def test_a_draw_of_any_size_takes_one_number() -> None:
    a, b = treadle.Generator(1), treadle.Generator(1)
    treadle.rand(1000, generator=a)
    treadle.randn(0, generator=b)
    assert number_of_draws(a) == number_of_draws(b) == 1
    assert equal(treadle.rand(5, generator=a), treadle.rand(5, generator=b))


def test_a_state_is_a_copy_that_a_generator_goes_on_from() -> None:
    g = treadle.Generator(8)
    treadle.rand(3, generator=g)
    kept = g.get_state()
    expected = treadle.randn(4, generator=g)
    assert kept.numpy().tolist() == [8, 1]
    assert equal(treadle.randn(4, generator=treadle.Generator().set_state(kept)), expected)
    assert repr(g) == "Generator(seed=8, draws=2)"


def test_seeds_are_64_bits() -> None:
    large = treadle.rand(9, generator=treadle.Generator(2**64 - 1))
    assert not equal(large, treadle.rand(9, generator=treadle.Generator(2**32 - 1)))
    assert equal(large, treadle.rand(9, generator=treadle.Generator(np.uint64(2**64 - 1))))


def test_threads_that_draw_eagerly_get_different_numbers() -> None:
    g = treadle.Generator(5)
    found: list[bytes] = []

    def work() -> None:
        found.extend(treadle.rand(4, generator=g).numpy().tobytes() for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 80
    assert number_of_draws(g) == 80


# --- under jit ---------------------------------------------------------------------------------


def test_a_second_call_of_a_compiled_function_draws_new_numbers() -> None:
    @treadle.jit
    def two() -> tuple[Tensor, Tensor]:
        return treadle.rand(8), treadle.randint(0, 100, (3,))

    treadle.manual_seed(0)
    first, second = two(), two()
    third = treadle.rand(8)
    treadle.manual_seed(0)
    with treadle.disable_jit():
        assert all(map(equal, two(), first))
        assert all(map(equal, two(), second))
    assert equal(treadle.rand(8), third)
    assert not equal(first[0], second[0])
    assert len(two.specializations) == 1


class Model:
    def __init__(self) -> None:
        self.generator = treadle.Generator(1)

    @treadle.jit
    def __call__(self, x: Tensor) -> Tensor:
        return x + treadle.rand_like(x, generator=self.generator)


def test_generators_are_found_where_a_function_reaches_them() -> None:
    outer = treadle.Generator(1)
    models = Model(), Model()
    in_list = [treadle.Generator(1)]

    @treadle.jit
    def closed() -> Tensor:
        return X + treadle.rand_like(X, generator=outer)

    @treadle.jit
    def given(generator: treadle.Generator) -> Tensor:
        return X + treadle.rand_like(X, generator=generator)

    @treadle.jit
    def kept() -> Tensor:
        return X + treadle.rand_like(X, generator=in_list[0])

    plain = treadle.Generator(1)
    passed = treadle.Generator(1)
    for _ in range(3):
        expected = X + treadle.rand_like(X, generator=plain)
        for found in (closed(), given(passed), kept(), models[0](X), models[1](X)):
            assert equal(found, expected)
    assert equal(given(treadle.Generator(1)), X + treadle.rand_like(X, generator=Model().generator))
    assert len(given.specializations) == 1


def test_a_generator_made_inside_of_a_jitted_function_starts_anew_at_each_call() -> None:
    @treadle.jit
    def fixed() -> Tensor:
        g = treadle.Generator(4)
        treadle.rand(3, generator=g)
        return treadle.rand(3, generator=g)

    assert equal(fixed(), fixed())
    with treadle.disable_jit():
        assert equal(fixed(), fixed.__wrapped__())


def test_manual_seed_inside_of_a_jitted_function_seeds_at_each_call() -> None:
    @treadle.jit
    def seeded() -> Tensor:
        treadle.manual_seed(17)
        return treadle.rand(3)

    first = seeded()
    treadle.rand(9)
    assert equal(seeded(), first)
    after = treadle.rand(3)
    treadle.manual_seed(17)
    assert equal(treadle.rand(3), first)
    assert equal(treadle.rand(3), after)


def test_removing_an_unused_draw_does_not_change_the_others() -> None:
    @treadle.jit
    def unused() -> Tensor:
        treadle.randn(1000)
        return treadle.rand(8)

    @treadle.jit
    def used() -> tuple[Tensor, Tensor]:
        noise = treadle.randn(1000)
        return treadle.rand(8), noise

    treadle.manual_seed(2)
    first = unused()
    assert "random_normal" not in unused.ir("fuse")
    treadle.manual_seed(2)
    assert equal(used()[0], first)
    with treadle.disable_jit():
        treadle.manual_seed(2)
        assert equal(unused(), first)


def test_functions_that_call_each_other_share_the_stream() -> None:
    @treadle.jit
    def inner() -> Tensor:
        return treadle.rand(4)

    @treadle.jit
    def outer() -> tuple[Tensor, Tensor, Tensor]:
        return inner(), treadle.rand(4), inner()

    treadle.manual_seed(6)
    found = outer()
    treadle.manual_seed(6)
    assert all(map(equal, found, [treadle.rand(4) for _ in range(3)]))


def test_a_failed_call_leaves_the_generator_as_it_was() -> None:
    g = treadle.Generator(1)

    @treadle.jit
    def positive(x: Tensor) -> Tensor:
        noise = treadle.rand_like(x, generator=g)
        treadle.check(x > 0, "not positive")
        return x + noise

    good, bad = treadle.ones(5), treadle.zeros(5)
    positive(good)
    before = g.get_state()
    with pytest.raises(treadle.CheckError):
        positive(bad)
    assert equal(g.get_state(), before)
    expected = 1 + treadle.rand(5, generator=treadle.Generator().set_state(before))
    assert equal(positive(good), expected)


def test_a_trace_that_raises_leaves_the_generator_as_it_was() -> None:
    g = treadle.Generator(1)

    @treadle.jit
    def broken() -> Tensor:
        treadle.rand(3, generator=g)
        raise KeyError("after the draw")

    with pytest.raises(KeyError):
        broken()
    assert g.get_state().numpy().tolist() == [1, 0]


def test_a_function_that_draws_nothing_does_not_depend_on_the_generator() -> None:
    double = treadle.jit(lambda x: x * 2)
    double(X)
    treadle.manual_seed(99)
    double(X)
    assert len(double.specializations) == 1
    assert "i64" not in double.ir("traced", X)


# --- derivatives -------------------------------------------------------------------------------


def noisy(x: Tensor) -> Tensor:
    return (treadle.exp(dropout(x, 0.4)) * treadle.randn(*x.shape)).sum()


def test_jit_of_grad_grad_of_jit_and_eager_grad_draw_the_same() -> None:
    ways = [
        treadle.grad(noisy),
        treadle.jit(treadle.grad(noisy)),
        treadle.grad(treadle.jit(noisy)),
        treadle.jit(treadle.grad(treadle.jit(noisy))),
    ]
    found = []
    for way in ways:
        treadle.manual_seed(12)
        found.append([way(X).numpy(), way(X).numpy(), treadle.rand(3).numpy()])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)
    assert not np.allclose(found[0][0], found[0][1])


def test_second_derivatives_use_the_draws_of_the_first() -> None:
    def twice(x: Tensor) -> Tensor:
        return treadle.grad(noisy)(x).sum()

    results = []
    for way in (treadle.grad(twice), treadle.jit(treadle.grad(twice))):
        treadle.manual_seed(3)
        results.append(way(X).numpy())
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5, atol=1e-6)


def test_backward_through_a_call_uses_the_draws_of_that_call() -> None:
    drop = treadle.jit(lambda x: dropout(x, 0.5))
    x, y = (X.clone().requires_grad_(True) for _ in range(2))
    treadle.manual_seed(1)
    first, second = drop(x), drop(y)  # the second call moves the generator on
    treadle.rand(5)
    first.sum().backward()
    second.sum().backward()
    for leaf, result in ((x, first), (y, second)):
        np.testing.assert_array_equal(leaf.grad.numpy() != 0, result.numpy() != 0)  # type: ignore[union-attr]
    assert not np.array_equal(first.numpy() != 0, second.numpy() != 0)
