"""ResNet-18 of examples/resnet.py in PyTorch; the names are torchvision's."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class BasicBlock(nn.Module):  # type: ignore[misc]
    """Two convolutions, added to what came in, which is projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Any) -> Any:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + self.downsample(x))


class ResNet18(nn.Module):  # type: ignore[misc]
    """A convolution of 7x7, four stages of two blocks, the mean over places, one linear layer."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for n, (outputs, stride) in enumerate(((64, 1), (128, 2), (256, 2), (512, 2))):
            blocks = BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1)
            setattr(self, f"layer{n + 1}", nn.Sequential(*blocks))
            inputs = outputs
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, classes)

    def forward(self, x: Any) -> Any:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def program(weights: dict[str, Any], rate: float, momentum: float, decay: float) -> tuple[Any, Any]:
    """(step, scores): a train step that gives the loss, and the scores of images in evaluation."""
    model = ResNet18(len(weights["fc.bias"]))
    model.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum, weight_decay=decay)

    def step(x: Any, y: Any) -> Any:
        model.train()
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(torch.tensor(x)), torch.tensor(y))
        loss.backward()
        optimizer.step()
        return loss.item()

    def scores(x: Any) -> Any:
        model.eval()
        with torch.no_grad():
            return model(torch.tensor(x)).numpy()

    return step, scores
