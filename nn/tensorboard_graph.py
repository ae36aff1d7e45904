"""A traced model as the graph that TensorBoard shows: a GraphDef, one node an instruction.

The name of a node begins with the path of its layer, `encoder/2/conv/`, so that TensorBoard draws a
layer as a box that can be opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from treadle.ir.graph import Function, Instr, Value
from treadle.ir.types import TensorType
from treadle.nn.module import Module
from treadle.nn.recipe.holding import left_as_it_was
from treadle.nn.recipe.tracing import LookTrace, looking, tensors_in
from treadle.tracer.modes import no_grad
from treadle.tracer.promote import as_tensor


def graph_of(model: Module, inputs: Sequence[Any]) -> Any:
    """The event that holds the graph of `model` for inputs of these types. Raises what the model
    raises."""
    from tensorboardX.proto.event_pb2 import Event

    types = [x if isinstance(x, TensorType) else as_tensor(x).type for x in inputs]
    with left_as_it_was(model):
        with looking(model) as trace, no_grad():
            given = [trace.arg(t, f"input{n}") for n, t in enumerate(types)]
            found = tensors_in(model(*given))
            function = trace.function({f"output{n}": x for n, x in enumerate(found)})
        names = _parameters(model, trace)
    return Event(graph_def=graph_def(function, trace.made_in, names).SerializeToString())


def _parameters(model: Module, trace: LookTrace) -> dict[Value, str]:
    """The paths of the parameters and buffers that the trace has read."""
    known = {id(p.cell): name for name, p in [*model.named_parameters(), *model.named_buffers()]}
    return {
        c.value: known[id(c.source.cell)]
        for c in trace.captures
        if hasattr(c.source, "cell") and id(c.source.cell) in known
    }


def graph_def(fn: Function, made_in: Mapping[Instr, str], names: Mapping[Value, str]) -> Any:
    """The GraphDef of a Function. `made_in`: the layer of each instruction; `names`: paths of
    parameters."""
    from tensorboardX.proto.graph_pb2 import GraphDef
    from tensorboardX.proto.versions_pb2 import VersionDef

    nodes = []
    known: dict[Value, str] = {}
    for param in fn.params:
        name = names.get(param.value, param.path).replace(".", "/")
        known[param.value] = name
        kind = "Parameter" if param.value in names else "Input"
        nodes.append(_node(name, kind, [], [param.value.type], ""))
    for number, instr in enumerate(fn.instrs):
        layer = made_in.get(instr, "").replace(".", "/")
        name = f"{layer}/{instr.op.name}_{number}".lstrip("/")
        sources = [known[a] for a in instr.args]
        types = [r.type for r in instr.results]
        nodes.append(_node(name, instr.op.name, sources, types, str(instr.loc or "")))
        for index, result in enumerate(instr.results):
            known[result] = name if index == 0 else f"{name}:{index}"
    nodes += [_node(r.path, "Output", [known[r.value]], [r.value.type], "") for r in fn.results]
    return GraphDef(node=nodes, versions=VersionDef(producer=22))


def _node(name: str, op: str, sources: list[str], types: Sequence[TensorType], line: str) -> Any:
    from tensorboardX.proto.attr_value_pb2 import AttrValue
    from tensorboardX.proto.node_def_pb2 import NodeDef
    from tensorboardX.proto.tensor_shape_pb2 import TensorShapeProto

    shapes = [
        TensorShapeProto(dim=[TensorShapeProto.Dim(size=s) for s in t.static_shape]) for t in types
    ]
    attrs = {
        "_output_shapes": AttrValue(list=AttrValue.ListValue(shape=shapes)),
        "type": AttrValue(s=", ".join(map(str, types)).encode()),
    }
    if line:
        attrs["line"] = AttrValue(s=line.encode())
    return NodeDef(name=name, op=op, input=sources, attr=attrs)
