"""Tensors, modules, gradients, data and files of the facade do what programs of PyTorch rely on."""

from __future__ import annotations

import copy
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
import treadle.torch as torch
import treadle.torch.nn.functional as F  # noqa: N812
from treadle.torch import nn, optim
from treadle.torch.utils.data import (
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)


def kinds(*found: Any) -> set[type]:
    return {type(x) for x in found}


# --- tensors ---------------------------------------------------------------------------------


def test_what_is_made_and_computed_is_the_facades() -> None:
    x = torch.ones(2, 3)
    mixed = treadle.ones((3,)) + x, np.ones(3, np.float32) * x, treadle.exp(x), x[0], x.T
    assert kinds(x, x.data, x.detach(), *x, *mixed, *x.split(1), x.max(1).values) == {torch.Tensor}
    assert type(torch.exp(treadle.ones((2,)))) is torch.Tensor


def test_a_tensor_of_treadles_keeps_its_class() -> None:
    own = treadle.ones((2,))
    shown = torch.as_tensor(own)
    assert type(own) is treadle.Tensor and type(shown) is torch.Tensor
    shown.add_(1)
    assert own.tolist() == [2, 2]


def test_sizes_are_a_shape_and_a_number() -> None:
    x = torch.zeros(2, 3)
    rows, columns = x.size()
    assert (rows, columns) == x.shape == (2, 3) and x.size(-1) == 3
    assert x.size().numel() == x.numel() == x.size == 6
    assert repr(x.size()) == "torch.Size([2, 3])"


def test_the_class_makes_tensors() -> None:
    assert torch.Tensor(2, 3).size() == (2, 3) and torch.Tensor([1, 2]).dtype == torch.float32
    assert torch.Tensor().numel() == 0 and torch.LongTensor([1, 2]).dtype == torch.long
    with pytest.raises(treadle.DTypeError, match="found several arguments"):
        torch.Tensor([1], [2])


def test_data_is_the_storage_without_history() -> None:
    w = torch.ones(3, requires_grad=True)
    w.data -= 0.5
    w.data = w.data * 2
    assert w.tolist() == [1, 1, 1] and w.requires_grad and w.is_leaf
    with pytest.raises(ValueError, match="keeps the shape"):
        w.data = torch.ones(2)


def test_in_place_methods_keep_what_derivatives_need() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = x.clone().mul_(x).exp_().add_(1)
    y.sum().backward()
    np.testing.assert_allclose(x.grad, 2 * x.detach() * torch.exp(x.detach() ** 2), rtol=1e-6)
    with pytest.raises(treadle.DTypeError, match="div_ gives float32"):
        torch.arange(3).div_(2)


def test_the_result_may_be_written_elsewhere() -> None:
    place = torch.zeros(2)
    assert torch.add(torch.ones(2), 1, out=place) is place and place.tolist() == [2, 2]


def test_counts_that_only_a_run_can_tell_are_refused_in_a_compiled_function() -> None:
    x = torch.tensor([0, 3, 3])
    assert torch.nonzero(x).tolist() == [[1], [2]] and torch.unique(x).tolist() == [0, 3]
    assert torch.bincount(x).tolist() == [1, 0, 0, 2]
    assert torch.where(x > 0)[0].tolist() == [1, 2]
    for function in (torch.nonzero, torch.unique, torch.bincount):
        with pytest.raises(treadle.TraceError, match="known only when"):
            torch.compile(function)(x)


def test_random_tensors_follow_the_seed_and_their_ranges() -> None:
    torch.manual_seed(3)
    first = torch.randn(4), torch.rand(4), torch.randint(2, 5, (50,)), torch.randperm(5)
    torch.manual_seed(3)
    again = torch.randn(size=(4,)), torch.rand((4,)), torch.randint(2, 5, (50,)), torch.randperm(5)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert int(first[2].min()) >= 2 and int(first[2].max()) < 5
    assert torch.empty(100).uniform_(2, 3).min() >= 2
    assert abs(float(torch.empty(1000).normal_(5, 0.1).mean()) - 5) < 0.1
    generator = torch.Generator().manual_seed(1)
    assert (
        torch.rand(2, generator=generator).tolist() != torch.rand(2, generator=generator).tolist()
    )


def test_threads_use_the_facade_at_once() -> None:
    found: list[Any] = []

    def work() -> None:
        w = torch.ones(3, 3, requires_grad=True)
        (w @ w).sum().backward()
        found.append(w.grad)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and kinds(*found) == {torch.Tensor}


# --- gradients -------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_of_gradients_by_autograd_grad(compiled: bool) -> None:
    x = torch.tensor([1.0, -2.0], requires_grad=True)

    def penalty() -> Any:
        (slope,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
        return torch.autograd.grad(slope.pow(2).sum(), [x], retain_graph=True)[0]

    found = (torch.compile(penalty) if compiled else penalty)()
    np.testing.assert_allclose(found, 36 * x.detach() ** 3, rtol=1e-6)
    assert type(found) is torch.Tensor and x.grad is None


def test_what_autograd_grad_cannot_do_is_told() -> None:
    x, unused = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    with pytest.raises(treadle.GradientError, match="is no leaf"):
        torch.autograd.grad((x * 2).sum(), x * 2)
    with pytest.raises(treadle.GradientError, match="do not depend on input 1"):
        torch.autograd.grad((x * 2).sum(), (x, unused))
    with pytest.raises(treadle.GradientError, match="needs grad_outputs"):
        torch.autograd.grad(x * 2, x)
    with pytest.raises(ValueError, match=r"torch.autograd.grad"):
        (x * 2).sum().backward(create_graph=True)
    assert torch.autograd.grad((x * 2).sum(), (x, unused), allow_unused=True)[1] is None
    zeros = torch.autograd.grad((x * 2).sum(), (x, unused), materialize_grads=True)[1]
    assert zeros.tolist() == [0, 0]


def test_grad_modes() -> None:
    w = torch.ones(2, requires_grad=True)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert not (w * 2).requires_grad
        assert not mode()(lambda: w * 2)().requires_grad
    with torch.inference_mode(False), torch.set_grad_enabled(True):
        assert (w * 2).requires_grad
    with torch.set_grad_enabled(False):
        assert not (w * 2).requires_grad
    assert not torch.no_grad(lambda: w * 2)().requires_grad
    assert torch.inference_mode(False)(lambda: w * 2)().requires_grad
    assert not torch.set_grad_enabled(False)(lambda: w * 2)().requires_grad
    assert torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    assert not torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    assert torch.is_grad_enabled()


# --- modules ---------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.lstm = nn.LSTM(4, 4, batch_first=True)
        self.norm = nn.BatchNorm1d(4)
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("shift", torch.zeros(4))
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Any) -> Any:
        n, t, f = x.size()
        x = self.attention(x, x, x)[0]
        x = self.lstm(x)[0].contiguous().view(n * t, f)
        return self.act(self.norm(x)).view(n, t, -1).mean(dim=1) * self.scale + self.shift


def test_parameters_and_buffers_of_all_layers_are_the_facades() -> None:
    model = Net()
    assert kinds(*model.parameters()) == {nn.Parameter} and kinds(*model.buffers()) == {
        torch.Tensor
    }
    assert isinstance(model.attention.out_proj, nn.Linear)
    assert model.get_submodule("attention.out_proj").weight.numel() == 16
    assert type(model.double().scale) is nn.Parameter and model.scale.dtype == torch.float64
    assert type(nn.Sequential(treadle.nn.Linear(2, 3))[0]) is nn.Linear


def test_copies_of_modules_are_the_facades() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    for made in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert kinds(*made.parameters()) == {nn.Parameter} and type(made[0]) is nn.Linear
        assert torch.equal(made[0].weight, model[0].weight)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_network_trains_and_stays_the_facades(compiled: bool) -> None:
    torch.manual_seed(0)
    model, x = Net(), torch.randn(4, 3, 4)
    optimizer = optim.Adam(model.parameters(), lr=1e-2, fused=True)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), torch.ones(4, 4))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    run = torch.compile(step) if compiled else step
    losses = [run(x) for _ in range(12)]
    assert losses[-1] < losses[0] and kinds(*losses) == {torch.Tensor}
    assert kinds(*(p.grad for p in model.parameters())) == {torch.Tensor}
    assert (
        kinds(*model.parameters()) == {nn.Parameter}
        and type(model.norm.running_mean) is torch.Tensor
    )


def test_a_step_may_have_a_closure() -> None:
    w = nn.Parameter(torch.ones(2))
    optimizer = optim.SGD([w], lr=0.5)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (w**2).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert optimizer.step(closure).item() == 2
    assert w.tolist() == [0, 0] and optimizer.step() is None


def test_a_module_is_compiled_as_one() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    x = torch.randn(4, 3)
    compiled = torch.compile(model, mode="max-autotune")
    np.testing.assert_allclose(compiled(x).detach(), model(x).detach(), rtol=1e-5, atol=1e-6)
    assert compiled.training and list(compiled.state_dict()) == ["0.weight", "0.bias"]
    before = model(x).detach()
    model.compile()
    for _ in range(2):
        np.testing.assert_allclose(model(x).detach(), before, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        model[0].bias.zero_()
    assert not torch.allclose(model(x), before)
    with pytest.raises(ValueError, match="no other backends"):
        torch.compile(model, backend=lambda graph, inputs: graph)


# --- data ------------------------------------------------------------------------------------


class Squares(Dataset[int]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": torch.tensor([index]), "y": index**2}


def test_batches_are_the_facades() -> None:
    pair = next(iter(DataLoader(TensorDataset(torch.ones(4, 2), torch.arange(4)), batch_size=2)))
    loader = DataLoader(Squares(), batch_size=5, pin_memory=True, worker_init_fn=None)
    batch = next(iter(loader))
    assert kinds(*pair, *batch.values()) == {torch.Tensor} and batch["x"].size() == (5, 1)


def test_a_generator_gives_the_order() -> None:
    def order(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        loader = DataLoader(Squares(), 3, shuffle=True, generator=generator)
        return [i for batch in loader for i in batch["x"].flatten().tolist()]

    assert order(1) == order(1) != order(2) and sorted(order(1)) == list(range(10))
    first, second = random_split(Squares(), [0.7, 0.3], torch.Generator().manual_seed(0))
    assert (len(first), len(second)) == (7, 3)


def test_samplers_give_sample_numbers() -> None:
    assert list(SequentialSampler(Squares())) == list(range(10))
    assert sorted(RandomSampler(Squares())) == list(range(10))
    assert len(list(RandomSampler(Squares(), num_samples=25))) == 25
    assert set(RandomSampler(Squares(), replacement=True, num_samples=30)) <= set(range(10))
    assert sorted(SubsetRandomSampler([4, 7])) == [4, 7]
    drawn = WeightedRandomSampler([0.0, 1.0, 0.0], 5)
    assert list(drawn) == [1] * 5 and len(drawn) == 5
    assert len(DataLoader(Squares(), 5, sampler=RandomSampler(Squares()))) == 2


# --- files -----------------------------------------------------------------------------------


def test_a_state_dict_is_a_plain_safetensors_file(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    model, path = nn.Linear(3, 2), tmp_path / "weights.pt"
    torch.save(model.state_dict(), path)
    assert set(load_file(path)) == {"weight", "bias"}
    other = nn.Linear(3, 2)
    keys = other.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    assert torch.equal(other.weight, model.weight) and keys.missing_keys == []


def test_other_trees_come_back_as_they_were(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    optimizer = optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    tree = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3,
            "rest": [1.5, ("a", None, True)], 7: torch.arange(3)}  # fmt: skip
    torch.save(tree, str(tmp_path / "c.pt"))
    found = torch.load(tmp_path / "c.pt")
    assert found["epoch"] == 3 and found["rest"] == tree["rest"] and found[7].tolist() == [0, 1, 2]
    optimizer.load_state_dict(found["optimizer"])
    assert kinds(*found["model"].values()) == {torch.Tensor}


def test_what_cannot_be_saved_or_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    with pytest.raises(ValueError, match=r"given a Linear; .* its state_dict"):
        torch.save(nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match=r"a.1 is a object"):
        torch.save({"a": [1, object()]}, path)
    assert not path.exists()
    path.write_bytes(pickle.dumps({"weight": [1.0]}))
    with pytest.raises(ValueError, match=r"is a pickle, .* safetensors.torch.save_file"):
        torch.load(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(treadle.TreadleError, match="damaged or no safetensors file"):
        torch.load(path)
    with pytest.raises(FileNotFoundError):
        torch.load(tmp_path / "absent.pt")
