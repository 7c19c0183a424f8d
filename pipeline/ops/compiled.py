"""The one way kernels are compiled: to machine code, kept on disk between runs, without holding the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Decorate a kernel; its type stays visible to the type checker."""
    return cast(Function, njit(cache=True, nogil=True)(function))
