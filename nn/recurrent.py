"""Recurrent layers: RNN, LSTM, GRU, with PyTorch's arguments, gates and `state_dict` keys.

Each direction of each layer is one `treadle.scan`: under jit a native loop whose product with the
inputs of all steps runs before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from treadle.ir.errors import ArgumentError, DTypeError, ShapeError
from treadle.ir.types import float32, shape_text
from treadle.nn import init
from treadle.nn.deferred import Deferred
from treadle.nn.functional.dropout import dropout
from treadle.nn.parameter import Parameter
from treadle.tracer import api
from treadle.tracer.api.arguments import option
from treadle.tracer.api.creation import as_int
from treadle.tracer.control import scan
from treadle.tracer.errors import located, located_errors
from treadle.tracer.promote import as_tensor
from treadle.tracer.tensor import Tensor

States = tuple[Tensor, ...]


class _Recurrent(Deferred):
    """What the recurrent layers share: parameters, layers over layers, directions, batches."""

    gates: ClassVar[int]  # rows of the weights, in widths of the state
    states: ClassVar[int] = 1

    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        dtype: object = None,
    ) -> None:
        super().__init__()
        with located_errors():
            if proj_size:
                raise ArgumentError(
                    f"proj_size is not supported, found {proj_size}: put a Linear behind the layer"
                )
            self.hidden_size = as_int(hidden_size, "hidden_size")
            self.num_layers = as_int(num_layers, "num_layers")
            if self.hidden_size < 1 or self.num_layers < 1:
                raise ArgumentError(
                    f"hidden_size and num_layers must be at least 1, found {hidden_size} and "
                    f"{num_layers}"
                )
            if not 0 <= dropout <= 1:
                raise ArgumentError(f"dropout must be in [0, 1], found {dropout}")
        self.input_size, self.bias, self.batch_first = input_size, bias, batch_first
        self.dropout, self.bidirectional = dropout, bidirectional
        self._dtype = float32 if dtype is None else dtype
        if input_size is None:
            self.wait()
        else:
            self.settle(input_size)

    def settle(self, size: int) -> None:
        """Make the parameters for inputs of `size` features."""
        self.input_size = size
        rows = self.gates * self.hidden_size
        for layer in range(self.num_layers):
            below = size if layer == 0 else self.hidden_size * self._directions
            for suffix in self._suffixes(layer):
                for name, shape in (
                    ("weight_ih", (rows, below)),
                    ("weight_hh", (rows, self.hidden_size)),
                    ("bias_ih", (rows,)),
                    ("bias_hh", (rows,)),
                ):
                    if self.bias or name.startswith("weight"):
                        param = Parameter(api.zeros(shape, dtype=self._dtype))
                        setattr(self, f"{name}{suffix}", param)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values anew: evenly in +-1/sqrt(hidden_size), as PyTorch's."""
        bound = 1 / math.sqrt(self.hidden_size)
        for param in self.parameters():
            init.uniform_(param, -bound, bound)

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: self._directions]

    def _run(self, input: Tensor, first: Any) -> tuple[Tensor, States]:
        """(outputs, last states): the input [T, N, F] (or as `batch_first` says, or [T, F]) through
        all layers; states [layers * directions, N, hidden]."""
        x = _padded(input, type(self).__name__)
        if self.waits and x.ndim in (2, 3):
            self.settle_by(x.shape[-1])
        alone = x.ndim == 2
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            raise located(
                ShapeError(
                    f"{type(self).__name__} takes [T, N, {self.input_size}] or [T, "
                    f"{self.input_size}], found {shape_text(x.shape)}"
                )
            )
        if alone:
            x = api.expand_dims(x, 1)
        elif self.batch_first:
            x = api.swapaxes(x, 0, 1)
        starts = self._starts(first, x, alone)
        last: list[States] = []
        for layer in range(self.num_layers):
            outs = []
            for direction, suffix in enumerate(self._suffixes(layer)):
                start = tuple(s[len(last)] for s in starts)
                y, end = self._direction(x, start, suffix, reverse=direction == 1)
                outs.append(y)
                last.append(end)
            x = outs[0] if len(outs) == 1 else api.concat(outs, axis=-1)
            if self.dropout and layer + 1 < self.num_layers:
                x = dropout(x, self.dropout, self.training)
        ends = tuple(api.stack([s[n] for s in last]) for n in range(self.states))
        if alone:
            return x[:, 0], tuple(e[:, 0] for e in ends)
        return api.swapaxes(x, 0, 1) if self.batch_first else x, ends

    def _starts(self, first: Any, x: Tensor, alone: bool) -> Sequence[Tensor]:
        """The first states [layers * directions, N, hidden]: zeros where none are given."""
        shape = (self.num_layers * self._directions, x.shape[1], self.hidden_size)
        if first is None:
            return [api.zeros(shape, dtype=x.dtype)] * self.states
        given = [as_tensor(s) for s in (first if self.states > 1 else (first,))]
        expected = (shape[0], shape[2]) if alone else shape
        for state in given:
            if state.shape != expected:
                raise located(
                    ShapeError(
                        f"the first state of {type(self).__name__} must have shape "
                        f"{shape_text(expected)}, found {shape_text(state.shape)}"
                    )
                )
        return [api.expand_dims(s, 1) for s in given] if alone else given

    def _direction(
        self, x: Tensor, start: States, suffix: str, reverse: bool
    ) -> tuple[Tensor, States]:
        """One direction of one layer: (outputs [T, N, hidden], last states)."""
        w_in, w_hidden = (getattr(self, f"{n}{suffix}") for n in ("weight_ih", "weight_hh"))
        b_in, b_hidden = (
            getattr(self, f"{n}{suffix}") if self.bias else None for n in ("bias_ih", "bias_hh")
        )

        def step(state: States, row: Tensor) -> tuple[States, Tensor]:
            left = row @ w_in.T
            right = state[0] @ w_hidden.T
            if b_in is not None and b_hidden is not None:
                left, right = left + b_in, right + b_hidden
            state = self._cell(left, right, state)
            return state, state[0]

        last, outs = scan(step, start, x, reverse=reverse)
        return outs, last

    def _cell(self, left: Tensor, right: Tensor, state: States) -> States:
        """The next states from the products with the input and with the state, biases included."""
        raise NotImplementedError

    def _parts(self, x: Tensor) -> list[Tensor]:
        return api.split(x, self.gates, axis=-1)

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        for name, plain in (("num_layers", 1), ("bias", True), ("batch_first", False),
                            ("dropout", 0.0), ("bidirectional", False)):  # fmt: skip
            if getattr(self, name) != plain:
                parts.append(f"{name}={getattr(self, name)}")
        return ", ".join(parts)


def _padded(input: Any, layer: str) -> Tensor:
    """The input as a tensor. Raises DTypeError for sequences that are packed, or a list of them."""
    if hasattr(input, "batch_sizes") or isinstance(input, (list, tuple)):
        raise located(
            DTypeError(
                f"{layer} takes one tensor, sequences padded to one length, and no packed ones: "
                f"found {type(input).__name__}. Mask what stands behind an end, or take the output "
                "of each sequence's last step"
            )
        )
    return as_tensor(input)


class RNN(_Recurrent):
    """h = tanh(W_ih x + b_ih + W_hh h + b_hh), or with ReLU (Elman, 1990).

    Takes [T, N, input_size] ([N, T, input_size] where `batch_first`, or [T, input_size]) and a
    first state [layers * directions, N, hidden_size]; gives the outputs of all steps and the last
    states. `dropout` acts between layers, in training mode. `input_size` None is taken from the
    first input.
    """

    gates = 1

    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        dtype: object = None,
    ) -> None:
        with located_errors():
            self.nonlinearity = option("nonlinearity", nonlinearity, ("tanh", "relu"))
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            proj_size, dtype,
        )  # fmt: skip

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, (last,) = self._run(input, hx)
        return outputs, last

    def _cell(self, left: Tensor, right: Tensor, state: States) -> States:
        total = left + right
        return (api.tanh(total) if self.nonlinearity == "tanh" else api.relu(total),)


class LSTM(_Recurrent):
    """i, f, o = sigmoid, g = tanh of W_ih x + b_ih + W_hh h + b_hh; c = f c + i g; h = o tanh(c)
    (Hochreiter and Schmidhuber, 1997; Gers et al., 2000).

    Inputs and options as `RNN`'s; the states are a pair (h, c), and so is what comes back.
    """

    gates = 4
    states = 2

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        outputs, (h, c) = self._run(input, hx)
        return outputs, (h, c)

    def _cell(self, left: Tensor, right: Tensor, state: States) -> States:
        i, f, g, o = self._parts(left + right)
        c = api.sigmoid(f) * state[1] + api.sigmoid(i) * api.tanh(g)
        return api.sigmoid(o) * api.tanh(c), c


class GRU(_Recurrent):
    """r, z = sigmoid of W_ih x + b_ih + W_hh h + b_hh; n = tanh(W_in x + b_in + r (W_hn h + b_hn));
    h = (1 - z) n + z h (Cho et al., 2014, in PyTorch's form). Inputs and options as `RNN`'s."""

    gates = 3

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, (last,) = self._run(input, hx)
        return outputs, last

    def _cell(self, left: Tensor, right: Tensor, state: States) -> States:
        (r_in, z_in, n_in), (r, z, n) = self._parts(left), self._parts(right)
        update = api.sigmoid(z_in + z)
        new = api.tanh(n_in + api.sigmoid(r_in + r) * n)
        return ((1 - update) * new + update * state[0],)
