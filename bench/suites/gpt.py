"""A GPT of 4 layers, 4 heads and width 128 on 12 x 64 characters."""

from __future__ import annotations

from types import SimpleNamespace as Namespace
from typing import Any

import numpy as np

from treadle.bench.suites.training import Arrays, Model, add_training

_LAYERS, _HEADS, _WIDTH, _BATCH, _LENGTH, _VOCABULARY = 4, 4, 128, 12, 64, 65
_HEAD = _WIDTH // _HEADS


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "tokens": (_VOCABULARY, _WIDTH),
        "places": (_LENGTH, _WIDTH),
    }
    for n in range(_LAYERS):
        shapes |= {
            f"{n}.norm1.w": (_WIDTH,),
            f"{n}.norm1.b": (_WIDTH,),
            f"{n}.qkv.w": (_WIDTH, 3 * _WIDTH),
            f"{n}.qkv.b": (3 * _WIDTH,),
            f"{n}.out.w": (_WIDTH, _WIDTH),
            f"{n}.out.b": (_WIDTH,),
            f"{n}.norm2.w": (_WIDTH,),
            f"{n}.norm2.b": (_WIDTH,),
            f"{n}.up.w": (_WIDTH, 4 * _WIDTH),
            f"{n}.up.b": (4 * _WIDTH,),
            f"{n}.down.w": (4 * _WIDTH, _WIDTH),
            f"{n}.down.b": (_WIDTH,),
        }
    return shapes | {"norm.w": (_WIDTH,), "norm.b": (_WIDTH,), "head": (_WIDTH, _VOCABULARY)}


def _data(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "x": rng.integers(0, _VOCABULARY, (_BATCH, _LENGTH)),
        "y": rng.integers(0, _VOCABULARY, _BATCH * _LENGTH),
        "hidden": np.triu(np.ones((_LENGTH, _LENGTH), bool), 1),
        "never": np.full((), -np.inf, np.float32),
    }


def _attention(f: Namespace, w: Arrays, n: int, x: Any, batch: Arrays) -> Any:
    qkv = (x @ w[f"{n}.qkv.w"] + w[f"{n}.qkv.b"]).reshape((_BATCH, _LENGTH, 3, _HEADS, _HEAD))
    qkv = f.permute(qkv, (2, 0, 3, 1, 4))
    q, k, v = qkv[0], qkv[1], qkv[2]
    scores = (q @ f.permute(k, (0, 1, 3, 2))) * _HEAD**-0.5
    weights = f.softmax(f.where(batch["hidden"], batch["never"], scores))
    mixed = f.permute(weights @ v, (0, 2, 1, 3)).reshape((_BATCH, _LENGTH, _WIDTH))
    return mixed @ w[f"{n}.out.w"] + w[f"{n}.out.b"]


def _loss(f: Namespace, w: Arrays, batch: Arrays) -> Any:
    x = f.take(w["tokens"], batch["x"]) + w["places"]
    for n in range(_LAYERS):
        normed = f.layer_norm(x, w[f"{n}.norm1.w"], w[f"{n}.norm1.b"])
        x = x + _attention(f, w, n, normed, batch)
        normed = f.layer_norm(x, w[f"{n}.norm2.w"], w[f"{n}.norm2.b"])
        up = f.gelu(normed @ w[f"{n}.up.w"] + w[f"{n}.up.b"])
        x = x + up @ w[f"{n}.down.w"] + w[f"{n}.down.b"]
    logits = f.layer_norm(x, w["norm.w"], w["norm.b"]) @ w["head"]
    return f.cross_entropy(logits.reshape((_BATCH * _LENGTH, _VOCABULARY)), batch["y"])


def _flops() -> float:
    """Three times the forward contractions; attention's two products count half (causal)."""
    tokens = _BATCH * _LENGTH
    dense = 2.0 * tokens * (_LAYERS * 12 * _WIDTH**2 + _WIDTH * _VOCABULARY)
    attention = _LAYERS * 2 * 2.0 * tokens * _LENGTH * _WIDTH / 2
    return 3 * (dense + attention)


add_training(
    "gpt",
    "GPT, 4 layers, 4 heads, width 128, 12 x 64 tokens: step",
    Model(_shapes(), _data, _loss, _flops()),
)
