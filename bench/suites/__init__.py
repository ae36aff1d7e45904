"""The workloads. Each file is a family; importing this package registers all of them."""

from treadle.bench.suites import (
    attention,
    calls,
    convolution,
    draws,
    first,
    gpt,
    loops,
    matmul,
    mlp,
    picking,
    recurrent,
    vae,
)

__all__ = [
    "attention",
    "calls",
    "convolution",
    "draws",
    "first",
    "gpt",
    "loops",
    "matmul",
    "mlp",
    "picking",
    "recurrent",
    "vae",
]
