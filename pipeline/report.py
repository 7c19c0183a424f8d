"""report.html: one page that shows a run's result, how good it is where there is a truth, and how exact it is.

Every section looks up what it needs and says `not available` with the reason if that is not there: a report can be
written at any moment of a run, and whatever has failed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.config import Input
from pipeline.figures import STYLE, TIMES, figures, length
from pipeline.geometry import AXES, Box, VoxelSize
from pipeline.outcome import Outcome
from pipeline.pages import duration, failure_list, header, moment, page, pairs, table, text
from pipeline.progress import FailureStatus, now
from pipeline.self_touch_report import STYLE as TOUCH_STYLE
from pipeline.self_touch_report import self_touch
from pipeline.stages.agglomerate import Agglomerate
from pipeline.stages.code_source import CodeSource
from pipeline.stages.evaluate import TOTAL, Evaluate
from pipeline.stages.fragment_source import FragmentSource
from pipeline.stages.predict import BLOCKS, PATCHES, Predict
from pipeline.stages.self_touch import UNITE, SelfTouch
from pipeline.toml import dump
from pipeline.tree_report import STYLE as TREE_STYLE
from pipeline.tree_report import largest_objects, thresholds
from pipeline.work import reproduce_command
from workers.block import BlockRef
from workers.errors import WorkError
from workers.files import write_atomically

EXACT = "Labels do not depend on blocks, workers or executor: "
OF_NETWORK = "affinities are a function of position on one device class"
OF_FILE = "affinities were given, and are read voxel by voxel"
HOLES_SHOWN = 20

Section = Callable[[Outcome], str]


def write_report(outcome: Outcome) -> Path:
    """Write the page; returns where it is."""
    write_atomically(outcome.folder.report, report_page(outcome).encode())
    return outcome.folder.report


def report_page(outcome: Outcome) -> str:
    """The page."""
    root, state = str(outcome.folder.root), _state(outcome)
    status = outcome.status
    lines = [f"report of {text(moment(now()))}"]
    if status is not None:
        lines[0] += f" · run number {status.epoch} in this folder took {duration(status.seconds)}"
    body = [
        header(root, state, kicker="neurotile report", lines=[*lines, f"<code>{text(root)}</code>"]),
        *(_section(title, section, outcome) for title, section in SECTIONS),
        f'<footer class="soft">{_versions(outcome)}</footer>',
    ]
    return page(
        f"{Path(root).name} · neurotile report", "\n".join(body), state=state, style=STYLE + TREE_STYLE + TOUCH_STYLE
    )


def _section(title: str, section: Section, outcome: Outcome) -> str:
    """A section with its heading; nothing if it has nothing to say."""
    try:
        content = section(outcome)
    except WorkError as error:
        content = _unavailable(error.what)
    except (OSError, LookupError, ValueError, AttributeError, TypeError) as error:  # a damaged or half-written run
        content = _unavailable(f"{type(error).__name__}: {error}")
    heading = f"<h2>{text(title)}</h2>" if title and content else ""
    return heading + content


def _unavailable(why: str) -> str:
    return f'<p class="soft">not available: {text(why)}</p>'


def _state(outcome: Outcome) -> str:
    if outcome.status is not None:
        return outcome.status.state
    if outcome.complete:
        return "done"
    return "failed" if _count(outcome, "failed") else "stopped"


def _count(outcome: Outcome, state: str) -> int:
    return sum(counts[state] for counts in outcome.blocks.values())


# ---- what a reader must know first ---------------------------------------------------------------------------------
def _warnings(outcome: Outcome) -> str:
    """Everything that makes this result less than whole."""
    failed, waiting, left = (_count(outcome, state) for state in ("failed", "waiting", "pending"))
    holes = outcome.plan.config.holes
    notes = []
    if failed or waiting or left:
        parts = [
            f"{count:,} {'block' if count == 1 else 'blocks'} {what}"
            for count, what in ((failed, "failed"), (waiting, "wait for their inputs"), (left, "not done yet"))
            if count
        ]
        notes.append(_note("failed", f"{', '.join(parts)}: the result is incomplete."))
    if holes:
        shown = ", ".join(str(Box(hole.begin, hole.end)) for hole in holes[:HOLES_SHOWN])
        more = f" and {len(holes) - HOLES_SHOWN:,} more" if len(holes) > HOLES_SHOWN else ""
        counted = "1 accepted hole" if len(holes) == 1 else f"{len(holes):,} accepted holes"
        said = f"This result has {counted}: blocks that failed and were left out on request. {shown}{more}."
        notes.append(_note("waiting", said))
    return "".join(notes)


def _note(state: str, said: str) -> str:
    return f'<div class="note {state}"><p>{text(said)}</p></div>'


def _answer(outcome: Outcome) -> str:
    """Whether this result is exact."""
    settled = outcome.folder.device
    plan = outcome.plan
    tree = plan.find(Agglomerate)
    parts = [plan.stage(FragmentSource).exactness]
    parts.append("there is no agglomeration" if tree is None else tree.exactness)
    parts.append(OF_FILE if plan.config.affinities is not None else OF_NETWORK)
    told = "; ".join(parts)
    told += f" ({settled.read_text()})." if settled.exists() else "."
    if outcome.plan.config.predict.mixed_devices:
        told += " Unlike devices were allowed in this run: affinities may differ from those of one device."
    return f'<p class="lead">{text(EXACT + told)}</p>'


# ---- how good it is ------------------------------------------------------------------------------------------------
def _scores(outcome: Outcome) -> str:
    if outcome.plan.facts["truth"] is None:
        return '<p class="soft">Not scored: the config names no truth.</p>'
    found = scores(outcome)
    if not found:
        return _unavailable("the evaluation has not been done")
    tiles = [
        (_score(found["voi_split"]), "VOI split, bits", f"{_score(found['voi_split_nats'])} nats"),
        (_score(found["voi_merge"]), "VOI merge, bits", f"{_score(found['voi_merge_nats'])} nats"),
        (_score(found["voi"]), "VOI sum, bits", f"{_score(found['voi_nats'])} nats"),
        (_score(found["arand"]), "ARAND", f"precision {_score(found['precision'])}, recall {_score(found['recall'])}"),
    ]
    shown = "".join(f"<div><b>{value}</b>{name}<br><small>{more}</small></div>" for value, name, more in tiles)
    zeros = "do not count" if outcome.plan.config.evaluate.ignore_truth_zero else "count as one object"
    meaning = (
        f"Measured on {found['voxels']:,} voxels with {found['truth_objects']:,} true objects and "
        f"{found['segments']:,} segments (background is one of them); voxels whose truth is 0 {zeros}. 0 is perfect. "
        "VOI split: how far true objects are scattered over segments; VOI merge: how far segments mix true objects; "
        "ARAND: pairs of voxels wrongly joined or parted, as 1 minus the F-score."
    )
    return f'<div class="tiles four">{shown}</div><p class="soft">{text(meaning)}</p>'


def scores(outcome: Outcome) -> Mapping[str, Any]:
    """The numbers that the evaluation left in its receipt; nothing if it has not been done."""
    task = f"{Evaluate.name}/{TOTAL}"
    survey = outcome.surveys.get(task)
    if survey is None or not survey.current:
        return {}
    return outcome.plan.stage(Evaluate).site.summary(BlockRef(task, (0, 0, 0)))


def _score(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _objects(outcome: Outcome) -> str:
    """Counts of the whole volume, from what the blocks left in their receipts."""
    if not outcome.complete:
        return '<p class="soft">Counts of segments follow when all blocks are done.</p>'
    fragments = sum(outcome.noted("agglomerate", "up", "fragments"))
    healed = sum(outcome.noted("self_touch", UNITE, "merged"))
    merged = healed + sum(sum(outcome.noted(stage, "", "merged")) for stage in ("relabel", "cut"))
    voxels = sum(outcome.noted("relabel", "blocks", "voxels"))
    whole = outcome.plan.layer.roi.voxels
    rest = "background or masked" if _count(outcome, "masked") else "background"
    counted = f"{fragments - merged:,} segments, made of {fragments:,} fragments; they"
    if outcome.plan.find(Agglomerate) is None:
        counted = "Segments"  # nobody has counted fragments
    told = f"{counted} hold {voxels:,} of {whole:,} voxels ({100 * voxels / whole:.1f}\u00a0%), the rest is {rest}."
    if outcome.plan.find(SelfTouch) is not None:
        told += f" {healed:,} merges healed objects that touch themselves."
    products = " ".join(f"<code>{text(path.name)}</code>" for path in sorted(outcome.folder.root.glob("*.zarr")))
    return f'<p>{told}</p><p class="soft">In this folder: {products}</p>'


# ---- what was done -------------------------------------------------------------------------------------------------
def _failures(outcome: Outcome) -> str:
    found = outcome.status.failures if outcome.status is not None else list(_failed(outcome))
    return failure_list(found) if found else ""


def _failed(outcome: Outcome) -> Iterator[FailureStatus]:
    for name, survey in outcome.surveys.items():
        for index, failure in sorted(survey.failed.items()):
            ref = BlockRef(name, index)
            told = (failure.error, failure.what, failure.retryable, failure.bundle)
            yield FailureStatus(name, ref.label, *told, reproduce_command(outcome.folder, ref))


def _work(outcome: Outcome) -> str:
    seconds = {t.task: t.seconds for t in outcome.status.tasks} if outcome.status is not None else {}
    states = ("total", "done", "masked", "failed", "waiting", "pending", "executed")
    rows = []
    for name, counts in outcome.tasks.items():
        took = duration(seconds[name]) if counts["executed"] and name in seconds else ""
        rows.append((name, *(f"{counts[state]:,}" for state in states), took))
    head = ("task", "blocks", "done", "masked", "failed", "waiting", "to do", "in this run", "time")
    return table(head, rows)


def _volume(outcome: Outcome) -> str:
    plan = outcome.plan
    layer = plan.layer
    size_nm = [extent * nm for extent, nm in zip(layer.roi.shape, layer.voxel_size.nm, strict=True)]
    source = plan.config.input
    rows = [
        *_image_rows(plan.facts["image"], source),
        ("segmented layer", f"{_by(layer.shape)} voxels of {_by(layer.voxel_size.nm)} nm"),
        ("region of interest", f"{text(layer.roi)}: {_by(layer.roi.shape)} voxels, {layer.roi.voxels:,} in all"),
        ("", f" {TIMES} ".join(length(nm) for nm in size_nm)),
        ("truth", text(source.truth or ("generated with the image" if source.synthetic else "none"))),
        *(("mask", f"{text(mask.path)}, {mask.role}") for mask in plan.config.mask),
    ]
    return f'{pairs(rows)}<p class="soft">All in the order {", ".join(AXES)}.</p>'


def _image_rows(image: dict[str, Any] | None, source: Input) -> list[tuple[str, str]]:
    if image is None:
        return [("image", "none")]
    return [
        ("image", text(source.image or f"generated, seed {source.synthetic.seed if source.synthetic else '?'}")),
        ("", f"{_by(image['shape'])} voxels of {_voxel_size(image['voxel_size_pm'])}, {text(image['dtype'])}"),
    ]


def _given(outcome: Outcome) -> str:
    """The affinities that the run started from."""
    settings, facts = outcome.plan.config.affinities, outcome.plan.facts.get("affinities")
    if settings is None or facts is None:
        return ""
    source, made = outcome.plan.stage(CodeSource), settings.from_labels
    origin = "" if made is None else f"made from the truth, noise {made.noise}, seed {made.seed}"
    codes = f"{source.code_dtype.name} codes"
    rows = [
        ("affinities", text(settings.path or origin)),
        ("", f"{facts['channels']} channels, {text(facts['dtype'])}, stored as {codes}" if settings.path else codes),
        ("edges to", text(", ".join(str(offset) for offset in source.offsets))),
        ("fingerprint", f"<code>{text(facts['fingerprint'])}</code>"),
    ]
    return pairs(rows)


def _network(outcome: Outcome) -> str:
    weights = outcome.plan.facts["weights"]
    if weights is None:
        return ""
    spec = weights["spec"]
    rows = [
        ("weights", text(outcome.plan.config.predict.weights)),
        ("SHA-256", f"<code>{text(weights['sha256'])}</code>"),
        ("architecture", text(", ".join(_told(key, value) for key, value in spec["architecture"].items()))),
        ("patch, stride", f"{_by(spec['patch'])}, {_by(spec['stride'])} voxels of {_by(spec['voxel_size_nm'])} nm"),
        ("affinities to", text(", ".join(str(offset) for offset in outcome.plan.stage(Predict).offsets))),
        ("input", text(spec["normalisation"])),
        *_manner(outcome),
        *(
            (f"in {override.roi.begin} to {override.roi.end}", text(override.weights))
            for override in outcome.plan.config.predict.override
        ),
    ]
    card = "\n".join(f"{key} = {_plain(value)}" for key, value in spec["training"].items())
    return pairs(rows) + (_folded("How it was trained", card) if card else "")


def _manner(outcome: Outcome) -> Iterator[tuple[str, str]]:
    """How the network was applied, and how many patches that took."""
    config, predict = outcome.plan.config.predict, outcome.plan.stage(Predict)
    if config.augment != "none":
        yield "orientations", "16 of every patch, averaged"
    if config.precision != "float32":
        yield "precision", text(config.precision)
    if predict.background_threshold is not None:
        yield "background", f"voxels with a probability of at least {predict.background_threshold:g}"
    counts = [sum(outcome.noted(predict.name, BLOCKS, key)) for key in PATCHES]
    if any(counts):
        evaluated, skipped, empty = (f"{count:,}" for count in counts)
        yield "patches", f"{evaluated} evaluated, {skipped} skipped for they show nothing wanted, {empty} empty"


def _plan(outcome: Outcome) -> str:
    plan = outcome.plan
    predict = plan.find(Predict)
    predicted = f"blocks of {_by(predict.code_grid.block)} voxels; " if predict else ""
    again = (
        f"{predict.redundancy():.2f} patches evaluated for each one needed" if predict else "none: no network was run"
    )
    most = max(plan.tasks, key=lambda task: task.memory_bytes)
    rows = [
        ("blocks", f"{plan.blocks:,} in {len(plan.tasks)} tasks"),
        ("block", f"{_by(plan.config.blocks.shape)} voxels, in chunks of {_by(plan.config.blocks.chunk)}"),
        ("prediction", predicted + again),
        ("storage", f"at most {plan.stored_bytes / 1e9:.2f} GB before compression, {plan.inodes:,} files and folders"),
        ("memory", f"at most {most.memory_bytes / 1e9:.2f} GB in a worker ({text(most.name)})"),
    ]
    return pairs(rows)


def _identity(outcome: Outcome) -> str:
    said = "The same content hash means the same answer; the layout hash says how it is cut and stored."
    hashes = (
        (stage.name, f"<code>{stage.identity[:32]}</code> content, <code>{stage.layout[:8]}</code> layout")
        for stage in outcome.plan.stages
    )
    return f'<p class="soft">{said}</p>{pairs(hashes)}'


def _config(outcome: Outcome) -> str:
    return _folded("Resolved, with all defaults", dump(outcome.plan.config.model_dump(mode="json")))


def _next(outcome: Outcome) -> str:
    root = outcome.folder.root
    steps = [
        (f"neurotile status {root}", "blocks by state, rates, failures"),
        (f"neurotile verify {root}", "compare all stored bytes with their receipts"),
        (f"neurotile run CONFIG --out {root} --update", "after a change of the config: redo exactly what it affects"),
    ]
    if _count(outcome, "failed"):
        steps.insert(0, (f"neurotile retry {root}", "the failed blocks once more, and all that wait for them"))
        steps.insert(1, (f"neurotile run --out {root} --accept-holes", "finish without the failed blocks"))
    elif not outcome.complete:
        steps.insert(0, (f"neurotile run --out {root}", "go on where it stopped"))
    return "".join(
        f'<p><code>{text(command)}</code><br><span class="soft">{text(why)}</span></p>' for command, why in steps
    )


def _versions(outcome: Outcome) -> str:
    versions = _record(outcome).get("versions", {})
    return text(" · ".join(f"{name} {number}" for name, number in versions.items()) or "versions not available")


def _record(outcome: Outcome) -> dict[str, Any]:
    """What run.json says; nothing if it cannot be read."""
    try:
        return outcome.folder.load()
    except WorkError:
        return {}


# ---- values as text ------------------------------------------------------------------------------------------------
def _by(extent: Iterable[object]) -> str:
    return f" {TIMES} ".join(f"{e:g}" if isinstance(e, float) else str(e) for e in extent)


def _voxel_size(pm: list[int]) -> str:
    z, y, x = pm
    return _by(VoxelSize((z, y, x)).nm) + " nm"


def _told(key: str, value: object) -> str:
    return str(value) if key == "name" else f"{key} {_plain(value)}"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{text(title)}</summary><pre><code>{text(content)}</code></pre></details>"


SECTIONS: tuple[tuple[str, Section], ...] = (
    ("", _warnings),
    ("", _answer),
    ("Result", _objects),
    ("", figures),
    ("Scores", _scores),
    ("Thresholds", lambda outcome: thresholds(outcome, scores(outcome))),
    ("Largest objects", largest_objects),
    ("Self-touch", self_touch),
    ("Failed blocks", _failures),
    ("Work", _work),
    ("Volume", _volume),
    ("Affinities", _given),
    ("Network", _network),
    ("Plan", _plan),
    ("Identity", _identity),
    ("Config", _config),
    ("How to go on", _next),
)
