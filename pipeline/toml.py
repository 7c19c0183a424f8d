"""A config as TOML text, for people. `tomllib` reads it back as it was; what is not set is left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def dump(content: Mapping[str, Any], name: str = "", *, listed: bool = False) -> str:
    """The text of a mapping of plain values."""
    plain = {key: value for key, value in content.items() if value is not None and not _is_section(value)}
    lines = [f"{key} = {_toml_value(value)}" for key, value in plain.items()]
    if listed:
        lines.insert(0, f"[[{name}]]")
    elif name and lines:
        lines.insert(0, f"[{name}]")
    blocks = ["\n".join(lines)]
    for key, value in content.items():
        full = f"{name}.{key}".strip(".")
        if isinstance(value, Mapping):
            blocks.append(dump(value, full))
        elif _is_section(value):
            blocks += [dump(one, full, listed=True) for one in value]
    return "\n\n".join(block for block in blocks if block)


def _is_section(value: object) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


def _toml_value(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_toml_value(one) for one in value)}]"
    return json.dumps(value, ensure_ascii=False)
