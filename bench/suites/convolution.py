"""Convolutions alone, and networks of them: one model for Treadle and torch, whose names it shares.

JAX has the convolutions and the LeNet-like step, written in its own functions.

The least work of a convolution is that of the algorithm that `jit(winograd=..)` allows it: a square
of m x m positions takes (m + 2)^2 multiplications for its 9 m^2. Rows called `..-f4` allow m = 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from treadle.bench.workload import Program, Step, Work, Workload, add

RATE = 1e-3
SQUARES = {0: 1.0, 2: 4 / 9, 4: 1 / 4}  # multiplications, of those of the direct algorithm


# --- one convolution -------------------------------------------------------------------------

IMAGES, SIZE = 16, 32


def _data(channels: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((IMAGES, channels, SIZE, SIZE), dtype=np.float32)
    w = rng.standard_normal((channels, channels, 3, 3), dtype=np.float32)
    return x, w / np.float32(3 * channels**0.5)


def _conv_treadle(channels: int, winograd: int = 2) -> Program:
    def program() -> Step:
        import treadle as t

        x, w = map(t.tensor, _data(channels))
        convolve = t.jit(winograd=winograd)  # type: ignore[call-overload]
        step = convolve(lambda x, w: t.nn.functional.conv2d(x, w, padding=1))
        return lambda: step(x, w)

    return program


def _conv_torch(channels: int, compiled: bool) -> Program:
    def program() -> Step:
        import torch

        x, w = map(torch.from_numpy, _data(channels))

        def step(x: Any, w: Any) -> Any:
            return torch.nn.functional.conv2d(x, w, padding=1)

        chosen = torch.compile(step) if compiled else step
        return lambda: chosen(x, w)

    return program


def _conv_jax(channels: int) -> Program:
    def program() -> Step:
        import jax

        x, w = map(jax.numpy.asarray, _data(channels))
        step = jax.jit(lambda x, w: jax.lax.conv(x, w, (1, 1), "SAME"))
        return lambda: step(x, w).block_until_ready()

    return program


def _add_conv(name: str, channels: int, winograd: int, suffix: str = "") -> None:
    direct = 2.0 * 9 * channels**2 * IMAGES * SIZE**2
    add(
        Workload(
            name,
            f"3 x 3 convolution, {IMAGES} x {channels} x {SIZE} x {SIZE}, float32{suffix}",
            Work(flops=direct * SQUARES[winograd]),
            {
                "treadle": _conv_treadle(channels, winograd),
                "torch": _conv_torch(channels, False),
                "compile": _conv_torch(channels, True),
                "jax": _conv_jax(channels),
            },
        )
    )


for channels in (32, 128):
    _add_conv(f"conv-{channels}", channels, 2)
    _add_conv(f"conv-{channels}-direct", channels, 0, ", winograd=0")
    _add_conv(f"conv-{channels}-f4", channels, 4, ", winograd=4")


# --- networks --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Net:
    """`build(nn)` makes the model of a library's layers. `flops` and `first`: the operations of all
    its products forward, and of the first layer's, whose input needs no gradient. `squares` and
    `first_squares`: of these those of 3 x 3 taps that move by ones."""

    build: Callable[[Any], Any]
    input: tuple[int, ...]
    classes: int
    flops: float
    first: float
    weights: int
    squares: float
    first_squares: float = 0.0

    def batch(self) -> tuple[Any, Any]:
        rng = np.random.default_rng(1)
        x = rng.standard_normal(self.input, dtype=np.float32)
        return x, rng.integers(0, self.classes, self.input[0])

    def step(self, winograd: int = 2) -> Work:
        """Forward, backward, and Adam's seven passes over the weights. The gradients of weights are
        computed directly."""
        saved = (1 - SQUARES[winograd]) * (2 * self.squares - self.first_squares)
        return Work(flops=3 * self.flops - self.first - saved, bytes_moved=7 * 4.0 * self.weights)

    def forward(self, winograd: int = 2) -> Work:
        return Work(flops=self.flops - (1 - SQUARES[winograd]) * self.squares)


def _step_treadle(net: Net, winograd: int = 2) -> Program:
    def program() -> Step:
        import treadle as t

        model = net.build(t.nn)
        x, y = map(t.tensor, net.batch())
        optimizer = t.optim.Adam(model.parameters(), lr=RATE)

        @t.jit(winograd=winograd)  # type: ignore[call-overload,untyped-decorator,unused-ignore]
        def step(x: Any, y: Any) -> Any:
            loss = t.nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return lambda: step(x, y)

    return program


def _step_torch(net: Net, compiled: bool) -> Program:
    def program() -> Step:
        import torch

        model = net.build(torch.nn)
        x, y = map(torch.from_numpy, net.batch())
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
        chosen = torch.compile(model) if compiled else model

        def step() -> Any:
            loss = torch.nn.functional.cross_entropy(chosen(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return step

    return program


def _forward_treadle(net: Net, winograd: int = 2) -> Program:
    def program() -> Step:
        import treadle as t

        model = net.build(t.nn).eval()
        x = t.tensor(net.batch()[0])

        @t.jit(winograd=winograd)  # type: ignore[call-overload,untyped-decorator,unused-ignore]
        def forward(x: Any) -> Any:
            with t.no_grad():
                return model(x)

        return lambda: forward(x)

    return program


def _forward_torch(net: Net, compiled: bool) -> Program:
    def program() -> Step:
        import torch

        model = net.build(torch.nn).eval()
        x = torch.from_numpy(net.batch()[0])
        chosen = torch.compile(model) if compiled else model

        def forward() -> Any:
            with torch.no_grad():
                return chosen(x)

        return forward

    return program


def _lenet(nn: Any) -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def _blocks(nn: Any, *behind: Any) -> list[Any]:
    """Two convolutions of 32 channels, a pool, two of 64, a pool; `behind` follows each pool."""
    layers: list[Any] = []
    for inputs, outputs in ((3, 32), (32, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        if inputs == outputs:
            layers += [nn.MaxPool2d(2), *behind]
    return layers


def _normed(nn: Any) -> Any:
    return nn.Sequential(*_blocks(nn), nn.Flatten(), nn.Linear(64 * 16 * 16, 10))


def _cats_dogs(nn: Any) -> Any:
    """The network of examples/cats_dogs.py."""
    return nn.Sequential(
        *_blocks(nn, nn.Dropout(0.1)), nn.Flatten(), nn.Linear(64 * 8 * 8, 128), nn.ReLU(),
        nn.Dropout(0.3), nn.Linear(128, 2),
    )  # fmt: skip


def _resnet(nn: Any) -> Any:
    """ResNet-18 (He et al. 2016)."""

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.relu = nn.ReLU()
            self.downsample = None
            if inputs != outputs:
                self.downsample = nn.Sequential(
                    nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
                )

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            return self.relu(y + (x if self.downsample is None else self.downsample(x)))

    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    inputs = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(inputs, outputs, stride), Block(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def _flops(images: int, *layers: tuple[int, int, int, int]) -> float:
    """Of convolutions with square kernels: (inputs, outputs, taps of a side, positions of a side);
    a linear layer has one of each of the latter."""
    return 2.0 * images * sum(i * o * (k * p) ** 2 for i, o, k, p in layers)


def _resnet_squares(images: int) -> float:
    sizes = ((64, 56), (128, 28), (256, 14), (512, 7))
    layers = [[(n, n, 3, size)] * (4 if n == 64 else 3) for n, size in sizes]
    return _flops(images, *(layer for group in layers for layer in group))


def _resnet_flops(images: int) -> float:
    layers = [(3, 64, 7, 112), (512, 1000, 1, 1), *[(64, 64, 3, 56)] * 4]
    for inputs, size in ((64, 28), (128, 14), (256, 7)):
        outputs = 2 * inputs
        layers += [(inputs, outputs, 3, size), (inputs, outputs, 1, size)]
        layers += [(outputs, outputs, 3, size)] * 3
    return _flops(images, *layers)


LENET = Net(
    _lenet, (64, 1, 28, 28), 10,
    _flops(64, (1, 32, 3, 26), (32, 64, 3, 24), (9216, 128, 1, 1), (128, 10, 1, 1)),
    _flops(64, (1, 32, 3, 26)), 1_199_882,
    _flops(64, (1, 32, 3, 26), (32, 64, 3, 24)), _flops(64, (1, 32, 3, 26)),
)  # fmt: skip
NORMED = Net(
    _normed, (32, 3, 64, 64), 10,
    _flops(32, (3, 32, 3, 64), (32, 32, 3, 64), (32, 64, 3, 32), (64, 64, 3, 32),
           (16384, 10, 1, 1)),
    _flops(32, (3, 32, 3, 64)), 229_802,
    _flops(32, (3, 32, 3, 64), (32, 32, 3, 64), (32, 64, 3, 32), (64, 64, 3, 32)),
    _flops(32, (3, 32, 3, 64)),
)  # fmt: skip
CATS_DOGS = Net(
    _cats_dogs, (64, 3, 32, 32), 2,
    _flops(64, (3, 32, 3, 32), (32, 32, 3, 32), (32, 64, 3, 16), (64, 64, 3, 16),
           (4096, 128, 1, 1), (128, 2, 1, 1)),
    _flops(64, (3, 32, 3, 32)), 590_626,
    _flops(64, (3, 32, 3, 32), (32, 32, 3, 32), (32, 64, 3, 16), (64, 64, 3, 16)),
    _flops(64, (3, 32, 3, 32)),
)  # fmt: skip
RESNET = Net(
    _resnet, (8, 3, 224, 224), 1000, _resnet_flops(8), _flops(8, (3, 64, 7, 112)), 11_689_512,
    _resnet_squares(8),
)  # fmt: skip


def _lenet_jax(net: Net) -> Program:
    def program() -> Step:
        import jax
        from jax import numpy as jnp

        rng = np.random.default_rng(0)
        shapes = [(32, 1, 3, 3), (32, 1, 1), (64, 32, 3, 3), (64, 1, 1), (9216, 128), (128,),
                  (128, 10), (10,)]  # fmt: skip
        weights = [jnp.asarray(rng.standard_normal(s, dtype=np.float32) * 0.05) for s in shapes]
        zeros = [jnp.zeros_like(w) for w in weights]
        x, y = map(jnp.asarray, net.batch())

        def loss_of(weights: Any) -> Any:
            w1, b1, w2, b2, w3, b3, w4, b4 = weights
            h = jax.nn.relu(jax.lax.conv(x, w1, (1, 1), "VALID") + b1)
            h = jax.nn.relu(jax.lax.conv(h, w2, (1, 1), "VALID") + b2)
            window = (1, 1, 2, 2)
            h = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, window, window, "VALID")
            h = jax.nn.relu(h.reshape(len(x), -1) @ w3 + b3)
            logs = jax.nn.log_softmax(h @ w4 + b4)
            return -jnp.take_along_axis(logs, y[:, None], axis=1).mean()

        def step(state: Any) -> Any:
            weights, m, v, count = state
            loss, grads = jax.value_and_grad(loss_of)(weights)
            count = count + 1
            m = [0.9 * a + 0.1 * g for a, g in zip(m, grads, strict=True)]
            v = [0.999 * a + 0.001 * g * g for a, g in zip(v, grads, strict=True)]
            rate = RATE * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
            moved = zip(weights, m, v, strict=True)
            return ([w - rate * a / (jnp.sqrt(b) + 1e-8) for w, a, b in moved], m, v, count), loss

        compiled = jax.jit(step, donate_argnums=0)
        holder = [(weights, zeros, [jnp.copy(z) for z in zeros], jnp.zeros(()))]

        def run() -> None:
            holder[0], _ = compiled(holder[0])
            jax.block_until_ready(holder[0])

        return run

    return program


def _add_step(
    name: str, title: str, net: Net, jax: Program | None = None, winograd: int = 2,
    on_request: bool = False,
) -> None:  # fmt: skip
    programs = {
        "treadle": _step_treadle(net, winograd),
        "torch": _step_torch(net, False),
        "compile": _step_torch(net, True),
    }
    if jax is not None:
        programs["jax"] = jax
    add(Workload(name, title, net.step(winograd), programs, on_request=on_request))


def _add_forward(
    name: str, title: str, net: Net, winograd: int = 2, on_request: bool = False
) -> None:
    programs = {
        "treadle": _forward_treadle(net, winograd),
        "torch": _forward_torch(net, False),
        "compile": _forward_torch(net, True),
    }
    add(Workload(name, title, net.forward(winograd), programs, on_request=on_request))


_add_step("lenet", "LeNet-like, 64 x 1 x 28 x 28, train step", LENET, _lenet_jax(LENET))
_add_step("convnet-bn", "4 convolutions with batch norm, 32 x 3 x 64 x 64, train step", NORMED)
_add_step("cats-dogs", "cats and dogs example, 64 x 3 x 32 x 32, train step", CATS_DOGS)
_add_step("resnet-18", "ResNet-18, 8 x 3 x 224 x 224, train step", RESNET)
_add_forward("resnet-18-forward", "ResNet-18, 8 x 3 x 224 x 224, forward", RESNET)
_add_step("lenet-f4", "lenet with winograd=4", LENET, winograd=4, on_request=True)
_add_step("convnet-bn-f4", "convnet-bn with winograd=4", NORMED, winograd=4, on_request=True)
_add_step("resnet-18-f4", "resnet-18 with winograd=4", RESNET, winograd=4, on_request=True)
_add_forward(
    "resnet-18-forward-f4", "resnet-18-forward with winograd=4", RESNET, 4, on_request=True
)
