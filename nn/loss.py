"""Losses as modules: each holds the options of a function in `treadle.nn.functional`."""

from __future__ import annotations

from typing import Any

from treadle.nn import functional
from treadle.nn.module import Module
from treadle.tracer.promote import Operand, as_operand
from treadle.tracer.tensor import Tensor


class _Loss(Module):
    """A loss with options that `extra_repr` shows."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = tuple(options)
        for name, value in options.items():
            setattr(self, name, value)

    def given(self) -> dict[str, Any]:
        """The options by name."""
        return {name: getattr(self, name) for name in self.options}

    def extra_repr(self) -> str:
        shown = {k: v for k, v in self.given().items() if not isinstance(v, Tensor)}
        return ", ".join(f"{k}={v!r}" for k, v in shown.items())

    def buffer(self, name: str, value: Operand | None) -> None:
        """Keep a class weight as a buffer: it moves with the state and is not trained."""
        self.register_buffer(name, None if value is None else as_operand(value))


class CrossEntropyLoss(_Loss):
    """`functional.cross_entropy` of logits [N, C, ..] and classes or probabilities."""

    weight: Tensor | None

    def __init__(
        self,
        weight: Operand | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
        )
        self.buffer("weight", weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(input, target, weight=self.weight, **self.given())


class NLLLoss(_Loss):
    """`functional.nll_loss` of log-probabilities [N, C, ..] and classes."""

    weight: Tensor | None

    def __init__(
        self, weight: Operand | None = None, ignore_index: int = -100, reduction: str = "mean"
    ) -> None:
        super().__init__(ignore_index=ignore_index, reduction=reduction)
        self.buffer("weight", weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functional.nll_loss(input, target, weight=self.weight, **self.given())


class MSELoss(_Loss):
    """`functional.mse_loss`"""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functional.mse_loss(input, target, **self.given())


class L1Loss(_Loss):
    """`functional.l1_loss`"""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functional.l1_loss(input, target, **self.given())


class HuberLoss(_Loss):
    """`functional.huber_loss`"""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction=reduction, delta=delta)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functional.huber_loss(input, target, **self.given())


class SmoothL1Loss(_Loss):
    """`functional.smooth_l1_loss`"""

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction=reduction, beta=beta)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functional.smooth_l1_loss(input, target, **self.given())


class BCELoss(_Loss):
    """`functional.binary_cross_entropy`"""

    weight: Tensor | None

    def __init__(self, weight: Operand | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.buffer("weight", weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functional.binary_cross_entropy(input, target, weight=self.weight, **self.given())


class BCEWithLogitsLoss(_Loss):
    """`functional.binary_cross_entropy_with_logits`"""

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self,
        weight: Operand | None = None,
        reduction: str = "mean",
        pos_weight: Operand | None = None,
    ) -> None:
        super().__init__(reduction=reduction)
        self.buffer("weight", weight)
        self.buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(
            input, target, weight=self.weight, pos_weight=self.pos_weight, **self.given()
        )


class KLDivLoss(_Loss):
    """`functional.kl_div`"""

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction=reduction, log_target=log_target)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return functional.kl_div(input, target, **self.given())


class CosineSimilarity(_Loss):
    """`functional.cosine_similarity`"""

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__(dim=dim, eps=eps)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return functional.cosine_similarity(x1, x2, **self.given())


class CosineEmbeddingLoss(_Loss):
    """`functional.cosine_embedding_loss`"""

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(margin=margin, reduction=reduction)

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return functional.cosine_embedding_loss(input1, input2, target, **self.given())
