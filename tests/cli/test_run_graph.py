"""Graphs traced from shapes: fetching, feeding, saving, `treadle run`; definitions with shared
variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run

import treadle
from treadle import nn


def program() -> Any:
    v1 = treadle.tensor([1.0])
    v2 = treadle.exp(v1)
    v3 = v2 + 1
    v4 = v2 * v3
    return v4, v1


def test_any_value_is_fetched_and_the_rest_is_left_out() -> None:
    graph = treadle.trace(program)
    np.testing.assert_allclose(np.asarray(graph.run()[0]), [10.107338], rtol=1e-6)  # type: ignore[index]  # two results
    np.testing.assert_allclose(np.asarray(graph.run("v3")), [np.e + 1], rtol=1e-6)
    found = graph.run(["v4", "v2"])
    assert isinstance(found, list) and [x.shape for x in found] == [(1,), (1,)]
    assert "mul" in str(graph) and "mul" not in str(graph.part("v3"))
    assert set(graph.names) == {"v1", "v2", "v3", "v4"}
    np.testing.assert_allclose(np.asarray(graph.run("%3")), [np.e + 1], rtol=1e-6)


def test_any_value_is_fed_and_what_made_it_is_left_out() -> None:
    graph = treadle.trace(program)
    np.testing.assert_allclose(np.asarray(graph.run("v4", {"v2": [2.0]})), [6.0])
    np.testing.assert_allclose(np.asarray(graph.run("v4", {"v3": [10.0], "v2": [2.0]})), [20.0])
    assert "exp" not in str(graph.part("v4", ["v2"]))
    np.testing.assert_allclose(np.asarray(graph.run("v2", {"v2": [5.0]})), [5.0])


def test_a_graph_needs_shapes_only_and_keeps_what_it_captured() -> None:
    treadle.manual_seed(0)
    model = nn.Linear(3, 2)
    graph = treadle.trace(lambda x: treadle.tanh(model(x)), ["f32[4, 3]"])
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    wanted = np.tanh(np.asarray(model(treadle.tensor(x)).detach()))
    with treadle.no_grad():
        model.weight.mul_(0.0)
    for _ in range(2):
        np.testing.assert_allclose(np.asarray(graph.run(feed={"x": x})), wanted, rtol=1e-5)
    other = graph.run(feed={"x": x, "model.weight": np.zeros((2, 3)), "model.bias": np.ones(2)})
    np.testing.assert_allclose(np.asarray(other), np.full((4, 2), np.tanh(1.0)), rtol=1e-6)


def test_an_update_of_state_changes_nothing_outside() -> None:
    counter = treadle.tensor([1.0])

    def count(x: Any) -> Any:
        counter.add_(x)
        return counter * 2

    graph = treadle.trace(count, [treadle.ones(1)])
    for _ in range(2):
        np.testing.assert_array_equal(np.asarray(graph.run(feed={"x": [2.0]})), [6.0])
    assert counter.item() == 1.0


def test_mistakes_of_a_graph_are_named() -> None:
    graph = treadle.trace(lambda x: x + 1, ["f32[2]"])
    for alone in (treadle.TensorType(treadle.float32, (2,)), "f32[2]", treadle.ones(2)):
        with pytest.raises(treadle.ArgumentError, match=r"specs is a list .* write \[spec\]"):
            treadle.trace(treadle.exp, alone)  # type: ignore[arg-type]
    with pytest.raises(treadle.ArgumentError, match=r"x is an argument of the graph: feed it"):
        graph.run()
    with pytest.raises(treadle.ArgumentError, match=r"no value 'y'; there are x"):
        graph.run("y")
    with pytest.raises(treadle.ShapeError, match=r"x has shape \(2,\), fed with \(3,\)"):
        graph.run(feed={"x": np.zeros(3)})
    with pytest.raises(treadle.DTypeError, match="x is float32, fed with complex128"):
        graph.run(feed={"x": np.zeros(2, complex)})


def test_a_fault_is_found_in_the_part_that_runs_and_no_other() -> None:
    def pick(x: Any, i: Any) -> Any:
        picked = treadle.take(x, i)
        doubled = x * 2
        return picked, doubled

    graph = treadle.trace(pick, ["f32[3]", "i64[1]"])
    feed = {"x": np.ones(3), "i": np.array([7])}
    with pytest.raises(treadle.IndexFault, match="7"):
        graph.run(graph.outputs, feed)
    np.testing.assert_array_equal(np.asarray(graph.run("doubled", feed)), [2, 2, 2])


# --- files -----------------------------------------------------------------------------------


def test_a_saved_graph_runs_without_the_source_that_made_it(tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    source = tmp_path / "model_source.py"
    source.write_text(
        "import treadle\n"
        "from treadle import nn\n"
        "treadle.manual_seed(0)\n"
        "model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))\n"
        "def forward(x):\n"
        "    logits = model(x)\n"
        "    shares = treadle.softmax(logits)\n"
        "    return shares\n"
    )
    space: dict[str, Any] = {}
    exec(compile(source.read_text(), str(source), "exec"), space)
    graph = treadle.trace(space["forward"], ["f32[5, 3]"])
    path = tmp_path / "model.graph"
    graph.save(path)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    wanted = np.asarray(graph.run(feed={"x": x}))
    source.unlink()
    np.testing.assert_array_equal(np.asarray(treadle.load_graph(path).run(feed={"x": x})), wanted)
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "shares.npy"
    feed = ("--feed", f"x={tmp_path / 'x.npy'}")
    assert run("run", str(path), *feed, "--fetch", f"shares={out}", "--fetch", "logits") == 0
    assert capsys.readouterr().out.startswith("logits: f32[5, 2] = [[")
    np.testing.assert_array_equal(np.load(out), wanted)
    assert run("run", str(path), "--fetch", "logits", "--dump") == 0
    text = capsys.readouterr().out
    assert "softmax" not in text and "matmul" in text


def test_a_graph_whose_saving_ended_early_is_the_old_one_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    layer, path, x = nn.Linear(2, 2), tmp_path / "m.graph", np.ones((1, 2), np.float32)
    graph = treadle.trace(lambda x: layer(x), ["f32[1, 2]"])
    graph.save(path)
    wanted = np.asarray(graph.run(feed={"x": x}))
    other = treadle.trace(lambda x: treadle.relu(layer(x)), ["f32[1, 2]"])
    before = sorted(tmp_path.iterdir())
    for last in (1, 0):  # the renames that still happen: of the weights, of nothing
        whole, renamed = [p.read_bytes() for p in before], 0
        replace = Path.replace

        def ends(self: Path, target: Any, last: int = last, replace: Any = replace) -> Any:
            nonlocal renamed
            renamed += 1
            if renamed > last:
                raise KeyboardInterrupt
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", ends)
        with pytest.raises(KeyboardInterrupt):
            other.save(path)
        monkeypatch.undo()
        assert sorted(tmp_path.iterdir()) == before
        if last:
            with pytest.raises(ValueError, match="belongs to another graph than"):
                treadle.load_graph(path)
            graph.save(path)
        else:
            assert [p.read_bytes() for p in before] == whole
    np.testing.assert_array_equal(np.asarray(treadle.load_graph(path).run(feed={"x": x})), wanted)


def test_a_damaged_graph_is_named(tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    layer = nn.Linear(2, 2)
    path = tmp_path / "m.graph"
    treadle.trace(lambda x: layer(x), ["f32[1, 2]"]).save(path)

    def refused(message: str, *words: str) -> None:
        assert run("run", *words) != 0
        assert message in capsys.readouterr().err

    refused("--feed takes NAME=FILE.npy, found x", str(path), "--feed", "x")
    refused("none.npy", str(path), "--feed", f"x={tmp_path / 'none.npy'}")
    weights = tmp_path / "m.graph.safetensors"
    weights.write_bytes(weights.read_bytes()[:40])
    refused("m.graph.safetensors is damaged", str(path))
    for line in ("; names: 8}", "; names: [1]", '; names: {"a": 3}'):
        path.write_text(f"{line}\nfunc @f() {{\n  return\n}}\n")
        refused("line 1: expected names of values", str(path))
    path.write_text("func @f( {\n")
    refused("m.graph", str(path))
    refused("there is no file", str(tmp_path / "none"))


# --- definitions -----------------------------------------------------------------------------


def test_functions_of_a_definition_share_variables() -> None:
    w = treadle.tensor(np.zeros(3), requires_grad=True)
    with treadle.define() as d:
        x = d.input("x", "f64[3]")
        error = (x * w).sum() - 1
        loss = error**2
        loss.backward()
        step = treadle.function([x], loss, updates={w: w - 0.01 * w.grad})
        predict = treadle.function([x], [error, x * 2])
        reset = treadle.function([], updates=[(w, w * 0)])
    rows, wanted = np.array([1.0, 2.0, 3.0]), np.zeros(3)
    for _ in range(5):
        gap = rows @ wanted - 1
        np.testing.assert_allclose(step(rows).item(), gap**2, rtol=1e-12)  # type: ignore[union-attr]  # one output
        wanted -= 0.01 * 2 * gap * rows
        np.testing.assert_allclose(w.detach().numpy(), wanted, rtol=1e-12)
    found = predict(rows)
    assert isinstance(found, list)
    np.testing.assert_allclose(found[0].item(), rows @ wanted - 1)
    assert "gradient" in str(step) and "gradient" not in str(predict)
    assert reset() is None and not w.detach().numpy().any()


def test_givens_stand_in_the_place_of_what_they_replace() -> None:
    table = treadle.tensor(np.arange(12.0).reshape(4, 3))
    with treadle.define() as d:
        x, row = d.input("x", "f64[3]"), d.input("row", "i64[]")
        y = (x * x).sum()
        by_row = treadle.function([row], y, givens={x: treadle.take(table, row, axis=0)})
        with pytest.raises(treadle.ArgumentError, match="given by what is computed from it"):
            treadle.function([x], y, givens={y: y * 2.0})
        fixed = treadle.function([], y, givens={x: np.ones(3)})
    assert by_row(2).item() == 6**2 + 7**2 + 8**2  # type: ignore[union-attr]  # one output
    assert fixed().item() == 3.0  # type: ignore[union-attr]


def test_mistakes_of_definitions_are_named() -> None:
    w = treadle.zeros(3)
    with treadle.define() as d:
        x, z = d.input("x", "f32[3]"), d.input("z", "f32[3]")
        f = treadle.function([x], x + w)
        with pytest.raises(treadle.ArgumentError, match="the outputs need z, which is no input"):
            treadle.function([x], x + z)
        with pytest.raises(treadle.ShapeError, match="an update for a tensor of shape"):
            treadle.function([x], x, updates={w: x.sum()})
        with pytest.raises(treadle.ArgumentError, match=r"an input is what d\.input"):
            treadle.function([x + 1], x)
    with pytest.raises(treadle.ArgumentError, match="the function takes x; found 2 arguments"):
        f(1, 2)
    with pytest.raises(treadle.ShapeError, match=r"x has shape \(3,\), fed with \(2,\)"):
        f(np.zeros(2))
    with pytest.raises(treadle.ArgumentError, match="neither inputs nor outputs"):
        treadle.function([w], w)
    with pytest.raises(treadle.TraceError, match="inside of their define block"):
        d.input("late", "f32[1]")
