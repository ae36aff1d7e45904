"""`nn.check` finds samples and axes that are mixed up, with the layer, the line and the permute."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

import treadle
from treadle import nn
from treadle.nn import functional as F  # noqa: N812
from treadle.nn.recipe.mixing import keeps_apart
from treadle.nn.recipe.reshapes import reordered

STEPS, WIDTH = 6, 10


def sequences() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    centres = rng.normal(size=(3, STEPS, WIDTH))
    return (rng.normal(size=(60, STEPS, WIDTH)) * 0.4 + centres[y]).astype(np.float32), y


class Net(nn.Module):
    """A function of [N, T, F] before two layers."""

    def __init__(self, inside: Callable[[Any], Any], features: int = STEPS * WIDTH) -> None:
        super().__init__()
        treadle.manual_seed(0)
        self.inside, self.features = inside, features
        self.body, self.head = nn.Linear(features, 16), nn.Linear(16, 3)

    def forward(self, x: Any) -> Any:
        x = self.inside(x)
        return self.head(treadle.tanh(self.body(x.reshape(-1, self.features))))


def report(model: nn.Module, **options: Any) -> Any:
    return nn.check(model, nn.CrossEntropyLoss(), sequences(), **{"steps": 5, **options})


def mixing(model: nn.Module) -> list[Any]:
    found = report(model)
    return [f for f in found if f.code in ("mixed-samples", "reshape")]


# --- the wrong reshape -------------------------------------------------------------------------


def test_a_reshape_where_a_permute_was_meant_is_flagged_with_line_and_permute() -> None:
    def steps_first(x: Any) -> Any:
        n, t, f = x.shape
        y = x.reshape(t, n, f)  # the line
        return treadle.permute_dims(y, (1, 0, 2))

    found = {f.code: f for f in mixing(Net(steps_first))}
    for code, severity in (("mixed-samples", "error"), ("reshape", "warning")):
        assert found[code].severity == severity
        assert "x.permute_dims((1, 0, 2))" in found[code].fix
        file, line = found[code].line.rsplit(":", 1)
        assert "# the line" in open(file).read().splitlines()[int(line) - 1]  # noqa: SIM115, PTH123
    assert "depends on the inputs of samples" in found["mixed-samples"].message
    assert "(7, 6, 10) to (6, 7, 10)" in found["mixed-samples"].message


def test_the_right_permute_is_not_flagged() -> None:
    assert mixing(Net(lambda x: x.permute_dims((1, 0, 2)).permute_dims((1, 0, 2)))) == []


def test_heads_split_without_a_permute_are_flagged() -> None:
    def heads(x: Any) -> Any:
        return x.reshape(x.shape[0], 2, STEPS, WIDTH // 2)

    (found,) = mixing(Net(heads))
    assert "x.reshape((7, 6, 2, 5)).permute_dims((0, 2, 1, 3))" in found.fix
    right = Net(lambda x: x.reshape(x.shape[0], STEPS, 2, WIDTH // 2).permute_dims((0, 2, 1, 3)))
    assert mixing(right) == []


def test_channels_moved_by_a_reshape_are_flagged_in_the_layer_that_does_it() -> None:
    class Patches(nn.Module):
        def forward(self, x: Any) -> Any:
            y = x.reshape(-1, STEPS, 2, 5)  # [N, C, H, W]
            return y.reshape(-1, 10, STEPS)

    class Whole(Net):
        def __init__(self) -> None:
            super().__init__(lambda x: x)
            self.patches = Patches()

        def forward(self, x: Any) -> Any:
            return super().forward(self.patches(x))

    (found,) = mixing(Whole())
    assert found.layer == "patches (Patches)"
    assert "x.permute_dims((0, 2, 3, 1)).reshape((7, 10, 6))" in found.fix


def test_a_joined_axis_split_in_another_order_is_traced_back() -> None:
    def apart(x: Any) -> Any:
        n, t, f = x.shape
        rows = x.reshape(n * t, f) * 2.0
        return rows.reshape(t, n, f).permute_dims((1, 0, 2))

    (found,) = mixing(Net(apart))
    assert found.code == "mixed-samples"
    assert "x.reshape((7, 6, 10)).permute_dims((1, 0, 2))" in found.fix


def test_unflatten_and_flatten_split_and_join_in_order() -> None:
    model = nn.Sequential(nn.Unflatten(2, (5, 2)), nn.Flatten(), nn.Linear(60, 3))
    assert mixing(model) == []


# --- other ways to mix -------------------------------------------------------------------------


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(WIDTH, 8), nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(x)[0][:, -1])


def test_a_recurrent_layer_along_the_samples_is_named() -> None:
    (found,) = mixing(Recurrent())
    assert found.layer == "rnn (GRU)" and "`scan` mixes them" in found.message
    assert "batch_first=True" in found.fix


@pytest.mark.parametrize("wrong", [False, True])
def test_samples_joined_with_steps_or_behind_them_are_followed(wrong: bool) -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(WIDTH, 3)

        def forward(self, x: Any) -> Any:
            n, t, f = x.shape
            y = x.reshape(t, n, f) if wrong else x.permute_dims((1, 0, 2))
            return self.head(y), self.head(x.reshape(n * t, f)), treadle.mean(y)

    def loss(out: Any, y: Any) -> Any:
        return F.cross_entropy(out[0][-1], y) + F.cross_entropy(out[1][: len(y)], y)

    found = nn.check(Steps(), loss, sequences(), steps=2).find("mixed-samples")
    assert [f.fix for f in found] == ["a permute is meant: x.permute_dims((1, 0, 2))"] * wrong


def test_a_softmax_over_the_batch_is_named() -> None:
    class Wrong(Net):
        def forward(self, x: Any) -> Any:
            return treadle.softmax(super().forward(x), axis=0)

    (found,) = mixing(Wrong(lambda x: x))
    assert "softmax" in found.message and "test_check_mixing.py:" in found.line


def test_samples_of_integers_are_compared_by_exchange() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(10, 8), nn.Linear(8, 2)

        def forward(self, tokens: Any) -> Any:
            x = self.embedding(tokens).mean(axis=1)
            return self.head(x - x.mean(axis=0))

    rng = np.random.default_rng(0)
    data = rng.integers(0, 10, (40, 5)), rng.integers(0, 2, 40)
    found = nn.check(Tokens(), nn.CrossEntropyLoss(), data, steps=3)
    assert found.find("mixed-samples")


def test_batch_norm_may_mix_in_training_only() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(60, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    found = report(model)
    assert not found.find("mixed-samples")
    assert "batch norm mixes the samples of a batch, as it should" in found.sections[1].text
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(60, 8), nn.BatchNorm1d(8, track_running_stats=False),
        nn.Linear(8, 3),
    )  # fmt: skip
    (found,) = mixing(model)
    assert found.severity == "warning" and found.layer == "2 (BatchNorm1d)"


def test_rows_in_another_order_than_the_targets_are_told() -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(WIDTH, 3)

        def forward(self, x: Any) -> Any:
            return self.head(x.permute_dims((1, 0, 2)))  # [T, N, 3]

    def loss(out: Any, y: Any) -> Any:
        return F.cross_entropy(out.reshape(-1, 3), y.reshape(-1))

    x, _ = sequences()
    y = np.random.default_rng(0).integers(0, 3, (60, STEPS))
    found = nn.check(Steps(), loss, (x, y), steps=3)
    assert found.find("misaligned-targets")


# --- shapes alone ------------------------------------------------------------------------------

MEANT = [
    ((7, 5, 3), (5, 7, 3), "x.permute_dims((1, 0, 2))"),
    ((7, 8, 4), (7, 4, 8), "x.permute_dims((0, 2, 1))"),
    ((7, 8, 64), (7, 4, 8, 16), "x.reshape((7, 8, 4, 16)).permute_dims((0, 2, 1, 3))"),
    ((7, 16, 8, 8), (7, 64, 16), "x.permute_dims((0, 2, 3, 1)).reshape((7, 64, 16))"),
    ((7, 32, 4, 4), (7, 16, 32), "x.permute_dims((0, 2, 3, 1)).reshape((7, 16, 32))"),
    ((7, 4, 64, 16), (7, 64, 64), "x.permute_dims((0, 2, 1, 3)).reshape((7, 64, 64))"),
    ((7, 4, 9, 4), (7, 9, 16), "x.permute_dims((0, 2, 1, 3)).reshape((7, 9, 16))"),
    ((7, 16, 8, 8), (448, 16), "x.permute_dims((0, 2, 3, 1)).reshape((448, 16))"),
]
PLAIN = [
    ((7, 5, 3), (35, 3)),
    ((35, 3), (7, 5, 3)),
    ((7, 1, 5), (7, 5, 1)),
    ((7, 32, 8, 8), (7, 8, 256)),
    ((7, 3, 32, 32), (7, 3, 8, 4, 8, 4)),
    ((7, 5, 64), (7, 5, 4, 16)),
    ((6, 4), (3, 8)),
    ((1,), ()),
    ((0, 3), (3, 0)),
    ((7, 4, 5, 16), (7, 4, 80)),
    ((7, 16, 4, 4), (7, 16, 16)),
]


@pytest.mark.parametrize(("before", "after", "code"), MEANT)
def test_what_was_meant_is_said_as_code(before: Any, after: Any, code: str) -> None:
    found = reordered(before, after)
    assert found is not None and found.code == code
    x = np.zeros(before)
    x = x if found.split is None else x.reshape(found.split)
    x = x.transpose(found.axes)
    assert (x if found.joined is None else x.reshape(found.joined)).shape == after


@pytest.mark.parametrize(("before", "after"), PLAIN)
def test_splitting_and_joining_in_order_is_nothing(before: Any, after: Any) -> None:
    assert reordered(before, after) is None


@given(st.lists(st.sampled_from([2, 3, 5, 7]), min_size=1, max_size=5, unique=True), st.data())
def test_any_pure_split_or_join_is_nothing(sizes: list[int], data: Any) -> None:
    cuts = data.draw(st.sets(st.integers(1, len(sizes))))
    ends = sorted({0, len(sizes)} | cuts)
    joined = [math.prod(sizes[a:b]) for a, b in itertools.pairwise(ends)]
    assert reordered(sizes, joined) is None and reordered(joined, sizes) is None


@given(st.permutations([2, 3, 5, 7]))
def test_any_permutation_is_found(sizes: list[int]) -> None:
    found = reordered((2, 3, 5, 7), sizes)
    if list(sizes) == [2, 3, 5, 7]:
        assert found is None
    else:
        assert found is not None and found.split is None
        assert [(2, 3, 5, 7)[a] for a in found.axes] == list(sizes)


def test_places_of_a_sample_are_told_apart() -> None:
    changed = np.zeros((7, 5, 3), bool)
    assert keeps_apart(changed, 7, 3)
    changed[3] = True
    for shown in (changed, changed.transpose(1, 2, 0), changed.reshape(35, 3),
                  changed.transpose(1, 0, 2).reshape(35, 3)):  # fmt: skip
        assert keeps_apart(shown, 7, 3) and not keeps_apart(shown, 7, 2)
    assert not keeps_apart(changed.reshape(5, 7, 3), 7, 3)
