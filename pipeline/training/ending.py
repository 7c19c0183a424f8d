"""Reasons to end a training before its last step: SIGINT, SIGTERM, or its minutes are over.

A signal is only noted: the loop saves its state and comes back. The second one of a kind does what it always does.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_OF = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Ending:
    """Called, it says whether it is time; `exit_code` says why: 0 for the clock."""

    def __init__(self, minutes: float | None = None) -> None:
        self.exit_code = 0
        self._deadline = None if minutes is None else time.monotonic() + 60 * minutes
        self._signalled = False

    def __call__(self) -> bool:
        """Whether to stop."""
        return self._signalled or (self._deadline is not None and time.monotonic() >= self._deadline)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note signals; only the main thread may."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in EXIT_OF}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
        self.exit_code = EXIT_OF[signal.Signals(number)]
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
