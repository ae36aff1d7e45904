"""`treadle.jit`: compile a Python function, once for each way in which it is called.

The first call traces the function: it runs once with stand-ins for its tensors, and what it did
becomes one native function. Later calls check the guard (shapes, dtypes, and every Python value
that the trace saw) and run that; a call for which no guard holds is traced again, and a line on
stderr says why. Inside another trace, and where `treadle.grad` differentiates eagerly, the Python
function itself runs.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import MethodType
from typing import Any, Literal, overload

import numpy as np

from treadle.ir.errors import DTypeError, TraceError
from treadle.ir.forking import in_child
from treadle.ir.graph import Function
from treadle.ir.types import TensorType
from treadle.ir.watchers import watchers
from treadle.tracer import pullback
from treadle.tracer.backend import (
    MISS,
    CompileOptions,
    Dispatcher,
    Profile,
    call_path,
    compiler,
)  # fmt: skip
from treadle.tracer.callback_parts import host_parts
from treadle.tracer.cell import Cell
from treadle.tracer.errors import located_errors
from treadle.tracer.explain import report, why
from treadle.tracer.items import Tree
from treadle.tracer.modes import modes
from treadle.tracer.paths import reach
from treadle.tracer.pytree import tree_map
from treadle.tracer.recorder import Recording, record
from treadle.tracer.signature import Parameters, describe
from treadle.tracer.specialization import Specialization
from treadle.tracer.tensor import Tensor
from treadle.tracer.traceback import leaving

Check = Literal["eager"] | None
Winograd = Literal[0, 2, 4]
MAX_SPECIALIZATIONS = 16

# Called with (jitted function, args, kwargs) before a function's first call is traced; the command
# line stops the user's script there.
on_first_call: list[Callable[[Jitted, tuple[Any, ...], dict[str, Any]], None]] = []


class Switches:
    """What holds for all jitted functions: how many `disable_jit` blocks are entered."""

    __slots__ = ("disabled",)

    def __init__(self) -> None:
        self.disabled = 0


switches = Switches()

# So many calls go through Python before the native path is made: its own code takes longer to
# compile (50 ms, once a process) than a few steps through Python take.
DIRECT_AFTER = 4


@contextlib.contextmanager
def disable_jit() -> Iterator[None]:
    """Inside, jitted functions run as plain Python: for a debugger, or to compare."""
    switches.disabled += 1
    try:
        yield
    finally:
        switches.disabled -= 1


@overload
def jit(
    fn: Callable[..., Any],
    *,
    check: Check = ...,
    max_specializations: int = ...,
    reassociate: bool = ...,
    contract: bool = ...,
    winograd: Winograd = ...,
    threads: int | None = ...,
) -> Jitted: ...
@overload
def jit(
    fn: None = ...,
    *,
    check: Check = ...,
    max_specializations: int = ...,
    reassociate: bool = ...,
    contract: bool = ...,
    winograd: Winograd = ...,
    threads: int | None = ...,
) -> Callable[[Callable[..., Any]], Jitted]: ...
def jit(
    fn: Callable[..., Any] | None = None,
    *,
    check: Check = None,
    max_specializations: int = MAX_SPECIALIZATIONS,
    reassociate: bool = False,
    contract: bool = False,
    winograd: Winograd = 2,
    threads: int | None = None,
) -> Jitted | Callable[[Callable[..., Any]], Jitted]:
    """Compile `fn`, a function, method, lambda or callable object; also `@jit` and `@jit(...)`.

    Arguments and results may be any trees of tuples, lists, dicts and dataclasses. Tensors and
    NumPy arrays are inputs, and so are Python floats; ints, bools, strings, None and enums are
    part of the signature. Tensors that `fn` reads from its closure, globals or objects are inputs
    too; what it assigns to attributes, items and variables of these is assigned at each call.

    `check="eager"` runs `fn` eagerly as well at each new specialization and compares.
    `max_specializations`: tracing more than so many raises TraceError. `reassociate`, `contract`:
    let the compiler reorder float sums, and fuse multiply with add. `winograd`: float32
    convolutions of 3 x 3 taps may compute 2 x 2 positions together (2), up to 4 x 4 (4), which
    takes fewer multiplications and rounds otherwise (docs/convolution.md), or none (0). `threads`:
    run on so many (1 to 256), whatever holds elsewhere; results do not depend on it.
    """
    if fn is None:
        return functools.partial(
            jit, check=check, max_specializations=max_specializations,
            reassociate=reassociate, contract=contract, winograd=winograd,
            threads=threads,
        )  # fmt: skip
    if check not in (None, "eager"):
        raise ValueError(f'check must be None or "eager", found {check!r}')
    if threads is not None and not 1 <= threads <= 256:
        raise ValueError(f"threads must be from 1 to 256, found {threads!r}")
    if winograd not in (0, 2, 4):
        raise ValueError(f"winograd must be 0, 2 or 4, found {winograd!r}")
    if isinstance(fn, (staticmethod, classmethod)):
        inner = jit(
            fn.__func__, check=check, max_specializations=max_specializations,
            reassociate=reassociate, contract=contract, winograd=winograd,
            threads=threads,
        )  # fmt: skip
        return type(fn)(inner)  # a descriptor, for a class's body
    if isinstance(fn, Jitted):
        fn = fn.__wrapped__
    options = CompileOptions(reassociate, contract, winograd=winograd)
    return Jitted(fn, options, max_specializations, check, threads)


# Every jitted function that is alive.
_made: weakref.WeakSet[Jitted] = weakref.WeakSet()


def _renew_locks() -> None:
    """In the child of a fork: another thread may have been tracing."""
    for jitted in list(_made):
        jitted._lock = threading.RLock()


in_child(_renew_locks)


def _reconnect() -> None:
    """Others watch now: calls without Python go to the versions that tell them."""
    for jitted in list(_made):
        if jitted._dispatcher is not None and any(s.names for s in jitted.specializations):
            jitted._connect()


watchers.changed = _reconnect


def clear_cache() -> None:
    """Forget what all jitted functions have compiled; their code is freed when no call runs in it
    any more, and the next calls trace anew. The disk cache stays (`treadle cache clear`)."""
    for jitted in list(_made):
        jitted.clear()


class Jitted:
    """A function that compiles itself when it is called; made by `treadle.jit`."""

    __treadle_jit__ = True
    __wrapped__: Callable[..., Any]

    def __init__(
        self,
        fn: Callable[..., Any],
        options: CompileOptions,
        limit: int,
        check: Check,
        threads: int | None,
    ) -> None:
        if not callable(fn):
            raise TypeError(f"jit expects a function, found {type(fn).__name__} {fn!r:.60}")
        inner = inspect.unwrap(fn)
        if inspect.isgeneratorfunction(inner) or inspect.iscoroutinefunction(inner):
            raise TraceError(
                f"{_name(fn)} is a generator or coroutine function; jit what it does in one step"
            )
        functools.update_wrapper(self, fn)
        self.__wrapped__ = fn
        self.__name__ = _name(fn)
        _made.add(self)
        self.options = options
        self.limit = limit
        self.check = check
        self.threads = threads
        self.specializations: list[Specialization] = []
        self._parameters = Parameters(fn)
        self._positional = self._parameters.positional
        self._lock = threading.RLock()
        self._called = False
        self._dispatcher: Dispatcher | None = None
        self._direct: Callable[..., Any] = _no_direct
        self._connected: list[Specialization] | None = None
        self._called_by_host: dict[int, Any] = {}  # by id: what callbacks call

    def __deepcopy__(self, memo: dict[int, Any]) -> Jitted:
        """Itself, as a function is; of a method or a callable object, one of the copied object."""
        fn = copy.deepcopy(self.__wrapped__, memo)
        if fn is self.__wrapped__:
            return self
        return Jitted(fn, self.options, self.limit, self.check, self.threads)

    def __reduce__(self) -> str:
        """Pickled by name, as a function is."""
        return str(self.__wrapped__.__qualname__)

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Jitted | BoundJitted:
        return self if instance is None else BoundJitted(self, instance)

    def __repr__(self) -> str:
        return f"<jit {self.__name__}, {len(self.specializations)} specializations>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            found: Any = self._direct(*args, **kwargs)
            if found is not MISS:
                return found
            if modes.trace is not None or switches.disabled:
                return self.__wrapped__(*args, **kwargs)
            roots: Sequence[Any] = args
            if kwargs or len(args) != self._positional:
                roots = self._bound(args, kwargs)
            fitting = self._fitting(roots)
            if fitting is None:
                return self._first_call(args, kwargs)
            spec, found = fitting
            if self.specializations[:1] != [spec]:  # the one used last is tried first
                self._prefer(spec)
            if spec.calls >= DIRECT_AFTER and self._connected is not self.specializations:
                self._connect()
            return spec.call(found)
        except BaseException as error:
            leaving(error)
            raise

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[Any]:
        """A value for each parameter, by the signature that the function has now."""
        self._parameters = self._parameters.refreshed()
        self._positional = self._parameters.positional
        return self._parameters.bind(args, kwargs)

    def _fitting(self, roots: Sequence[Any]) -> tuple[Specialization, list[Any]] | None:
        """The specialization whose guard holds, and what it fetched."""
        for spec in self.specializations:
            if spec.fits_modes:
                found = spec.match(roots)
                if found is not None:
                    return spec, found
        return None

    def _prefer(self, spec: Specialization) -> None:
        with self._lock:
            rest = [s for s in self.specializations if s is not spec]
            if len(rest) < len(self.specializations):  # else another thread has cleared them
                self.specializations = [spec, *rest]

    def _connect(self) -> None:
        """Let the call path without Python know of the present specializations."""
        with self._lock:
            self._connected = self.specializations
            fitting = [s for s in self.specializations if s.fits_watchers]
            calls = tuple(s.direct for s in fitting if s.direct is not None)
            if self._dispatcher is not None:
                self._dispatcher.calls = calls
                return
            path = call_path()
            connected = path.connect(calls) if calls and path is not None else None
            if connected is not None:
                self._dispatcher, self._direct = connected

    def _first_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        roots = self._bound(args, kwargs)
        if not self._called:
            self._called = True
            for observer in on_first_call:
                observer(self, args, kwargs)
        with self._lock:
            fitting = self._fitting(roots)  # another thread may have compiled it meanwhile
            if fitting is not None:
                return fitting[0].call(fitting[1])
            spec = self._specialize(roots)
        found = self._matched(spec, roots)
        if self.check == "eager":
            from treadle.tracer.checking import compare_with_eager  # only where it is asked for

            return compare_with_eager(
                self.where,
                self._reach(roots),
                lambda: self.__wrapped__(*args, **kwargs),
                lambda: spec.call(found),
            )
        return spec.call(found)

    def _matched(self, spec: Specialization, roots: Sequence[Any]) -> list[Any]:
        """What the guard of a specialization fetched that was made for this very call."""
        found = spec.match(roots)
        if found is None:
            raise TraceError(
                f"{self.where}: the guard made for this call does not hold for it: "
                "an object that it reaches changes whenever it is read (a property, a descriptor)"
            )
        return found

    # --- tracing -----------------------------------------------------------------------------

    def _reach(self, roots: Sequence[Any]) -> Tree:
        names = self._parameters.names
        return reach(self.__wrapped__, names, roots, called_by_host=self._called_by_host)

    def _record(self, roots: Sequence[Any], tree: Tree) -> Recording:
        recording = record(self.__wrapped__, self._parameters, roots, tree, self.__name__)
        called = host_parts(recording.trace.hosts)
        followed = {n: x for n, x in called.items() if n in tree.by_id}
        if tree.imports.isdisjoint(sys.modules) and followed.keys() <= self._called_by_host.keys():
            return recording
        # It has imported modules whose names lead on, or calls Python functions that need not be
        # followed: now that this is known, all over again.
        self._called_by_host.update(followed)
        return self._record(roots, self._reach(roots))

    def _specialize(self, roots: Sequence[Any]) -> Specialization:
        tree = self._reach(roots)
        try:
            return self._compile(self._record(roots, tree))
        finally:
            tree.release()

    def _compile(self, recording: Recording) -> Specialization:
        facts = describe(recording.plan)
        reason = why(self.where, self.specializations, facts, self.limit)
        pull = pullback.plan(recording, self.options, self.threads)
        function = recording.function if pull is None else pull.forward
        executable = compiler().compile(function, self.options)
        spec = Specialization(
            recording, executable, facts, modes.grad, self.threads, pull, reason, self._positional
        )
        self.specializations = [spec, *self.specializations]
        return spec

    # --- looking inside ----------------------------------------------------------------------

    @property
    def where(self) -> str:
        """File, line and name, for messages."""
        fn = inspect.unwrap(self.__wrapped__)
        code = getattr(getattr(fn, "__func__", fn), "__code__", None)
        if code is None:
            return self.__name__
        return f"{Path(code.co_filename).name}:{code.co_firstlineno} {self.__name__}"

    def trace(self, *args: Any, **kwargs: Any) -> Function:
        """The traced Function of a call; nothing is compiled or changed.

        `TensorType`s may stand for tensors in the arguments. Raises what the function raises.
        """
        with located_errors():
            roots = self._bound(*_with_stand_ins(args, kwargs))
            return self._record(roots, self._reach(roots)).function

    def captured(self, *args: Any, **kwargs: Any) -> tuple[Function, dict[str, Any]]:
        """The traced Function of a call, as `trace`, and by path the tensors and arrays that its
        state parameters are read from."""
        with located_errors():
            roots = self._bound(*_with_stand_ins(args, kwargs))
            recording = self._record(roots, self._reach(roots))
        return recording.function, {c.path: c.source for c in recording.trace.captures}

    def compiled(self, *args: Any, **kwargs: Any) -> Specialization:
        """The specialization that a call with these arguments uses; compiled if there is none.

        The function is traced, never run.
        """
        args, kwargs = _with_stand_ins(args, kwargs)
        roots = self._bound(args, kwargs)
        with self._lock:
            fitting = self._fitting(roots)
            if fitting is not None:
                return fitting[0]
            return self._specialize(roots)

    def compared(self, *args: Any, **kwargs: Any) -> Any:
        """Call it, compiled where that is not done yet, and compare with what plain Python gives
        and leaves behind.

        Raises TraceError naming the first value that differs, with all state as before.
        """
        from treadle.tracer.checking import compare_with_eager  # only where it is asked for

        return compare_with_eager(
            self.where,
            self._reach(self._bound(args, kwargs)),
            lambda: self.__wrapped__(*args, **kwargs),
            lambda: self(*args, **kwargs),
        )

    def profile(self, *args: Any, repeat: int = 20, **kwargs: Any) -> Profile:
        """Where the time of a call with these arguments goes, kernel by kernel.

        The step is compiled once more, with time stamps, and run `repeat` times on copies of what
        it would overwrite: nothing is changed, returned or printed. `TensorType`s may stand for
        tensors in the arguments. An argument of the function's that is called `repeat` can be
        given by its position only. Raises ValueError for a `repeat` below 1, TraceError inside of
        a trace, and what a call raises.
        """
        if repeat < 1:
            raise ValueError(f"repeat must be at least 1, found {repeat!r}")
        if modes.trace is not None:
            raise TraceError(f"{self.where}: a call cannot be profiled inside of a trace")
        with located_errors():
            args, kwargs = _with_stand_ins(args, kwargs)
            roots = self._bound(args, kwargs)
            with self._lock:
                spec, found = self._fitting(roots) or (self._specialize(roots), None)
            if found is None:
                found = self._matched(spec, roots)
            return spec.profile(found, self.options, repeat)

    def ir(self, stage: str = "traced", *args: Any, **kwargs: Any) -> str:
        """The program as text after the pass `stage` (also: memory, plan, llvm, asm).

        Without arguments, that of the call made last; with arguments, that of such a call.
        Raises KeyError for an unknown stage, TraceError where nothing has been called yet.
        """
        if args or kwargs:
            if stage == "traced":
                return str(self.trace(*args, **kwargs))
            return self.compiled(*args, **kwargs).executable.stage(stage)
        if not self.specializations:
            raise TraceError(
                f"{self.where} has not been called yet; call it, or give ir() its arguments "
                "(TensorTypes may stand for tensors)"
            )
        if stage == "traced":
            return str(self.specializations[0].function)
        return self.specializations[0].executable.stage(stage)

    def explain(self) -> str:
        """The specializations: calls, compile time, memory, why each was made, and its guard."""
        return report(self.where, self.specializations)

    def clear(self) -> None:
        """Forget all specializations, so that their code is freed."""
        with self._lock:
            self.specializations = []
            self._connect()


def _no_direct(*_: Any, **__: Any) -> Any:
    return MISS


class BoundJitted:
    """A jitted method with its object: `model.step` where `step` is decorated with `jit`."""

    __treadle_jit__ = True

    def __init__(self, jitted: Jitted, instance: Any) -> None:
        self.__func__ = jitted
        self.__self__ = instance
        functools.update_wrapper(self, jitted)
        self.__wrapped__ = MethodType(jitted.__wrapped__, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.__func__(self.__self__, *args, **kwargs)
        except BaseException as error:
            leaving(error)
            raise

    def __repr__(self) -> str:
        return f"<bound {self.__func__!r} of {self.__self__!r:.60}>"

    def trace(self, *args: Any, **kwargs: Any) -> Function:
        """See `Jitted.trace`."""
        return self.__func__.trace(self.__self__, *args, **kwargs)

    def profile(self, *args: Any, repeat: int = 20, **kwargs: Any) -> Profile:
        """See `Jitted.profile`."""
        return self.__func__.profile(self.__self__, *args, repeat=repeat, **kwargs)

    def ir(self, stage: str = "traced", *args: Any, **kwargs: Any) -> str:
        """See `Jitted.ir`."""
        given = (self.__self__, *args) if args or kwargs else ()
        return self.__func__.ir(stage, *given, **kwargs)

    def explain(self) -> str:
        """See `Jitted.explain`."""
        return self.__func__.explain()


def _name(fn: Callable[..., Any]) -> str:
    inner = fn.func if isinstance(fn, functools.partial) else fn
    name = getattr(inner, "__name__", None) or type(inner).__name__
    return "lambda_" if name == "<lambda>" else str(name)


def _with_stand_ins(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with tensors of zeros for the types among them."""
    found: tuple[tuple[Any, ...], dict[str, Any]] = tree_map(_stand_in, (args, kwargs))
    return found


def _stand_in(leaf: Any) -> Any:
    if not isinstance(leaf, TensorType):
        return leaf
    if not leaf.is_static:
        raise DTypeError(f"a call needs fixed shapes, found {leaf}")
    return Tensor(Cell.of(np.zeros(leaf.static_shape, leaf.dtype.dtype)))
