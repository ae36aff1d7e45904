"""What `soak` does again and again: programs to compile, and calls on each way that a call takes.

A turn of `compiles` makes one program that no turn before has made, its number being a constant in
it, and calls it until its call path without Python is made. A turn of `calls` is a thousand calls.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, Final

import numpy as np

import treadle
from treadle import Tensor, nn
from treadle.ir.errors import IndexFault

Turn = Callable[[int], int]

_SHAPES: Final = 4  # that a function is compiled for before it is cleared
_ENOUGH: Final = 6  # calls after which a function is called without Python


def compiles() -> Turn:
    """One compilation a turn, of five kinds in turn."""
    rows = treadle.tensor(np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6))
    labels = treadle.tensor(np.arange(4) % 3)

    def chain(number: int) -> None:
        fn = treadle.jit(lambda x: (x * 2 + number) / (treadle.exp(x) + 1))
        _often(lambda: fn(rows))

    def normalised(number: int) -> None:
        fn = treadle.jit(lambda x: treadle.softmax(x, axis=-1) @ x.T - number)
        _often(lambda: fn(rows))

    def trained(number: int) -> None:
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        optimizer = treadle.optim.Adam(model.parameters(), lr=0.01)

        @treadle.jit
        def step(x: Tensor, y: Tensor) -> Tensor:
            loss = treadle.cross_entropy(model(x), y) * (number + 1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        _often(lambda: step(rows, labels))

    def recorded(number: int) -> None:
        fn = treadle.jit(lambda x: treadle.sum(treadle.tanh(x) * number))

        def step() -> None:
            x = rows.detach().clone().requires_grad_()
            fn(x).backward()

        _often(step)

    shaped = treadle.jit(lambda x: treadle.sum(x * x) + x, max_specializations=_SHAPES)

    def reshaped(number: int) -> None:
        """The same function for ever, with another shape each time."""
        if len(shaped.specializations) == _SHAPES:
            shaped.clear()
        x = treadle.zeros(number + 1)
        _often(lambda: shaped(x))

    kinds = (chain, normalised, trained, recorded, reshaped)

    def turn(number: int) -> int:
        kinds[number % len(kinds)](number)
        return 1

    return turn


def _often(step: Callable[[], Any]) -> None:
    for _ in range(_ENOUGH):
        step()


def calls() -> Turn:
    """A thousand calls a turn."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = treadle.optim.Adam(model.parameters(), lr=1e-3)
    images = treadle.tensor(rng.standard_normal((16, 8)).astype(np.float32))
    labels = treadle.tensor(rng.integers(0, 4, 16))
    wrong = treadle.tensor(np.full(16, 7))
    wide = treadle.tensor(np.zeros((256, 256), np.float32))

    @treadle.jit
    def step(x: Tensor, y: Tensor) -> Tensor:
        loss = treadle.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    tree = treadle.jit(lambda x, scale=1.0: {"once": x * scale, "twice": [x + x, (x,)]})
    large = treadle.jit(lambda x: x + 1)
    recorded = treadle.jit(lambda x: treadle.sum(treadle.tanh(x)))

    def differentiated() -> None:
        x = images.detach().clone().requires_grad_()
        recorded(x).backward()

    def failed() -> None:
        with contextlib.suppress(IndexFault):
            step(images, wrong)

    def elsewhere() -> None:
        thread = threading.Thread(target=lambda: [large(wide) for _ in range(10)])
        thread.start()
        thread.join()

    def turn(number: int) -> int:
        for _ in range(800):
            step(images, labels)
        for _ in range(80):
            tree(images)
            tree(images, scale=0.5)  # by name: through Python
        for _ in range(15):
            large(wide)
            differentiated()
            # fresh arrays of the user's own, which are read where they are
            large(np.full((256, 256), number, np.float32))[:2].numpy().sum()
        for _ in range(3):
            elsewhere()
        for _ in range(5):
            failed()
        return 1000

    return turn
