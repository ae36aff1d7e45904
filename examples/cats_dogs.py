"""Cats and dogs: a convolutional network with batch norm and dropout, on a folder of images.

    python -m treadle.examples.cats_dogs --data DIR               and --peer torch beside it
    python -m treadle.examples.cats_dogs                          on images that it generates

DIR has the folders `train` and `test`, each with a folder of images for every class; or it has the
classes, or files named `cat.0.jpg`, and a tenth of them, drawn at random, is held out. Images of
any size are made 32 x 32. At the end `cats_dogs.png` shows held-out images, each in a frame: green
where the network is right, red where it is not. Reading images needs Pillow.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

import treadle
from treadle import Tensor, nn
from treadle.data import DataLoader, Dataset, ImageFolder, random_split, transforms
from treadle.examples import pictures, running

Array = npt.NDArray[Any]
SIZE = 32
RATE, DECAY = 3e-3, 1e-2


@dataclass(frozen=True, slots=True)
class Images:
    """uint8 [N, 3, 32, 32] with int64 labels, places in `classes`, for training and for test."""

    train_x: Array
    train_y: Array
    test_x: Array
    test_y: Array
    classes: list[str]


class Augmented(Dataset):
    """Images in memory; each is transformed anew whenever it is asked for."""

    def __init__(self, images: Array, labels: Array, transform: Any) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Array, int]:
        return self.transform(self.images[index]), int(self.labels[index])


# --- data ------------------------------------------------------------------------------------


def load(folder: Path | None) -> Images:
    """The images below `folder`, decoded; without one, generated images.

    Raises FileNotFoundError where there is no such folder, DataError for images that cannot be
    read or classes of the test images that no training image has.
    """
    if folder is None:
        with TemporaryDirectory() as made:
            write_images(Path(made))
            return load(Path(made))
    shrink = transforms.Compose([transforms.Resize(SIZE), transforms.CenterCrop(SIZE)])
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        learned, held_out = (ImageFolder(folder / part, shrink) for part in ("train", "test"))
        if learned.classes != held_out.classes:
            raise treadle.data.DataError(
                f"{folder} has the classes {learned.classes} in train, {held_out.classes} in test"
            )
        return Images(*_decoded(learned), *_decoded(held_out), learned.classes)
    every = ImageFolder(folder, shrink)
    if len(every) < 2:
        raise treadle.data.DataError(f"{folder} has one image, which cannot be held out too")
    test = max(1, len(every) // 10)
    parts = random_split(every, [len(every) - test, test], seed=0)
    return Images(*_decoded(parts[0]), *_decoded(parts[1]), every.classes)


def _decoded(samples: Any) -> tuple[Array, Array]:
    found = [samples[n] for n in running.progress(range(len(samples)), "reading images")]
    return np.stack([image for image, _ in found]), np.array([label for _, label in found])


def write_images(folder: Path, each: int = 48, seed: int = 0) -> None:
    """A folder like the real one, of two classes that a network can tell: rings and stripes, of
    drawn colours, places and sizes, 40 x 36 pixels, with noise. Half as many for test."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[0:40, 0:36].astype(np.float32)
    for part, count in (("train", each), ("test", each // 2)):
        for name in ("rings", "stripes"):
            for n in range(count):
                y, x, period = rng.uniform(10, 26), rng.uniform(10, 26), rng.uniform(6, 9)
                angle = rng.uniform(0, np.pi)
                away = np.hypot(down - y, across - x)
                along = down * np.cos(angle) + across * np.sin(angle)
                wave = np.sin(2 * np.pi * (away if name == "rings" else along) / period)
                colour = rng.uniform(0.3, 1.0, 3)
                image = (0.5 + 0.4 * wave)[:, :, None] * colour + rng.normal(0, 0.05, (40, 36, 3))
                pictures.save_picture(folder / part / name / f"{n}.png", pictures.as_bytes(image))


def prepared(images: Images) -> tuple[Any, Any]:
    """(what a training image goes through, what a test image does): both end with mean 0 and
    deviation 1 by the training images' channels; for training it is flipped and shifted at random.
    """
    share = images.train_x / np.float32(255)
    middle, spread = share.mean(axis=(0, 2, 3)), share.std(axis=(0, 2, 3)) + 1e-3
    last: list[Any] = [transforms.ToFloat(), transforms.Normalize(middle.tolist(), spread.tolist())]
    drawn: list[Any] = [transforms.RandomCrop(SIZE, padding=4), transforms.RandomHorizontalFlip()]
    return transforms.Compose([*drawn, *last]), transforms.Compose(last)


# --- the network -----------------------------------------------------------------------------


def build_model(classes: int) -> nn.Module:
    """Two convolutions 3 x 3 of 32 channels, a pool, two of 64, a pool; two linear layers."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        if inputs == outputs:
            layers += [nn.MaxPool2d(2), nn.Dropout(0.1)]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(64 * (SIZE // 4) ** 2, 128), nn.ReLU(),
        nn.Dropout(0.3), nn.Linear(128, classes),
    )  # fmt: skip


def train(model: nn.Module, loader: DataLoader, epochs: int, show: bool = True) -> running.Run:
    """AdamW and a one-cycle schedule; all of a step is one native call."""
    steps = epochs * len(loader)
    optimizer = treadle.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
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


# --- the program -----------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """Train, print a table, write a picture."""
    parser = running.arguments("cats_dogs", "A convolutional network on a folder of images.", 12)
    parser.add_argument("--batch", type=running.count, default=64, help="default 64")
    args = parser.parse_args(argv)
    with running.complaints(parser):
        images = load(args.data)
    learned, judged = prepared(images)
    test = np.stack([judged(image) for image in images.test_x])

    def loader() -> DataLoader:
        data = Augmented(images.train_x, images.train_y, learned)
        size = min(args.batch, len(data))
        return DataLoader(data, size, shuffle=True, seed=args.seed, drop_last=True,
                          prefetch_factor=2)  # fmt: skip

    treadle.manual_seed(args.seed)
    model = build_model(len(images.classes))
    print(nn.summary(model, (args.batch, 3, SIZE, SIZE)))
    start = running.weights(model)
    run = train(model, loader(), args.epochs)
    logits = nn.predict(model, np.array_split(test, -(-len(test) // 250)))
    columns = {"Treadle": _row(run, logits, images.test_y)}
    if args.peer:
        program = running.torch_program("cats_dogs")
        steps = args.epochs * len(loader())
        step, predict = program.program(
            start, len(images.classes), SIZE, RATE, DECAY, steps, args.seed
        )
        other = running.train("PyTorch", step, running.AsArrays(loader()), args.epochs)
        columns["PyTorch"] = _row(other, predict(test), images.test_y)
    print(f"\n{len(images.train_x)} images for training, {len(test)} held out")
    print(running.side_by_side(columns))
    print(f"\n{_picture(args.out, images, logits.argmax(axis=1))}")
    return 0


def _row(run: running.Run, logits: Array, labels: Array) -> dict[str, str]:
    return {
        **run.costs(),
        "loss of the last epoch": f"{run.losses[-1]:.4f}",
        "held-out accuracy": f"{np.mean(logits.argmax(axis=1) == labels):.2%}",
    }


def _picture(folder: Path, images: Images, found: Array, count: int = 60) -> Path:
    """Held-out images, drawn at random, in frames that say whether they were told right."""
    chosen = np.random.default_rng(0).permutation(len(found))[:count]
    right = (found == images.test_y)[chosen]
    colours = np.where(right[:, None], pictures.GREEN, pictures.RED)
    shown = pictures.framed(images.test_x[chosen] / np.float32(255), colours, width=2)
    return pictures.save_grid(folder / "cats_dogs.png", shown, columns=12)


if __name__ == "__main__":
    raise SystemExit(main())
