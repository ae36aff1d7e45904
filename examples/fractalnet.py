"""A FractalNet: one set of parameters, several architectures, each a plain function.

python -m treadle.examples.fractalnet --data DIR     MNIST's IDX files (the test images do)
python -m treadle.examples.fractalnet                the digits that ship with the package

A fractal block of one column is a convolution; one of C + 1 columns is two blocks of C in a row,
joined with a convolution beside them (Larsson, Maire, Shakhnarovich 2016, arXiv 1605.07648). So
column k of a block has 2^k convolutions, from the block's input to its output.

Training and test are different programs over the same parameters, and no flag tells them apart:

    drop_path(net, x)        for training: each join leaves out some of its inputs at random
    column(net, x, k)        one column through all blocks: half of the training steps, and a net of
                             its own at test
    whole(net, x)            the whole net at test: joins are means
    features(net, x)         the output of the first block, for another task

What a function does not call is not in its compiled program. At the end the net's first block is
frozen and gives its features to a second task: is the digit even? `fractalnet.png` shows the held-
out images that the whole net is least sure of. `--peer torch` trains the same in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

import treadle
from treadle import Tensor, nn
from treadle.examples import lenet, running
from treadle.nn import functional as F  # noqa: N812  as everyone calls it

Array = npt.NDArray[Any]
COLUMNS, WIDTHS = 3, (16, 32, 64)
RATE, KEPT = 2e-3, 0.85
WHOLE = -1  # in place of a column's number: a training step of the whole net

Join = Callable[[list[Tensor]], Tensor]


# --- parameters ------------------------------------------------------------------------------


class Convolution(nn.Module):
    """A convolution 3 x 3, group norm and ReLU.

    The paper has batch norm; but running statistics belong to one architecture, and a column's
    inputs are spread otherwise than the joined ones of the whole net.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(4, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.relu(self.norm(self.conv(x)))
        return y


class Block(nn.Module):
    """Column k: 2^k convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.columns: Any = nn.ModuleList([
            nn.ModuleList([Convolution(outputs if n else inputs, outputs) for n in range(2**k)])
            for k in range(COLUMNS)
        ])  # fmt: skip


class FractalNet(nn.Module):
    """All parameters. What is computed from them is said by the functions below."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        sizes = zip((1, *WIDTHS), WIDTHS, strict=False)
        self.blocks: Any = nn.ModuleList([Block(inputs, outputs) for inputs, outputs in sizes])
        self.head: Any = nn.Linear(WIDTHS[-1], classes)


# --- architectures ---------------------------------------------------------------------------


def mean(ends: list[Tensor]) -> Tensor:
    """The join of the whole net."""
    return sum(ends[1:], ends[0]) / len(ends)


def some(ends: list[Tensor]) -> Tensor:
    """The join of local drop-path: the mean of those kept; each is with probability KEPT, and the
    one of the least draw always."""
    if len(ends) == 1:
        return ends[0]
    draws = treadle.rand(len(ends))
    kept = ((draws < KEPT) | (draws == draws.min())).astype(treadle.float32)
    parts = [share * end for share, end in zip(kept / kept.sum(), ends, strict=True)]
    return sum(parts[1:], parts[0])


def fractal(block: Block, x: Tensor, join: Join) -> Tensor:
    """All columns of a block, joined wherever two or more end at the same depth."""
    depth = 2 ** (COLUMNS - 1)
    at = [x] * COLUMNS
    for d in range(1, depth + 1):
        ending = [k for k in range(COLUMNS) if d % (depth >> k) == 0]
        ends = [block.columns[k][d // (depth >> k) - 1](at[k]) for k in ending]
        for k in ending:
            at[k] = join(ends)
    return at[0]


def whole(net: FractalNet, x: Tensor, join: Join = mean) -> Tensor:
    """The logits [N, 10] of images [N, 1, H, W] by all columns."""
    for block in net.blocks:
        x = F.max_pool2d(fractal(block, x, join), 2)
    found: Tensor = net.head(x.mean(axis=(2, 3)))
    return found


def column(net: FractalNet, x: Tensor, k: int) -> Tensor:
    """The logits by column k alone, of 2^k convolutions a block."""
    for block in net.blocks:
        for each in block.columns[k]:
            x = each(x)
        x = F.max_pool2d(x, 2)
    found: Tensor = net.head(x.mean(axis=(2, 3)))
    return found


def drop_path(net: FractalNet, x: Tensor) -> Tensor:
    """The logits in training, with some paths left out."""
    return whole(net, x, some)


def features(net: FractalNet, x: Tensor) -> Tensor:
    """What the first block makes of images: [N, 256], 4 x 4 means of each channel."""
    return F.adaptive_avg_pool2d(fractal(net.blocks[0], x, mean), 4).flatten(1)


def model_of_column(net: FractalNet, k: int) -> nn.Module:
    """Column k as a model of its own, whose parameters are the net's: when one learns, both do."""
    layers: list[nn.Module] = []
    for block in net.blocks:
        layers += [*block.columns[k], nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), net.head)


# --- training --------------------------------------------------------------------------------


class Choices:
    """A loader's batches with what to train on them: WHOLE or a column, half of the steps each."""

    def __init__(self, loader: Iterable[Any], seed: int) -> None:
        self.loader, self.rng = loader, np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]  # of a DataLoader

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for batch in self.loader:
            local = self.rng.random() < 0.5
            yield (*batch, WHOLE if local else int(self.rng.integers(COLUMNS)))


def train(net: FractalNet, batches: Choices, epochs: int, show: bool = True) -> running.Run:
    """Each architecture's step is compiled for itself; a column's step neither computes nor changes
    what belongs to other columns alone. So each column has an optimiser, and the head has one."""

    def adam(of: Iterable[nn.Module]) -> treadle.optim.Adam:
        return treadle.optim.Adam([p for module in of for p in module.parameters()], lr=RATE)

    of_column = [adam(block.columns[k] for block in net.blocks) for k in range(COLUMNS)]
    of_head = adam([net.head])

    def step_of(logits: Callable[[FractalNet, Tensor], Tensor], *optimizers: Any) -> Any:
        @treadle.jit
        def step(x: Tensor, y: Tensor) -> Tensor:
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss = F.cross_entropy(logits(net, x), y)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            return loss

        return step

    steps = {k: step_of(partial(column, k=k), of_head, of_column[k]) for k in range(COLUMNS)}
    steps[WHOLE] = step_of(drop_path, of_head, *of_column)
    return running.train("Treadle", lambda x, y, k: steps[int(k)](x, y), batches, epochs, show)


def train_second_task(net: FractalNet, x: Array, y: Array, epochs: int, seed: int) -> nn.Module:
    """Freeze the net's first block, and train a linear layer on its features: is a digit even?"""
    for parameter in net.blocks[0].parameters():
        parameter.requires_grad_(False)
    head = nn.Linear(16 * WIDTHS[0], 2)
    optimizer = treadle.optim.Adam(head.parameters(), lr=2e-3)

    @treadle.jit
    def step(x: Tensor, even: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(head(features(net, x)), even)
        loss.backward()
        optimizer.step()
        return loss

    data = treadle.data.TensorDataset(x, (y % 2 == 0).astype(np.int64))
    loader = treadle.data.DataLoader(data, 64, shuffle=True, seed=seed, drop_last=True)
    running.train("even or odd", step, loader, epochs)
    return head


# --- the program -----------------------------------------------------------------------------


def logits(function: Callable[..., Tensor], net: FractalNet, images: Array, **more: Any) -> Array:
    """The function's logits of all images, compiled for batches of a quarter."""

    @treadle.jit
    def read(x: Tensor) -> Tensor:
        with treadle.no_grad():
            return function(net, x, **more)

    return np.concatenate([read(part).numpy() for part in np.array_split(images, 4)])


def main(argv: list[str] | None = None) -> int:
    """Train, read the held-out images by the whole net and by each column, train a second task."""
    parser = running.arguments("fractalnet", "A FractalNet on handwritten digits.", epochs=20)
    args = parser.parse_args(argv)
    with running.complaints(parser):
        images = lenet.load(args.data)
    x, y = images.test_x, images.test_y
    treadle.manual_seed(args.seed)
    net = FractalNet()
    start = running.weights(net)
    print(nn.summary(model_of_column(net, 1), (64, *x.shape[1:])))
    run = train(net, Choices(images.loader(args.seed), args.seed), args.epochs)
    read = [logits(whole, net, x), *(logits(column, net, x, k=k) for k in range(COLUMNS))]
    columns = {"Treadle": {**run.costs(), **_accuracies(read, y)}}
    if args.peer:
        program = running.torch_program("fractalnet")
        sizes = (1, *WIDTHS)
        step, predict = program.program(start, sizes, COLUMNS, KEPT, RATE, args.seed)
        batches = Choices(running.AsArrays(images.loader(args.seed)), args.seed)
        other = running.train("PyTorch", step, batches, args.epochs)
        peers = [predict(x, k) for k in (WHOLE, *range(COLUMNS))]
        columns["PyTorch"] = {**other.costs(), **_accuracies(peers, y)}
    head = train_second_task(net, images.train_x, images.train_y, args.epochs, args.seed)
    even = logits(lambda net, x: head(features(net, x)), net, x)
    columns["Treadle"]["even or odd, by the first block"] = lenet.accuracy(even, y % 2 == 0)
    print(f"\n{len(images.train_y)} images for training, {len(y)} held out, whose accuracies are:")
    print(running.side_by_side(columns))
    print(f"\n{lenet.hardest(args.out / 'fractalnet.png', images, read[0])}")
    return 0


def _accuracies(read: list[Array], labels: Array) -> dict[str, str]:
    """Rows of the table: of the whole net's logits, then of each column's."""
    names = [f"column {k}, {len(WIDTHS) * 2**k} convolutions" for k in range(COLUMNS)]
    reached = (lenet.accuracy(each, labels) for each in read)
    return dict(zip(["the whole net", *names], reached, strict=True))


if __name__ == "__main__":
    raise SystemExit(main())
