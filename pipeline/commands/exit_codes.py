"""How commands that do blocks end; in a file of its own, so that workers start without what reports need."""

from __future__ import annotations

EXIT_DONE = 0
EXIT_FAILED_BLOCKS = 3
