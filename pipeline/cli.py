"""The command line: assembles the commands, and turns errors into three lines and an exit code.

0 done, 1 bug, 2 usage or config, 3 finished with failed blocks, 75 locked by another run (or a passing fault),
78 the directory holds a run with another identity, 130 and 143 ended by a signal.
"""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from importlib.metadata import version

from cyclopts import App, CycloptsError, Parameter

from pipeline.errors import ConfigError, IdentityMismatch
from workers.errors import Fenced, Retryable, RunLocked, WorkError
from workers.loop import is_retryable

COMMANDS = (
    "demo",
    "init",
    "plan",
    "run",
    "status",
    "retry",
    "segment",
    "sweep",
    "verify",
    "audit",
    "report",
    "train",
    "worker",
)

EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_TEMPORARY = 75
EXIT_IDENTITY = 78
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


def build_app() -> App:
    """The application; a command's module is imported only when it is called or asked for help."""
    app = App(
        name="neurotile",
        help="Neuron segmentation of electron-microscopy volumes, block by block: one answer on laptop and cluster.",
        version=lambda: version("neurotile"),
        version_flags=["--version"],
        default_parameter=Parameter(negative=()),
        suppress_keyboard_interrupt=False,
    )
    for name in COMMANDS:
        app.command(f"pipeline.commands.{name}:{name}", name=name)
    return app


def main(argv: list[str] | None = None) -> None:
    """Entry point of the console script."""
    words = sys.argv[1:] if argv is None else argv
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        code = build_app()(words, exit_on_error=False, print_error=True, result_action="return_value")
    except CycloptsError:
        code = EXIT_USAGE
    except KeyboardInterrupt as interrupt:
        code = EXIT_TERMINATED if type(interrupt).__name__ == "Terminated" else EXIT_INTERRUPTED
    except WorkError as error:
        _show(error, debug=debug)
        code = exit_code(error)
    except OSError as error:
        way_out = "mend the place (space, rights, path), then run again"
        _show(WorkError(f"the storage refused: {error}", way_out=way_out), debug=debug)
        code = EXIT_TEMPORARY if is_retryable(error) else EXIT_USAGE
    except Exception as error:
        _show(error, debug=debug)
        code = EXIT_BUG
    sys.exit(code if isinstance(code, int) else 0)


def exit_code(error: WorkError) -> int:
    """The exit code of an error that ended a command."""
    if isinstance(error, IdentityMismatch):
        return EXIT_IDENTITY
    if isinstance(error, RunLocked | Fenced | Retryable) and not isinstance(error, ConfigError):
        return EXIT_TEMPORARY
    return EXIT_USAGE


def _show(error: Exception, *, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    elif isinstance(error, WorkError):
        sys.stderr.write(f"error: {error}\n")
    else:
        sys.stderr.write(
            f"error: {type(error).__name__}: {error}\n  where: this is a bug in neurotile\n"
            "  way out: run the command again with --debug and report what it prints\n"
        )


def command_module(name: str) -> object:
    """The module behind a command, for documentation and tests."""
    return import_module(f"pipeline.commands.{name}")
