"""Trees of arguments and results."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, strategies as st

from treadle.tracer.pytree import (
    TreeError,
    flatten,
    flatten_with_paths,
    register_container,
    tree_map,
    unflatten,
)

Point = namedtuple("Point", ["x", "y"])


@dataclass
class Params:
    w: Any
    b: Any = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self.w = [self.w]  # rebuilding must not run this again


leaves = st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)
keys = st.text(max_size=3) | st.integers() | st.tuples(st.integers(), st.text(max_size=2))
trees = st.recursive(
    leaves | st.none(),
    lambda t: (
        st.lists(t, max_size=3)
        | st.lists(t, max_size=3).map(tuple)
        | st.dictionaries(keys, t, max_size=3)
        | st.dictionaries(keys, t, max_size=3).map(OrderedDict)
        | st.builds(Point, t, t)
        | st.builds(Params, t, b=t)
    ),
    max_leaves=12,
)


@given(trees)
def test_a_tree_is_rebuilt_from_its_leaves(tree: Any) -> None:
    flat, treedef = flatten(tree)
    again = unflatten(treedef, flat)
    assert again == tree
    assert type(again) is type(tree)
    assert hash(flatten(again)[1]) == hash(treedef)
    assert flatten(again)[1] == treedef


@given(trees)
def test_paths_lead_to_their_leaves(tree: Any) -> None:
    for path, leaf in flatten_with_paths(tree, "tree")[0]:
        assert eval(path, {"tree": tree}) is leaf


def test_paths_read_as_the_user_would_write_them() -> None:
    tree = {"image": [1, 2], 3: Point(4, (5,)), "p": Params(6)}
    paths = [path for path, _ in flatten_with_paths(tree, "batch")[0]]
    assert paths == [
        "batch['image'][0]", "batch['image'][1]", "batch[3].x", "batch[3].y[0]", "batch['p'].w[0]",
    ]  # fmt: skip


def test_the_order_of_a_dictionary_is_kept_and_is_part_of_the_structure() -> None:
    first, second = {"b": 1, "a": 2}, {"a": 2, "b": 1}
    assert flatten(first)[0] == [1, 2]
    assert flatten(first)[1] != flatten(second)[1]


def test_a_defaultdict_keeps_its_factory() -> None:
    flat, treedef = flatten(defaultdict(list, a=1))
    assert unflatten(treedef, flat).default_factory is list


def test_none_is_structure_and_not_a_leaf() -> None:
    flat, treedef = flatten([None, 1])
    assert flat == [1]
    assert flatten([1, None])[1] != treedef


def test_a_wrong_number_of_leaves_is_refused() -> None:
    treedef = flatten((1, 2))[1]
    with pytest.raises(TreeError, match="too few leaves"):
        unflatten(treedef, [1])
    with pytest.raises(TreeError, match="too many leaves for a tree tuple"):
        unflatten(treedef, [1, 2, 3])


def test_map_needs_equal_structures() -> None:
    assert tree_map(lambda a, b: a + b, {"x": 1, "y": (2,)}, {"x": 10, "y": (20,)}) == {
        "x": 11,
        "y": (22,),
    }
    with pytest.raises(TreeError, match="differ in structure"):
        tree_map(lambda a, b: a, [1], (1,))


def test_a_users_own_container_can_be_registered() -> None:
    class Pair:
        def __init__(self, left: Any, right: Any) -> None:
            self.left, self.right = left, right

    assert len(flatten(Pair(1, 2))[0]) == 1
    register_container(Pair, lambda p: ((p.left, p.right), None), lambda _, c: Pair(*c))
    doubled = tree_map(lambda x: 2 * x, Pair(1, [2, 3]))
    assert (doubled.left, doubled.right) == (2, [4, 6])
    with pytest.raises(ValueError, match="already"):
        register_container(Pair, lambda p: ((), None), lambda _, c: None)
