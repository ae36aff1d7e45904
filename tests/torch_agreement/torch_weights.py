"""A file of weights as PyTorch's users write it, and what the network made of an input there.

`records/weights.safetensors` and `records/weights.npz` are checked without PyTorch; write them
anew, with PyTorch installed, after changing `network`:

    python tests/torch_agreement/torch_weights.py
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from agreement import RECORDS, Array, torch_or_reason

WEIGHTS, VALUES = RECORDS / "weights.safetensors", RECORDS / "weights.npz"


def network(nn: Any) -> Any:
    """Of a package's nn: each kind of layer with names, buffers or packed weights of its own."""
    layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.1, batch_first=True)
    parts = {
        "body": nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(2)),
        "up": nn.ConvTranspose1d(4, 6, 2, groups=2),
        "norm": nn.GroupNorm(2, 6),
        "encoder": nn.TransformerEncoder(layer, 2, nn.LayerNorm(6)),
        "memory": nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True),
        "slope": nn.PReLU(),
        "words": nn.Embedding(7, 10, padding_idx=1),
        "head": nn.Linear(10, 3),
    }

    class Network(nn.Module):  # type: ignore[misc]  # nn is a package of either library
        def __init__(self) -> None:
            super().__init__()
            for name, part in parts.items():
                setattr(self, name, part)

        def forward(self, images: Any, tokens: Any) -> Any:
            x = self.norm(self.up(self.body(images)))
            x = self.encoder(x.mT)
            x = self.slope(self.memory(x)[0][:, :3])
            return self.head(x + self.words(tokens))

    return Network()


def inputs() -> tuple[Array, Array]:
    rng = np.random.default_rng(3)
    return rng.normal(size=(2, 2, 5, 4)).astype(np.float32), rng.integers(0, 7, (2, 3))


def written(torch: Any, path: Path) -> Array:
    """Write the weights of a new network to `path`; its result in evaluation mode."""
    torch.manual_seed(0)
    model = network(torch.nn)
    images, tokens = map(torch.tensor, inputs())
    with torch.no_grad():
        model(images, tokens)  # running statistics move
        model.eval()
        importlib.import_module("safetensors.torch").save_file(model.state_dict(), path)
        found: Array = model(images, tokens).numpy()
    return found


if __name__ == "__main__":
    live, reason = torch_or_reason()
    if live is None:
        raise SystemExit(reason)
    np.savez_compressed(VALUES, allow_pickle=False, result=written(live, WEIGHTS))
    print(f"{WEIGHTS.name}: {WEIGHTS.stat().st_size} bytes")
