"""Train steps: one model written for Treadle, torch and JAX, each with Adam, timed whole.

A `Model` gives the parameters' shapes and a loss as a formula over an array module's functions;
torch and Treadle call `backward()` and their own Adam, JAX differentiates the same formula.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace as Namespace
from typing import Any

import numpy as np

from treadle.bench.workload import Program, Step, Work, Workload, add

Arrays = Mapping[str, Any]
RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8


@dataclass(frozen=True, slots=True)
class Model:
    """`loss(f, weights, batch)`; `flops` of forward and backward contractions, Adam excluded."""

    shapes: Mapping[str, tuple[int, ...]]
    batch: Callable[[np.random.Generator], dict[str, Any]]
    loss: Callable[[Namespace, Arrays, Arrays], Any]
    flops: float

    def weights(self) -> dict[str, Any]:
        rng = np.random.default_rng(0)
        return {
            name: (rng.standard_normal(s) * (s[0] ** -0.5 if len(s) > 1 else 0.1)).astype("f4")
            for name, s in self.shapes.items()
        }

    @property
    def work(self) -> Work:
        """Adam reads weight, gradient and two moments and writes three of these."""
        count = sum(int(np.prod(s)) for s in self.shapes.values())
        return Work(flops=self.flops, bytes_moved=7 * 4.0 * count)


def add_training(
    name: str,
    title: str,
    model: Model,
    by_hand: Callable[[Model], Program] | None = None,
    on_request: bool = False,
) -> None:
    """Add the train step of `model`; `by_hand` is its NumPy version, where there is one."""
    programs = {
        "treadle": treadle_training(model),
        "torch": _torch(model, False),
        "compile": _torch(model, True),
        "jax": jax_training(model),
    }
    if by_hand is not None:
        programs["numpy"] = by_hand(model)
    add(Workload(name, title, model.work, programs, on_request=on_request))


def treadle_training(model: Model) -> Program:
    """The train step in Treadle, jitted whole."""

    def program() -> Step:
        import treadle as t

        f = Namespace(
            relu=t.relu,
            gelu=lambda x: t.gelu(x, approximate="tanh"),
            exp=t.exp,
            tanh=t.tanh,
            softplus=t.softplus,
            softmax=lambda x: t.softmax(x, axis=-1),
            cross_entropy=t.cross_entropy,
            layer_norm=lambda x, w, b: t.layer_norm(x, (x.shape[-1],), w, b),
            take=lambda table, index: t.take(table, index, axis=0),
            permute=t.permute_dims,
            where=t.where,
            mean=t.mean,
            sum=t.sum,
            sigmoid=t.sigmoid,
            zeros=t.zeros,
            scan=t.scan,
        )
        weights = {k: t.nn.Parameter(t.tensor(v)) for k, v in model.weights().items()}
        batch = {k: t.tensor(v) for k, v in model.batch(np.random.default_rng(1)).items()}
        optimizer = t.optim.Adam(list(weights.values()), lr=RATE)

        @t.jit
        def step(batch: Arrays) -> Any:
            loss = model.loss(f, weights, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return lambda: step(batch)

    return program


def _torch(model: Model, compiled: bool) -> Program:
    def program() -> Step:
        import torch
        from torch.nn import functional

        f = Namespace(
            relu=torch.relu,
            gelu=lambda x: functional.gelu(x, approximate="tanh"),
            exp=torch.exp,
            tanh=torch.tanh,
            softplus=functional.softplus,
            softmax=lambda x: torch.softmax(x, -1),
            cross_entropy=functional.cross_entropy,
            layer_norm=lambda x, w, b: functional.layer_norm(x, (x.shape[-1],), w, b),
            take=lambda table, index: functional.embedding(index, table),
            permute=lambda x, axes: x.permute(axes),
            where=torch.where,
            mean=torch.mean,
            sum=torch.sum,
        )
        weights = {k: torch.nn.Parameter(torch.from_numpy(v)) for k, v in model.weights().items()}
        batch = {k: torch.tensor(v) for k, v in model.batch(np.random.default_rng(1)).items()}
        optimizer = torch.optim.Adam(weights.values(), lr=RATE)

        def loss_of(batch: Any) -> Any:
            return model.loss(f, weights, batch)

        chosen = torch.compile(loss_of) if compiled else loss_of

        def step() -> Any:
            loss = chosen(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return step

    return program


def jax_training(model: Model) -> Program:
    """The train step in JAX, jitted whole, with donated buffers."""

    def program() -> Step:
        import jax
        from jax import numpy as jnp

        def layer_norm(x: Any, w: Any, b: Any) -> Any:
            centred = x - x.mean(-1, keepdims=True)
            scale = jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
            return centred * scale * w + b

        def cross_entropy(logits: Any, labels: Any) -> Any:
            logs = jax.nn.log_softmax(logits)
            return -jnp.take_along_axis(logs, labels[:, None], axis=1).mean()

        f = Namespace(
            relu=jax.nn.relu,
            gelu=jax.nn.gelu,
            exp=jnp.exp,
            tanh=jnp.tanh,
            softplus=jax.nn.softplus,
            softmax=jax.nn.softmax,
            cross_entropy=cross_entropy,
            layer_norm=layer_norm,
            take=lambda table, index: table[index],
            permute=jnp.transpose,
            where=jnp.where,
            mean=jnp.mean,
            sum=jnp.sum,
            sigmoid=jax.nn.sigmoid,
            zeros=jnp.zeros,
            scan=jax.lax.scan,
        )
        tree = jax.tree_util.tree_map
        weights = tree(jnp.asarray, model.weights())
        zeros = tree(jnp.zeros_like, weights)
        state = (weights, zeros, tree(jnp.copy, zeros), jnp.zeros(()))
        batch = tree(jnp.asarray, model.batch(np.random.default_rng(1)))

        def step(state: Any, batch: Any) -> Any:
            weights, m, v, count = state
            loss, grads = jax.value_and_grad(lambda w: model.loss(f, w, batch))(weights)
            count = count + 1
            m = tree(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, grads)
            v = tree(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, grads)
            rate = RATE * jnp.sqrt(1 - BETA2**count) / (1 - BETA1**count)
            weights = tree(lambda w, m, v: w - rate * m / (jnp.sqrt(v) + EPSILON), weights, m, v)
            return (weights, m, v, count), loss

        compiled = jax.jit(step, donate_argnums=0)
        holder = [state]

        def run() -> None:
            holder[0], loss = compiled(holder[0], batch)
            loss.block_until_ready()
            jax.block_until_ready(holder[0])

        return run

    return program
