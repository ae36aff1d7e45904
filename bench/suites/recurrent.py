"""Recurrent networks over 32 x 64 characters, embedding 64, width 256: train steps with Adam.

Treadle and JAX run the cell in their own `scan`; torch its own LSTM, GRU and RNN, the fastest that
it has. All have the same parameters in effect: torch adds a second bias to each gate.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace as Namespace
from typing import Any

import numpy as np

from treadle.bench.suites.training import RATE, Arrays, Model, jax_training, treadle_training
from treadle.bench.workload import Program, Step, Workload, add

_BATCH, _LENGTH, _VOCABULARY, _EMBEDDING, _WIDTH = 32, 64, 65, 64, 256
_TOKENS = _BATCH * _LENGTH

Cell = Callable[[Namespace, Arrays, Any, Any], Any]  # (functions, weights, state, input) -> state


def _data(rng: np.random.Generator) -> dict[str, Any]:
    shape = (_LENGTH, _BATCH)
    return {name: rng.integers(0, _VOCABULARY, shape) for name in ("x", "y")}


def _lstm(f: Namespace, w: Arrays, state: Any, x: Any) -> Any:
    h, c = state
    z = x @ w["w_in"] + h @ w["w_hidden"] + w["b"]
    i, u, g, o = (z[:, k * _WIDTH : (k + 1) * _WIDTH] for k in range(4))
    c = f.sigmoid(u) * c + f.sigmoid(i) * f.tanh(g)
    return f.sigmoid(o) * f.tanh(c), c


def _gru(f: Namespace, w: Arrays, state: Any, x: Any) -> Any:
    """As in PyTorch: the reset gate multiplies the hidden part of the new gate, bias included."""
    (h,) = state
    zx, zh = x @ w["w_in"] + w["b"], h @ w["w_hidden"] + w["b_hidden"]
    n = _WIDTH
    r = f.sigmoid(zx[:, :n] + zh[:, :n])
    u = f.sigmoid(zx[:, n : 2 * n] + zh[:, n : 2 * n])
    new = f.tanh(zx[:, 2 * n :] + r * zh[:, 2 * n :])
    return ((1 - u) * new + u * h,)


def _rnn(f: Namespace, w: Arrays, state: Any, x: Any) -> Any:
    (h,) = state
    return (f.tanh(x @ w["w_in"] + h @ w["w_hidden"] + w["b"]),)


def _loss(cell: Cell, states: int) -> Callable[[Namespace, Arrays, Arrays], Any]:
    def loss(f: Namespace, w: Arrays, batch: Arrays) -> Any:
        rows = f.take(w["embedding"], batch["x"])
        first = (f.zeros((_BATCH, _WIDTH)),) * states

        def step(state: Any, x: Any) -> Any:
            state = cell(f, w, state, x)
            return state, state[0]

        hidden = f.scan(step, first, rows)[1].reshape((_TOKENS, _WIDTH))
        logits = hidden @ w["w_out"] + w["b_out"]
        return f.cross_entropy(logits, batch["y"].reshape((_TOKENS,)))

    return loss


def _torch(kind: str) -> Program:
    def program() -> Step:
        import torch
        from torch.nn import functional

        class Network(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.embedding = torch.nn.Embedding(_VOCABULARY, _EMBEDDING)
                self.cells = getattr(torch.nn, kind)(_EMBEDDING, _WIDTH)
                self.out = torch.nn.Linear(_WIDTH, _VOCABULARY)

            def forward(self, x: Any) -> Any:
                return self.out(self.cells(self.embedding(x))[0])

        network = Network()
        optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
        batch = {k: torch.tensor(v) for k, v in _data(np.random.default_rng(1)).items()}

        def step() -> Any:
            logits = network(batch["x"]).reshape(_TOKENS, _VOCABULARY)
            loss = functional.cross_entropy(logits, batch["y"].reshape(-1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return step

    return program


def _add(name: str, kind: str, gates: int, states: int, cell: Cell) -> None:
    shapes = {
        "embedding": (_VOCABULARY, _EMBEDDING),
        "w_in": (_EMBEDDING, gates * _WIDTH),
        "w_hidden": (_WIDTH, gates * _WIDTH),
        "b": (gates * _WIDTH,),
        "w_out": (_WIDTH, _VOCABULARY),
        "b_out": (_VOCABULARY,),
    }
    if kind == "GRU":
        shapes["b_hidden"] = (gates * _WIDTH,)
    # The input's product is one of the table's rows: 65 of them, in place of 2048.
    products = 2.0 * _TOKENS * _WIDTH * (gates * _WIDTH + _VOCABULARY)
    products += 2.0 * _VOCABULARY * _EMBEDDING * gates * _WIDTH
    model = Model(shapes, _data, _loss(cell, states), 3 * products)
    programs = {
        "treadle": treadle_training(model),
        "torch": _torch(kind),
        "jax": jax_training(model),
    }
    title = f"{kind} {_WIDTH}, embedding {_EMBEDDING}, {_BATCH} x {_LENGTH} characters: step"
    add(Workload(name, title, model.work, programs))


_add("lstm", "LSTM", 4, 2, _lstm)
_add("gru", "GRU", 3, 1, _gru)
_add("rnn", "RNN", 1, 1, _rnn)
