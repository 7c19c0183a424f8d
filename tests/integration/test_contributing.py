"""The walk-through in CONTRIBUTING.md is followed to the letter, on a copy of the packages.

The copy finds its kernels where the tests' own are, compiled already: numba goes by the path of a file.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("pipeline", "models", "workers")
FILE = re.compile(r"^\*\*`(?P<path>[\w/]+\.py)`\*\*\n\n```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
DEMO = "from pipeline.cli import main; main(['demo', '--json', '--executor', 'serial', {}])"
FLAGS = "'--size', '8,32,32', '--block', '4,32,16', '--out', 'run'"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages, with the walk-through applied."""
    folder = tmp_path_factory.mktemp("contributing")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    kernels = f"__path__.insert(0, {str(ROOT / 'pipeline' / 'ops')!r})\n"
    with (folder / "pipeline/ops/__init__.py").open("a", encoding="utf-8") as file:
        file.write(kernels)
    for found in FILE.finditer((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        target = folder / found["path"]
        if found["kind"] == "diff":
            target.write_text(patched(target.read_text(encoding="utf-8"), found["text"]), encoding="utf-8")
        else:
            assert not target.exists(), f"{found['path']} is there already: the walk-through needs another example"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(found["text"], encoding="utf-8")
    return folder


def patched(text: str, diff: str) -> str:
    """The text with the diff's added lines, each after the line that the diff shows before it."""
    lines, before = text.splitlines(), ""
    for step in diff.splitlines():
        if step.startswith("+"):
            assert lines.count(before) == 1, f"{before!r} stands {lines.count(before)} times in the file"
            lines.insert(lines.index(before) + 1, step[1:])
        assert step == "@@" or step[1:] in lines, f"{step[1:]!r} is not in the file"
        before = step[1:]
    return "\n".join(lines) + "\n"


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_it_writes_what_it_promises(copy: Path) -> None:
    written = {str(p.relative_to(copy)) for p in copy.rglob("*sizes.py")}
    assert written == {
        "pipeline/ops/sizes.py",
        "pipeline/stages/sizes.py",
        "tests/unit/pipeline/ops/test_sizes.py",
        "tests/unit/pipeline/stages/test_sizes.py",
    }
    result = python(copy, "-c", "from pipeline.plan import STAGES; print([kind.name for kind in STAGES])")
    assert "'relabel', 'sizes', 'upsample', 'pyramid'" in result.stdout, result.stderr


def test_its_own_tests_pass(copy: Path) -> None:
    result = python(copy, "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", "tests")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "5 passed" in result.stdout


def test_its_code_follows_the_house_rules(copy: Path) -> None:
    ruff = str(Path(sys.executable).with_name("ruff"))
    files = [str(p) for p in copy.rglob("*sizes.py")]
    settings = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    for words in (["check", *settings], ["format", "--check", *settings]):
        result = subprocess.run([ruff, *words, *files], cwd=copy, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr


def test_a_run_has_the_stage(copy: Path) -> None:
    result = python(copy, "-c", DEMO.format(FLAGS))
    assert result.returncode == 0, result.stderr
    blocks = json.loads(result.stdout)["tasks"]
    grid = blocks["relabel/blocks"]["total"]
    assert grid == 4
    assert (blocks["sizes/blocks"]["done"], blocks["sizes/total"]["done"]) == (grid, 1)
    assert list((copy / "run/data").glob("sizes-*/total/0/0/0.arrow"))
