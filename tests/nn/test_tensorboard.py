"""`nn.TensorBoard` writes event files, which are read back here."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.data import DataLoader, TensorDataset

tensorboardx = pytest.importorskip("tensorboardX")


def events(folder: Path) -> Iterator[Any]:
    """All events: a record is its length, a checksum, the bytes, a checksum."""
    from tensorboardX.proto.event_pb2 import Event

    (path,) = folder.glob("events.out.tfevents.*")
    data, at = path.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield Event.FromString(data[at + 12 : at + 12 + length])
        at += 16 + length


def values(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """(step, value) of every tag."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for event in events(folder):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value))
    return found


def blobs() -> TensorDataset:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 48)
    return TensorDataset((rng.normal(size=(48, 4)) + y[:, None]).astype(np.float32), y)


def network() -> nn.Module:
    treadle.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 2)))


def test_fit_writes_losses_metrics_rates_and_histograms(tmp_path: Path) -> None:
    model, loader = network(), DataLoader(blobs(), 16, seed=0)
    optimizer = treadle.optim.SGD(model.parameters(), lr=0.1)
    with nn.TensorBoard(tmp_path, histograms=2) as board:
        found = nn.fit(
            model, nn.CrossEntropyLoss(), optimizer, loader, 2, loader, {"accuracy": nn.accuracy},
            callbacks=[board], verbose=False,
        )  # fmt: skip
    seen = values(tmp_path)
    for tag, name in (
        ("loss/train", "loss"), ("loss/validation", "validation loss"),
        ("accuracy/validation", "validation accuracy"),
    ):  # fmt: skip
        assert [step for step, _ in seen[tag]] == [1, 2]
        np.testing.assert_allclose(
            [v.simple_value for _, v in seen[tag]], found.column(name), rtol=1e-6
        )
    assert [v.simple_value for _, v in seen["learning_rate"]] == pytest.approx([0.1, 0.1])
    for kind in ("parameters", "gradients"):
        ((step, value),) = seen[f"{kind}/1.1.weight"]
        assert step == 2 and value.histo.num == 16 and sum(value.histo.bucket) == 16
    weights = model[1][1].bias.numpy()
    ((_, value),) = seen["parameters/1.1.bias"]
    if found.best_epoch == 1:  # else fit has put others back
        assert value.histo.max == pytest.approx(float(weights.max()), rel=1e-6)


def test_numbers_without_fit_and_what_is_not_finite(tmp_path: Path) -> None:
    with nn.TensorBoard(tmp_path) as board:
        board.scalars({"loss": treadle.tensor(2.5), "validation loss": 3}, step=7)
        board.histogram("x", np.array([1.0, np.nan, np.inf, 2.0]), 1)
        board.histogram("empty", np.zeros(0), 1)
        board.writer.add_text("said", "hello", 0)
    seen = values(tmp_path)
    assert [(s, v.simple_value) for s, v in seen["loss/train"]] == [(7, 2.5)]
    assert [(s, v.simple_value) for s, v in seen["loss/validation"]] == [(7, 3.0)]
    assert seen["x_not_finite"][0][1].simple_value == 2 and seen["x"][0][1].histo.num == 2
    assert "empty" not in seen and any(tag.startswith("said") for tag in seen)


@pytest.mark.parametrize("images", [
    np.random.default_rng(0).random((3, 1, 5, 6)), np.full((3, 5, 6), 255),
    treadle.rand((3, 3, 5, 6)),
])  # fmt: skip
def test_images_are_a_grid(tmp_path: Path, images: Any) -> None:
    pytest.importorskip("PIL")
    with nn.TensorBoard(tmp_path) as board:
        board.images("samples", images, 4)
        with pytest.raises(treadle.ArgumentError, match="found"):
            board.images("samples", np.zeros((2, 2, 5, 6)), 4)
    ((step, value),) = values(tmp_path)["samples"]
    assert step == 4 and value.image.encoded_image_string.startswith(b"\x89PNG")
    assert value.image.height >= 5 and value.image.width >= 18


def test_the_graph_is_grouped_by_layers_and_leaves_the_model_alone(tmp_path: Path) -> None:
    from tensorboardX.proto.graph_pb2 import GraphDef

    model = nn.Sequential(nn.Linear(None, 8), nn.Sequential(nn.ReLU(), nn.Linear(None, 2)))
    with nn.TensorBoard(tmp_path) as board:
        board.graph(model, treadle.TensorType(treadle.float32, (3, 4)))
    (data,) = [e.graph_def for e in events(tmp_path) if e.graph_def]
    nodes = {node.name: node for node in GraphDef.FromString(data).node}
    assert {"input0", "output0", "0/weight", "1/1/bias"} <= set(nodes)
    assert nodes["1/1/bias"].op == "Parameter"
    (relu,) = [n for n in nodes.values() if n.op == "relu"]
    assert relu.name.startswith("1/0/relu_")
    sizes = relu.attr["_output_shapes"].list.shape[0].dim
    assert [d.size for d in sizes] == [3, 8] and relu.attr["type"].s == b"f32[3, 8]"
    for node in nodes.values():
        assert all(source.partition(":")[0] in nodes for source in node.input)
    with pytest.raises(treadle.TreadleError, match="before its first input"):
        model.state_dict()


def test_watched_values_of_a_jitted_step_are_written(tmp_path: Path) -> None:
    @treadle.jit
    def step(x: Any) -> Any:
        treadle.watch("norm", treadle.sum(x * x))
        return treadle.watch("hidden", treadle.exp(x)) * 2

    with nn.TensorBoard(tmp_path) as board:
        step(treadle.ones(3))
        with board.watching():
            step(treadle.ones(3))
            step(treadle.zeros(3))
        step(treadle.ones(3))
    seen = values(tmp_path)
    assert [(s, v.simple_value) for s, v in seen["norm"]] == [(1, 3.0), (2, 0.0)]
    assert [(s, v.histo.num) for s, v in seen["hidden"]] == [(1, 3.0), (2, 3.0)]


def test_without_the_library_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(treadle.TreadleError, match=r"pip install 'treadle\[tensorboard\]'"):
        nn.TensorBoard(tmp_path)
    with pytest.raises(treadle.ArgumentError, match="histograms must be 0 or more"):
        nn.TensorBoard(tmp_path, histograms=-1)
