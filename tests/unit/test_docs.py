"""What the documentation says is there: links, files, commands, config keys, error messages, exit codes."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from pipeline import cli, errors
from pipeline.commands import outcome
from pipeline.config import RunConfig
from workers import errors as work_errors

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
ROW = re.compile(r"^\| `(\w+)` \| `(.+?)` \|")
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
ELLIPSIS = "…"

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"```.*?```", "", read(page), flags=re.DOTALL)


@pages
def test_links_lead_somewhere(page: Path) -> None:
    targets = [target for target in LINK.findall(prose(page)) if "://" not in target]
    assert not [target for target in targets if not (page.parent / target).exists()]


@pages
def test_files_that_are_named_exist(page: Path) -> None:
    if page.name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        return  # one tells of the past, the other of files that its reader writes
    named = [word for word in CODE.findall(prose(page)) if re.fullmatch(r"[\w.-]+/[\w./-]+\.(py|md|toml|png)", word)]
    assert not [word for word in named if not (ROOT / word).exists()]


@pages
def test_no_page_knows_a_machine(page: Path) -> None:
    assert not re.findall(r"(?<![\w.`/])/(?:home|root|tmp|work|mnt|Users)/\S*", read(page))


@pages
def test_config_keys_exist(page: Path) -> None:
    sections = set(RunConfig.model_fields)
    keys = [word for word in CODE.findall(prose(page)) if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", word)]
    unknown = [key for key in keys if key.partition(".")[0] in sections and not _is_key(RunConfig, key.split("."))]
    assert not [key for key in unknown if not key.endswith(".lock")]


def _is_key(model: type[BaseModel], parts: list[str]) -> bool:
    field = model.model_fields.get(parts[0])
    if field is None:
        return False
    if len(parts) == 1:
        return True
    inner: Any = field.annotation
    models = [inner, *getattr(inner, "__args__", ())]
    return any(isinstance(m, type) and issubclass(m, BaseModel) and _is_key(m, parts[1:]) for m in models)


def test_every_design_page_is_listed() -> None:
    folder = ROOT / "docs" / "design"
    listed = LINK.findall(read(folder / "README.md"))
    assert sorted(listed) == sorted(page.name for page in folder.glob("*.md") if page.name != "README.md")


# ---- commands ------------------------------------------------------------------------------------------------------
def commands(page: Path) -> list[str]:
    blocks = CONSOLE.findall(read(page))
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def test_the_readme_starts_with_commands_that_exist() -> None:
    lines = commands(ROOT / "README.md")
    assert lines[0] == "make demo"
    targets = re.findall(r"^(\w+):", read(ROOT / "Makefile"), re.MULTILINE)
    for line in lines:
        program, verb = line.split()[:2]
        known = targets if program == "make" else cli.COMMANDS
        assert program in ("make", ".venv/bin/neurotile"), line
        assert verb in known, line


def test_verbs_in_prose_exist() -> None:
    present = [page for page in PAGES if page.name != "CHANGELOG.md"]
    verbs = {verb for page in present for verb in re.findall(r"`neurotile ([a-z]+)", prose(page))}
    assert verbs <= set(cli.COMMANDS)


def test_exit_codes_are_those_of_the_command_line() -> None:
    cells = re.findall(r"^\| ([\d, ]+) \|", read(ROOT / "docs/errors.md"), re.MULTILINE)
    told = {int(code) for cell in cells for code in cell.split(",")}
    ours = {getattr(cli, name) for name in vars(cli) if name.startswith("EXIT_")}
    assert told == ours | {outcome.EXIT_DONE, outcome.EXIT_FAILED_BLOCKS, 143}
    assert all(re.search(rf"\b{code}\b", read(ROOT / "README.md")) for code in told)


# ---- errors --------------------------------------------------------------------------------------------------------
def spoken() -> list[str]:
    """All text constants of the packages, pieces of f-strings included."""
    found = []
    for folder in ("pipeline", "models", "workers"):
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found += [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return found


def rows() -> list[tuple[str, str]]:
    found = [ROW.match(line) for line in read(ROOT / "docs/errors.md").splitlines()]
    return [(row[1], row[2]) for row in found if row]


@pytest.mark.parametrize(("kind", "message"), rows(), ids=lambda word: word[:40])
def test_messages_are_those_of_the_code(kind: str, message: str) -> None:
    assert hasattr(errors, kind) or hasattr(work_errors, kind)
    texts = spoken()
    pieces = [piece for piece in message.split(ELLIPSIS) if len(piece.strip()) > 3]
    assert pieces
    assert not [piece for piece in pieces if not any(piece in text for text in texts)]


def test_every_error_is_explained() -> None:
    assert len(rows()) > 40
    families = {errors.InputError, errors.ChunkError, work_errors.Retryable, work_errors.Poison, work_errors.WorkError}
    ours = [
        kind
        for module in (errors, work_errors)
        for kind in vars(module).values()
        if inspect.isclass(kind) and issubclass(kind, work_errors.WorkError) and kind not in families
    ]
    told = read(ROOT / "docs/errors.md")
    assert not [kind.__name__ for kind in ours if f"`{kind.__name__}`" not in told]


def test_the_tree_of_errors_is_the_tree() -> None:
    drawn = errors.__doc__ or ""
    ours = [kind for kind in vars(errors).values() if inspect.isclass(kind) and kind.__module__ == errors.__name__]
    assert not [kind.__name__ for kind in ours if f"─ {kind.__name__}" not in drawn]
