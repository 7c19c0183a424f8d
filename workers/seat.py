"""A seat: a worker process that takes one order after the other, and the wire over which it gets them.

Starting a worker costs a second or two of imports and kernels; a run has some thirty tasks. So workers outlive a task.
The wire is a Unix socket without a file (Linux's abstract names), for processes of the same user only:

    seat      listens (on a socket it was born with), says "ready"
    customer  holds the name's lock, connects, sends an order, waits
    seat      does it, says "done", listens again

Whoever dies, the other learns of it at once, for the connection breaks: a customer whose seat dies counts a dead
worker; a seat whose customer dies ends itself, because any moment is safe.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

SEAT = "NEUROTILE_SEAT"  # for a worker: the file descriptor on which it listens
EXIT_CUSTOMER_GONE = 75
START_S = 60.0  # the longest that a seat may take to start, or to begin another order
_READY, _DONE = b"ready\n", b"done\n"


@dataclass(frozen=True)
class Order:
    """Tasks to work on, and what differs between orders in a worker's environment."""

    tasks: Sequence[str]
    environment: Mapping[str, str]
    log: str

    def encode(self) -> bytes:
        """As one line."""
        return json.dumps(asdict(self)).encode() + b"\n"


# ---- the customer's end ----------------------------------------------------------------------------------------
class Engaged:
    """A seat that has nothing else to do than our order."""

    def __init__(self, lock: socket.socket, wire: socket.socket) -> None:
        self._lock = lock
        self._wire = wire

    def send(self, order: Order) -> None:
        """Give the order; if the seat has died meanwhile, `wait` says so."""
        with suppress(OSError):
            self._wire.sendall(order.encode())

    def wait(self, timeout_s: float | None = None) -> bool | None:
        """Whether the order was done; None while it goes on. False: the seat died of it."""
        self._wire.settimeout(timeout_s)
        try:
            return _line(self._wire) == _DONE
        except TimeoutError:
            return None

    def leave(self) -> None:
        """Hand the seat back. If it is not done, this ends it."""
        self._wire.close()
        self._lock.close()


def engage(names: Sequence[str]) -> Engaged | None:
    """A free and living seat among these; None if there is none. It may still be starting."""
    for name in names:
        lock, wire = (socket.socket(socket.AF_UNIX) for _ in range(2))
        try:
            lock.bind(f"\0{name}-taken")  # free again when its holder ends, however it ends
            wire.settimeout(START_S)
            wire.connect(f"\0{name}")
            if _line(wire) == _READY:
                wire.settimeout(None)
                return Engaged(lock, wire)
        except OSError:
            pass  # taken, dead, or stuck in what somebody else has given up
        wire.close()
        lock.close()
    return None


def _line(wire: socket.socket) -> bytes:
    """What the other end says, up to the end of a line; nothing if it is gone."""
    said = b""
    try:
        while not said.endswith(b"\n") and (more := wire.recv(1 << 16)):
            said += more
    except ConnectionError:
        return b""
    return said


# ---- the seat's end --------------------------------------------------------------------------------------------
def listen(name: str) -> socket.socket:
    """The socket of a new seat."""
    place = socket.socket(socket.AF_UNIX)
    place.bind(f"\0{name}")
    place.listen()
    return place


def serve(handle: int, do: Callable[[Order], None]) -> NoReturn:
    """Do orders, until somebody ends this process."""
    place = socket.socket(fileno=handle)
    while True:
        wire, _ = place.accept()
        with wire:
            if _user_of(wire) == os.getuid():
                _serve_one(wire, do)
        _give_memory_back()


def _serve_one(wire: socket.socket, do: Callable[[Order], None]) -> None:
    _tell(wire, _READY)
    if not (said := _line(wire)):
        return  # a customer that has given up
    order = Order(**json.loads(said))
    over = threading.Event()
    watcher = threading.Thread(target=_end_with_customer, args=(wire, over), name="customer", daemon=True)
    watcher.start()
    try:
        with _output_to(order.log), _environment(order.environment):
            do(order)
    finally:
        over.set()  # an order that fails ends the process by itself, with its last words
    _tell(wire, _DONE)
    watcher.join()  # the customer leaves when it has heard


def _tell(wire: socket.socket, message: bytes) -> None:
    with suppress(OSError):  # nobody listens any more
        wire.sendall(message)


def _end_with_customer(wire: socket.socket, over: threading.Event) -> None:
    with suppress(OSError):
        wire.recv(1)
    if not over.is_set():
        os._exit(EXIT_CUSTOMER_GONE)


def _user_of(wire: socket.socket) -> int:
    credentials = wire.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


@contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)  # it may have been taken out already
        else:
            os.environ[name] = value


@contextmanager
def _output_to(log: str) -> Iterator[None]:
    """Send what is printed to another file; an order that fails ends the process, so its last words go there too."""
    kept = os.dup(1), os.dup(2)
    target = _opened(Path(log))
    for stream in (1, 2):
        os.dup2(target, stream)
    os.close(target)
    yield
    for stream, before in zip((1, 2), kept, strict=True):
        os.dup2(before, stream)
        os.close(before)


def _opened(log: Path) -> int:
    """The log; nowhere if the disk is full, which must not keep a worker from working."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def _give_memory_back() -> None:
    """What an order's arrays leave behind must not stand in the way of the next one, or of another process."""
    gc.collect()
    with suppress(AttributeError):  # a C library that has no such call
        ctypes.CDLL(None).malloc_trim(0)
