"""A variational autoencoder on handwritten digits, after Kingma and Welling (2013).

python -m treadle.examples.vae --data DIR        MNIST's IDX files (the test images do)
python -m treadle.examples.vae                   the digits that ship with the package

The decoder gives a Bernoulli distribution for each pixel, so an image is 0 or 1 everywhere: drawn
anew at each step with the pixel's brightness as probability, once for the held-out images. The
bound is the mean evidence lower bound of the held-out images in nats: log p(x | z) less the
divergence of q(z | x) from the prior, over 20 draws of z each.

It trains two models: one with 20 latent numbers, for the bound and for `vae_samples.png`, digits
decoded from draws of the prior; and one with 2, for `vae_map.png`: on the left what each place of
the plane decodes to, the axes running over the quantiles of the prior; on the right held-out
images, each at the place that the encoder gives it, a colour for each digit. `--peer torch` trains
both in PyTorch as well.

The paper: arXiv 1312.6114.
"""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

import treadle
from treadle import Tensor, nn
from treadle.data import DataLoader, TensorDataset
from treadle.examples import lenet, pictures, running

Array = npt.NDArray[Any]
WIDTH, BATCH, RATE, DRAWS = 400, 128, 1e-3, 20
PALETTE = np.array(
    [(230, 25, 75), (60, 180, 75), (255, 225, 25), (67, 119, 230), (245, 130, 48),
     (145, 60, 200), (70, 240, 240), (240, 50, 230), (190, 240, 70), (250, 190, 212)]
) / np.float32(255)  # fmt: skip


# --- the model -------------------------------------------------------------------------------


class VAE(nn.Module):
    """An encoder to the mean and log variance of q(z | x), a decoder to the logits of pixels."""

    def __init__(self, pixels: int, width: int, latent: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(pixels, width), nn.ReLU())
        self.mean = nn.Linear(width, latent)
        self.log_var = nn.Linear(width, latent)
        self.decoder = nn.Sequential(nn.Linear(latent, width), nn.ReLU(), nn.Linear(width, pixels))

    def bound(self, x: Tensor) -> Tensor:
        """The evidence lower bound of each row of x [N, pixels], in nats, by one draw of z.

        The divergence of two normal distributions has a closed form (appendix B of the paper).
        """
        h = self.encoder(x)
        mean, log_var = self.mean(h), self.log_var(h)
        z = mean + treadle.randn_like(mean) * treadle.exp(0.5 * log_var)
        logits = self.decoder(z)
        likelihood = -nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
        divergence = -0.5 * (1 + log_var - mean**2 - treadle.exp(log_var)).sum(axis=1)
        found: Tensor = likelihood.sum(axis=1) - divergence
        return found

    def decode(self, z: Tensor) -> Tensor:
        """The probability of each pixel."""
        return treadle.sigmoid(self.decoder(z))

    def place(self, x: Tensor) -> Tensor:
        """The mean of q(z | x)."""
        found: Tensor = self.mean(self.encoder(x))
        return found


def train(model: VAE, loader: DataLoader, epochs: int, show: bool = True) -> running.Run:
    """Adam on the bound; the draws of pixels and of z, both passes and the update are one native
    call."""
    optimizer = treadle.optim.Adam(model.parameters(), lr=RATE)

    @treadle.jit
    def step(x: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = -model.bound(treadle.bernoulli(x)).mean()
        loss.backward()
        optimizer.step()
        return loss

    return running.train("Treadle", step, loader, epochs, show)


# --- the program -----------------------------------------------------------------------------


def load(folder: Path | None) -> tuple[Array, Array, Array, tuple[int, int]]:
    """(rows for training in [0, 1], rows held out, of 0 and 1, their labels, an image's size)."""
    images = lenet.load(folder)
    height, width = images.train_x.shape[2:]
    grey = images.test_x.reshape(len(images.test_x), -1)
    drawn = np.random.default_rng(0).random(grey.shape) < grey
    train = images.train_x.reshape(len(images.train_x), -1)
    return train, drawn.astype(np.float32), images.test_y, (height, width)


def main(argv: list[str] | None = None) -> int:
    """Train two models, print a table, write two pictures."""
    parser = running.arguments("vae", "A variational autoencoder on handwritten digits.", epochs=60)
    parser.add_argument("--latent", type=running.count, default=20, help="default 20")
    args = parser.parse_args(argv)
    with running.complaints(parser):
        images, held_out, labels, size = load(args.data)

    columns: dict[str, dict[str, str]] = {"Treadle": {}}
    models = {}
    for latent in dict.fromkeys((args.latent, 2)):

        def loader() -> DataLoader:
            return DataLoader(TensorDataset(images), BATCH, shuffle=True, seed=args.seed,
                              drop_last=True, prefetch_factor=2)  # fmt: skip

        treadle.manual_seed(args.seed)
        sizes = (images.shape[1], WIDTH, latent)
        models[latent] = model = VAE(*sizes)
        start = running.weights(model)
        run = train(model, loader(), args.epochs)
        bound = treadle.jit(treadle.no_grad()(model.bound))
        columns["Treadle"] |= _rows(latent, run, bound, held_out)
        if args.peer:
            program = running.torch_program("vae")
            step, peers_bound = program.program(start, sizes, RATE, args.seed)
            other = running.train("PyTorch", step, running.AsArrays(loader()), args.epochs)
            found = _rows(latent, other, peers_bound, held_out)
            columns["PyTorch"] = columns.get("PyTorch", {}) | found
    print(f"\n{len(images)} images for training, {len(held_out)} held out")
    print(running.side_by_side(columns))
    print(f"\n{samples(args.out / 'vae_samples.png', models[args.latent], size, args.seed)}")
    print(latent_map(args.out / "vae_map.png", models[2], held_out, labels, size))
    return 0


def _rows(latent: int, run: running.Run, bound: Any, held_out: Array) -> dict[str, str]:
    reached = np.mean([np.mean(np.asarray(bound(held_out))) for _ in range(DRAWS)])
    rows = {**run.costs(), "held-out bound, nats": f"{reached:.2f}"}
    return {f"{latent} latent: {name}": value for name, value in rows.items()}


# --- pictures --------------------------------------------------------------------------------


def samples(path: Path, model: VAE, size: tuple[int, int], seed: int, count: int = 100) -> Path:
    """Digits decoded from draws of the prior, in a square grid."""
    latent = model.mean.weight.shape[0]
    z = np.random.default_rng(seed).standard_normal((count, latent)).astype(np.float32)
    return pictures.save_grid(path, _decoded(model, z, size), zoom=_zoom(size))


def latent_map(
    path: Path, model: VAE, held_out: Array, labels: Array, size: tuple[int, int], across: int = 16
) -> Path:
    """The plane decoded, and beside it the held-out images at their places."""
    axis = np.array([NormalDist().inv_cdf((n + 0.5) / across) for n in range(across)], np.float32)
    z = np.stack([np.tile(axis, across), np.repeat(axis, across)], axis=1)
    plane = pictures.grid(_decoded(model, z, size), across, _zoom(size), gap=0)
    place = treadle.jit(treadle.no_grad()(model.place))(held_out).numpy()
    shares = np.vectorize(NormalDist().cdf)(place)
    marks = held_out.reshape(-1, *size)
    scattered = _scattered(marks, PALETTE[labels], shares, plane.shape[0])
    both = np.concatenate([plane[:, :, None].repeat(3, axis=2), scattered], axis=1)
    return pictures.save_picture(path, both)


def _scattered(marks: Array, colours: Array, shares: Array, side: int) -> Array:
    """Each mark, half its size, in its colour at its shares of the picture's sides; one that would
    cover another is left out."""
    small = marks[:, ::2, ::2]
    height, width = small.shape[1:]
    canvas = np.zeros((side, side, 3), np.float32)
    for mark, colour, (x, y) in zip(small, colours, shares, strict=True):
        top, left = int(y * (side - height)), int(x * (side - width))
        spot = canvas[top : top + height, left : left + width]
        if not spot[mark > 0].any():
            spot += mark[:, :, None] * colour
    return pictures.as_bytes(canvas)


def _decoded(model: VAE, z: Array, size: tuple[int, int]) -> Array:
    decoded = treadle.jit(treadle.no_grad()(model.decode))(z)
    return np.asarray(decoded).reshape(-1, *size)


def _zoom(size: tuple[int, int]) -> int:
    return max(1, 24 // size[0])


if __name__ == "__main__":
    raise SystemExit(main())
