"""`Embedding`: a table of rows that are looked up by number."""

from __future__ import annotations

from typing import Any, Self

from treadle.ir.errors import ArgumentError, ShapeError
from treadle.ir.types import float32
from treadle.nn import functional, init
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.tracer import api
from treadle.tracer.errors import located
from treadle.tracer.modes import no_grad
from treadle.tracer.promote import as_tensor
from treadle.tracer.tensor import Tensor


class Embedding(Module):
    """weight[x] for integers x of any shape; weight [num_embeddings, embedding_dim] starts normal.

    Row `padding_idx` starts at 0 and gets no gradient. An index out of range raises IndexFault.
    Raises ArgumentError where `padding_idx` is no row.
    """

    weight: Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        dtype: object = None,
        *,
        _weight: Tensor | None = None,
    ) -> None:
        super().__init__()
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise located(ArgumentError(f"padding_idx {padding_idx} is no row of {num_embeddings}"))
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        if _weight is not None:  # of `from_pretrained`, which draws nothing
            self.weight = Parameter(_weight)
            return
        kind = float32 if dtype is None else dtype
        self.weight = Parameter(api.zeros((num_embeddings, embedding_dim), dtype=kind))
        self.reset_parameters()

    @classmethod
    def from_pretrained(
        cls, embeddings: Any, freeze: bool = True, padding_idx: int | None = None
    ) -> Self:
        """A layer whose table [num_embeddings, embedding_dim] is `embeddings`, which it shares
        where that is a tensor; `freeze`: it is not trained. Raises ShapeError for another rank,
        DTypeError for integers."""
        table = as_tensor(embeddings)
        if table.ndim != 2:
            raise located(
                ShapeError(f"from_pretrained takes a table [rows, features], found {table.type}")
            )
        rows, features = table.shape
        made = cls(rows, features, padding_idx=padding_idx, _weight=table)
        made.weight.requires_grad_(not freeze)
        return made

    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Integers [..] to [.., embedding_dim]."""
        return functional.embedding(x, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
