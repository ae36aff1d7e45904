"""A variational autoencoder 784-400-20, batch 128; its noise is an input."""

from __future__ import annotations

from types import SimpleNamespace as Namespace
from typing import Any

import numpy as np

from treadle.bench.suites.training import Arrays, Model, add_training

_PIXELS, _WIDTH, _LATENT, _BATCH = 784, 400, 20, 128


def _data(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "x": rng.random((_BATCH, _PIXELS), dtype=np.float32),
        "noise": rng.standard_normal((_BATCH, _LATENT), dtype=np.float32),
    }


def _loss(f: Namespace, w: Arrays, batch: Arrays) -> Any:
    """The negative evidence lower bound, a batch mean (Kingma and Welling, 2013, appendix B)."""
    x = batch["x"]
    h = f.relu(x @ w["w_in"] + w["b_in"])
    mean, log_var = h @ w["w_mean"] + w["b_mean"], h @ w["w_var"] + w["b_var"]
    z = mean + batch["noise"] * f.exp(0.5 * log_var)
    h = f.relu(z @ w["w_up"] + w["b_up"])
    logits = h @ w["w_out"] + w["b_out"]
    reconstruction = f.sum(f.softplus(logits) - x * logits)
    divergence = -0.5 * f.sum(1 + log_var - mean * mean - f.exp(log_var))
    return (reconstruction + divergence) / _BATCH


_SHAPES = {
    "w_in": (_PIXELS, _WIDTH),
    "b_in": (_WIDTH,),
    "w_mean": (_WIDTH, _LATENT),
    "b_mean": (_LATENT,),
    "w_var": (_WIDTH, _LATENT),
    "b_var": (_LATENT,),
    "w_up": (_LATENT, _WIDTH),
    "b_up": (_WIDTH,),
    "w_out": (_WIDTH, _PIXELS),
    "b_out": (_PIXELS,),
}
_LAYERS = [2.0 * _BATCH * s[0] * s[1] for s in _SHAPES.values() if len(s) == 2]

add_training(
    "vae-128",
    "VAE 784-400-20, batch 128: step",
    Model(_SHAPES, _data, _loss, 3 * sum(_LAYERS) - _LAYERS[0]),
)
