"""The convolutional network of examples/lenet.py in PyTorch."""

from typing import Any

import torch
from torch import nn


def build(features: int) -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(features, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )


def program(weights: dict[str, Any], rate: float, steps: int, seed: int) -> tuple[Any, Any]:
    """(step, predict): a train step that gives the loss, and the logits of images in evaluation."""
    torch.manual_seed(seed)
    model = build(weights["7.weight"].shape[1])
    model.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
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
