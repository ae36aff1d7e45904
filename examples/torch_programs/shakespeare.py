"""The character models of examples/shakespeare.py in PyTorch."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class LSTM(nn.Module):  # type: ignore[misc]
    """An embedding, one LSTM layer, one linear layer."""

    def __init__(self, characters: int, embedding: int = 64, width: int = 256) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, embedding)
        self.lstm = nn.LSTM(embedding, width, batch_first=True)
        self.head = nn.Linear(width, characters)

    def forward(self, tokens: Any) -> Any:
        hidden, _ = self.lstm(self.embedding(tokens))
        return self.head(hidden)


class Attention(nn.Module):  # type: ignore[misc]
    """Causal self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Any) -> Any:
        n, t, width = x.shape
        split = self.qkv(x).view(n, t, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(n, t, width))


class Block(nn.Module):  # type: ignore[misc]
    """Attention, then two linear layers, each added to what came in and behind a layer norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Any) -> Any:
        x = x + self.attention(self.norm1(x))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):  # type: ignore[misc]
    """A decoder over learned embeddings of characters and places."""

    def __init__(
        self, characters: int, context: int = 64, layers: int = 4, heads: int = 4, width: int = 128
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(characters, width)
        self.places = nn.Embedding(context, width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, characters, bias=False)

    def forward(self, tokens: Any) -> Any:
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def program(
    kind: str,
    weights: dict[str, Any],
    characters: int,
    rate: float,
    decay: float,
    steps: int,
    warmup: int,
) -> tuple[Any, Any]:
    """(step, scores): a train step that gives the loss, and the scores of tokens."""
    model = {"lstm": LSTM, "gpt": GPT}[kind](characters)
    model.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=decay
    )
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, 1.0, warmup),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warmup, rate / 10),
        ],
        [warmup],
    )

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = functional.cross_entropy(
            model(torch.tensor(x)).flatten(0, 1), torch.tensor(y).flatten()
        )
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        return loss.item()

    def scores(x: Any) -> Any:
        with torch.no_grad():
            return model(torch.tensor(x)).numpy()

    return step, scores
