"""Modules: the tree of parameters, names as PyTorch's, saving, loading and showing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        self.scale = nn.Parameter([2.0])
        self.register_buffer("count", treadle.tensor([0.0]))
        self.plain = treadle.tensor([1.0])

    def forward(self, x: Any) -> Any:
        return self.body(x) * self.scale


def test_names_follow_the_attributes_as_in_pytorch() -> None:
    net = Net()
    assert [name for name, _ in net.named_parameters()] == [
        "scale", "body.0.weight", "body.0.bias", "body.2.weight", "body.2.bias",
    ]  # fmt: skip
    assert [name for name, _ in net.named_modules()] == ["", "body", "body.0", "body.1", "body.2"]
    assert [name for name, _ in net.named_children()] == ["body"]
    assert [name for name, _ in net.named_buffers()] == ["count"]
    assert set(net.state_dict()) == {n for n, _ in net.named_parameters()} | {"count"}


def test_a_shared_parameter_counts_once_and_is_saved_under_each_name() -> None:
    net = Net()
    net.again = net.body[0]  # type: ignore[assignment]
    assert len(list(net.parameters())) == 5
    assert "again.weight" in net.state_dict()


def test_linear_is_x_times_weight_transposed_plus_bias() -> None:
    layer = nn.Linear(3, 4)
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    expected = x @ layer.weight.numpy().T + layer.bias.numpy()  # type: ignore[union-attr]
    np.testing.assert_allclose(layer(treadle.tensor(x)).numpy(), expected, rtol=1e-5, atol=1e-6)
    assert nn.Linear(3, 4, bias=False).bias is None
    with pytest.raises(
        treadle.ShapeError, match=r"Linear takes \[\.\.\., 3\], found shape \(2, 4\)"
    ):
        layer(treadle.tensor(np.ones((2, 4), np.float32)))


def test_the_default_initialisation_fills_its_range_and_follows_the_seed() -> None:
    treadle.manual_seed(1)
    first = nn.Linear(100, 50)
    bound = 1 / math.sqrt(100)
    for values in (first.weight.numpy(), first.bias.numpy()):  # type: ignore[union-attr]
        assert np.abs(values).max() <= bound
        assert np.abs(values).max() > 0.8 * bound
        assert abs(values.mean()) < 0.3 * bound
    treadle.manual_seed(1)
    assert np.array_equal(nn.Linear(100, 50).weight.numpy(), first.weight.numpy())
    assert not np.array_equal(nn.Linear(100, 50).weight.numpy(), first.weight.numpy())


@pytest.mark.parametrize(
    ("fill", "std"),
    [
        (lambda w: nn.init.kaiming_normal_(w), math.sqrt(2 / 300)),
        (lambda w: nn.init.kaiming_uniform_(w, a=math.sqrt(5)), math.sqrt(1 / 3 / 300)),
        (lambda w: nn.init.xavier_normal_(w), math.sqrt(2 / 500)),
        (lambda w: nn.init.xavier_uniform_(w), math.sqrt(2 / 500)),
        (lambda w: nn.init.normal_(w, 0.0, 0.5), 0.5),
    ],
)
def test_initialisers_have_their_spread(fill: Any, std: float) -> None:
    treadle.manual_seed(0)
    weight = nn.Parameter(np.zeros((200, 300), np.float32))
    assert fill(weight) is weight
    assert weight.numpy().std() == pytest.approx(std, rel=0.02)
    assert weight.is_leaf and weight.requires_grad


@pytest.mark.parametrize(
    "fill",
    [
        lambda w, g: nn.init.uniform_(w, -1.0, 1.0, generator=g),
        lambda w, g: nn.init.normal_(w, generator=g),
        lambda w, g: nn.init.kaiming_normal_(w, mode="fan_out", generator=g),
        lambda w, g: nn.init.xavier_uniform_(w, generator=g),
        lambda w, g: nn.init.trunc_normal_(w, generator=g),
        lambda w, g: nn.init.orthogonal_(w, generator=g),
    ],
)
def test_an_initialiser_draws_from_the_generator_that_it_is_given(fill: Any) -> None:
    def drawn(generator: Any) -> Any:
        return fill(treadle.zeros((3, 4)), generator).numpy()

    state = nn.init.generator_state()
    assert np.array_equal(drawn(5), drawn(5)) and not np.array_equal(drawn(5), drawn(6))
    assert np.array_equal(drawn(5), drawn(np.random.default_rng(5)))
    for make in (np.random.default_rng, treadle.Generator):
        one, other = make(7), make(7)
        first, second = drawn(one), drawn(one)
        assert not np.array_equal(first, second)
        assert np.array_equal(first, drawn(other)) and np.array_equal(second, drawn(other))
    assert nn.init.generator_state() == state
    with pytest.raises(treadle.ArgumentError, match="generator must be a seed, a numpy"):
        drawn("5")


def test_mistakes_of_initialisers_are_named() -> None:
    whole = treadle.zeros((3, 3), dtype=treadle.int64)
    assert nn.init.eye_(whole).tolist() == np.eye(3).tolist()
    with pytest.raises(treadle.DTypeError, match="of int64 cannot hold what is drawn"):
        nn.init.normal_(whole)
    with pytest.raises(treadle.DTypeError, match="fills a tensor, found ndarray"):
        nn.init.normal_(np.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(treadle.ArgumentError, match="std must be above 0"):
        nn.init.trunc_normal_(treadle.zeros((3,)), std=0.0)
    with pytest.raises(ValueError, match="unknown nonlinearity 'rleu'"):
        nn.init.calculate_gain("rleu")  # type: ignore[arg-type]


def test_drawing_inside_a_trace_is_an_error() -> None:
    f = treadle.jit(lambda x: nn.Linear(2, 2)(x))
    with pytest.raises(treadle.TraceError, match="draws random numbers"):
        f(np.ones((1, 2), np.float32))


def test_state_goes_out_and_in_again() -> None:
    source, target = Net(), Net()
    source.count.add_(3.0)
    weight = target.body[0].weight
    target.load_state_dict({k: v.numpy() for k, v in source.state_dict().items()})
    assert target.body[0].weight is weight and target.count.item() == 3
    for mine, theirs in zip(target.parameters(), source.parameters(), strict=True):
        assert np.array_equal(mine.numpy(), theirs.numpy())


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    net = Net()
    before = {k: v.numpy().copy() for k, v in net.state_dict().items()}
    bad = {**before, "scale": np.zeros(2, np.float32), "count": np.ones(1, np.float32)}
    with pytest.raises(treadle.ShapeError, match=r"scale has shape \(1,\).* brings \(2,\)"):
        net.load_state_dict(bad)
    with pytest.raises(KeyError, match="missing 'scale', unknown 'other'"):
        net.load_state_dict({**{k: v for k, v in before.items() if k != "scale"}, "other": 1})
    for wrong in (np.ones(1, np.complex128), np.array(["a"])):
        moved = {k: v + 1 for k, v in before.items()}
        with pytest.raises(treadle.DTypeError, match="is not supported") as caught:
            net.load_state_dict({**moved, "count": wrong})
        assert "in count of the state_dict" in caught.value.__notes__
    with pytest.raises(TypeError, match="maps names to values, found list"):
        net.load_state_dict([])  # type: ignore[arg-type]
    norm = nn.BatchNorm1d(2)
    for wrong in (np.array(2.5), treadle.tensor(2.5)):
        state = {"num_batches_tracked": wrong, "weight": np.zeros(2)}
        with pytest.raises(treadle.DTypeError, match=r"tracked is int64, the state_dict brings f"):
            norm.load_state_dict(state, strict=False)
    assert norm.weight is not None and norm.weight.tolist() == [1, 1]
    norm.load_state_dict({"num_batches_tracked": np.array(3, np.int32)}, strict=False)
    assert norm.num_batches_tracked is not None and norm.num_batches_tracked.item() == 3
    assert all(np.array_equal(before[k], v.numpy()) for k, v in net.state_dict().items())
    keys = net.load_state_dict({"count": np.ones(1, np.float32), "other": 1}, strict=False)
    assert keys.unexpected_keys == ["other"]
    assert keys.missing_keys == [key for key in before if key != "count"]
    assert net.count.item() == 1


def test_what_is_inside_is_found_by_its_path() -> None:
    net = Net()
    net.add_module("extra", nn.Linear(1, 1))
    assert net.get_submodule("") is net and net.get_submodule("body.2") is net.body[2]
    assert net.get_parameter("body.0.weight") is net.body[0].weight
    assert net.get_buffer("count") is net.count
    assert "extra.bias" in net.state_dict()
    for get, path in (
        (net.get_submodule, "body.7"), (net.get_submodule, "body.0.weight"),
        (net.get_parameter, "count"), (net.get_parameter, "body.0"), (net.get_buffer, "scale"),
        (net.get_buffer, "plain"), (net.get_parameter, "none.weight"),
    ):  # fmt: skip
        with pytest.raises(AttributeError, match=r"has no (module|parameter|buffer) '"):
            get(path)


def test_modules_are_put_in_and_taken_out_and_numbered_anew() -> None:
    parts = [nn.Linear(1, n + 1) for n in range(4)]
    model = nn.Sequential(*parts[:2])
    assert model.extend(parts[2:3]).insert(1, parts[3]) is model
    assert list(model) == [parts[0], parts[3], parts[1], parts[2]]
    assert model.pop(0) is parts[0] and model.pop() is parts[2]
    assert [n for n, _ in model.named_children()] == ["0", "1"] and list(model) == parts[3:0:-2]
    del model[0]
    assert list(model.state_dict()) == ["0.weight", "0.bias"]
    with pytest.raises(treadle.DTypeError, match="holds modules"):
        model.extend([3])  # type: ignore[list-item]
    named = nn.ModuleDict({"a": parts[0], "b": parts[1]})
    assert named.pop("a") is parts[0] and named.keys() == ["b"]
    named.clear()
    assert not named.values()


def test_training_mode_and_gradients_reach_every_module() -> None:
    net = Net()
    assert net.eval() is net and not any(m.training for m in net.modules())
    assert all(m.training for m in net.train().modules())
    net(treadle.tensor(np.ones((2, 3), np.float32))).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.numpy().any() for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())


def test_repr_shows_the_tree() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.GELU("tanh"), nn.Sequential(nn.Flatten()))
    assert repr(net) == (
        "Sequential(\n"
        "  (0): Linear(in_features=3, out_features=4, bias=True)\n"
        "  (1): GELU(approximate='tanh')\n"
        "  (2): Sequential(\n"
        "    (0): Flatten(start_dim=1, end_dim=-1)\n"
        "  )\n"
        ")"
    )


def test_containers_index_append_and_iterate() -> None:
    net = nn.Sequential(nn.Tanh(), nn.Sigmoid())
    net.append(nn.ReLU())
    assert len(net) == 3 and isinstance(net[-1], nn.ReLU)
    assert [type(m) for m in net[1:]] == [nn.Sigmoid, nn.ReLU]
    net[0] = nn.Identity()
    assert isinstance(net[0], nn.Identity)
    with pytest.raises(treadle.DTypeError, match="Sequential holds modules, found int"):
        net.append(3)  # type: ignore[arg-type]
    layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))
    assert len(list(layers.parameters())) == 4


@pytest.mark.parametrize(
    ("module", "function"),
    [
        (nn.ReLU(), lambda x: np.maximum(x, 0)),
        (nn.Tanh(), np.tanh),
        (nn.Sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
        (nn.SiLU(), lambda x: x / (1 + np.exp(-x))),
        (nn.GELU(), lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))),
        (nn.Softmax(dim=-1), lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
        (nn.Identity(), lambda x: x),
        (nn.Flatten(), lambda x: x.reshape(x.shape[0], -1)),
    ],
    ids=lambda v: type(v).__name__,
)
def test_activations_compute_their_formula(module: nn.Module, function: Any) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    np.testing.assert_allclose(module(treadle.tensor(x)).numpy(), function(x), rtol=1e-12)


def test_mistakes_are_named() -> None:
    class NoInit(nn.Module):
        def __init__(self) -> None:
            self.w = nn.Parameter([1.0])

    with pytest.raises(treadle.TreadleError, match=r"must call super\(\).__init__\(\) before it"):
        NoInit()
    net = Net()
    with pytest.raises(treadle.DTypeError, match="scale is a Parameter"):
        net.scale = treadle.tensor([1.0])  # type: ignore[assignment]
    with pytest.raises(treadle.TreadleError, match="Module does not define forward"):
        nn.Module()(1)
    with pytest.raises(treadle.DTypeError, match="buffer mean is no tensor, found int"):
        net.register_buffer("mean", 3)  # type: ignore[arg-type]
    with pytest.raises(treadle.ArgumentError, match=r"holds no dot, found 'a\.b'"):
        net.register_buffer("a.b", treadle.tensor([1.0]))
    with pytest.raises(treadle.DTypeError, match="a hook is a function, found int"):
        net.register_forward_hook(3)  # type: ignore[arg-type]
    with pytest.raises(treadle.DTypeError, match="only float"):
        nn.Parameter([1, 2])


def test_a_buffer_that_is_not_persistent_is_in_no_state_dict() -> None:
    net = Net()
    net.register_buffer("cache", treadle.tensor([3.0]), persistent=False)
    assert [name for name, _ in net.named_buffers()] == ["count", "cache"]
    assert "cache" not in net.state_dict()
    net.load_state_dict(Net().state_dict())
    net.register_buffer("cache", treadle.tensor([3.0]))
    assert "cache" in net.state_dict()
