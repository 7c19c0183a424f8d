"""HTML pages: the shell and style that all pages share, and the status page. Strings and numbers in, strings out.

A page is one file that needs no other: no script, no request, a policy that forbids both. Light or dark as the reader
likes it. Whatever comes from a run goes through `text`.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import PurePath

from pipeline import block_maps
from pipeline.progress import FailureStatus, Status, TaskStatus

REFRESH_S = 5
COUNTED = ("done", "masked", "running", "waiting", "failed")  # the rest is to do
SHORTEST_S = 0.05  # what takes less is told as nothing
SHOWN_OPEN = 12  # failures; the rest is folded
FAILURES_BYTES = 400_000  # a page stays below a megabyte whatever happens
MESSAGE_LIMIT = 2_000

HEADLINES = {
    "running": "Running",
    "done": "Done: every block is done or masked",
    "failed": "Finished with failed blocks: the result is incomplete",
    "stopped": "Stopped before the end",
}

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_DOT = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Ccircle cx='8' cy='8' r='6' fill='{}'/%3E%3C/svg%3E"
)
_DOT_COLOURS = {"running": "%233d7edb", "done": "%232f8f83", "failed": "%23d33d2a", "stopped": "%23dea030"}

_STYLE = """
:root{color-scheme:light dark;--page:#fff;--ink:#1b1f24;--soft:#656c76;--line:#e3e5e8;--panel:#f6f7f8;--empty:#e4e6ea}
@media(prefers-color-scheme:dark){
:root{--page:#14161a;--ink:#e4e6e9;--soft:#989fa9;--line:#2b2f36;--panel:#1c1f25;--empty:#30353d}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums;-webkit-text-size-adjust:100%}
main{max-width:1080px;margin:0 auto;padding:44px 28px 80px}
h1{font-size:30px;line-height:1.2;font-weight:650;letter-spacing:-.015em;margin:0;overflow-wrap:anywhere}
h2{font-size:18px;font-weight:650;letter-spacing:-.005em;margin:56px 0 14px}
h3{font-size:15px;font-weight:600;margin:28px 0 8px}
p{margin:8px 0;max-width:74ch}
a{color:inherit}
.kicker{color:var(--soft);font-size:13px;margin:0 0 6px}
.soft,figcaption,small{color:var(--soft);font-size:13px}
.state{display:flex;align-items:baseline;gap:9px;margin:12px 0 2px;font-size:16px}
.state:before{content:"";flex:none;width:10px;height:10px;border-radius:50%;background:var(--state)}
code,pre{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
code{overflow-wrap:anywhere}
pre{margin:8px 0;padding:14px 16px;background:var(--panel);border-radius:8px;overflow-x:auto}
p.lead{margin:22px 0 0;font-size:16px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(104px,1fr));gap:10px 28px;margin:30px 0 18px}
.tiles.four{grid-template-columns:repeat(auto-fit,minmax(150px,1fr))}
.tiles b{display:block;font-size:26px;line-height:1.25;font-weight:600;letter-spacing:-.01em}
.none{color:var(--soft);opacity:.6}
.key{display:inline-flex;align-items:center;gap:7px;color:var(--soft);font-size:13px;white-space:nowrap}
.key:before{content:"";width:9px;height:9px;border-radius:2px;background:var(--state)}
.keys{display:flex;flex-wrap:wrap;gap:2px 18px}
.bar{display:flex;height:8px;border-radius:4px;overflow:hidden;background:var(--empty);gap:1px}
.bar.large{height:12px;border-radius:6px}
.bar i{background:var(--state);min-width:3px}
.task{display:grid;grid-template-columns:190px minmax(0,1fr) 180px;gap:6px 32px;padding:15px 0 13px;
border-top:1px solid var(--line)}
.task.again{border:0;padding-top:2px}.task.again .name{color:var(--soft);font-weight:400}
.task.idle{color:var(--soft);font-size:14px;padding:9px 0}.task.idle.again{padding-top:0}
.task.idle .name{font-weight:400}
.name{font-weight:600;overflow-wrap:anywhere}.name span{color:var(--soft);font-weight:400}
.line{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 24px;margin:0 0 6px}
.keys:not(:empty){margin-top:6px}
.map{display:flex;flex-wrap:wrap;align-content:flex-start;gap:8px;padding-top:5px}.map svg,.map img{display:block}
.map path{fill:var(--state)}.map img{image-rendering:pixelated;background:var(--empty)}
.failure{padding:15px 0;border-top:1px solid var(--line)}
.failure p,.failure pre{margin:5px 0}.failure pre{padding:9px 12px;white-space:pre-wrap;overflow-wrap:anywhere}
.failure dl{margin:6px 0;display:grid;grid-template-columns:max-content minmax(0,1fr);gap:2px 14px}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
summary{cursor:pointer;padding:8px 0}
.pairs{display:grid;grid-template-columns:170px minmax(0,1fr);gap:5px 32px;margin:12px 0}
td code{font-size:12.5px}.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;margin:10px 0;font-size:14px}
th,td{text-align:right;padding:6px 0 6px 22px;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--soft);font-weight:400}th:first-child,td:first-child{text-align:left;padding-left:0}
.note{margin:26px 0 0;padding:13px 18px;border-left:4px solid var(--state);background:var(--panel);
border-radius:0 8px 8px 0}.note p{margin:3px 0}
footer{margin-top:64px;padding-top:16px;border-top:1px solid var(--line)}
@media(max-width:720px){main{padding:28px 18px 56px}h1{font-size:25px}
.task{grid-template-columns:minmax(0,1fr)}.tiles{grid-template-columns:repeat(3,1fr);gap:12px 16px}
.tiles b{font-size:22px}
.failure dl,.pairs{grid-template-columns:minmax(0,1fr);gap:0}.pairs dd{margin-bottom:8px}}
@media print{main{max-width:none;padding:0}}
"""


# ---- what all pages share ------------------------------------------------------------------------------------------
def text(value: object) -> str:
    """Anything as text that cannot become markup."""
    return escape(str(value), quote=True)


def page(title: str, body: str, *, state: str, refresh_s: int | None = None, style: str = "") -> str:
    """A whole page around a body."""
    refresh = "" if refresh_s is None else f'<meta http-equiv="refresh" content="{refresh_s}">\n'
    icon = _DOT.format(_DOT_COLOURS.get(state, "%23888"))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f'{refresh}<title>{text(title)}</title>\n<link rel="icon" href="{icon}">\n'
        f"<style>{_STYLE}{block_maps.style()}{style}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def run_name(run: str) -> str:
    """What people call a run: the last part of its folder's name."""
    return PurePath(run).name or run


def header(run: str, state: str, *, kicker: str, lines: Iterable[str] = ()) -> str:
    """The head of a page: what, which run, how it stands; `lines` are HTML."""
    colour = {"stopped": "waiting"}.get(state, state)
    told = "".join(f'<div class="soft">{line}</div>' for line in lines)
    return (
        f'<header><p class="kicker">{text(kicker)}</p><h1>{text(run_name(run))}</h1>'
        f'<p class="state {text(colour)}">{text(HEADLINES.get(state, state))}</p>{told}</header>'
    )


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def moment(stamp: str) -> str:
    """An ISO time as people read it."""
    return stamp.replace("T", " ").replace("+00:00", " UTC")


def bar(counts: dict[str, int], total: int, *, large: bool = False) -> str:
    """Shares of `total` by state."""
    present = [name for name in COUNTED if counts[name]]
    parts = "".join(f'<i class="{name}" style="flex:{counts[name]} 0 0"></i>' for name in present)
    left = total - sum(counts.values())
    rest = f'<span style="flex:{left} 0 0"></span>' if left > 0 else ""
    return f'<div class="bar{" large" if large else ""}">{parts}{rest}</div>'


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values beside each other; values are HTML."""
    told = "".join(f"<dt>{text(name)}</dt><dd>{value}</dd>" for name, value in rows)
    return f'<dl class="pairs">{told}</dl>'


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table; the first column names the row, the others are numbers."""
    top = "".join(f"<th>{text(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(_cell(text(value)) for value in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: str) -> str:
    return '<td class="none">0</td>' if value == "0" else f"<td>{value}</td>"


def failure_list(failures: list[FailureStatus]) -> str:
    """Failed blocks: what, where, the way out, and the command that reproduces each."""
    shown: list[str] = []
    size = 0
    for failure in failures:
        entry = _failure(failure)
        size += len(entry.encode())
        if size > FAILURES_BYTES:
            break
        shown.append(entry)
    folded = shown[SHOWN_OPEN:]
    more = f"<details><summary>{len(folded):,} more</summary>{''.join(folded)}</details>" if folded else ""
    left = len(failures) - len(shown)
    rest = f'<p class="soft">… and {left:,} further ones, all in status.json.</p>' if left else ""
    return "".join(shown[:SHOWN_OPEN]) + more + rest


def _failure(failure: FailureStatus) -> str:
    what, *details = failure.what[:MESSAGE_LIMIT].splitlines() or [""]
    lines = []
    for detail in details:
        name, colon, value = detail.strip().partition(": ")
        if colon and name in ("where", "way out"):
            lines.append(f"<dt>{name}</dt><dd>{text(value)}</dd>")
        elif detail.strip():
            lines.append(f"<dt></dt><dd>{text(detail.strip())}</dd>")
    if failure.bundle:
        lines.append(f"<dt>kept</dt><dd><code>{text(failure.bundle)}</code></dd>")
    kind = "may pass: worth another try" if failure.retryable else "will fail again until its cause is mended"
    return (
        f'<div class="failure"><div class="line"><b>{text(failure.task)} · block {text(failure.block)}</b>'
        f'<span class="soft">{text(failure.error)}, {kind}</span></div>'
        f"<p>{text(what)}</p><dl>{''.join(lines)}</dl><pre><code>{text(failure.command)}</code></pre></div>"
    )


# ---- the status page -----------------------------------------------------------------------------------------------
def status_page(status: Status) -> str:
    """How a run stands, as a page."""
    running = status.state == "running"
    total = sum(task.total for task in status.tasks)
    counts = {name: sum(getattr(task, name) for task in status.tasks) for name in COUNTED}
    settled = f"{counts['done'] + counts['masked']:,} of {total:,} blocks"
    body = (
        header(status.run, status.state, kicker="neurotile status", lines=_times(status)),
        _tiles(counts, total),
        bar(counts, total, large=True),
        f'<p class="soft">{settled}, over all tasks</p>',
        f"<h2>Tasks</h2>{_tasks(status.tasks)}",
        _failures(status),
        _footer(status),
    )
    percent = f"{100 * (counts['done'] + counts['masked']) // max(total, 1)} % "
    title = f"{percent if running else ''}{run_name(status.run)} · neurotile"
    return page(title, "\n".join(body), state=status.state, refresh_s=REFRESH_S if running else None)


def _times(status: Status) -> list[str]:
    spent = f"{duration(status.seconds)} so far" if status.state == "running" else f"took {duration(status.seconds)}"
    lines = [f"started {text(moment(status.started))}, {spent}", f"<code>{text(status.run)}</code>"]
    return lines


def _tiles(counts: dict[str, int], total: int) -> str:
    """The counts, which are the legend of bars and maps as well."""
    shown = {**counts, "to do": total - sum(counts.values())}
    tiles = (
        f'<div><b class="{"some" if shown[name] else "none"}">{shown[name]:,}</b>'
        f'<span class="key {name.replace(" ", "-")}">{name}</span></div>'
        for name in ("done", "running", "to do", "waiting", "failed", "masked")
    )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _tasks(tasks: list[TaskStatus]) -> str:
    rows = []
    before = ""
    for task in tasks:
        stage = task.task.partition("/")[0]
        rows.append(_task(task, again=stage == before))
        before = stage
    note = (
        "One after the other, in this order. A square is a block, x to the right, y down, layers along z side by side; "
        "of large grids the map looks through all layers."
    )
    return f'<p class="soft">{note}</p>{"".join(rows)}'


def _task(task: TaskStatus, *, again: bool) -> str:
    """A row; `again`: the stage's name stands in the row above already."""
    counts = {name: getattr(task, name) for name in COUNTED}
    stage, _, sweep = task.task.partition("/")
    kind = "task again" if again else "task"
    name = f'<div class="name">{text(stage)}<span>/{text(sweep)}</span></div>'
    if not any(counts.values()):
        return f'<div class="{kind} idle">{name}<div>{_blocks(task.total)} to do</div></div>'
    keys = "".join(
        f'<span class="key {state}">{counts[state]:,} {state}</span>' for state in COUNTED[1:] if counts[state]
    )
    picture = block_maps.block_map(task.states, task.grid) or '<p class="soft">too many blocks for a map</p>'
    told = f"{task.done + task.masked:,} of {_blocks(task.total)}"
    return (
        f'<div class="{kind}">{name}<div><div class="line"><span>{told}</span><span class="soft">{_pace(task)}</span>'
        f'</div>{bar(counts, task.total)}<div class="keys">{keys}</div></div>{picture}</div>'
    )


def _blocks(count: int) -> str:
    return "1 block" if count == 1 else f"{count:,} blocks"


def _pace(task: TaskStatus) -> str:
    """Rate and time left while it runs, what it took when it is over."""
    parts = []
    if task.kept:
        parts.append(f"{task.kept:,} kept from before")
    if task.blocks_per_s and task.total > 1:
        parts.append(_rate(task.blocks_per_s))
    if task.seconds_left:
        parts.append(f"{duration(task.seconds_left)} left")
    elif task.seconds >= SHORTEST_S:
        parts.append(duration(task.seconds))
    return " · ".join(parts)


def _rate(blocks_per_s: float) -> str:
    """Blocks per second, minute or hour: the first with a number that people can read."""
    for seconds, unit in ((1, "s"), (60, "min"), (3600, "h")):
        if blocks_per_s * seconds >= 1 or unit == "h":
            break
    value = blocks_per_s * seconds
    return f"{value:,.0f} blocks/{unit}" if value >= 100 else f"{value:.3g} blocks/{unit}"


def _failures(status: Status) -> str:
    if not status.failures:
        return ""
    after = f"<p>When the causes are mended: <code>neurotile retry {text(status.run)}</code></p>"
    return f"<h2>Failed blocks: {len(status.failures):,}</h2>{after}{failure_list(status.failures)}"


def _footer(status: Status) -> str:
    written = f"written {text(moment(status.updated))}"
    if status.state == "running":
        stuck = f"if this time stands still, the run was killed: <code>neurotile run --out {text(status.run)}</code>"
        written = f"{written}, again every few seconds; {stuck} goes on where it stopped"
    return f'<footer class="soft">{written}. Run number {status.epoch} in this folder.</footer>'
