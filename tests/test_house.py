"""The house is read from above: each room imports only from the rooms before it, and no file goes round in a circle."""

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import tracked

SOURCE = Path(__file__).resolve().parents[1] / "src"
ROOMS = [
    "errors",
    "atomic",
    "cache",
    "fetch",
    "layers",
    "backbones",
    "networks",
    "weights",
    "images",
    "inference",
    "data",
    "training",
    "evaluation",
    "completion",
    "doctor",
    "web",
    "cli",
]
HEAVY = {"torch", "numpy", "PIL", "pyvips", "pydantic", "rich", "openvino", "safetensors"}


def imports() -> dict[str, set[str]]:
    """For every module, which modules of the package it imports, anywhere in its text."""
    modules = {".".join(p.relative_to(SOURCE).with_suffix("").parts): p for p in SOURCE.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for name, path in modules.items():
        taken = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                taken |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                taken |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        found[name] = {other for other in taken if other in modules and other != "finescale"}
    return found


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else None


def test_every_room_imports_only_from_rooms_before_it() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, taken in imports().items()
        for other in taken
        if room(module) and room(other) and ROOMS.index(str(room(other))) > ROOMS.index(str(room(module)))
    ]
    assert not wrong


def test_the_page_has_the_rooms_in_this_order() -> None:
    page = (SOURCE.parent / "docs" / "how-it-works.md").read_text("utf-8")
    told = re.findall(r"^  (\w+)(?:/|\.py) ", page, flags=re.MULTILINE)
    assert told == [*ROOMS, "__init__"]


def test_no_circles() -> None:
    try:
        list(TopologicalSorter(imports()).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import finescale", HEAVY),
        ("from finescale.cli.main import parser; parser()", HEAVY),
        ("import finescale.evaluation.scoring, finescale.evaluation.sets as sets; sets.folders()", {"torch"}),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str, heavy: set[str]) -> None:
    script = f"import sys; {code}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())


def test_everything_that_is_no_code_is_in_the_package() -> None:
    project = tomllib.loads((SOURCE.parent / "pyproject.toml").read_text("utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["finescale"]
    packed = {path for pattern in patterns for path in (SOURCE / "finescale").glob(pattern)}
    others = [path for path in tracked("src/finescale") if path.suffix != ".py"]
    assert others
    assert [path for path in others if path not in packed] == []
