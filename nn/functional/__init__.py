"""Functions of networks that are no layers, by PyTorch's names and arguments."""

from treadle.nn.functional.attention import scaled_dot_product_attention
from treadle.nn.functional.convolution import conv1d, conv2d, conv_transpose1d, conv_transpose2d

__all__ = [
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "scaled_dot_product_attention",
]
