"""Batches that are ready when the network wants them: drawn by a thread, or by processes, a few steps ahead.

1. A batch is a function of its step, so that it does not matter who draws it, or when; they are handed out in order.
2. One loader is a thread of this process: the network's own work leaves Python alone. More are processes, which get
   the samples once. They end with this process, whatever ends it, and leave signals to it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import wait
from types import TracebackType
from typing import Self

from models.crops import Batch, Drawing, Sample, draw

AHEAD = 2  # batches for every loader


class Batches:
    """The batches of the steps first, first + 1, ... up to the last; to be closed."""

    def __init__(self, samples: Sequence[Sample], drawing: Drawing, *, first: int, last: int, loaders: int = 1) -> None:
        self._steps = iter(range(first, last))
        self._ready: deque[Future[Batch]] = deque()
        self._executor: Executor
        self._draw: Callable[[int], Batch]
        if loaders > 1:
            context = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(loaders, context, _begin, (samples, drawing))
            self._draw = _draw_here
        else:
            self._executor = ThreadPoolExecutor(1, "crops")
            self._draw = partial(draw, samples, drawing)
        for _ in range(AHEAD * loaders):
            self._order()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(cancel_futures=True)

    def take(self) -> Batch:
        """The next batch; waits until it is there."""
        batch = self._ready.popleft().result()
        self._order()
        return batch

    def _order(self) -> None:
        step = next(self._steps, None)
        if step is not None:
            self._ready.append(self._executor.submit(self._draw, step))


# ---- inside of a loader's process ----------------------------------------------------------------------------------
_here: dict[str, Callable[[int], Batch]] = {}


def _begin(samples: Sequence[Sample], drawing: Drawing) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _here["draw"] = partial(draw, samples, drawing)


def _draw_here(step: int) -> Batch:
    return _here["draw"](step)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
