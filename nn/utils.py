"""What PyTorch's users look for in `nn.utils`; the code is in `treadle.nn.clipping`."""

from treadle.nn.clipping import clip_grad_norm_, clip_grad_value_

__all__ = ["clip_grad_norm_", "clip_grad_value_"]
