"""Functions of networks that are no layers, by PyTorch's names and arguments."""

from treadle.nn.functional.attention import scaled_dot_product_attention
from treadle.nn.functional.class_losses import cross_entropy, nll_loss
from treadle.nn.functional.convolution import conv1d, conv2d, conv_transpose1d, conv_transpose2d
from treadle.nn.functional.dropout import dropout
from treadle.nn.functional.embedding import embedding
from treadle.nn.functional.losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cosine_embedding_loss,
    cosine_similarity,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    smooth_l1_loss,
)
from treadle.nn.functional.normalization import (
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    rms_norm,
)

__all__ = [
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "cosine_embedding_loss",
    "cosine_similarity",
    "cross_entropy",
    "dropout",
    "embedding",
    "group_norm",
    "huber_loss",
    "instance_norm",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "mse_loss",
    "nll_loss",
    "rms_norm",
    "scaled_dot_product_attention",
    "smooth_l1_loss",
]
