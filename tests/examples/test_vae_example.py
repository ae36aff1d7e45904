"""The variational autoencoder: its bound rises, holds what it promises, and both pictures exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle.data import read_image
from treadle.examples.vae import VAE, load, main


def test_it_trains_two_models_and_writes_two_pictures(tmp_path: Path, capsys: Any) -> None:
    assert main(["--epochs", "2", "--latent", "3", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    losses = [float(line.split()[-1]) for line in out.splitlines() if "mean loss" in line]
    assert len(losses) == 4 and losses[1] < losses[0] and losses[3] < losses[2]
    assert "3 latent: held-out bound, nats" in out and "2 latent: held-out bound, nats" in out
    assert read_image(tmp_path / "vae_samples.png").shape == (3, 249, 249)
    assert read_image(tmp_path / "vae_map.png").shape == (3, 384, 768)


def test_the_bound_is_what_integrals_over_one_latent_number_give() -> None:
    """Its mean over draws is E_q[log p(x, z) - log q(z | x)], which is below log p(x)."""
    treadle.manual_seed(0)
    model = VAE(pixels=6, width=5, latent=1)
    model.load_state_dict({**model.state_dict(), "mean.bias": np.ones(1, np.float32)})
    x = (np.random.default_rng(0).random((4, 6)) < 0.5).astype(np.float32)
    h = model.encoder(treadle.tensor(x))
    mean, deviation = (part.numpy().astype(np.float64) for part in
                       (model.mean(h), treadle.exp(0.5 * model.log_var(h))))  # fmt: skip
    z = np.linspace(-10, 10, 4001)
    p = model.decode(treadle.tensor(z[:, None].astype(np.float32))).numpy().astype(np.float64)
    log_x = (x[:, None] * np.log(p) + (1 - x[:, None]) * np.log1p(-p)).sum(axis=2)
    log_joint = log_x - z**2 / 2 - np.log(2 * np.pi) / 2
    log_q = -(((z - mean) / deviation) ** 2) / 2 - np.log(2 * np.pi) / 2 - np.log(deviation)
    expected = np.trapezoid(np.exp(log_q) * (log_joint - log_q), z, axis=1)
    bound = treadle.jit(treadle.no_grad()(model.bound))
    draws = bound(x.repeat(4000, axis=0)).numpy().reshape(4, 4000)
    error = draws.std(axis=1) / np.sqrt(4000)
    assert (np.abs(draws.mean(axis=1) - expected) < 5 * error).all() and error.max() < 0.02
    assert (draws.mean(axis=1) < np.log(np.trapezoid(np.exp(log_joint), z, axis=1)) - 0.1).all()


def test_the_held_out_images_are_of_0_and_1_and_the_same_each_time() -> None:
    train, held_out, labels, size = load(None)
    assert size == (8, 8) and train.shape[1] == 64 and len(labels) == len(held_out) == 360
    assert set(np.unique(held_out)) == {0.0, 1.0}
    np.testing.assert_array_equal(held_out, load(None)[1])


def test_a_missing_file_is_told(tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--data", str(tmp_path)])
    assert ended.value.code == 2 and "t10k-images" in capsys.readouterr().err
