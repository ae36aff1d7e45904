"""A grid of samples as a PNG (matplotlib: `pip install treadle[plot]`)."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.errors import ArgumentError, TreadleError
from treadle.nn.recipe.samples import Samples
from treadle.tracer.errors import located

Array = npt.NDArray[Any]

MOST = 25
_COLUMNS = 5


def images_of(samples: Samples) -> Array | None:
    """The first inputs as images [N, H, W] or [N, H, W, 3] from 0 to 1; None where they are none:
    [N, H, W], [N, C, H, W] or [N, H, W, C] of 1 or 3 channels, at least 4 x 4."""
    x = samples.inputs[0]
    if x.ndim == 4 and x.shape[1] in (1, 3):
        x = np.moveaxis(x, 1, -1)
    if x.ndim == 4 and x.shape[-1] == 1:
        x = x[..., 0]
    colours = x.ndim == 4 and x.shape[-1] == 3
    if not (colours or x.ndim == 3) or min(x.shape[1:3]) < 4 or x.dtype.kind not in "uf":
        return None
    wide = x.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    return np.nan_to_num((wide - low) / ((high - low) or 1.0), nan=0.0, posinf=1.0, neginf=0.0)


def grid(samples: Samples) -> bytes:
    """The samples side by side with their targets. Raises TreadleError without matplotlib,
    ArgumentError where the inputs are no images."""
    images = images_of(samples)
    if images is None:
        found = samples.inputs[0].shape[1:]
        raise located(ArgumentError(f"only images are drawn; the inputs have shape {found}"))
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise located(
            TreadleError("plots need matplotlib, which is not installed: pip install treadle[plot]")
        ) from None
    count = min(len(images), MOST)
    rows = -(-count // _COLUMNS)
    figure = Figure(figsize=(1.3 * _COLUMNS, 1.5 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for n, axes in enumerate(figure.subplots(rows, _COLUMNS, squeeze=False).flat):
        axes.set_axis_off()
        if n < count:
            axes.imshow(images[n], cmap=None if images.ndim == 4 else "gray", vmin=0, vmax=1)
            if samples.target.ndim == 1:
                axes.set_title(f"{samples.target[n]:.4g}", fontsize=8)
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=80)
    return written.getvalue()
