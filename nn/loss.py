"""Losses as modules; what each computes stands at its function in `nn.functional`."""

from __future__ import annotations

from treadle.nn import functional
from treadle.nn.options import Options
from treadle.tracer.promote import Operand


class CrossEntropyLoss(Options):
    """`functional.cross_entropy` of logits [N, C, ..] and classes or probabilities."""

    function = staticmethod(functional.cross_entropy)

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


class NLLLoss(Options):
    """`functional.nll_loss` of log-probabilities [N, C, ..] and classes."""

    function = staticmethod(functional.nll_loss)

    def __init__(
        self, weight: Operand | None = None, ignore_index: int = -100, reduction: str = "mean"
    ) -> None:
        super().__init__(ignore_index=ignore_index, reduction=reduction)
        self.buffer("weight", weight)


class MSELoss(Options):
    """`functional.mse_loss`"""

    function = staticmethod(functional.mse_loss)

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)


class L1Loss(Options):
    """`functional.l1_loss`"""

    function = staticmethod(functional.l1_loss)

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)


class HuberLoss(Options):
    """`functional.huber_loss`"""

    function = staticmethod(functional.huber_loss)

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction=reduction, delta=delta)


class SmoothL1Loss(Options):
    """`functional.smooth_l1_loss`"""

    function = staticmethod(functional.smooth_l1_loss)

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction=reduction, beta=beta)


class BCELoss(Options):
    """`functional.binary_cross_entropy`"""

    function = staticmethod(functional.binary_cross_entropy)

    def __init__(self, weight: Operand | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.buffer("weight", weight)


class BCEWithLogitsLoss(Options):
    """`functional.binary_cross_entropy_with_logits`"""

    function = staticmethod(functional.binary_cross_entropy_with_logits)

    def __init__(
        self,
        weight: Operand | None = None,
        reduction: str = "mean",
        pos_weight: Operand | None = None,
    ) -> None:
        super().__init__(reduction=reduction)
        self.buffer("weight", weight)
        self.buffer("pos_weight", pos_weight)


class KLDivLoss(Options):
    """`functional.kl_div`"""

    function = staticmethod(functional.kl_div)

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction=reduction, log_target=log_target)


class CosineSimilarity(Options):
    """`functional.cosine_similarity`"""

    function = staticmethod(functional.cosine_similarity)

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__(dim=dim, eps=eps)


class CosineEmbeddingLoss(Options):
    """`functional.cosine_embedding_loss`"""

    function = staticmethod(functional.cosine_embedding_loss)

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(margin=margin, reduction=reduction)


class CTCLoss(Options):
    """`functional.ctc_loss` of log-probabilities [T, N, C], targets and both their lengths."""

    function = staticmethod(functional.ctc_loss)

    def __init__(
        self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False
    ) -> None:
        super().__init__(blank=blank, reduction=reduction, zero_infinity=zero_infinity)
