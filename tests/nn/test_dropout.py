"""Dropout: what is kept, what its gradient is, and that its mask takes no memory."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle import Tensor, nn, random
from treadle.nn.functional import dropout

K = random.key(0)
X = treadle.tensor(np.random.default_rng(0).standard_normal((60, 50)).astype(np.float32))


def test_what_is_kept_is_scaled() -> None:
    for p in (0.1, 0.5, 0.9):
        y = dropout(X, p, key=K).numpy()
        kept = y != 0
        np.testing.assert_allclose(y[kept], X.numpy()[kept] * np.float32(1 / (1 - p)), rtol=1e-6)
        assert abs(kept.mean() - (1 - p)) < 0.04


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_probability_of_0_keeps_all_and_1_nothing(dtype: str) -> None:
    x = X.astype(dtype)
    compiled = treadle.jit(lambda p: dropout(x, p))
    fixed = treadle.jit(lambda: (dropout(x, 0.0), dropout(x, 1.0)))
    for keeps, p in ((1, 0.0), (0, 1.0)):
        given = treadle.tensor(p)
        for y in (
            dropout(x, p),
            dropout(x, given),
            compiled(p),
            compiled(given),
            fixed()[1 - keeps],
        ):
            np.testing.assert_array_equal(y.numpy(), x.numpy() * keeps)


def test_gradients_at_the_ends_are_finite() -> None:
    for p, expected in ((0.0, 1.0), (1.0, 0.0)):
        for way in (treadle.grad, lambda f: treadle.jit(treadle.grad(f))):
            found = way(lambda x, p=p: dropout(x, p).sum())(X).numpy()
            np.testing.assert_array_equal(found, np.full(X.shape, expected))
            found = way(lambda x, p=p: dropout(x, treadle.tensor(p)).sum())(X).numpy()
            np.testing.assert_array_equal(found, np.full(X.shape, expected))


def test_nothing_happens_unless_training() -> None:
    before = random.default_generator.get_state().numpy()
    assert dropout(X, 0.7, training=False) is X
    np.testing.assert_array_equal(random.default_generator.get_state().numpy(), before)


def test_the_probability_of_a_call_is_not_compiled_in() -> None:
    drop = treadle.jit(lambda x, p: dropout(x, p, key=K))
    for p in (0.2, 0.6, 0.0, 1.0):
        np.testing.assert_allclose(
            drop(X, p).numpy(), dropout(X, p, key=K).numpy(), rtol=1e-6, atol=0
        )
    assert len(drop.specializations) == 1


def test_what_is_left_out_is_0_whatever_it_was() -> None:
    wild = treadle.tensor(np.full(4000, np.nan, np.float32))
    y = dropout(wild, 0.5, key=K).numpy()
    assert 0.45 < (y == 0).mean() < 0.55
    assert np.isnan(y[y != 0]).all()


def test_the_gradient_is_that_of_what_was_kept() -> None:
    def loss(x: Tensor) -> Tensor:
        return (dropout(x, 0.3, key=K) * X).sum()

    kept = dropout(treadle.ones(X.shape), 0.3, key=K).numpy()
    slope = treadle.grad(loss)
    for way in (slope, treadle.jit(slope), treadle.grad(treadle.jit(loss))):
        np.testing.assert_allclose(way(X).numpy(), kept * X.numpy(), rtol=1e-6)


def test_the_module_follows_its_mode() -> None:
    net = nn.Sequential(nn.Linear(50, 40), nn.ReLU(), nn.Dropout(0.5))
    run = treadle.jit(lambda x: net(x))
    first, second = run(X).numpy(), run(X).numpy()
    assert not np.array_equal(first, second)
    net.eval()
    np.testing.assert_array_equal(run(X).numpy(), run(X).numpy())
    net.train()
    net[2].p = 0.0
    np.testing.assert_allclose(run(X).numpy(), net.eval()(X).numpy(), rtol=1e-5, atol=1e-6)
    assert repr(nn.Dropout(0.25)) == "Dropout(p=0.25)"


# --- memory ------------------------------------------------------------------------------------


class Net(nn.Module):
    """Three places for a mask: behind a product, behind a norm, before a residual sum."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 256), nn.Linear(256, 64)
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        h = treadle.relu(self.first(x))
        h = dropout(h, self.p) if self.p else h
        y = self.second(h)
        y = dropout(y, self.p) if self.p else y
        z = treadle.layer_norm(x + y, 64)
        return dropout(z, self.p) if self.p else z


def step_of(net: Net):  # type: ignore[no-untyped-def]
    optimizer = treadle.optim.SGD(net.parameters(), lr=0.1)

    @treadle.jit
    def step(x: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = (net(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    return step


def test_a_dropout_mask_is_neither_stored_nor_drawn_into_memory() -> None:
    """No array in memory holds random numbers or what is compared with them: neither type nor
    maker appears outside of a region, and the step needs no more memory than without dropout."""
    x = treadle.tensor(np.random.default_rng(0).standard_normal((512, 64)).astype(np.float32))
    with_masks, without = step_of(Net(0.2)), step_of(Net(0.0))
    with_masks(x), without(x)
    for name in ("random_uniform", "ge("):
        assert name in with_masks.ir("fuse", x)
    from treadle.ir.parser import parse_function

    program = parse_function(with_masks.ir("fuse", x))
    for instr in program.instrs:
        assert not instr.op.name.startswith("random")
        for region in instr.regions:
            drawn = {r for i in region.instrs if i.op.name == "random_uniform" for r in i.results}
            masks = {r for i in region.instrs for r in i.results if not drawn.isdisjoint(i.args)}
            assert not (drawn | masks) & set(region.outputs)
    memory = [s.specializations[0].executable.workspace_bytes for s in (with_masks, without)]
    assert memory[0] <= memory[1] + 1024


def test_a_call_keeps_no_mask_for_its_backward_pass() -> None:
    """A later backward() through the call has the seed and the number of the draw as inputs."""
    drop = treadle.jit(lambda x: dropout(treadle.exp(x), 0.5))
    drop(X.clone().requires_grad_(True))
    pull = drop.specializations[0]._pull
    assert pull is not None
    kept = [r.value.type for r in pull.forward.results if r.path.startswith("residual")]
    assert [t.dtype.name for t in kept if t.rank] == ["float32"]  # exp(x)
    made = [i.op.name for i in pull._split.backward.instrs]
    assert "random_uniform" in made


def layers(count: int) -> nn.Sequential:
    made: list[nn.Module] = []
    for _ in range(count):
        made += [nn.Linear(24, 24), nn.ReLU(), nn.Dropout(0.2)]
    return nn.Sequential(*made)


def test_equal_layers_with_dropout_share_their_code() -> None:
    """The number of a draw is an operand where there are many: 18 layers more are a few kernels of
    one element more. The numbers are those of eager execution."""
    sizes = []
    for count in (6, 24):
        net = layers(count)

        def loss(x: Tensor, net: nn.Module = net) -> Tensor:
            return (net(x) ** 2).mean()

        slope = treadle.jit(treadle.grad(loss))
        x = X[:, :24]
        treadle.manual_seed(3)
        found = slope(x).numpy()
        treadle.manual_seed(3)
        np.testing.assert_allclose(found, treadle.grad(loss)(x).numpy(), rtol=1e-4, atol=1e-9)
        assert "offset=1" not in slope.ir("fuse", x)
        sizes.append(slope.specializations[0].executable.code_bytes)
    assert sizes[1] < 1.7 * sizes[0]
