"""The state that a training goes on from: tensors in parts of less than 16 MiB, and a manifest that names them.

1. The tensors become the bytes of one safetensors file, which are cut into parts. A part is named after their hash.
2. Parts are written first, each whole and durable; the manifest replaces the old one last. Killed before that, the
   old manifest and its parts are still there; parts that no manifest names are removed with the next state.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from models.checkpoint import read_tensors, write_file
from models.errors import WeightsInvalid

MANIFEST = "state.json"
PART_BYTES = 15 << 20
FORMAT = 1


def has_state(folder: Path) -> bool:
    """Whether there is a state to go on from."""
    return (folder / MANIFEST).exists()


def save_state(folder: Path, state: Mapping[str, Tensor]) -> None:
    """Keep a state in a folder of its own, instead of the one that is there."""
    content = save({name: t.detach().to("cpu").contiguous() for name, t in state.items()})
    digest = hashlib.sha256(content).hexdigest()
    cuts = range(0, len(content), PART_BYTES)
    names = [f"{digest[:16]}-{number:03d}.part" for number in range(len(cuts))]
    for name, begin in zip(names, cuts, strict=True):
        write_file(folder / name, content[begin : begin + PART_BYTES])
    manifest = {"format": FORMAT, "sha256": digest, "bytes": len(content), "parts": names}
    write_file(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
    for path in folder.glob("*.part*"):
        if path.name not in names:
            path.unlink(missing_ok=True)


def load_state(folder: Path) -> dict[str, Tensor]:
    """The tensors that `save_state` kept; WeightsInvalid if a byte of them is wrong."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        names, digest, known = [str(name) for name in manifest["parts"]], manifest["sha256"], manifest["format"]
        if known != FORMAT or any(Path(name).name != name for name in names):
            raise ValueError("another format")
        content = b"".join((folder / name).read_bytes() for name in names)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsInvalid(f"the state of this training cannot be read: {error}", where=str(path)) from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise WeightsInvalid("the parts of this training's state do not have the hash in its manifest", where=str(path))
    return read_tensors(content, path)
