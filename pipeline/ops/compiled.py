"""The one way kernels are compiled: to machine code, kept on disk between runs, without holding the interpreter.

The cache is private to the user. A kernel's folder is named after the sources of its own file and of every file of
ops that it imports, however indirectly: numba itself looks only at the file of the outer kernel, and would go on using
the old code of a kernel it calls from another file.
"""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])

OPS = Path(__file__).parent
CHOSEN_BY_USER = numba.config.CACHE_DIR  # NUMBA_CACHE_DIR, if set


def compiled(function: Function) -> Function:
    """Decorate a kernel; its type stays visible to the type checker."""
    return _jit(function)


def vectorised(function: Function) -> Function:
    """Decorate a kernel that divides as hardware does (x / 0 is inf, no exception), so that its loops vectorise."""
    return _jit(function, error_model="numpy")


def _jit(function: Function, **options: Any) -> Function:
    """Numba reads its cache folder when it decorates a function."""
    if not CHOSEN_BY_USER:
        numba.config.CACHE_DIR = _cache_folder(function.__code__.co_filename)
    return cast(Function, numba.njit(cache=True, nogil=True, **options)(function))


@cache
def _cache_folder(source: str) -> str:
    digest = hashlib.sha256()
    for path in sorted(_imported(Path(source))):
        digest.update(path.read_bytes())
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return str(caches / "neurotile" / f"kernels-{Path(source).stem}-{digest.hexdigest()[:16]}")


def _imported(source: Path) -> set[Path]:
    """A file, and all files of ops that it imports, directly or not."""
    known: set[Path] = set()
    waiting = [source]
    while waiting:
        path = waiting.pop()
        if path not in known:
            known.add(path)
            waiting.extend(_imports(path))
    return known


@cache
def _imports(path: Path) -> tuple[Path, ...]:
    return tuple(p for p in _imported_names(ast.parse(path.read_bytes())) if p.exists())


def _imported_names(tree: ast.Module) -> Iterator[Path]:
    """Where the modules of ops that a file imports from would be."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "pipeline.ops":
            yield from (OPS / f"{alias.name}.py" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pipeline.ops."):
            yield OPS / f"{node.module.rpartition('.')[2]}.py"
