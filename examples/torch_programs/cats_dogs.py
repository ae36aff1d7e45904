"""The convolutional network of examples/cats_dogs.py in PyTorch."""

from typing import Any

import torch
from torch import nn


def build(classes: int, size: int) -> Any:
    """Two convolutions of 32 channels, a pool, two of 64, a pool; two linear layers."""
    layers: list[Any] = []
    for inputs, outputs in ((3, 32), (32, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        if inputs == outputs:
            layers += [nn.MaxPool2d(2), nn.Dropout(0.1)]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(64 * (size // 4) ** 2, 128), nn.ReLU(),
        nn.Dropout(0.3), nn.Linear(128, classes),
    )  # fmt: skip


def program(
    weights: dict[str, Any],
    classes: int,
    size: int,
    rate: float,
    decay: float,
    steps: int,
    seed: int,
) -> tuple[Any, Any]:
    """(step, predict): a train step that gives the loss, and the logits of images in evaluation."""
    torch.manual_seed(seed)
    model = build(classes, size)
    model.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1)

    def step(x: Any, y: Any) -> float:
        model.train()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(torch.tensor(x)), torch.tensor(y))
        loss.backward()
        optimizer.step()
        schedule.step()
        return float(loss.item())

    def predict(x: Any) -> Any:
        model.eval()
        with torch.no_grad():
            return model(torch.tensor(x)).numpy()

    return step, predict
