"""The parts of the house depend on each other one way only."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("ir", "tracer", "passes", "codegen", "runtime", "nn", "examples", "bench")
BELOW = {
    "ir": set(),
    "tracer": {"ir"},
    "passes": {"ir"},
    "codegen": {"ir"},
    "runtime": {"ir", "tracer", "passes", "codegen"},
    "nn": {"ir", "tracer", "runtime"},
    "examples": {"ir", "tracer", "runtime", "nn"},
    "bench": {"ir", "tracer", "passes", "codegen", "runtime", "nn", "examples"},
}

# the knobs; and the walk that guards what a user's function reads from the environment
READS_THE_ENVIRONMENT = {Path("runtime/knobs.py"), Path("tracer/walk_code.py")}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(module, whether it is imported at the top level of the file)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, id(node) in top
            if node.module == "treadle":
                for alias in node.names:
                    yield f"treadle.{alias.name}", id(node) in top


def files(part: str) -> list[Path]:
    return sorted((ROOT / part).rglob("*.py"))


@pytest.mark.parametrize("part", PARTS)
def test_imports_run_one_way(part: str) -> None:
    wrong = []
    for path in files(part):
        for module, _ in imports(path):
            pieces = module.split(".")
            if pieces[0] != "treadle" or len(pieces) < 2 or pieces[1] not in PARTS:
                continue
            if pieces[1] != part and pieces[1] not in BELOW[part]:
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong


@pytest.mark.parametrize("part", ("ir", "tracer", "passes", "codegen", "runtime", "nn"))
def test_the_compiler_does_not_import_the_public_face(part: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in files(part)
        for module, _ in imports(path)
        if module == "treadle" or module.startswith("treadle.cli")
    ]
    assert not wrong


def test_only_codegen_and_the_run_time_import_llvmlite_and_only_when_used() -> None:
    for part in PARTS:
        for path in files(part):
            for module, at_top in imports(path):
                if module.split(".")[0] == "llvmlite":
                    assert part in ("codegen", "runtime"), path
                    assert not at_top, f"{path} imports llvmlite when it is imported itself"


def test_only_the_knobs_read_the_environment() -> None:
    for part in (*PARTS, "treadle"):
        for path in files(part):
            if path.relative_to(ROOT) in READS_THE_ENVIRONMENT:
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            named = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
            named |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
            assert not named & {"environ", "getenv"}, path


@pytest.mark.parametrize("part", ("ir", "tracer", "passes", "codegen", "runtime"))
def test_dataclasses_are_made_by_the_decorator_that_starts_fast(part: str) -> None:
    standard = re.compile(
        r"^from dataclasses import .*\bdataclass\b|dataclasses\.dataclass\b", re.M
    )
    wrong = [
        path.relative_to(ROOT)
        for path in files(part)
        if path.name != "dataclass.py" and standard.search(path.read_text(encoding="utf-8"))
    ]
    assert not wrong, "import it from treadle.ir.dataclass"
