"""A specialization: one compiled trace, the guard that says when it fits, and the call itself."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.watchers import watchers
from treadle.tracer.backend import (
    CompileOptions,
    Executable,
    Finished,
    Profile,
    call_path,
    compiler,
)  # fmt: skip
from treadle.tracer.cell import Cell
from treadle.tracer.effects import replace_elements, set_attribute, set_cell, set_item
from treadle.tracer.errors import leak_error
from treadle.tracer.escapes import FreshTensor
from treadle.tracer.guards import Match, compile_guard
from treadle.tracer.history import History
from treadle.tracer.items import MISSING
from treadle.tracer.location import user_location
from treadle.tracer.modes import modes
from treadle.tracer.pullback import Pullback, SavedInputs
from treadle.tracer.recorder import Binding, Recording, Source
from treadle.tracer.signature import Facts
from treadle.tracer.tensor import Tensor
from treadle.tracer.views import numpy_view

Array = npt.NDArray[Any]


_sequence = itertools.count()


class Specialization:
    """A recording, compiled. `match(roots)` gives what `call` needs, or None. `facts`
    says in words what the guard checks, `reason` why no other specialization fitted, `sequence`
    orders specializations by age. `names`: those that it gives to `watch`, `watched`: those of them
    that were asked for. `direct` is what the call path without Python needs, made for so
    many positional `arguments`."""

    def __init__(
        self,
        recording: Recording,
        executable: Executable,
        facts: Facts,
        grad_mode: bool,
        threads: int | None = None,
        pull: Pullback | None = None,
        reason: str = "",
        arguments: int = -1,
    ) -> None:
        self.function = recording.function
        self.executable = executable
        self._pull = pull
        self.sequence = next(_sequence)
        self.reason = reason
        self.grad_mode = grad_mode
        self.names = tuple(sorted(recording.trace.watched))
        self.watched = self._wanted()
        self.threads = threads
        self.match: Match = compile_guard(recording.plan)
        self.facts = facts
        self.calls = 0
        self.sources = recording.sources
        self.output = recording.output
        self.fresh = recording.fresh
        self.writes = recording.writes
        self.grads = recording.grads
        self._bindings = recording.bindings
        self._types = tuple(value.type for value in self.function.outputs)
        self._copied = self._unsafe_parameters()
        path = call_path()
        self.direct = path.call(self, recording.plan, arguments) if path is not None else None

    def _wanted(self) -> tuple[str, ...]:
        """The names that it meets and that somebody asks for now."""
        return tuple(filter(watchers.wanted, self.names))

    @property
    def fits_modes(self) -> bool:
        """Whether it was made for the grad mode, and for those who watch, of now."""
        return self.grad_mode is modes.grad and self.fits_watchers

    @property
    def fits_watchers(self) -> bool:
        """Whether it was made for those who watch now."""
        return not self.names or self._wanted() == self.watched

    @property
    def hits(self) -> int:
        """How many calls it has served."""
        return self.calls + self.direct_hits

    @property
    def direct_hits(self) -> int:
        """How many of them ran without Python code."""
        return 0 if self.direct is None else self.direct.hits

    @property
    def is_simple(self) -> bool:
        """Whether a call does nothing but run, write storages and `.grad`, and make tensors of its
        own: no copies before it, no views, no assignments, no history to record."""
        pull = self._pull
        recorded = pull is not None and (
            bool(pull.positions or pull.tracked) or not all(o.fresh for o in pull.dead)
        )
        views = any(w.view for w in self.writes) or any(f.outside is not None for f in self.fresh)
        return not (self._copied or recorded or views or self._bindings)

    def templates(self) -> list[Tensor]:
        """Of a simple call, the tensors that it makes, over arrays without content."""
        outs = [np.empty(t.static_shape, t.dtype.dtype) for t in self._types]
        made = self._tensors((), outs)
        if self._pull is not None:
            self._pull.record((), made, None, ())
        return made

    def _unsafe_parameters(self) -> frozenset[int]:
        """Parameters that the compiled code overwrites with something else than their own new
        content: others may still hold the old buffer, so that it is copied."""
        own = {w.result: w.position for w in self.writes if not w.view}
        unsafe = set()
        for param, result in self.executable.in_place:
            source = self.sources[param]
            if source.kind != "cell" or own.get(result) != source.position:
                unsafe.add(param)
        return frozenset(unsafe)

    def _own_in_place(self, found: Sequence[Any], arrays: list[Array], saved: bool) -> None:
        """Copy what the compiled code overwrites and somebody else may still read."""
        for param, _ in self.executable.in_place:
            kept = param in self._copied or saved or found[self.sources[param].position].cell.pinned
            if kept or not arrays[param].flags.writeable:
                arrays[param] = arrays[param].copy()

    def call(self, found: Sequence[Any]) -> Any:
        """Run on what `match` gave. Raises IndexFault with all state as before."""
        self.calls += 1
        arrays = [_array_of(s, found[s.position]) for s in self.sources]
        saved = None
        if self._pull is not None:
            saved = self._pull.save(found, self.sources, arrays)
        self._own_in_place(found, arrays, bool(saved))
        outs: Sequence[Array] | None = None
        try:
            outs = self.executable.run(arrays, self.threads)
            return self._finish(found, outs, saved)
        except Finished as stop:  # the step is done: all of its state is written, or none
            self._finish(found, stop.results, saved, again=True)
            raise stop.interrupt from None
        except BaseException:
            if outs is not None:
                self._finish(found, outs, saved, again=True)
            raise

    def profile(self, found: Sequence[Any], options: CompileOptions, repeat: int) -> Profile:
        """Where the time of `call` goes; on copies, so that nothing is changed."""
        arrays = [_array_of(s, found[s.position]) for s in self.sources]
        function = self.function if self._pull is None else self._pull.forward
        return compiler().profile(function, options, arrays, self.threads, repeat)

    def _finish(
        self,
        found: Sequence[Any],
        outs: Sequence[Array],
        saved: SavedInputs | None,
        again: bool = False,
    ) -> Any:
        """Put everything that the run computed where it belongs. `again`: an interrupt came in
        the middle of it; doing all of it once more gives the same."""
        self._write_back(found, outs)
        fresh = self._tensors(found, outs)
        if self._pull is not None:
            self._pull.record(found, fresh, saved, outs[len(self._types) :])
        for grad in self.grads:
            owner: Tensor = (fresh if grad.fresh else found)[grad.position]
            owner.history.grad = grad.recipe.build(found, fresh)
        for binding in self._bindings:
            if again and binding.recipe is None:
                with contextlib.suppress(AttributeError, KeyError, ValueError):
                    _bind(binding, found, fresh)
            else:
                _bind(binding, found, fresh)
        return self.output.build(found, fresh)

    def _write_back(self, found: Sequence[Any], outs: Sequence[Array]) -> None:
        loc = user_location() if self.writes else None
        for write in self.writes:
            x: Tensor = found[write.position]
            if write.view:
                np.copyto(numpy_view(x.cell.writable(), x.maps), outs[write.result])
            elif outs[write.result] is not x.cell.buffer:
                x.cell.replace(outs[write.result])
            x.cell.wrote(loc)

    def _tensors(self, found: Sequence[Any], outs: Sequence[Array]) -> list[Tensor]:
        """The tensors that the call made, sharing storage and history as in the trace."""
        cells: dict[int, Cell] = {}
        histories: dict[int, History] = {}
        made: list[Tensor] = []
        for spec in self.fresh:
            if spec.outside is not None:
                made.append(_of_kind(_view_of(found[spec.outside], spec, histories), spec))
                continue
            assert spec.history is not None
            cell = cells.get(spec.result)
            if cell is None:
                cell = cells[spec.result] = Cell.of(outs[spec.result], self._types[spec.result])
            history = histories.get(spec.history)
            if history is None:
                history = histories[spec.history] = History(spec.depth)
                history.requires_grad = spec.role == "leaf"
            made.append(_of_kind(Tensor(cell, spec.maps, history, spec.type, spec.weak), spec))
        return made


def _of_kind(made: Tensor, spec: FreshTensor) -> Tensor:
    if spec.kind is not Tensor:
        made.__class__ = spec.kind
    return made


def _array_of(source: Source, value: Any) -> Array:
    """The array of a parameter: contiguous, of the parameter's type, not copied if it is that."""
    if source.kind == "cell":
        cell: Cell = value.cell
        if cell.home is not None:
            raise leak_error(value, cell.made_at, "as an input of a jitted function")
        return cell.buffer
    if source.kind == "float":
        return np.array(value, np.float64)
    array = value.array() if source.kind == "view" else value
    return np.asarray(array, order="C")


def _view_of(source: Tensor, spec: FreshTensor, histories: dict[int, History]) -> Tensor:
    """A tensor that the function made of storage that was there before the call."""
    above = len(source.maps) if spec.relative else 0
    maps = source.maps + spec.maps if spec.relative else spec.maps
    if spec.history is None:
        return Tensor(source.cell, maps, source.history, spec.type, spec.weak)
    history = histories.get(spec.history)
    if history is None:
        history = histories[spec.history] = History(above + spec.depth)
        history.requires_grad = spec.role == "leaf"
    return Tensor(source.cell, maps, history, spec.type, spec.weak)


def _bind(binding: Binding, found: Sequence[Any], fresh: Sequence[Tensor]) -> None:
    """Repeat an assignment of the traced function."""
    how, key = binding.how, binding.key
    target = binding.target if binding.position is None else found[binding.position]
    value = MISSING if binding.recipe is None else binding.recipe.build(found, fresh)
    if how == "whole":
        replace_elements(target, value)
    elif how == "attr":
        set_attribute(target, key, value)
    elif how == "cell":
        set_cell(target if binding.position is None else target.__closure__[key], value)
    else:
        set_item(target, key, value)
