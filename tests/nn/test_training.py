"""The training loop, the summary of a model, the report on its initial values, hooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.data import DataLoader, TensorDataset
from treadle.nn.progress import Bar, Mean, items


def blobs(count: int, seed: int) -> TensorDataset:
    """Two classes of points around (1, 1) and (-1, -1)."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, count)
    x = rng.normal(size=(count, 2)) * 0.4 + (2 * y - 1)[:, None]
    return TensorDataset(x.astype(np.float32), y)


def loaders() -> tuple[DataLoader, DataLoader]:
    return DataLoader(blobs(96, 0), 16, shuffle=True, seed=0), DataLoader(blobs(40, 1), 16)


def network() -> nn.Module:
    treadle.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))


def test_fit_learns_and_reports_each_epoch(capsys: Any) -> None:
    model, (train, held) = network(), loaders()
    optimizer = treadle.optim.Adam(model.parameters(), lr=0.05)
    found = nn.fit(
        model, nn.CrossEntropyLoss(), optimizer, train, 4, held, {"accuracy": nn.accuracy}
    )
    assert len(found.epochs) == 4
    assert set(found.epochs[0]) == {"loss", "validation loss", "validation accuracy"}
    assert found.epochs[-1]["validation accuracy"] > 0.95
    assert "epoch 4: loss" in capsys.readouterr().out
    assert repr(found).startswith("Progress of 4 epochs, the last: loss 0.")
    numbers = nn.evaluate(model, nn.CrossEntropyLoss(), held, {"accuracy": nn.accuracy})
    assert numbers["loss"] == pytest.approx(found.best, rel=1e-6)
    labels = nn.predict(model, [x for x, _ in held]).argmax(axis=1)
    assert (labels == np.concatenate([np.asarray(y) for _, y in held])).mean() > 0.95
    assert model.training


def test_the_best_epoch_is_restored_and_waiting_ends() -> None:
    model, (train, held) = network(), loaders()
    optimizer = treadle.optim.SGD(model.parameters(), lr=0.1)
    seen: list[dict[str, Any]] = []

    def spoil(progress: Any) -> None:
        seen.append({k: np.array(v.numpy()) for k, v in model.state_dict().items()})
        if len(progress.epochs) == 2:
            optimizer.param_groups[0]["lr"] = 30.0

    found = nn.fit(
        model, nn.CrossEntropyLoss(), optimizer, train, 20, held,
        patience=3, callbacks=[spoil], verbose=False,
    )  # fmt: skip
    assert len(found.epochs) == found.best_epoch + 4 < 20
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), seen[found.best_epoch][key])


def test_a_callback_ends_the_training_and_a_schedule_steps() -> None:
    model, (train, _) = network(), loaders()
    optimizer = treadle.optim.SGD(model.parameters(), lr=0.1)
    schedule = treadle.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    found = nn.fit(
        model, nn.CrossEntropyLoss(), optimizer, train, 9, scheduler=schedule,
        callbacks=[lambda progress: len(progress.epochs) == 3], verbose=False,
    )  # fmt: skip
    assert len(found.epochs) == 3 and schedule.get_last_lr() == pytest.approx([0.0125])


def test_several_objectives_are_reported_one_by_one() -> None:
    model, (train, held) = network(), loaders()

    def loss(result: Any, target: Any) -> dict[str, Any]:
        return {
            "entropy": nn.functional.cross_entropy(result, target),
            "size": 0.01 * treadle.mean(result * result),
        }

    optimizer = treadle.optim.Adam(model.parameters())
    found = nn.fit(model, loss, optimizer, train, 1, held, verbose=False)
    numbers = found.epochs[0]
    assert numbers["loss"] == pytest.approx(numbers["entropy"] + numbers["size"], rel=1e-5)
    assert "validation size" in numbers


def test_several_targets_have_a_metric_each_and_batches_weigh_by_their_samples() -> None:
    treadle.manual_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(10, 2)).astype(np.float32)
    names, sizes = (x[:, 0] > 0).astype(np.int64), x.sum(1, keepdims=True)
    batches = [(x[a:b], {"name": names[a:b], "size": sizes[a:b]}) for a, b in ((0, 8), (8, 10))]

    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.name, self.size = nn.Linear(2, 2), nn.Linear(2, 1)

        def forward(self, x: Any) -> Any:
            return {"name": self.name(x), "size": self.size(x)}

    def loss(result: Any, target: Any) -> dict[str, Any]:
        return {
            "entropy": nn.functional.cross_entropy(result["name"], target["name"]),
            "distance": nn.functional.mse_loss(result["size"], target["size"]),
        }

    metrics = {
        "name accuracy": lambda r, t: nn.accuracy(r["name"], t["name"]),
        "size error": lambda r, t: treadle.mean(treadle.abs(r["size"] - t["size"])),
    }
    model = TwoHeads()
    optimizer = treadle.optim.Adam(model.parameters(), lr=0.1)
    found = nn.fit(
        model, loss, optimizer, batches, 12, batches, metrics,
        monitor="validation name accuracy", mode="max", verbose=False,
    )  # fmt: skip
    best = max(found.column("validation name accuracy"))
    assert found.best == best > 0.8
    assert found.epochs[0]["validation size error"] > 2 * found.epochs[-1]["validation size error"]
    right = np.asarray(model(treadle.tensor(x))["name"]).argmax(1) == names
    assert nn.evaluate(model, loss, batches, metrics)["name accuracy"] == pytest.approx(
        right.mean()
    )


def test_a_schedule_that_waits_for_a_plateau_is_told_what_is_watched() -> None:
    model, (train, _) = network(), loaders()
    optimizer = treadle.optim.SGD(model.parameters(), lr=0.1)
    schedule = treadle.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0)
    nn.fit(model, nn.CrossEntropyLoss(), optimizer, train, 3, scheduler=schedule, verbose=False)
    assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(1e-4)


def test_the_training_loop_can_be_read_in_one_go() -> None:
    source = Path(nn.training.__file__)
    assert len(source.read_text().splitlines()) < 200


def test_mistakes_of_fit_are_named() -> None:
    model = network()
    optimizer = treadle.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(treadle.ArgumentError, match="fit got no batches"):
        nn.fit(model, nn.CrossEntropyLoss(), optimizer, [], verbose=False)
    with pytest.raises(treadle.ArgumentError, match="there is no 'los'; there are"):
        nn.fit(model, nn.CrossEntropyLoss(), optimizer, loaders()[0], monitor="los", verbose=False)
    with pytest.raises(treadle.TreadleError, match="the loss of epoch 1 is nan"):
        nn.fit(
            model, lambda r, t: treadle.mean(r) * float("nan"), optimizer, loaders()[0],
            verbose=False,
        )  # fmt: skip


def test_the_bar_shows_the_loss_and_items_a_second(capsys: Any) -> None:
    pytest.importorskip("tqdm")
    train, _ = loaders()
    totals, shown = Mean(), []
    with Bar(train, "epoch 1/1", True) as bar:
        for x, y in train:
            totals.add({"loss": treadle.tensor(0.25)}, len(y))
            bar.add(len(x), totals)
        shown.append(str(bar._bar))
    assert "epoch 1/1" in shown[0] and "96.0/96.0" in shown[0]
    assert "item/s" in shown[0] and "loss 0.25" in shown[0]
    with Bar(train, "epoch", False) as bar:
        bar.add(3, totals)
    assert "epoch 1/1" in capsys.readouterr().err
    dropping = DataLoader(blobs(50, 0), 16, drop_last=True)
    assert [items(d) for d in (train, dropping, [1, 2])] == [96, 48, None]


# --- looking at a model ----------------------------------------------------------------------


def test_a_summary_counts_parameters_and_operations_and_runs_nothing() -> None:
    model = nn.Sequential(
        nn.Conv2d(None, 8, 3), nn.BatchNorm2d(None), nn.ReLU(), nn.Flatten(), nn.Linear(None, 10)
    )
    found = nn.summary(model, (2, 3, 16, 16))
    rows = {row.path: row for row in found.rows}
    assert rows["0"].output == "(2, 8, 14, 14)" and rows["0"].parameters == 8 * 3 * 9 + 8
    products = 2 * 2 * 8 * 14 * 14 * 3 * 9
    assert rows["0"].flops == products + 2 * 8 * 14 * 14
    assert found.parameters == sum(p.size for p in model.parameters())
    assert "BatchNorm2d" in str(found) and "total" in str(found)
    batch_norm = model[1]
    np.testing.assert_array_equal(batch_norm.running_mean.numpy(), np.zeros(8))
    assert int(batch_norm.num_batches_tracked) == 0
    with pytest.raises(treadle.ShapeError, match=r"Conv2d takes \[N, 3, H, W\]"):
        nn.summary(model, (2, 4, 16, 16))


def test_a_summary_takes_shapes_with_dtypes_and_refuses_what_is_none() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2))
    for rows in (nn.summary(model, "i64[2, 3]").rows, nn.summary(model, (2, 3), "int64").rows):
        assert [row.output for row in rows if row.path] == ["(2, 3, 4)", "(2, 3, 2)"]
    for wrong in ((2.0, 3), ("a",), (2, -3), [(2, 3), "a"], [], 5):
        with pytest.raises(treadle.DTypeError, match="input_shape must be a shape or shapes"):
            nn.summary(model, wrong)  # type: ignore[arg-type]
    with pytest.raises(treadle.ArgumentError, match="dtype has 2 entries for 1 inputs"):
        nn.summary(model, (2, 3), ["int64", "int64"])


def test_a_shared_layer_is_counted_once() -> None:
    layer = nn.Linear(4, 4)
    found = nn.summary(nn.Sequential(layer, nn.ReLU(), layer), (3, 4))
    assert found.parameters == 20 and len(found.rows) == 4


@pytest.mark.parametrize(("gain", "low", "high"), [(2.0, 0.1, 10.0), (1.0, 1e-11, 1e-7)])
def test_thirty_relu_layers_keep_their_signal_at_2_over_n_and_lose_it_at_1_over_n(
    gain: float, low: float, high: float
) -> None:
    treadle.manual_seed(0)
    size = 256
    layers: list[nn.Module] = []
    for _ in range(30):
        layer = nn.Linear(size, size, bias=False)
        nn.init.normal_(layer.weight, 0.0, (gain / size) ** 0.5)
        layers += [layer, nn.ReLU()]
    x = np.random.default_rng(0).normal(size=(64, size)).astype(np.float32)
    report = nn.init_report(nn.Sequential(*layers), x)
    assert low < report.share < high
    assert ("keeps its size" in str(report)) == (gain == 2.0)


def test_initialisers_have_the_moments_that_they_promise() -> None:
    treadle.manual_seed(0)
    weight = treadle.zeros((300, 200))
    values = nn.init.trunc_normal_(weight, 0.0, 2.0, -2.0, 2.0).numpy()
    assert np.abs(values).max() <= 2.0 and abs(values.std() - 1.0796) < 0.02
    q = nn.init.orthogonal_(treadle.zeros((8, 3, 5)), gain=2.0).numpy().reshape(8, 15)
    np.testing.assert_allclose(q @ q.T, 4 * np.eye(8), atol=1e-5)
    np.testing.assert_array_equal(nn.init.eye_(treadle.zeros((2, 3))).numpy(), np.eye(2, 3))
    image = treadle.tensor(np.random.default_rng(0).normal(size=(1, 2, 5, 5)))
    kernel = nn.init.dirac_(treadle.zeros((2, 2, 3, 3), dtype=treadle.float64))
    passed = nn.functional.conv2d(image, kernel, padding=1)
    np.testing.assert_allclose(passed.numpy(), image.numpy())
    with pytest.raises(treadle.ArgumentError, match="of a normal"):
        nn.init.trunc_normal_(weight, 0.0, 1.0, 50.0, 60.0)


# --- hooks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_hooks_see_and_change_what_passes(jitted: bool) -> None:
    layer = nn.Linear(2, 2)
    run = treadle.jit(lambda x: layer(x)) if jitted else layer
    x = treadle.tensor([[1.0, 2.0]])
    plain = np.asarray(run(x))
    with layer.register_forward_hook(lambda module, args, result: result * 2):
        np.testing.assert_allclose(np.asarray(run(x)), 2 * plain, rtol=1e-6)
    pre = layer.register_forward_pre_hook(lambda module, args: (args[0] * 0,))
    np.testing.assert_allclose(np.asarray(run(x)), [layer.bias.detach().numpy()])  # type: ignore[union-attr]  # it has one
    pre.remove()
    pre.remove()
    np.testing.assert_array_equal(np.asarray(run(x)), plain)


def test_an_error_names_the_layer_that_it_came_from() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(5, 2))

        def forward(self, x: Any) -> Any:
            return self.encoder(x)

    for run in (Model(), treadle.jit(Model())):
        with pytest.raises(treadle.ShapeError, match=r"takes \[..., 5\], found") as caught:
            run(treadle.zeros((2, 3)))
        notes = caught.value.__notes__
        assert any(n.startswith("in layer encoder.2: Linear(in_features=5") for n in notes)
    with pytest.raises(treadle.ShapeError, match="query must have 8 features") as caught:
        nn.TransformerEncoderLayer(8, 2)(treadle.zeros((5, 2, 7)))
    assert caught.value.__notes__ == ["in layer self_attn: MultiheadAttention(...)"]


def test_the_numbers_of_a_run_become_a_picture(tmp_path: Any) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    model, (train, held) = network(), loaders()
    optimizer = treadle.optim.Adam(model.parameters())
    found = nn.fit(model, nn.CrossEntropyLoss(), optimizer, train, 2, held, verbose=False)
    nn.plot_history(found, tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    found.epochs.clear()
    with pytest.raises(treadle.ArgumentError, match="no epochs"):
        nn.plot_history(found, tmp_path / "none.png")
