"""`nn.check` finds each fault in a network that has it, and nothing in healthy ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.data import DataLoader, Dataset, TensorDataset
from treadle.nn import functional as F  # noqa: N812

Arrays = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def blobs(classes: int = 4, width: int = 12, count: int = 240, seed: int = 0) -> Arrays:
    """Points around one centre a class."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, count)
    centres = rng.normal(size=(classes, width))
    return (rng.normal(size=(count, width)) * 0.4 + centres[y]).astype(np.float32), y


def sequences(classes: int = 3, steps: int = 6, width: int = 5) -> Arrays:
    x, y = blobs(classes, steps * width)
    return x.reshape(-1, steps, width), y


def images(classes: int = 3, size: int = 8) -> Arrays:
    x, y = blobs(classes, size * size)
    return x.reshape(-1, 1, size, size), y


def line(count: int = 240) -> Arrays:
    x = np.random.default_rng(0).normal(size=(count, 6)).astype(np.float32)
    return x, (x[:, :1] - 0.5 * x[:, 1:2]).astype(np.float32)


def mlp(*layers: nn.Module, width: int = 12, outputs: int = 4) -> nn.Module:
    treadle.manual_seed(0)
    return nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, outputs), *layers)


def checked(model: nn.Module, loss: Any, data: Any, **options: Any) -> Any:
    treadle.manual_seed(1)
    return nn.check(model, loss, data, **{"steps": 60, **options})


def the(report: Any, code: str) -> Any:
    """The only finding of that kind."""
    found = report.find(code)
    assert len(found) == 1, str(report)
    return found[0]


# --- healthy networks --------------------------------------------------------------------------


def with_norm_and_dropout() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Dropout(0.3), nn.Flatten(), nn.Linear(8 * 16, 3),
    )  # fmt: skip


class Recurrent(nn.Module):
    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.rnn = nn.LSTM(5, 16, batch_first=batch_first)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(5, 16)
        self.encoder = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.encoder(self.into(x)).mean(axis=1))


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, tokens: Any) -> Any:
        return self.head(self.embedding(tokens).mean(axis=1))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag, self.second = Bag(), nn.Embedding(2, 2)

    def forward(self, tokens: Any, hint: Any) -> Any:
        return self.bag(tokens) + self.second(hint)


class Compiled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    @treadle.jit
    def forward(self, x: Any) -> Any:
        return self.body(x)


def tokens() -> Arrays:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 10, (240, 9))
    return x, (x.mean(axis=1) > 4.5).astype(np.int64)


HEALTHY: dict[str, Callable[[], tuple[nn.Module, Any, Any]]] = {
    "mlp": lambda: (mlp(), nn.CrossEntropyLoss(), blobs()),
    "weights": lambda: (
        mlp(), nn.CrossEntropyLoss(weight=np.array([1, 2, 3, 4], np.float32)), blobs()
    ),
    "ignored targets": lambda: (
        mlp(), nn.CrossEntropyLoss(), (blobs()[0], np.r_[[-100] * 12, blobs()[1][12:]])
    ),
    "two losses": lambda: (
        mlp(), lambda out, y: (F.cross_entropy(out, y), 1e-3 * treadle.mean(out * out)), blobs()
    ),
    "two inputs": lambda: (TwoInputs(), nn.CrossEntropyLoss(), (*tokens(), tokens()[1])),
    "jitted": lambda: (Compiled(), nn.CrossEntropyLoss(), blobs()),
    "last axis": lambda: (
        nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3)),
        lambda out, y: F.cross_entropy(out.reshape(-1, 3), y.reshape(-1)),
        (sequences()[0], np.argmax(sequences()[0][..., :3], axis=-1)),
    ),
    "smoothed": lambda: (mlp(), nn.CrossEntropyLoss(label_smoothing=0.1), blobs()),
    "convolutions": lambda: (with_norm_and_dropout(), nn.CrossEntropyLoss(), images()),
    "recurrent": lambda: (Recurrent(), F.cross_entropy, sequences()),
    "attention": lambda: (Attention(), lambda out, y: F.cross_entropy(out, y), sequences()),
    "tokens": lambda: (Bag(), nn.CrossEntropyLoss(), tokens()),
    "regression": lambda: (mlp(width=6, outputs=1), nn.MSELoss(), line()),
    "two classes": lambda: (
        mlp(outputs=1), nn.BCEWithLogitsLoss(), (blobs(2)[0], blobs(2)[1][:, None] * np.float32(1))
    ),
    "probabilities": lambda: (
        mlp(nn.Sigmoid(), outputs=1), nn.BCELoss(),
        (blobs(2)[0], blobs(2)[1][:, None] * np.float32(1)),
    ),
    "log-probabilities": lambda: (mlp(nn.LogSoftmax(-1)), nn.NLLLoss(), blobs()),
    "without a size": lambda: (
        nn.Sequential(nn.Linear(None, 16), nn.ReLU(), nn.Linear(None, 4)), F.cross_entropy, blobs()
    ),
    "float64": lambda: (
        mlp().double(), nn.CrossEntropyLoss(), (blobs()[0].astype(np.float64), blobs()[1])
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_network_has_no_findings(name: str) -> None:
    treadle.manual_seed(0)
    model, loss, data = HEALTHY[name]()
    report = checked(model, loss, data)
    assert report.findings == () and report.skipped == () and report.ok, str(report)
    assert "nothing found" in str(report)


# --- data --------------------------------------------------------------------------------------


def test_labels_out_of_range_are_told_with_what_was_meant() -> None:
    x, y = blobs()
    found = the(checked(mlp(), nn.CrossEntropyLoss(), (x, y + 1)), "label-range")
    assert found.severity == "error" and "labels go from 1 to 4" in found.message
    assert "count from 1" in found.fix
    found = the(checked(mlp(), nn.CrossEntropyLoss(), (x, y * 3)), "label-range")
    assert "10 outputs" in found.fix


def test_numbers_that_are_not_finite_name_their_sample() -> None:
    x, y = blobs()
    x[17, 3] = np.nan
    report = checked(mlp(), nn.CrossEntropyLoss(), (x, y))
    assert "sample 17" in the(report, "not-finite").message
    assert report.skipped == ("layers, learning: not-finite first",)


def test_duplicates_and_contradictions_are_counted() -> None:
    x, y = blobs()
    x[100:150], y[100:150] = x[:50], y[:50]
    report = checked(mlp(), nn.CrossEntropyLoss(), (x, y))
    assert report.codes == ("duplicates",) and "50 of 240" in report.findings[0].message
    y[100] = (y[0] + 1) % 4
    report = checked(mlp(), nn.CrossEntropyLoss(), (x, y))
    assert "samples 0 and 100" in the(report, "contradicting-targets").message


def test_inputs_that_are_not_normalised_are_told() -> None:
    x, y = blobs()
    report = checked(mlp(), nn.CrossEntropyLoss(), (x * 300, y))
    assert "root mean square" in the(report, "not-normalised").message


def test_one_class_and_an_imbalance_are_told() -> None:
    x, y = blobs()
    assert (
        "all targets are 0"
        in the(checked(mlp(), nn.CrossEntropyLoss(), (x, y * 0)), "one-class").message
    )
    report = checked(mlp(outputs=2), nn.CrossEntropyLoss(), (x, (np.arange(240) < 5).astype(int)))
    assert "97.9% of the targets are 0" in the(report, "imbalance").message


def test_a_loader_that_does_not_shuffle_sorted_classes_is_told() -> None:
    x, y = blobs()
    order = np.argsort(y)
    data = TensorDataset(x[order], y[order])
    loss = nn.CrossEntropyLoss()
    assert checked(mlp(), loss, DataLoader(data, 16)).codes == ("not-shuffled",)
    assert checked(mlp(), loss, DataLoader(data, 16, shuffle=True, seed=0)).codes == ()


# --- losses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), lambda o, t: F.cross_entropy(o, t)])
def test_softmax_before_cross_entropy_names_the_layer(loss: Any) -> None:
    found = the(checked(mlp(nn.Softmax(-1)), loss, blobs()), "softmax-before-loss")
    assert found.layer == "3 (Softmax)" and "cross_entropy takes logits" in found.message


def test_a_softmax_written_by_hand_is_seen_too() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp()

        def forward(self, x: Any) -> Any:
            e = treadle.exp(self.body(x))
            return e / treadle.sum(e, axis=1, keepdims=True)

    report = checked(Net(), nn.CrossEntropyLoss(), blobs())
    assert report.find("softmax-before-loss")


def test_results_that_the_loss_does_not_take_are_told() -> None:
    y = blobs(2)[1][:, None] * np.float32(1)
    data = (blobs(2)[0], y)
    found = the(
        checked(mlp(nn.Sigmoid(), outputs=1), nn.BCEWithLogitsLoss(), data), "sigmoid-before-loss"
    )
    assert found.layer == "3 (Sigmoid)"
    assert checked(mlp(), nn.NLLLoss(), blobs()).find("no-log-softmax")
    assert checked(mlp(nn.ReLU()), nn.CrossEntropyLoss(), blobs()).find("relu-before-loss")
    x, t = line()
    found = the(checked(mlp(nn.Tanh(), width=6, outputs=1), nn.MSELoss(), (x, t)), "out-of-reach")
    assert "tanh" in found.message


def test_a_loss_that_ignores_what_it_is_given_is_told() -> None:
    report = checked(mlp(), lambda out, y: treadle.mean(out * out), blobs())
    assert the(report, "loss-ignores-target").severity == "warning"
    model = mlp()
    weights = lambda out, y: treadle.sum(model[0].weight * model[0].weight)  # noqa: E731
    assert the(checked(model, weights, blobs()), "loss-ignores-result").severity == "error"


def test_the_first_loss_is_compared_with_what_chance_gives() -> None:
    model = mlp()
    with treadle.no_grad():
        model[2].weight.mul_(40.0)
    found = the(checked(model, nn.CrossEntropyLoss(), blobs()), "first-loss")
    assert "1.386 is expected, ln(4)" in found.message
    x, t = line()
    report = checked(mlp(width=6, outputs=1), nn.MSELoss(), (x, t + 50))
    assert "set the bias of the last layer" in the(report, "first-loss").fix


def test_a_broadcast_of_results_and_targets_is_told() -> None:
    x, t = line()
    loss = lambda out, y: treadle.mean((out - y) ** 2)  # noqa: E731
    report = checked(mlp(width=6, outputs=1), loss, (x, t[:, 0]))
    found = the(report, "misaligned-targets")
    assert "results (7, 1), targets (7,)" in found.message
    assert checked(mlp(width=6, outputs=1), loss, (x, t)).codes == ()


# --- layers ------------------------------------------------------------------------------------


def test_dead_units_name_the_layer() -> None:
    model = mlp()
    with treadle.no_grad():
        model[0].bias.sub_(100.0)
    report = checked(model, nn.CrossEntropyLoss(), blobs())
    found = the(report, "dead-units")
    assert found.layer == "1 (ReLU)" and "100% of the units" in found.message
    assert report.find("ignores-input")


def test_dead_units_of_a_function_name_the_users_line() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(12, 32), nn.Linear(32, 4)

        def forward(self, x: Any) -> Any:
            return self.last(F.relu(self.first(x) - 100.0))

    found = the(checked(Net(), nn.CrossEntropyLoss(), blobs()), "dead-units")
    assert "test_check_faults.py:" in found.line


def deep(count: int, act: Callable[[], nn.Module]) -> nn.Module:
    treadle.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(12, 64), act()]
    for _ in range(count):
        layers += [nn.Linear(64, 64), act()]
    return nn.Sequential(*layers, nn.Linear(64, 4))


def test_a_deep_sigmoid_net_has_a_vanishing_gradient() -> None:
    report = checked(deep(10, nn.Sigmoid), nn.CrossEntropyLoss(), blobs())
    found = the(report, "vanishing-gradient")
    assert found.layer == "0 (Linear)" and "of the last layer's" in found.message


def test_large_initial_weights_explode() -> None:
    model = deep(6, nn.ReLU)
    for name, p in model.named_parameters():
        if name.endswith("weight"):
            nn.init.normal_(p, std=1.0)
    report = checked(model, nn.CrossEntropyLoss(), blobs())
    assert the(report, "exploding-signal").layer == "8 (Linear)"
    assert the(report, "first-loss").severity == "error"
    found = the(report, "exploding-gradient")
    assert found.layer == "0 (Linear)"


def test_saturation_and_a_lost_signal_are_told() -> None:
    model = deep(2, nn.Tanh)
    with treadle.no_grad():
        model[2].weight.mul_(100.0)
    assert the(checked(model, nn.CrossEntropyLoss(), blobs()), "saturated").layer == "3 (Tanh)"
    model = deep(6, nn.ReLU)
    for name, p in model.named_parameters():
        if name.endswith("weight"):
            nn.init.normal_(p, std=0.01)
        else:
            nn.init.zeros_(p)
    assert checked(model, nn.CrossEntropyLoss(), blobs()).find("lost-signal")


def test_a_layer_without_gradient_is_named() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(12, 16)
            self.head = nn.Linear(16, 4)

        def forward(self, x: Any) -> Any:
            return self.head(treadle.tanh(self.body(x)).detach())

    found = the(checked(Net(), nn.CrossEntropyLoss(), blobs()), "no-gradient")
    assert found.layer == "body" and "body.weight, body.bias" in found.message


def test_a_gradient_that_stays_zero_is_told() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.side = mlp(), nn.Linear(12, 4)

        def forward(self, x: Any) -> Any:
            return self.body(x) + 0.0 * self.side(x)

    found = the(checked(Net(), nn.CrossEntropyLoss(), blobs()), "no-gradient")
    assert "side.weight" in found.message and "0 in every step" in found.message


def test_nothing_to_train_is_told() -> None:
    report = checked(mlp().requires_grad_(False), nn.CrossEntropyLoss(), blobs())
    assert report.codes == ("nothing-to-train",)


# --- learning ----------------------------------------------------------------------------------


def test_a_model_that_cannot_fit_is_told() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(np.zeros(1, np.float32))

        def forward(self, x: Any) -> Any:
            return x[:, :4] * 0.0 + self.scale

    report = checked(Constant(), nn.CrossEntropyLoss(), blobs(), steps=20)
    assert {"cannot-overfit-one", "cannot-overfit-ten", "ignores-input"} <= set(report.codes)


def test_targets_that_do_not_follow_from_the_inputs_are_no_better_than_the_baseline() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 12)).astype(np.float32)
    y = rng.integers(0, 4, 5000)
    report = checked(mlp(), nn.CrossEntropyLoss(), (x, y), steps=100)
    assert report.codes == ("no-better-than-baseline",), str(report)


class Rows(Dataset):
    """A dataset of the user's, without arrays."""

    def __init__(self, data: Arrays) -> None:
        self.x, self.y = data

    def __getitem__(self, n: int) -> Any:
        return self.x[n], int(self.y[n])

    def __len__(self) -> int:
        return len(self.y)


def test_data_comes_in_four_forms() -> None:
    x, y = blobs(count=100)
    loss = nn.CrossEntropyLoss()
    whole = checked(mlp(), loss, (x, y)).sections[0].text
    assert "100 samples looked at" in whole and "4 classes" in whole
    assert checked(mlp(), loss, (treadle.tensor(x), treadle.tensor(y))).sections[0].text == whole
    assert checked(mlp(), loss, Rows((x, y))).sections[0].text == whole
    assert checked(mlp(), loss, [(x[:50], y[:50]), (x[50:], y[50:])]).sections[0].text == whole
    loader = DataLoader(Rows((x, y)), 32, num_workers=1)
    assert "in batches of 32" in checked(mlp(), loss, loader).sections[0].text


def test_a_few_samples_are_enough_for_all_but_the_baseline() -> None:
    x, y = blobs(count=3)
    report = checked(mlp(), nn.CrossEntropyLoss(), (x, y))
    assert report.codes == ()
    assert report.skipped == ("all samples, baseline: fewer than 20 samples",)


def test_the_kind_of_a_loss_over_the_last_axis_is_known() -> None:
    model, loss, data = HEALTHY["last axis"]()
    assert "ln(3) for 3 equal logits" in checked(model, loss, data).sections[2].text
    report = checked(model, loss, (data[0], data[1] + 1))
    assert "labels go from 1 to 3" in the(report, "label-range").message


def test_what_a_loss_refuses_is_told() -> None:
    data = (blobs(2)[0], blobs(2)[1][:, None] * np.float32(1))
    report = checked(mlp(outputs=1), nn.BCELoss(), data)
    assert set(report.codes) == {"loss-fails", "no-sigmoid"}
    assert "outside of [0, 1]" in report.find("loss-fails")[0].message
    assert "take binary_cross_entropy_with_logits" in report.find("no-sigmoid")[0].fix


def test_results_that_are_bounded_before_cross_entropy_are_told() -> None:
    report = checked(mlp(nn.Tanh()), nn.CrossEntropyLoss(), blobs())
    assert the(report, "tanh-before-loss").layer == "3 (Tanh)"


def test_targets_beyond_what_the_loss_knows_are_told() -> None:
    x, y = blobs()
    report = checked(mlp(outputs=1), nn.BCEWithLogitsLoss(), (x, y[:, None] * np.float32(1)))
    assert "from 0 to 1; they go from 0 to 3" in the(report, "label-range").message
    report = checked(mlp(), nn.CrossEntropyLoss(), (x, y * 0 - 100))
    assert "which the loss ignores" in the(report, "no-labels").message
    report = checked(mlp(outputs=10), nn.CrossEntropyLoss(), (x, y))
    assert the(report, "unused-classes").severity == "note" and report.ok


def test_inputs_and_targets_that_are_all_equal_are_told() -> None:
    x, y = blobs()
    report = checked(mlp(), nn.CrossEntropyLoss(), (x * 0 + 1, y))
    assert the(report, "constant-inputs").severity == "error"
    x, t = line()
    report = checked(mlp(width=6, outputs=1), nn.MSELoss(), (x, t * 0 + 2))
    assert "all targets are 2" in the(report, "one-target").message


@pytest.mark.parametrize(("act", "said"), [
    (lambda x: treadle.sqrt(x - 10.0), "the first result that is not finite"),
    (lambda x: treadle.sqrt(x - x.detach()), "the gradient is not finite"),
])  # fmt: skip
def test_what_is_not_finite_names_the_layer(act: Any, said: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(12, 32), nn.Linear(32, 4)

        def forward(self, x: Any) -> Any:
            return self.last(act(self.first(x)))

    report = checked(Net(), nn.CrossEntropyLoss(), blobs(), steps=2)
    found = next(f for f in report.find("not-finite"))
    assert found.message == said
    assert found.layer == ("last (Linear)" if "result" in said else "first (Linear)")


def test_every_finding_is_in_the_documentation_and_in_a_test() -> None:
    """Codes are the first argument of `Finding`; those that are put together are listed here."""
    root = Path(__file__).resolve().parents[2]
    sources = [p.read_text("utf-8") for p in sorted((root / "nn" / "recipe").glob("*.py"))]
    codes = set(re.findall(r'Finding\(\s*"([a-z-]+)"', "\n".join(sources)))
    codes |= {f"{act}-before-loss" for act in ("softmax", "sigmoid", "relu", "tanh")}
    codes |= {"cannot-overfit-one", "cannot-overfit-ten"}
    page = (root / "docs" / "recipe.md").read_text("utf-8")
    tests = "".join(p.read_text("utf-8") for p in Path(__file__).parent.glob("test_check_*.py"))
    assert len(codes) > 30
    assert {c for c in codes if f"`{c}`" not in page} == set()
    assert {c for c in codes if f'"{c}"' not in tests} == set()
