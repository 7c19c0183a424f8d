"""`neurotile demo`: make a volume, segment it through the real pipeline, score it, and write the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pipeline.commands import outcome as ending
from pipeline.commands.execute import carry_out
from pipeline.commands.terminal import print_json
from pipeline.config import RunConfig, parse
from pipeline.digests import sha256_of
from pipeline.errors import ConfigError
from pipeline.geometry import Index
from pipeline.run import Outcome
from pipeline.rundir import RunFolder
from pipeline.stages.evaluate import Evaluate
from pipeline.stages.predict import Predict
from pipeline.stages.relabel import Relabel
from workers.block import BlockRef

CHUNK = (32, 64, 64)
FINER = (1, 2, 2)  # the image is finer in-plane than the segmented layer, as it is in practice
VOXEL_NM = (30.0, 6.0, 6.0)
DEFAULT_SIZE = (64, 256, 256)
DEFAULT_BLOCK = (32, 128, 128)


def demo(
    *,
    out: Annotated[Path, Parameter(help="run directory; an existing one is gone on with")] = Path("demo"),
    size: Annotated[
        str, Parameter(help="Z,Y,X: voxels of the segmentation; the image is twice as fine in y and x")
    ] = "",
    block: Annotated[str, Parameter(help="Z,Y,X: voxels of a block; never part of the answer")] = "",
    seed: Annotated[int | None, Parameter(help="another seed, another volume")] = None,
    workers: Annotated[int | None, Parameter(help="worker processes")] = None,
    executor: Annotated[str | None, Parameter(help="daisy or serial")] = None,
    self_touching: Annotated[bool, Parameter(help="processes that touch themselves")] = False,
    json: Annotated[bool, Parameter(help="one object on stdout")] = False,
    quiet: Annotated[bool, Parameter(help="no progress")] = False,
) -> int:
    """Segment a generated volume, in under three minutes on two cores."""
    known = _recorded(out)
    synthetic = None if known is None else known.input.synthetic
    recorded_size = DEFAULT_SIZE if synthetic is None else _coarser(synthetic.size)
    config = demo_config(
        size=triple(size, "--size") if size else recorded_size,
        block=triple(block, "--block") if block else DEFAULT_BLOCK if known is None else known.blocks.shape,
        seed=seed if seed is not None else synthetic.seed if synthetic else 0,
        self_touching=self_touching or bool(synthetic and synthetic.self_touching),
        workers=workers or (known.workers.cpu.count if known else 2),
        executor=executor or (known.workers.executor if known else "daisy"),
    )
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
    return parse(folder.load()["config"], where=str(folder.record)) if folder.exists() else None


def _coarser(size: Index) -> Index:
    z, y, x = (extent // factor for extent, factor in zip(size, FINER, strict=True))
    return (z, y, x)


def demo_config(*, size: Index, block: Index, seed: int, self_touching: bool, workers: int, executor: str) -> RunConfig:
    """The config of the demo."""
    chunk = [_divisor(extent, wish) for extent, wish in zip(block, CHUNK, strict=True)]
    image = [extent * factor for extent, factor in zip(size, FINER, strict=True)]
    pool = {"count": workers}
    return parse(
        {
            "input": {
                "synthetic": {
                    "seed": seed,
                    "size": image,
                    "voxel_size_nm": list(VOXEL_NM),
                    "self_touching": self_touching,
                }
            },
            "predict": {"weights": "tiny"},
            "blocks": {"shape": list(block), "chunk": chunk},
            "workers": {"executor": executor, "cpu": pool, "gpu": pool},
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


def scores(outcome: Outcome) -> dict[str, Any]:
    """The metrics that the evaluation left in its receipt."""
    evaluate = outcome.plan.stage(Evaluate)
    survey = outcome.surveys.get("evaluate/total")
    if survey is None or not survey.current:
        return {}
    return dict(evaluate.site.summary(BlockRef("evaluate/total", (0, 0, 0))))


def demo_json(outcome: Outcome) -> dict[str, Any]:
    """The demo's end for programs: scores, counts, and the hashes that prove the one answer."""
    told = ending.as_json(outcome)
    if outcome.complete:
        predict, relabel = outcome.plan.stage(Predict), outcome.plan.stage(Relabel)
        told["sha256_affinities"] = sha256_of(predict.read_codes, predict.site.layer.roi, "u1", channels=3)  # type: ignore[attr-defined]
        told["sha256"] = sha256_of(relabel.read_segmentation, relabel.site.layer.roi, "<u8")  # type: ignore[attr-defined]
    return {**scores(outcome), **told}


def _say_scores(outcome: Outcome) -> None:
    found = scores(outcome)
    if found:
        voi = found["voi_split"] + found["voi_merge"]
        line = f"VOI {voi:.3f} bits (split {found['voi_split']:.3f}, merge {found['voi_merge']:.3f}), "
        print_line(f"{line}ARAND {found['arand']:.4f}")
    print_line(f"report: {outcome.folder.report}")


def print_line(text: str) -> None:
    """One line on stdout."""
    print(text)
