"""`treadle.Function`: an operation with its own forward and backward, as a class.

class Exp(treadle.Function):
    @staticmethod
    def forward(ctx, x):
        y = treadle.exp(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, ct):
        (y,) = ctx.saved_tensors
        return ct * y

y = Exp.apply(x)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from treadle.ir.errors import ArgumentError, GradientError
from treadle.tracer import pytree, rule
from treadle.tracer.control_trees import tree_of
from treadle.tracer.tensor import Tensor
from treadle.tracer.traceback import door


class Context:
    """What `forward` hands to `backward`: attributes of any kind, and tensors through
    `save_for_backward`, which are checked for changes in between.

    `needs_input_grad`: for each argument of `forward`, whether its gradient is asked for. What
    `backward` returns for an argument that does not ask is not looked at; it need not compute it.
    """

    def __init__(self) -> None:
        self.needs_input_grad: tuple[bool, ...] = ()
        self._saved: tuple[Tensor | None, ...] = ()
        self._unpacked: tuple[Tensor | None, ...] | None = None
        self._fixed: tuple[Tensor, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for `backward`: arguments, results, anything between. Changing one of them
        in place before `backward` runs is an error there."""
        for x in tensors:
            if x is not None and not isinstance(x, Tensor):
                raise ArgumentError(
                    f"save_for_backward takes tensors, found {type(x).__name__}; keep other "
                    "things as attributes of ctx"
                )
        self._saved = tensors

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What was saved, in the same order. For `backward`."""
        if self._unpacked is None:
            raise GradientError("saved_tensors is there in backward; forward has them already")
        return self._unpacked

    def mark_non_differentiable(self, *results: Tensor) -> None:
        """Say that results of `forward` have no derivative. `backward` still gets an argument for
        each result: zeros for these."""
        self._fixed = results


class Function:
    """Derive from this, give it `forward` and `backward` as static methods, and call `apply`.

    `forward(ctx, *args)` computes with tensors as any function; what it does is not differentiated.
    It returns a tensor or a tree of them. `backward(ctx, *cts)` gets the gradient of each tensor
    that `forward` returned and returns one for each argument of `forward`: a tensor of the
    argument's shape and dtype, None for zero and for what is no tensor, a tree for a tree.
    With a static method `setup_context(ctx, inputs, output)`, `forward` takes no `ctx`.

    Inside of `treadle.jit` both are traced and compiled; there and in `grad` of `grad` a `backward`
    that is made of tensor operations is differentiated itself. See docs/custom-gradients.md.
    """

    def __init__(self) -> None:
        raise TypeError(f"{type(self).__name__} is not instantiated: call its apply()")

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        """The results."""
        raise NotImplementedError("a Function needs a static method `forward(ctx, *args)`")

    @staticmethod
    def backward(ctx: Any, *cts: Any) -> Any:
        """The gradients of the arguments, from those of the results."""
        raise NotImplementedError("a Function needs a static method `backward(ctx, *cts)`")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """The result of `forward`, differentiated by `backward`."""
        return _apply(cls, args)


@door
def _apply(cls: type[Function], args: tuple[Any, ...]) -> Any:
    leaves: list[Any] = []
    trees: list[tuple[pytree.TreeDef, int]] = []
    for arg in args:
        found, tree = pytree.flatten(arg)
        leaves += found
        trees.append((tree, len(found)))
    setup = getattr(cls, "setup_context", None)
    run = _Run(cls, cls.forward, cls.backward, setup, leaves, trees)
    results = rule.call(run, [leaves[n] for n in run.places])
    return run.output(results)


class _Run:
    """One call of a Function: a `treadle.tracer.rule.Rule`."""

    def __init__(
        self,
        cls: type[Function],
        forward: Callable[..., Any],
        backward: Callable[..., Any],
        setup: Callable[..., Any] | None,
        leaves: Sequence[Any],
        trees: list[tuple[pytree.TreeDef, int]],
    ) -> None:
        self.key = cls
        self.own_forward, self.own_backward, self.setup = forward, backward, setup
        self.label = cls.__qualname__
        self.leaves, self.trees = list(leaves), trees
        self.places = [n for n, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        self.paths = [
            path
            for n, (tree, _) in enumerate(trees)
            for path in pytree.leaf_paths(tree, f"argument {n}")
        ]
        self.names = [self.paths[n] for n in self.places]
        self.ctx = Context()
        for n in self.places:
            self.leaves[n] = None

    def _arguments(self, leaves: Sequence[Any]) -> list[Any]:
        found, start = [], 0
        for tree, count in self.trees:
            found.append(pytree.unflatten(tree, leaves[start : start + count]))
            start += count
        return found

    def forward(self, inputs: Sequence[Tensor], asked: Sequence[bool]) -> rule.Made:
        ctx = self.ctx
        self._ask(asked)
        args = self._arguments(self._filled(inputs))
        if self.setup is None:
            out = self.own_forward(ctx, *args)
        else:
            out = self.own_forward(*args)
            self.setup(ctx, tuple(args), out)
        results, self.tree = tree_of(out, f"{self.label}.forward gives")
        self.kinds = [x.dtype.is_float for x in results]
        self.types = [x.type for x in results]
        fixed = {n for n, x in enumerate(results) if any(x is y for y in ctx._fixed)}
        self.differentiated = [n for n, x in enumerate(results) if self.kinds[n] and n not in fixed]
        kept = [x for x in ctx._saved if x is not None]
        self.saved = [x is not None for x in ctx._saved]
        ctx._saved = ctx._fixed = ()
        return rule.Made(results, fixed, kept)

    def _filled(self, inputs: Sequence[Any]) -> list[Any]:
        leaves = list(self.leaves)
        for n, x in zip(self.places, inputs, strict=True):
            leaves[n] = x
        return leaves

    def _ask(self, asked: Sequence[bool]) -> None:
        each = self._filled(asked)
        found, start = [], 0
        for _, count in self.trees:
            found.append(any(x is True for x in each[start : start + count]))
            start += count
        self.ctx.needs_input_grad = tuple(found)

    def backward(
        self, kept: Sequence[Tensor], cts: Sequence[Tensor], asked: Sequence[bool]
    ) -> Sequence[object]:
        ctx = self.ctx
        self._ask(asked)
        tensors = iter(kept)
        ctx._unpacked = tuple(next(tensors) if there else None for there in self.saved)
        try:
            found = self.own_backward(ctx, *self._cotangents(cts))
        finally:
            ctx._unpacked = None
        return self._gradients(found)

    def _cotangents(self, cts: Sequence[Tensor]) -> list[Tensor]:
        from treadle.tracer.api.creation import zeros  # it builds on much

        given = iter(cts)
        floats = set(self.differentiated)
        return [
            next(given) if n in floats else zeros(type.static_shape, dtype=type.dtype)
            for n, type in enumerate(self.types)
        ]

    def _gradients(self, found: Any) -> list[object]:
        listed = list(found) if isinstance(found, tuple) else [found]
        while len(listed) > len(self.trees) and listed[-1] is None:
            listed.pop()  # for arguments that have defaults and were not given
        if len(listed) != len(self.trees):
            raise GradientError(
                f"{self.label}.backward returned {len(listed)} gradients, expected "
                f"{len(self.trees)}, one for each argument of forward (None for what is no "
                "tensor)"
            )
        grads: list[object] = []
        for n, (tree, _) in enumerate(self.trees):
            grads += rule.gradient_leaves(self.label, f"argument {n}", listed[n], tree)
        places = set(self.places)
        return [g for n, g in enumerate(grads) if n in places]

    def output(self, results: Sequence[Tensor]) -> Any:
        """The tree that `forward` gave."""
        return pytree.unflatten(self.tree, results)
