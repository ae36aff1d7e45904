"""ResNet-18 (He et al., 2016): weights in PyTorch's layout, inference, train steps.

python -m treadle.examples.resnet --data DIR --weights resnet18.safetensors
python -m treadle.examples.resnet --peer torch          random weights, generated images

The names and shapes of all parameters and buffers are those of torchvision's `resnet18`, so that a
file of its weights (safetensors) loads. DIR is a folder of images, a folder for each class; they
are resized to 256 pixels, cropped to 224 and normalised as ImageNet's are. Prints what the network
says of each image, then trains on the batch for some steps; `resnet.png` shows the first layer's 64
filters.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

import treadle
from treadle import Tensor, nn
from treadle.data import DataError, ImageFolder, transforms
from treadle.examples import pictures, running

Array = npt.NDArray[Any]
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels, by channel
_RATE, _MOMENTUM, _DECAY = 0.01, 0.9, 1e-4
_REPEATS = 20


class BasicBlock(nn.Module):
    """Two convolutions, added to what came in, which is projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        found: Tensor = self.relu(y + self.downsample(x))
        return found


class ResNet18(nn.Module):
    """A convolution of 7x7, four stages of two blocks, the mean over places, one linear layer."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(64, 64, 1)
        self.layer2 = _stage(64, 128, 2)
        self.layer3 = _stage(128, 256, 2)
        self.layer4 = _stage(256, 512, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, 3, H, W], normalised, to scores [N, classes]."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        scores: Tensor = self.fc(self.avgpool(x).reshape((len(x), 512)))
        return scores


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1))


def read_images(folder: Path, count: int, size: int) -> tuple[Array, Array, list[str]]:
    """`count` images spread over a folder: float32 [count, 3, size, size], their labels, and the
    classes' names. Raises DataError for what is no image."""
    prepared = transforms.Compose(
        [
            transforms.Resize(size * 8 // 7),
            transforms.CenterCrop(size),
            transforms.ToFloat(),
            transforms.Normalize(_MEAN, _STD),
        ]
    )
    data = ImageFolder(folder, prepared)
    chosen = [data[n * len(data) // count] for n in range(min(count, len(data)))]
    if not chosen:
        raise DataError(f"{folder} has no images")
    return np.stack([x for x, _ in chosen]), np.array([y for _, y in chosen]), list(data.classes)


def generated(count: int, size: int, seed: int) -> tuple[Array, Array, list[str]]:
    """Images of soft stripes, upright or level, of random colours, with labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    places = np.linspace(0, 12, size, dtype=np.float32)
    images = np.empty((count, 3, size, size), np.float32)
    for image, label in zip(images, labels, strict=True):
        wave = np.sin(places * rng.uniform(1, 3) + rng.uniform(0, 6))
        stripes = wave[None, :] if label else wave[:, None]
        image[:] = rng.uniform(0.5, 1.5, (3, 1, 1)) * stripes
    return images, labels, ["level", "upright"]


def compiled_scores(model: nn.Module) -> Callable[[Array], Array]:
    """The scores of images in evaluation, compiled, without gradients."""

    @treadle.jit
    def scores(x: Tensor) -> Any:
        with treadle.no_grad():
            return model(x)

    def found(x: Array) -> Array:
        model.eval()
        return np.array(scores(x).numpy())

    return found


def make_step(model: nn.Module) -> Callable[[Array, Array], Tensor]:
    """A jitted train step: images and labels to the loss before the update."""
    optimizer = treadle.optim.SGD(
        model.parameters(), lr=_RATE, momentum=_MOMENTUM, weight_decay=_DECAY
    )

    @treadle.jit
    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    def trained(x: Array, y: Array) -> Tensor:
        model.train()
        loss: Tensor = step(x, y)
        return loss

    return trained


def seconds_of(scores: Callable[[Array], Array], x: Array) -> float:
    """The shortest of some calls, after the first."""
    scores(x)
    times = []
    for _ in range(_REPEATS):
        began = perf_counter()
        scores(x)
        times.append(perf_counter() - began)
    return min(times)


def column(title: str, scores: Any, step: Any, batch: tuple[Array, Array], steps: int) -> Any:
    """(rows of the table, scores of the batch before training)."""
    before = scores(batch[0])
    forward = seconds_of(scores, batch[0])
    run = running.train(title, step, [batch] * steps, 1)
    rows = {
        "forward, ms (best)": f"{forward * 1e3:.1f}",
        **run.costs(),
        "loss after training": f"{float(step(*batch)):.4f}",
    }
    return rows, before


def spoken(scores: Array, labels: Array, classes: list[str]) -> str:
    """A line an image: its class and the three likeliest outputs."""
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    lines = []
    for row, label in zip(odds, labels, strict=True):
        best = ", ".join(f"{n} ({row[n]:.1%})" for n in np.argsort(-row)[:3])
        lines.append(f"{classes[label]:<12} likeliest of {len(row)} outputs: {best}")
    return "\n".join(lines)


def save_filters(path: Path, model: ResNet18) -> Path:
    """The first layer's filters, each stretched to the range [0, 1]."""
    filters = np.array(model.conv1.weight.numpy())
    low = filters.min(axis=(1, 2, 3), keepdims=True)
    high = filters.max(axis=(1, 2, 3), keepdims=True)
    return pictures.save_grid(path, (filters - low) / (high - low), zoom=6)


def main(argv: list[str] | None = None) -> int:
    """Look at images, train on them, print a table, save the filters."""
    parser = running.arguments("resnet", "ResNet-18, inference and train steps", epochs=1)
    parser.add_argument("--weights", type=Path, help="a safetensors file; random without it")
    parser.add_argument("--images", type=running.count, default=8, help="default 8")
    parser.add_argument("--size", type=running.count, default=224, help="pixels, default 224")
    parser.add_argument("--steps", type=running.count, default=10, help="default 10")
    args = parser.parse_args(argv)
    treadle.manual_seed(args.seed)
    model = ResNet18()
    if args.weights:
        try:
            treadle.load_checkpoint(args.weights, model=model)
        except (OSError, KeyError, treadle.TreadleError) as error:
            parser.error(f"{args.weights}: {error.args[0]}")
    with running.complaints(parser):
        found = (
            read_images(args.data, args.images, args.size)
            if args.data
            else generated(args.images, args.size, args.seed)
        )
    x, y, classes = found
    weights = running.weights(model)
    ours, scores = column("Treadle", compiled_scores(model), make_step(model), (x, y), args.steps)
    columns = {"Treadle": ours}
    print(spoken(scores, y, classes))
    if args.peer:
        program = running.torch_program("resnet").program
        step, other = program(weights, _RATE, _MOMENTUM, _DECAY)
        theirs, expected = column("PyTorch", other, step, (x, y), args.steps)
        columns["PyTorch"] = theirs
        apart = np.abs(scores - expected).max() / np.abs(expected).max()
        print(f"\nlargest difference of the scores: {apart:.1e} of the largest score")
    print(f"\n{running.side_by_side(columns)}")
    print(f"first layer's filters: {save_filters(args.out / 'resnet.png', model)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
