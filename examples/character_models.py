"""Two models of text, character by character: an LSTM, and a GPT with a cache of keys and values.

Both map tokens [N, T] to scores [N, T, characters] for what comes next, and both have `next`, which
takes one token and remembers what it must of those before it: what text is sampled with.
"""

from __future__ import annotations

import treadle
from treadle import Tensor, nn


class LSTM(nn.Module):
    """An embedding, one LSTM layer, one linear layer."""

    context: int | None = None  # how many tokens `next` can look back at; None where no limit is
    h: Tensor
    c: Tensor

    def __init__(self, characters: int, embedding: int = 64, width: int = 256) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, embedding)
        self.lstm = nn.LSTM(embedding, width, batch_first=True)
        self.head = nn.Linear(width, characters)
        self.register_buffer("h", treadle.zeros((1, 1, width)), persistent=False)
        self.register_buffer("c", treadle.zeros((1, 1, width)), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores [N, T, characters] for what follows each of `tokens` [N, T]."""
        hidden, _ = self.lstm(self.embedding(tokens))
        scores: Tensor = self.head(hidden)
        return scores

    def next(self, token: Tensor, place: Tensor) -> Tensor:
        """Scores [characters] for what follows `token` (rank 0) and all before it."""
        first = place == 0
        state = tuple(treadle.where(first, 0.0, x) for x in (self.h, self.c))
        hidden, (h, c) = self.lstm(self.embedding(token.reshape((1, 1))), state)
        self.h[...] = h
        self.c[...] = c
        scores: Tensor = self.head(hidden)
        return scores[0, 0]


class Attention(nn.Module):
    """Causal self-attention that keeps the keys and values of the tokens before."""

    keys: Tensor
    values: Tensor

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        shape = (heads, context, width // heads)
        self.register_buffer("keys", treadle.zeros(shape), persistent=False)
        self.register_buffer("values", treadle.zeros(shape), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, width] to the same."""
        n, t, width = x.shape
        split = self.qkv(x).reshape((n, t, 3, self.heads, width // self.heads))
        q, k, v = treadle.permute_dims(split, (2, 0, 3, 1, 4))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        joined: Tensor = self.out(treadle.swapaxes(mixed, 1, 2).reshape((n, t, width)))
        return joined

    def next(self, x: Tensor, place: Tensor) -> Tensor:
        """[width] to the same: the token at `place` looks at the cache's first `place` + 1."""
        q, k, v = self.qkv(x).reshape((3, self.heads, len(x) // self.heads))
        self.keys[:, place] = k
        self.values[:, place] = v
        past = treadle.arange(self.keys.shape[1]) <= place
        mixed = nn.functional.scaled_dot_product_attention(
            q[:, None], self.keys, self.values, past[None]
        )
        joined: Tensor = self.out(mixed.reshape((len(x),)))
        return joined


class Block(nn.Module):
    """Attention, then two linear layers, each added to what came in and behind a layer norm."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, context)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def _wide(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(nn.functional.gelu(self.up(self.norm2(x))))
        return y

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, width] to the same."""
        x = x + self.attention(self.norm1(x))
        return x + self._wide(x)

    def next(self, x: Tensor, place: Tensor) -> Tensor:
        """[width] to the same: see `Attention.next`."""
        x = x + self.attention.next(self.norm1(x), place)
        return x + self._wide(x)


class GPT(nn.Module):
    """A decoder of `layers` blocks over learned embeddings of characters and places, with the
    initial values of GPT-2 (Radford et al., 2019)."""

    def __init__(
        self,
        characters: int,
        context: int = 64,
        layers: int = 4,
        heads: int = 4,
        width: int = 128,
    ) -> None:
        super().__init__()
        self.context: int | None = context
        self.tokens = nn.Embedding(characters, width)
        self.places = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads, context) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, characters, bias=False)
        for name, param in self.named_parameters():
            if param.ndim == 2:
                ends = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(param, std=0.02 / (2 * layers) ** 0.5 if ends else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(param)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores [N, T, characters] for what follows each of `tokens` [N, T], T <= context."""
        x = self.tokens(tokens) + self.places(treadle.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        scores: Tensor = self.head(self.norm(x))
        return scores

    def next(self, token: Tensor, place: Tensor) -> Tensor:
        """Scores [characters] for what follows `token` (rank 0) at `place` < context: one row of
        what `forward` computes, from the keys and values that the places before have left."""
        x = self.tokens(token) + self.places(place)
        for block in self.blocks:
            assert isinstance(block, Block)
            x = block.next(x, place)
        scores: Tensor = self.head(self.norm(x))
        return scores
