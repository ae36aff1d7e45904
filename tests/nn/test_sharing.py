"""Parameters that functions, layers and models share; frozen ones; features of a middle layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.ir.parser import parse_function

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)


def parameters_of(jitted: Any, *args: Any) -> set[str]:
    """The paths of the parameters that the compiled program computes with."""
    program = parse_function(jitted.ir("fuse", *args))
    used = {v for instr in program.instrs for v in instr.args}
    return {p.path for p in program.params if p.value in used and ".weight" in p.path}


def products_of(jitted: Any, *args: Any) -> int:
    program = parse_function(jitted.ir("fuse", *args))
    return sum(instr.op.name == "contract" for instr in program.instrs)


def test_two_functions_over_shared_parameters_are_one_net_for_training_and_one_for_test() -> None:
    """No flag and no module: one leaves out paths at random, the other takes their mean."""
    rng = np.random.default_rng(2)
    columns = [nn.Parameter(rng.normal(size=(4, 3)).astype(np.float32)) for _ in range(2)]
    optimizer = treadle.optim.SGD(columns, lr=0.1)

    def whole(x: Any) -> Any:
        return (x @ columns[0] + treadle.tanh(x @ columns[1])) / 2

    @treadle.jit
    def train(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        first = treadle.rand(()) < 0.5
        result = treadle.where(first, x @ columns[0], treadle.tanh(x @ columns[1]))
        loss = treadle.mean((result - y) ** 2)
        loss.backward()
        optimizer.step()
        return loss

    test, one_column = treadle.jit(whole), treadle.jit(lambda x: x @ columns[0])
    x = treadle.tensor(X)
    before = test(x).numpy().copy()
    assert (products_of(test, x), products_of(one_column, x)) == (2, 1)
    treadle.manual_seed(0)
    for _ in range(8):
        train(x, treadle.tensor(Y))
    after = test(x).numpy()
    assert not np.array_equal(before, after)
    np.testing.assert_allclose(after, np.asarray(whole(x)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one_column(x).numpy(), X @ columns[0].numpy(), rtol=1e-5, atol=1e-6)
    assert len(test.specializations) == len(one_column.specializations) == 1


class Tied(nn.Module):
    """The rows that words are looked up in are the weights of the product at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(5, 4)
        self.out = nn.Linear(4, 5, bias=False)
        self.out.weight = self.words.weight

    def forward(self, tokens: Any) -> Any:
        return self.out(treadle.tanh(self.words(tokens)))


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_a_parameter_of_two_layers_gets_the_sum_of_both_gradients_and_one_update(
    jitted: bool,
) -> None:
    model, tokens, target = Tied().double(), treadle.tensor([1, 3, 3]), treadle.tensor([0, 2, 4])
    weight = model.words.weight
    assert model.out.weight is weight and len(list(model.parameters())) == 1
    start = weight.numpy().copy()

    def loss_of(first: Any, second: Any) -> Any:
        logits = treadle.tanh(first[tokens]) @ second.T
        return nn.functional.cross_entropy(logits, target)

    apart = treadle.grad(loss_of, argnums=(0, 1))(treadle.tensor(start), treadle.tensor(start))
    optimizer = treadle.optim.SGD(model.parameters(), lr=0.5)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(tokens), target).backward()
        optimizer.step()

    (treadle.jit(step) if jitted else step)()
    wanted = start - 0.5 * sum(g.numpy() for g in apart)
    np.testing.assert_allclose(weight.numpy(), wanted, rtol=1e-12)
    state = model.state_dict()
    np.testing.assert_array_equal(state["out.weight"].numpy(), state["words.weight"].numpy())
    again = Tied().double()
    again.load_state_dict(state)
    np.testing.assert_array_equal(again.out.weight.numpy(), weight.numpy())


def test_two_models_share_a_layer_and_train_it_in_turns() -> None:
    trunk = nn.Linear(4, 4)
    one = nn.Sequential(trunk, nn.ReLU(), nn.Linear(4, 3))
    other = nn.Sequential(trunk, nn.Tanh(), nn.Linear(4, 1))
    both = nn.ModuleList([one, other])
    assert len(list(both.parameters())) == 6
    optimizer = treadle.optim.Adam(both.parameters(), lr=0.01)

    def step_of(model: Any) -> Any:
        @treadle.jit
        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = treadle.mean((model(x) - y) ** 2)
            loss.backward()
            optimizer.step()
            return loss

        return step

    steps = [(step_of(one), treadle.tensor(Y)), (step_of(other), treadle.tensor(Y[:, :1]))]
    seen = [trunk.weight.numpy().copy()]
    for step, y in steps:
        step(treadle.tensor(X), y)
        seen.append(trunk.weight.numpy().copy())
    assert not np.array_equal(seen[0], seen[1]) and not np.array_equal(seen[1], seen[2])
    first = one[2].weight.numpy().copy()
    steps[1][0](treadle.tensor(X), steps[1][1])
    np.testing.assert_array_equal(one[2].weight.numpy(), first)  # which has no gradient there


def test_frozen_parameters_stay_and_nothing_is_computed_for_their_gradients() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = treadle.optim.SGD(model.parameters(), lr=0.1)

    @treadle.jit
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = treadle.mean((model(x) - y) ** 2)
        loss.backward()
        optimizer.step()
        return loss

    x, y = treadle.tensor(X), treadle.tensor(Y)
    step(x, y)
    free = products_of(step, x, y)
    model[0].requires_grad_(False)
    frozen = {k: v.numpy().copy() for k, v in model.state_dict().items()}
    step(x, y)
    assert model[0].weight.grad is None
    for key, value in model.state_dict().items():
        assert np.array_equal(frozen[key], value.numpy()) == key.startswith("0."), key
    assert free == 5 and products_of(step, x, y) == 3
    model[0].requires_grad_(True)
    step(x, y)
    assert not np.array_equal(frozen["0.weight"], model[0].weight.numpy())


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Any) -> dict[str, Any]:
        features = treadle.relu(self.stem(x))
        deep = treadle.relu(self.deep(features))
        return {"features": features, "deep": deep, "logits": self.head(deep)}


def test_features_of_a_middle_layer_leave_out_what_comes_behind_it() -> None:
    model, x = Encoder(), treadle.tensor(X)
    features = treadle.jit(lambda x: model(x)["features"])
    assert parameters_of(features, x) == {"model.stem.weight"}
    assert products_of(features, x) == 1
    wanted = model(x)["features"].detach().numpy()
    np.testing.assert_allclose(features(x).numpy(), wanted, rtol=1e-5, atol=1e-6)
    stages = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    part = stages[:2]
    assert parameters_of(treadle.jit(lambda x: part(x)), x) == {"part[0].weight"}
    graph = treadle.trace(lambda x: model(x), ["f32[6, 4]"])
    (name,) = (n for n in graph.outputs if "features" in n)
    np.testing.assert_allclose(graph.run(name, {"x": X}).numpy(), wanted, rtol=1e-5, atol=1e-6)
    assert {p.path for p in graph.part(name).params} == {
        "x",
        "model.stem.weight",
        "model.stem.bias",
    }


def test_features_of_a_frozen_model_train_another_task() -> None:
    model, task = Encoder().requires_grad_(False), nn.Linear(8, 1)
    optimizer = treadle.optim.SGD(task.parameters(), lr=0.1)
    x, y = treadle.tensor(X), treadle.tensor(Y[:, :1])

    @treadle.jit
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = treadle.mean((task(model(x)["features"]) - y) ** 2)
        loss.backward()
        optimizer.step()
        return loss

    read = parameters_of(step, x, y)
    assert read == {"model.stem.weight", "task.weight"}
    assert products_of(step, x, y) == 3  # two forward, one for the gradient of the task's weight
    before = {k: v.numpy().copy() for k, v in model.state_dict().items()}
    losses = [float(step(x, y)) for _ in range(20)]
    assert losses[-1] < losses[0]
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(before[key], value.numpy())


def test_a_hook_hands_out_what_a_layer_inside_gave() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

    @treadle.jit
    def features(x: Any) -> Any:
        found: list[Any] = []
        with model[1].register_forward_hook(lambda module, args, result: found.append(result)):
            model(x)
        return found[0]

    x = treadle.tensor(X)
    wanted = model[:2](x).numpy()
    np.testing.assert_allclose(features(x).numpy(), wanted, rtol=1e-5, atol=1e-6)
    assert len(parameters_of(features, x)) == products_of(features, x) == 1
