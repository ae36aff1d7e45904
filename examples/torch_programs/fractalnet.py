"""The FractalNet of examples/fractalnet.py in PyTorch."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn


class Convolution(nn.Module):  # type: ignore[misc]  # of a library without types
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(4, outputs)

    def forward(self, x: Any) -> Any:
        return torch.relu(self.norm(self.conv(x)))


class Block(nn.Module):  # type: ignore[misc]
    """Column k: 2^k convolutions; joined where two or more end at the same depth."""

    def __init__(self, inputs: int, outputs: int, columns: int) -> None:
        super().__init__()
        self.columns = nn.ModuleList(
            [
                nn.ModuleList([Convolution(outputs if n else inputs, outputs) for n in range(2**k)])
                for k in range(columns)
            ]
        )

    def forward(self, x: Any, kept: float) -> Any:
        columns = len(self.columns)
        depth = 2 ** (columns - 1)
        at = [x] * columns
        for d in range(1, depth + 1):
            ending = [k for k in range(columns) if d % (depth >> k) == 0]
            ends = [self.columns[k][d // (depth >> k) - 1](at[k]) for k in ending]
            joined = self.join(ends, kept)
            for k in ending:
                at[k] = joined
        return at[0]

    def join(self, ends: list[Any], kept: float) -> Any:
        if self.training and len(ends) > 1:
            draws = torch.rand(len(ends))
            chosen = (draws < kept) | (draws == draws.min())
            ends = [end for end, stays in zip(ends, chosen.tolist(), strict=True) if stays]
        return sum(ends[1:], ends[0]) / len(ends)


class FractalNet(nn.Module):  # type: ignore[misc]
    def __init__(self, widths: Sequence[int], columns: int, kept: float) -> None:
        super().__init__()
        self.kept = kept
        self.blocks = nn.ModuleList([Block(i, o, columns) for i, o in pairwise(widths)])
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, x: Any, column: int) -> Any:
        """The logits by one column, or by the whole net where `column` is below 0."""
        for block in self.blocks:
            if column < 0:
                x = block(x, self.kept)
            else:
                for each in block.columns[column]:
                    x = each(x)
            x = nn.functional.max_pool2d(x, 2)
        return self.head(x.mean(dim=(2, 3)))


def program(
    weights: dict[str, Any],
    widths: Sequence[int],
    columns: int,
    kept: float,
    rate: float,
    seed: int,
) -> tuple[Any, Any]:
    """(step, predict): a train step that gives the loss, and the logits of images in evaluation;
    both take the number of a column, or -1 for the whole net."""
    torch.manual_seed(seed)
    model = FractalNet(widths, columns, kept)
    model.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)

    def step(x: Any, y: Any, column: int) -> float:
        model.train()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(torch.tensor(x), int(column)), torch.tensor(y))
        loss.backward()
        optimizer.step()
        return float(loss.item())

    def predict(x: Any, column: int) -> Any:
        model.eval()
        with torch.no_grad():
            return model(torch.tensor(x), column).numpy()

    return step, predict
