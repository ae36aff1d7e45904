"""Explicit keys: values that give the same numbers each time; where they do so twice, a warning."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator

import numpy as np
import pytest

import treadle
from treadle import RandomKeyWarning, Tensor, random
from treadle.tracer import random_keys


@pytest.fixture(autouse=True)
def every_warning() -> Iterator[None]:
    """A warning is an error unless a test asks for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RandomKeyWarning)
        yield


def test_a_key_gives_the_same_numbers_each_time() -> None:
    key = random.key(1)
    draw = treadle.jit(lambda k: random.uniform(k, (7,)))
    expected = random.uniform(key, (7,)).numpy()
    for _ in range(3):
        np.testing.assert_array_equal(draw(key).numpy(), expected)
    np.testing.assert_array_equal(random.uniform(random.key(1), (7,)).numpy(), expected)
    assert not np.array_equal(draw(random.key(2)).numpy(), expected)
    assert len(draw.specializations) == 1


def test_keys_are_tensors_that_a_loop_carries() -> None:
    @treadle.jit
    def step(key: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        key, now = random.split(key)
        return key, x + random.normal(now, x.shape)

    def walk() -> np.ndarray:
        key, x = random.key(5), treadle.zeros(3)
        for _ in range(4):
            key, x = step(key, x)
        return x.numpy()

    jitted = walk()
    with treadle.disable_jit():
        np.testing.assert_allclose(walk(), jitted, rtol=1e-6, atol=1e-6)
    assert len(step.specializations) == 1


def test_split_gives_any_number_of_keys() -> None:
    keys = random.split(random.key(1), 1000).numpy()
    assert keys.shape == (1000, 2)
    assert len({tuple(k) for k in keys}) == 1000
    np.testing.assert_array_equal(random.split(random.key(1)).numpy(), keys[:2])
    assert random.split(random.key(1), 0).shape == (0, 2)


def test_fold_in_takes_numbers_and_traced_integers() -> None:
    key = random.key(1)
    folded = treadle.jit(lambda n: random.fold_in(key, n))
    for n in (0, 1, -1, 2**62):
        expected = random.fold_in(key, n).numpy()
        np.testing.assert_array_equal(folded(treadle.tensor(n)).numpy(), expected)
    np.testing.assert_array_equal(
        random.fold_in(key, np.uint8(7)).numpy(), random.fold_in(key, 7).numpy()
    )


def test_a_key_that_is_drawn_from_twice_is_warned_of_with_both_lines() -> None:
    @treadle.jit
    def twice(key: Tensor) -> Tensor:
        x = random.normal(key, (4,))
        return x + random.uniform(key, (4,))

    first = inspect.getsourcelines(twice.__wrapped__)[1] + 2
    with pytest.warns(RandomKeyWarning) as found:
        twice(random.key(0))
    (warning,) = found
    text = str(warning.message)
    assert f"test_random_keys.py:{first}" in text
    assert f"test_random_keys.py:{first + 1}" in text
    assert warning.lineno == first + 1
    assert warning.filename == __file__


def test_a_key_that_is_split_twice_and_one_of_its_rows_are_warned_of() -> None:
    def split_twice(key: Tensor) -> Tensor:
        return random.split(key)[0] + random.split(key)[1]

    def same_row(key: Tensor) -> Tensor:
        keys = random.split(key, 3)
        return random.uniform(keys[1], ()) + random.uniform(keys[1], ())

    for fn in (split_twice, same_row):
        with pytest.warns(RandomKeyWarning, match="twice, at .*test_random_keys.py"):
            treadle.jit(fn)(random.key(0))


@pytest.mark.parametrize("inner_first", [True, False])
@pytest.mark.parametrize("region", ["scan", "cond", "remat", "nested"])
def test_a_key_that_a_body_and_the_code_around_draw_from_is_warned_of(
    region: str, inner_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random_keys, "_told", set())  # the same two lines in every case

    def inside(key: Tensor) -> Tensor:
        def draw() -> Tensor:
            return random.uniform(key, ())

        if region == "scan":
            return treadle.scan(lambda c, x: (c + draw() + x, None), treadle.zeros(()), key)[0]
        if region == "cond":
            return treadle.cond(key[0] > 0, draw, lambda: treadle.zeros(()))
        if region == "remat":
            return treadle.remat(draw)()
        return treadle.map(lambda _: treadle.remat(draw)(), key).sum()

    def f(keys: Tensor) -> Tensor:
        key = keys[1]
        if inner_first:
            return inside(key) + random.uniform(key, ())
        return random.uniform(key, ()) + inside(key)

    with pytest.warns(RandomKeyWarning, match="drawn from twice, at .*test_random_keys.py"):
        treadle.jit(f)(random.split(random.key(0)))


def test_branches_and_bodies_that_draw_from_one_key_are_not_warned_of() -> None:
    @treadle.jit
    def f(key: Tensor, x: Tensor) -> Tensor:
        count = treadle.zeros(())

        def body(c: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
            count.copy_(count + 1.0)
            return c + random.uniform(random.fold_in(key, 1), ()), random.uniform(rows[0], ())

        rows = random.split(key)
        chosen = treadle.cond(
            x.sum() > 0, lambda: random.uniform(rows[1], ()), lambda: random.normal(rows[1], ())
        )
        return treadle.scan(body, chosen, x)[0] + count

    f(random.key(0), treadle.ones((3, 2)))


def test_keys_that_are_used_once_each_are_not_warned_of() -> None:
    @treadle.jit
    def once(key: Tensor) -> Tensor:
        first, second, *rest = random.split(key, 4)
        total = random.uniform(first, ()) + random.uniform(second, ())
        for n, row in enumerate(rest):
            total = total + random.uniform(random.fold_in(row, n), ())
            total = total + random.uniform(random.fold_in(row, n + 10), ())
        return total

    once(random.key(0))
    once(random.key(1))


def test_eager_code_may_draw_again_from_a_key() -> None:
    key = random.key(0)
    assert float(random.uniform(key, ())) == float(random.uniform(key, ()))


def test_a_key_and_a_generator_of_one_seed_have_nothing_in_common() -> None:
    by_key = random.uniform(random.key(3), (100,)).numpy()
    generator = treadle.Generator(3)
    drawn = [random.uniform(generator, (100,)).numpy() for _ in range(10)]
    assert not np.isin(by_key, np.concatenate(drawn)).sum() > 2
