"""A FractalNet: architectures over one set of parameters, each without what it leaves out."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle.data import read_image
from treadle.examples import fractalnet, lenet
from treadle.examples.fractalnet import COLUMNS, FractalNet, column, drop_path, features, whole


@pytest.fixture
def net() -> FractalNet:
    treadle.manual_seed(0)
    return FractalNet()


@pytest.fixture
def x() -> Any:
    return treadle.tensor(np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32))


def dump(function: Any, *args: Any) -> str:
    return treadle.jit(function).ir("traced", *args)


def test_it_trains_and_reads_by_every_architecture(
    tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    images = lenet.load(None)
    few = lenet.Images(images.train_x[:512], images.train_y[:512], images.test_x, images.test_y)
    monkeypatch.setattr(lenet, "load", lambda folder: few)
    monkeypatch.setattr(fractalnet, "COLUMNS", 2)
    monkeypatch.setattr(fractalnet, "WIDTHS", (8, 16))
    assert fractalnet.main(["--epochs", "2", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    losses = [float(n) for n in re.findall(r"Treadle, epoch .*mean loss (\S+)", out)]
    assert losses[1] < losses[0]
    for row in ("the whole net", "column 1, 4 convolutions", "even or odd, by the first block"):
        assert row in out
    assert read_image(tmp_path / "fractalnet.png").shape[0] == 3


@pytest.mark.parametrize("k", range(COLUMNS))
def test_columns_that_are_not_asked_for_are_absent_from_the_dump(
    net: FractalNet, x: Any, k: int
) -> None:
    text = dump(lambda x: column(net, x, k), x)
    assert set(re.findall(r"columns\[(\d)\]", text)) == {str(k)}
    assert len(re.findall(r"= conv\(", text)) == 3 * 2**k
    everything = dump(lambda x: whole(net, x), x)
    assert set(re.findall(r"columns\[(\d)\]", everything)) == {"0", "1", "2"}
    assert len(re.findall(r"= conv\(", everything)) == 3 * 7


def test_only_training_draws_paths(net: FractalNet, x: Any) -> None:
    assert "= random_uniform(" in dump(lambda x: drop_path(net, x), x)
    assert "= random_uniform(" not in dump(lambda x: whole(net, x), x)
    drawn = treadle.jit(partial(drop_path, net))
    assert not np.array_equal(drawn(x).numpy(), drawn(x).numpy())
    fixed = treadle.jit(partial(whole, net))
    np.testing.assert_array_equal(fixed(x).numpy(), fixed(x).numpy())


def test_features_of_the_first_block_need_nothing_behind_it(net: FractalNet, x: Any) -> None:
    text = dump(lambda x: features(net, x), x)
    assert set(re.findall(r"blocks\[(\d)\]", text)) == {"0"} and "head" not in text


def test_a_second_task_leaves_the_frozen_block_as_it_is(net: FractalNet) -> None:
    images = lenet.load(None)
    before = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    head = fractalnet.train_second_task(net, images.train_x[:128], images.train_y[:128], 1, 0)
    assert [p.grad for p in net.parameters()] == [None] * len(list(net.parameters()))
    assert not any(p.requires_grad for p in net.blocks[0].parameters())
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])
    assert head.weight.shape == (2, 256)


def test_each_join_keeps_one_path_at_least_and_the_mean_of_those_kept(monkeypatch: Any) -> None:
    monkeypatch.setattr(fractalnet, "KEPT", 0.2)
    join = treadle.jit(lambda a, b, c: fractalnet.some([a, b, c]))
    ends = [np.full(1, value, np.float32) for value in (1, 10, 100)]
    found = {round(float(join(*ends)[0]), 3) for _ in range(200)}
    assert {1.0, 10.0, 100.0, 5.5} <= found <= {1.0, 10.0, 100.0, 5.5, 50.5, 55.0, 37.0}


def test_a_model_of_a_column_shares_its_parameters(net: FractalNet, x: Any) -> None:
    model = fractalnet.model_of_column(net, 1)
    np.testing.assert_allclose(model(x).numpy(), column(net, x, 1).numpy(), rtol=1e-5, atol=1e-6)
    assert {id(p) for p in model.parameters()} < {id(p) for p in net.parameters()}
    optimizer = treadle.optim.SGD(net.parameters(), lr=0.1)
    before = model(x).numpy().copy()

    @treadle.jit
    def step(x: Any) -> None:
        optimizer.zero_grad()
        (column(net, x, 1) ** 2).sum().backward()
        optimizer.step()

    step(x)
    assert not np.array_equal(model(x).numpy(), before)
    np.testing.assert_allclose(model(x).numpy(), column(net, x, 1).numpy(), rtol=1e-5, atol=1e-6)


def test_layers_that_share_parameters_learn_as_one(net: FractalNet, x: Any) -> None:
    count = len(list(net.parameters()))
    units = net.blocks[1].columns[2]
    units[2] = units[1]
    assert len(list(net.parameters())) == count - 3
    optimizer = treadle.optim.SGD(net.parameters(), lr=0.1)
    before = units[1].conv.weight.numpy().copy()

    @treadle.jit
    def step(x: Any) -> None:
        optimizer.zero_grad()
        (whole(net, x) ** 2).sum().backward()
        optimizer.step()

    step(x)
    assert units[2].conv.weight is units[1].conv.weight
    assert not np.array_equal(units[1].conv.weight.numpy(), before)
