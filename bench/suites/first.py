"""What people wait for before the first result: imports, first calls, long programs.

Each step is a process of its own, timed inside (see `treadle.bench.first`).
"""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from treadle.bench.first import in_new_process
from treadle.bench.suites.mlp import classifier
from treadle.bench.suites.training import add_training
from treadle.bench.workload import Program, Step, Work, Workload, add

_PEERS: Final = ("torch", "compile", "jax")


def _import(peer: str) -> Program:
    return lambda: lambda: in_new_process(peer)


def _cold(peer: str, workload: str) -> Program:
    return lambda: lambda: in_new_process(peer, workload)


def _cached(workload: str) -> Program:
    """Ours, after a process that has filled the cache."""

    def program() -> Step:
        folder = TemporaryDirectory(prefix="treadle-bench-")
        in_new_process("treadle", workload, folder.name)
        return lambda: in_new_process("treadle", workload, folder.name)

    return program


add(
    Workload(
        "import",
        "importing the library, NumPy being there",
        Work(),
        {peer: _import(peer) for peer in ("treadle", "torch", "jax")},
        own_clock=True,
    )
)

for _name, _workload, _title in (
    ("first", "mlp-32", "the 784-512-256-10 step of mlp-32"),
    ("first-gpt", "gpt", "the GPT step"),
):
    _theirs = {peer: _cold(peer, _workload) for peer in _PEERS}
    add(
        Workload(
            f"{_name}-cold",
            f"import and first call of {_title}, nothing kept on disk",
            Work(),
            {"treadle": _cold("treadle", _workload), **_theirs},
            own_clock=True,
        )
    )
    add(
        Workload(
            f"{_name}-cached",
            f"the same from our disk cache; peers as before ({_title})",
            Work(),
            {"treadle": _cached(_workload), **_theirs},
            own_clock=True,
        )
    )


# --- long programs: run where they are asked for by name -----------------------------------------

_WIDTH, _BATCH, _CHAIN = 64, 32, 100_000

for _layers in (4, 48):
    _model = f"mlp-of-{_layers}"
    add_training(
        _model,
        f"a train step of {_layers} equal layers of width {_WIDTH}",
        classifier((_WIDTH,) * _layers + (10,), _BATCH),
        on_request=True,
    )
    add(
        Workload(
            f"layers-{_layers}",
            f"import and first call of {_model}, nothing kept on disk",
            Work(),
            {peer: _cold(peer, _model) for peer in ("treadle", "jax")},
            own_clock=True,
            on_request=True,
        )
    )


def _chain() -> Step:
    """x/2 + 1, again and again: it stays below 2."""
    import treadle

    x = treadle.tensor(np.ones(1000, np.float32))

    @treadle.jit
    def step(x: Any) -> Any:
        for _ in range(_CHAIN // 2):
            x = x * 0.5 + 1.0
        return x

    return lambda: step(x)


add(
    Workload(
        "chain-of-100000",
        f"a chain of {_CHAIN:,} elementwise ops on 1,000 floats",
        Work(),
        {"treadle": _chain},
        on_request=True,
    )
)
add(
    Workload(
        "chain-100000",
        "import and first call of chain-of-100000, nothing kept on disk",
        Work(),
        {"treadle": _cold("treadle", "chain-of-100000")},
        own_clock=True,
        on_request=True,
    )
)
