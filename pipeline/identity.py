"""What changed between the run in a directory and the config at hand, and whether it changes the answer.

Every field of the config says what it affects (pipeline.config); facts about inputs and weights always affect the
answer. A difference that affects nothing stored is taken over in silence; any other needs the user's word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from pipeline.config import RunConfig
from pipeline.errors import IdentityMismatch
from pipeline.sections import Affects

_EFFECTS = {
    "answer": "changes the answer",
    "layout": "changes the layout only, not the answer",
    "nothing": "changes nothing that is stored",
}


@dataclass(frozen=True)
class Change:
    """One difference."""

    key: str
    before: Any
    after: Any
    affects: Affects

    def __str__(self) -> str:
        return f"{self.key}: {self.before} -> {self.after} ({_EFFECTS[self.affects]})"


def changes(old: RunConfig, new: RunConfig, old_facts: dict[str, Any], new_facts: dict[str, Any]) -> list[Change]:
    """All differences of two configs and of the world they were resolved in."""
    found = list(_config_changes("", old, new, "answer"))
    for key in ("image", "affinities", "truth", "masks", "weights", "override_weights", "self_touch_weights"):
        if old_facts.get(key) != new_facts.get(key):
            found.append(Change(key, _short(old_facts.get(key)), _short(new_facts.get(key)), "answer"))
    return found


def _config_changes(prefix: str, old: Any, new: Any, affects: Affects) -> Iterator[Change]:
    if old == new:
        return
    if isinstance(old, BaseModel) and type(old) is type(new):
        for name, field in type(old).model_fields.items():
            extra = field.json_schema_extra
            own = extra.get("affects", affects) if isinstance(extra, dict) else affects
            key = f"{prefix}.{name}".strip(".")
            yield from _config_changes(key, getattr(old, name), getattr(new, name), own)  # type: ignore[arg-type]
    elif isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new) and isinstance(old[0], BaseModel):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _config_changes(f"{prefix}[{number}]", one, other, affects)
    else:
        yield Change(prefix, old, new, affects)


def _short(facts: Any) -> str:
    if isinstance(facts, dict):
        shown = facts.get("sha256") or facts.get("fingerprint") or ""
        return f"{shown[:12]} {facts.get('shape', '')}".strip()
    return "none" if facts is None else str([_short(item) for item in facts])


def insist(found: list[Change], where: str) -> None:
    """Raise IdentityMismatch with the diff if anything that is stored would be affected."""
    serious = [change for change in found if change.affects != "nothing"]
    if not serious:
        return
    answer = any(change.affects == "answer" for change in serious)
    effect = "would change the answer" if answer else "would change the layout, not the answer"
    raise IdentityMismatch(
        f"the config differs from the run in this directory and {effect}: " + "; ".join(str(c) for c in serious),
        where=where,
        way_out="`--update` re-runs exactly the blocks that depend on it; or choose another --out",
    )
