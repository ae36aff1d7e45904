"""The functions of NumPy, torch and JAX, as functions of NumPy arrays of one format, for `ulp`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Maths = dict[str, Callable[..., Array]]

PEERS: Final = ("numpy", "torch", "jax")


def installed() -> tuple[str, ...]:
    """The peers that can be imported here."""
    return tuple(p for p in PEERS if importlib.util.find_spec(p) is not None)


def maths_of(peer: str) -> Maths:
    """What `peer` has of the functions of `sweep.FUNCTIONS`, and pow, by that name."""
    return {"numpy": _numpy, "torch": _torch, "jax": _jax}[peer]()


def version_of(peer: str) -> str:
    return str(importlib.import_module(peer).__version__)


def _numpy() -> Maths:
    names = ("exp", "expm1", "exp2", "log", "log1p", "log2", "sin", "cos", "tanh", "sqrt", "pow")

    def quiet(fn: Callable[..., Array]) -> Callable[..., Array]:
        def run(*xs: Array) -> Array:
            with np.errstate(all="ignore"):
                return fn(*xs)

        return run

    return {name: quiet(np.power if name == "pow" else getattr(np, name)) for name in names}


def _torch() -> Maths:
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)  # the sweep has its own threads
    names = (
        "exp", "expm1", "exp2", "log", "log1p", "log2", "sin", "cos", "tanh", "sigmoid", "erf",
        "erfc", "erfinv", "sqrt", "rsqrt", "pow",
    )  # fmt: skip
    found: dict[str, Callable[..., Any]] = {name: getattr(torch, name) for name in names}
    found |= {
        "softplus": functional.softplus,
        "silu": functional.silu,
        "gelu": functional.gelu,
        "gelu-tanh": lambda x: functional.gelu(x, approximate="tanh"),
    }

    def through(fn: Callable[..., Any]) -> Callable[..., Array]:
        return lambda *xs: np.asarray(fn(*map(torch.from_numpy, xs)).numpy())

    return {name: through(fn) for name, fn in found.items()}


def _jax() -> Maths:
    import jax
    import jax.numpy as jnp
    from jax.scipy import special

    jax.config.update("jax_enable_x64", True)  # else float64 becomes float32
    names = ("exp", "expm1", "exp2", "log", "log1p", "log2", "sin", "cos", "tanh", "sqrt")
    found: dict[str, Callable[..., Any]] = {name: getattr(jnp, name) for name in names}
    found |= {
        "sigmoid": jax.nn.sigmoid,
        "erf": special.erf,
        "erfc": special.erfc,
        "erfinv": special.erfinv,
        "softplus": jax.nn.softplus,
        "rsqrt": jax.lax.rsqrt,
        "pow": jnp.power,
        "silu": jax.nn.silu,
        "gelu": lambda x: jax.nn.gelu(x, approximate=False),
        "gelu-tanh": lambda x: jax.nn.gelu(x, approximate=True),
    }

    def through(fn: Callable[..., Any]) -> Callable[..., Array]:
        compiled = jax.jit(fn)
        return lambda *xs: np.asarray(compiled(*xs))

    return {name: through(fn) for name, fn in found.items()}
