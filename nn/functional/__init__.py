"""Functions of networks that are no layers, by PyTorch's names and arguments."""

from treadle.nn.functional.attention import scaled_dot_product_attention

__all__ = ["scaled_dot_product_attention"]
