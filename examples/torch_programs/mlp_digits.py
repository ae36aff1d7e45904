"""The multilayer perceptron of examples/mlp_digits.py in PyTorch."""

from typing import Any

import torch
from torch import nn


def build() -> Any:
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def program(weights: dict[str, Any], rate: float) -> tuple[Any, Any]:
    """(step, predict): a train step that gives the loss, and the logits of images."""
    model = build()
    model.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)

    def step(x: Any, y: Any) -> float:
        loss = nn.functional.cross_entropy(model(torch.tensor(x)), torch.tensor(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.item())

    def predict(x: Any) -> Any:
        with torch.no_grad():
            return model(torch.tensor(x)).numpy()

    return step, predict
