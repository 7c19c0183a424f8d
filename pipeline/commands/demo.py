"""`neurotile demo`: make a volume, segment it through the real pipeline, score it, and write the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pipeline.commands import outcome as ending
from pipeline.commands.execute import carry_out, with_flags
from pipeline.commands.terminal import print_json
from pipeline.config import RunConfig, parse
from pipeline.digests import hashes
from pipeline.errors import ConfigError
from pipeline.geometry import Index
from pipeline.outcome import Outcome
from pipeline.report import scores
from pipeline.rundir import RunFolder
from pipeline.work import recorded_config

CHUNK = (32, 64, 64)
FINER = (1, 2, 2)  # the image is finer in-plane than the segmented layer, as it is in practice
VOXEL_NM = (30.0, 6.0, 6.0)


def demo(
    *,
    out: Annotated[Path, Parameter(help="run directory; an existing one is gone on with")] = Path("demo"),
    size: Annotated[
        str | None,
        Parameter(help="Z,Y,X: voxels of the segmentation, 64,256,256; the image is twice as fine in-plane"),
    ] = None,
    block: Annotated[
        str | None, Parameter(help="Z,Y,X: voxels of a block, 32,128,128; never part of the answer")
    ] = None,
    seed: Annotated[int | None, Parameter(help="another seed, another volume")] = None,
    workers: Annotated[int | None, Parameter(help="worker processes")] = None,
    executor: Annotated[str | None, Parameter(help="daisy or serial")] = None,
    self_touching: Annotated[bool, Parameter(help="processes that touch themselves")] = False,
    json: Annotated[bool, Parameter(help="one object on stdout")] = False,
    quiet: Annotated[bool, Parameter(help="no progress")] = False,
) -> int:
    """Segment a generated volume, in under three minutes on two cores."""
    flags = {"workers": workers, "executor": executor}
    known = _recorded(out) or demo_config((64, 256, 256), (32, 128, 128), seed=0, self_touching=False)
    generated = known.input.synthetic
    if generated is None:
        raise ConfigError("the run in this folder is no demo", where=str(out), way_out="choose another --out")
    said = (size, block, seed, self_touching or None)
    if any(value is not None for value in said):
        z, y, x = (extent // factor for extent, factor in zip(generated.size, FINER, strict=True))
        known = demo_config(
            triple(size, "--size") if size else (z, y, x),
            triple(block, "--block") if block else known.blocks.shape,
            seed=generated.seed if seed is None else seed,
            self_touching=self_touching or generated.self_touching,
        )
    config = with_flags(known, flags)
    outcome = carry_out(out, config, update=False, retry=False, quiet=quiet or json)
    if json:
        print_json(demo_json(outcome))
    else:
        ending.tell(outcome)
        _say_scores(outcome)
    return ending.exit_code(outcome)


def _recorded(out: Path) -> RunConfig | None:
    """The config of the demo that is in the folder already: what is not said again stays as it was."""
    folder = RunFolder(out)
    return recorded_config(folder) if folder.exists() else None


def demo_config(size: Index, block: Index, *, seed: int, self_touching: bool) -> RunConfig:
    """The config of the demo: two workers of each pool, so that the network keeps both cores busy."""
    chunk = [_divisor(extent, wish) for extent, wish in zip(block, CHUNK, strict=True)]
    image = [extent * factor for extent, factor in zip(size, FINER, strict=True)]
    generated = {"seed": seed, "size": image, "voxel_size_nm": VOXEL_NM, "self_touching": self_touching}
    return parse(
        {
            "input": {"synthetic": generated},
            "blocks": {"shape": block, "chunk": chunk},
            "workers": {"gpu": {"count": 2}},
        },
        where="the demo's flags",
    )


def _divisor(extent: int, wish: int) -> int:
    """The largest divisor of an extent that is no larger than wished."""
    return next(part for part in range(min(extent, wish), 0, -1) if extent % part == 0)


def triple(text: str, flag: str) -> Index:
    """Three positive whole numbers."""
    try:
        z, y, x = (int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{flag} needs three whole numbers Z,Y,X, not {text!r}") from None
    if min(z, y, x) < 1:
        raise ConfigError(f"{flag} {text} must be positive")
    return (z, y, x)


def demo_json(outcome: Outcome) -> dict[str, Any]:
    """The demo's end for programs: scores, counts, and the hashes that prove the one answer."""
    return {**scores(outcome), **ending.as_json(outcome), **hashes(outcome)}


def _say_scores(outcome: Outcome) -> None:
    found = scores(outcome)
    if found.get("voi") is not None:
        line = f"VOI {found['voi']:.3f} bits (split {found['voi_split']:.3f}, merge {found['voi_merge']:.3f}), "
        print_line(f"{line}ARAND {found['arand']:.4f}")
    print_line(f"report: {outcome.folder.report}")


def print_line(text: str) -> None:
    """One line on stdout."""
    print(text)
