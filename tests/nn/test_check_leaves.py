"""`nn.check` leaves everything as it was, tells bad arguments, keeps to its time, and prints."""

from __future__ import annotations

import html
import random
import time
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.data import DataLoader, Dataset, TensorDataset


def data(count: int = 80) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, count)
    return (rng.normal(size=(count, 1, 6, 6)) + y[:, None, None, None]).astype(np.float32), y


class Net(nn.Module):
    """All that a check could change: statistics, dropout, hooks, a counter, lists, a late size."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten()
        )
        self.head = nn.Linear(64, 3)
        self.calls, self.seen, self.last = 0, [], None
        self.fails_at = -1

    def forward(self, x: Any) -> Any:
        self.calls += 1
        self.seen.append(self.calls)
        self.last = self.body(x)
        if self.calls == self.fails_at:
            raise RuntimeError("half-way")
        return self.head(self.last)


def state(model: Net, optimizer: Any, loader: DataLoader) -> dict[str, Any]:
    """Everything, as bytes where it is numbers."""
    found: dict[str, Any] = {k: v.numpy().tobytes() for k, v in model.state_dict().items()}
    found |= {f"id {k}": id(p) for k, p in model.named_parameters()}
    found |= {f"version {k}": p.cell.version for k, p in model.named_parameters()}
    found |= {
        f"grad {k}": None if p.grad is None else (id(p.grad), p.grad.numpy().tobytes())
        for k, p in model.named_parameters()
    }
    found |= {f"mode {k}": m.training for k, m in model.named_modules()}
    found |= {f"names {k}": tuple(m.__dict__) for k, m in model.named_modules()}
    found["own"] = (model.calls, list(model.seen), model.last)
    moments = [v for s in optimizer.state.values() for v in s.values()]
    found["optimizer"] = [v.numpy().tobytes() for v in moments]
    found["loader"] = loader.state_dict()
    found["random"] = (
        treadle.Generator().get_state().tolist(), treadle.nn.init.generator_state(),
        random.getstate(), str(np.random.get_state()),
        repr(treadle.tracer.generator.default_generator),
    )  # fmt: skip
    return found


class Drawn(Dataset):
    """Draws from every source there is."""

    def __init__(self) -> None:
        self.x, self.y = data()

    def __getitem__(self, n: int) -> Any:
        noise = random.random() + np.random.rand() + float(treadle.rand(()))
        return self.x[n] + np.float32(noise), int(self.y[n])

    def __len__(self) -> int:
        return len(self.y)


def trained() -> tuple[Net, Any, DataLoader]:
    treadle.manual_seed(3)
    model, loader = Net(), DataLoader(Drawn(), 16, shuffle=True)
    optimizer = treadle.optim.Adam(model.parameters())
    batches = iter(loader)
    for _ in range(2):
        x, y = next(batches)
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    model.last = None
    model.body[1].eval()
    return model, optimizer, loader


def test_everything_is_bitwise_as_before() -> None:
    model, optimizer, loader = trained()
    before = state(model, optimizer, loader)
    found = nn.check(model, nn.CrossEntropyLoss(), loader, steps=5)
    assert len(found.sections) == 4
    after = state(model, optimizer, loader)
    assert {k for k in before if before[k] != after[k]} == set()


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("where", ["model", "loss"])
def test_everything_is_bitwise_as_before_when_it_fails_half_way(where: str, stage: int) -> None:
    model, optimizer, loader = trained()
    first = model.calls

    def loss(out: Any, y: Any) -> Any:
        if where == "loss" and model.calls == first + stage and out.is_traced:
            raise RuntimeError("half-way")
        return nn.functional.cross_entropy(out, y)

    if where == "model":
        model.fails_at = first + stage
    before = state(model, optimizer, loader)
    with pytest.raises(RuntimeError, match="half-way"):
        nn.check(model, loss, loader, steps=1)
    after = state(model, optimizer, loader)
    assert {k for k in before if before[k] != after[k]} == set()


def test_a_layer_without_a_size_has_none_afterwards() -> None:
    treadle.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(None, 3))
    drawn = treadle.nn.init.generator_state()
    nn.check(model, nn.CrossEntropyLoss(), data(), steps=2)
    assert model[1].waits and treadle.nn.init.generator_state() == drawn
    with pytest.raises(treadle.TreadleError, match="before its first input"):
        model.state_dict()


def test_views_and_pending_gradients_survive() -> None:
    model, _, loader = trained()
    x, y = data(8)
    pending = nn.functional.cross_entropy(model(treadle.tensor(x)), treadle.tensor(y))
    shown = model.head.weight.numpy()
    nn.check(model, nn.CrossEntropyLoss(), loader, steps=2)
    pending.backward()
    assert shown.tobytes() == model.head.weight.numpy().tobytes()


def test_a_loader_goes_on_where_it_stood() -> None:
    x, y = data()
    one, two = (DataLoader(TensorDataset(x, y), 16, shuffle=True, seed=5) for _ in range(2))
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    first, second = iter(one), iter(two)
    next(first), next(second)
    nn.check(model, nn.CrossEntropyLoss(), one, steps=2)
    for (a, _), (b, _) in zip(first, second, strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()
    for (a, _), (b, _) in zip(one, two, strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()


def test_prints_and_watched_values_of_the_model_stay_silent(capsys: Any) -> None:
    class Telling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(36, 3)

        def forward(self, x: Any) -> Any:
            treadle.debug_print("mean {}", x.mean())
            return self.head(treadle.watch("x", x.reshape(-1, 36)))

    seen: list[str] = []
    with treadle.watching(lambda name, value: seen.append(name)):
        nn.check(Telling(), nn.CrossEntropyLoss(), data(), steps=2)
    assert seen == [] and capsys.readouterr().out == ""


def test_bad_arguments_are_told() -> None:
    model, loss = nn.Linear(4, 3), nn.CrossEntropyLoss()
    x, y = np.zeros((6, 4), np.float32), np.zeros(6, np.int64)
    for arguments, said in (
        ((print, loss, (x, y)), "model must be a Module"),
        ((model, 3, (x, y)), "loss must be a function"),
        ((model, loss, 3), "data must be a DataLoader, a Dataset"),
        ((model, loss, iter([(x, y)])), "data must be a DataLoader, a Dataset"),
        ((model, loss, []), "the data has no samples"),
        ((model, loss, (x[:0], y[:0])), "the data has no samples"),
        ((model, loss, [x]), "a batch is a tuple"),
        ((model, loss, [(x, y[:3])]), r"counts samples, found \(6, 4\), \(3,\)"),
        ((model, loss, TensorDataset(x)), "a batch is a tuple"),
    ):  # fmt: skip
        with pytest.raises(treadle.ArgumentError, match=said):
            nn.check(*arguments)
    with pytest.raises(treadle.ArgumentError, match="seconds and steps must be above 0"):
        nn.check(model, loss, (x, y), seconds=0)
    with pytest.raises(treadle.ShapeError):
        nn.check(model, loss, (x[:, :2], y))


def test_the_budget_of_time_ends_it_and_is_told() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    start = time.monotonic()
    found = nn.check(model, nn.CrossEntropyLoss(), data(), seconds=1e-6)
    assert time.monotonic() - start < 30
    assert len(found.skipped) == 2 and "were over" in found.skipped[0]
    assert "skipped" in str(found) and found.seconds > 0


def test_findings_may_be_left_out() -> None:
    x, y = data()
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    found = nn.check(model, nn.CrossEntropyLoss(), (x * 1000, y), steps=2)
    assert found.find("not-normalised")
    codes = set(found.codes)
    found = nn.check(model, nn.CrossEntropyLoss(), (x * 1000, y), steps=2, ignore=codes)
    assert found.findings == () and found.ok


def test_a_report_is_shown_as_text_html_and_a_picture(tmp_path: Any) -> None:
    x, y = data()
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3), nn.Softmax(-1))
    found = nn.check(model, nn.CrossEntropyLoss(), (x, y), steps=2)
    text, page = str(found), found._repr_html_()
    assert "error: softmax-before-loss (layer 2 (Softmax)" in text and "--- data" in text
    assert "softmax-before-loss" in page and "<script" not in page
    assert html.escape("->") not in page and '<img src="data:image/png;base64,' in page
    assert found.picture(tmp_path / "grid.png").startswith(b"\x89PNG")
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")
    flat = nn.check(model, nn.CrossEntropyLoss(), (x.reshape(80, 36), y), steps=2)
    with pytest.raises(treadle.ArgumentError, match="only images are drawn"):
        flat.picture()
    assert "<img" not in flat._repr_html_()


def test_check_is_not_imported_before_it_is_used() -> None:
    import subprocess
    import sys

    code = (
        "import sys, treadle\n"
        "assert not [m for m in sys.modules if m.startswith('treadle.nn.recipe')]\n"
        "assert callable(treadle.nn.check)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
