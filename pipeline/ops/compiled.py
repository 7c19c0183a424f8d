"""The one way kernels are compiled: to machine code, kept on disk between runs, without holding the interpreter.

The cache is private to the user and named after the sources of all ops: numba itself looks only at the file of the
outer kernel, and would go on using the old code of a kernel it calls from another file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def _cache_folder() -> str:
    sources = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        sources.update(path.read_bytes())
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return str(caches / "neurotile" / f"kernels-{sources.hexdigest()[:16]}")


if not numba.config.CACHE_DIR:  # NUMBA_CACHE_DIR, if set, is the user's own choice
    numba.config.CACHE_DIR = _cache_folder()


def compiled(function: Function) -> Function:
    """Decorate a kernel; its type stays visible to the type checker."""
    return cast(Function, numba.njit(cache=True, nogil=True)(function))


def vectorised(function: Function) -> Function:
    """Decorate a kernel that divides as hardware does (x / 0 is inf, no exception), so that its loops vectorise."""
    return cast(Function, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
