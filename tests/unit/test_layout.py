"""The house rules that a program can check: sizes, contracts, imports, configs, packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from pipeline import cli, config, training

ROOT = Path(__file__).parents[2]
PACKAGES = ("pipeline", "models", "workers")
LONGEST_FILE = 400
LONGEST_FUNCTION = 60
FOLDERS = (*PACKAGES, "tests", "benchmarks")


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def named(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_files_are_short() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources(*FOLDERS)}
    assert len(lengths) > 50
    assert not {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > LONGEST_FILE}


def test_functions_are_short() -> None:
    long = []
    for path in sources(*FOLDERS):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append(f"{path.relative_to(ROOT)}: {node.name} has {lines} lines")
    assert not long


def test_nothing_is_a_drawer() -> None:
    drawers = {"utils", "util", "common", "helpers", "tmp", "misc"}
    assert not [name for name in named(sources(*PACKAGES)) if drawers & set(name.removesuffix(".py").split("/"))]


def test_every_module_says_what_it_is() -> None:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sources(*PACKAGES)}
    assert not named([path for path, tree in trees.items() if ast.get_docstring(tree) is None])


def test_every_shipped_config_loads() -> None:
    shipped = sorted((ROOT / "configs").rglob("*.toml"))
    assert shipped
    for path in shipped:
        load = training.load if "train" in path.stem.split("_") else config.load
        load(path)


def test_configs_and_tests_are_no_packages() -> None:
    strays = [path for folder in ("configs", "tests") for path in (ROOT / folder).rglob("__init__.py")]
    assert not named(strays)
    assert not named(sources("configs"))


def test_every_command_is_in_the_documentation() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    told = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    assert not [verb for verb in cli.COMMANDS if f"neurotile {verb}" not in told]


@pytest.mark.parametrize("verb", cli.COMMANDS)
def test_every_command_is_a_function_of_its_module(verb: str) -> None:
    assert callable(getattr(cli.command_module(verb), verb))


def test_the_packages_come_from_one_place() -> None:
    places = {str(Path(str(import_module(name).__file__)).parents[1]) for name in PACKAGES}
    assert len(places) == 1, f"an intruder: {places}"


def test_import_contracts_are_kept() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_ops_do_no_input_and_output() -> None:
    forbidden = {"torch", "zarr", "tensorstore", "daisy", "h5py", "pyarrow", "pydantic"}
    found = []
    for path in sources("pipeline/ops"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            bad = [m for m in modules if m.partition(".")[0] in forbidden or m == "pipeline.config"]
            found += [f"{path.name}: {module}" for module in bad]
    assert not found


def test_the_command_line_starts_without_torch() -> None:
    modules = ["pipeline.cli", "pipeline.plan", *(f"pipeline.commands.{path.stem}" for path in _commands())]
    code = "import importlib, sys\n"
    code += f"for module in {modules!r}:\n    importlib.import_module(module)\n"
    code += "sys.exit('torch' in sys.modules)\n"
    result = python(code)
    assert result.returncode == 0, result.stderr or "torch was imported"


def _commands() -> list[Path]:
    return [path for path in sources("pipeline/commands") if path.stem != "__init__"]
