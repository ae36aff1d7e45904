"""LeNet on handwritten digits: two convolutions, a pool, two linear layers.

python -m treadle.examples.lenet --data DIR      MNIST's IDX files (the test images and labels do)
python -m treadle.examples.lenet                 the digits that ship with the package

`--peer torch` trains the same in PyTorch beside it. With MNIST's 10,000 test images it trains on
the first 9,000 and tests on the last 1,000. `lenet.png` shows the held-out images that the network
is least sure of; those that it takes for another digit come first, in a red frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import treadle
from treadle import Tensor, nn
from treadle.data import DataLoader, TensorDataset, mnist
from treadle.examples import pictures, running
from treadle.examples.digits import load_digits

Array = npt.NDArray[Any]
HELD_OUT = 1000
RATE = 2e-3


@dataclass(frozen=True, slots=True)
class Images:
    """float32 [N, 1, H, W] in [0, 1] with int64 labels, for training and for test."""

    train_x: Array
    train_y: Array
    test_x: Array
    test_y: Array

    def loader(self, seed: int) -> DataLoader:
        """Batches of 64, shuffled; the next is fetched while a step runs."""
        data = TensorDataset(self.train_x, self.train_y)
        return DataLoader(data, 64, shuffle=True, seed=seed, drop_last=True, prefetch_factor=2)


def load(folder: Path | None) -> Images:
    """MNIST's images from `folder`, or the digits that ship with the package, 8 x 8 pixels.

    Raises FileNotFoundError naming the files that were looked for, DataError for damaged ones and
    for too few images.
    """
    if folder is None:
        digits = load_digits()
        train, test = (x.reshape(-1, 1, 8, 8) for x in (digits.train_x, digits.test_x))
        return Images(train, digits.train_y, test, digits.test_y)
    x, y = mnist(folder, "test").arrays
    if len(x) <= HELD_OUT:
        raise treadle.data.DataError(f"{folder} has {len(x)} images, {HELD_OUT} are held out")
    return Images(x[:-HELD_OUT], y[:-HELD_OUT], x[-HELD_OUT:], y[-HELD_OUT:])


def build_model() -> nn.Module:
    """Two convolutions of 32 and 64 channels, a pool, dropout, two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(None, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )


def train(model: nn.Module, loader: DataLoader, epochs: int, show: bool = True) -> running.Run:
    """Train with Adam and a one-cycle schedule, all of it in one jitted step."""
    optimizer = treadle.optim.Adam(model.parameters(), lr=RATE)
    steps = epochs * len(loader)
    schedule = treadle.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps + 1)

    @treadle.jit
    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss

    return running.train("Treadle", step, loader, epochs, show)


def main(argv: list[str] | None = None) -> int:
    """Train, print a table, write a picture."""
    parser = running.arguments("lenet", "A convolutional network on handwritten digits.", epochs=6)
    args = parser.parse_args(argv)
    with running.complaints(parser):
        images = load(args.data)
    treadle.manual_seed(args.seed)
    model = build_model()
    print(nn.summary(model, (64, *images.train_x.shape[1:])))
    start = running.weights(model)
    run = train(model, images.loader(args.seed), args.epochs)
    logits = nn.predict(model, np.array_split(images.test_x, 4))
    columns = {"Treadle": {**run.costs(), "held-out accuracy": accuracy(logits, images.test_y)}}
    if args.peer:
        program = running.torch_program("lenet")
        batches = running.AsArrays(images.loader(args.seed))
        step, predict = program.program(start, RATE, args.epochs * len(batches), args.seed)
        other = running.train("PyTorch", step, batches, args.epochs)
        reached = accuracy(predict(images.test_x), images.test_y)
        columns["PyTorch"] = {**other.costs(), "held-out accuracy": reached}
    print(f"\n{len(images.train_y)} images for training, {len(images.test_y)} held out")
    print(running.side_by_side(columns))
    print(f"\n{hardest(args.out / 'lenet.png', images, logits)}")
    return 0


def accuracy(logits: Array, labels: Array) -> str:
    return f"{np.mean(logits.argmax(axis=1) == labels):.2%}"


def hardest(path: Path, images: Images, logits: Array, count: int = 48) -> Path:
    """A picture of the held-out images that the network is least sure of."""
    rows = np.arange(len(logits))
    others = logits.copy()
    others[rows, images.test_y] = -np.inf
    lead = logits[rows, images.test_y] - others.max(axis=1)  # below 0: taken for another digit
    chosen = np.argsort(lead)[:count]
    colours = np.where(lead[chosen, None] < 0, pictures.RED, pictures.GREEN)
    framed = pictures.framed(images.test_x[chosen], colours, width=1)
    return pictures.save_grid(path, framed, columns=12, zoom=max(1, 32 // framed.shape[2]))


if __name__ == "__main__":
    raise SystemExit(main())
