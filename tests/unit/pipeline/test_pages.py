"""Pages: complete, self-contained, escaped, and small whatever the run."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from pipeline.pages import duration, failure_list, page, status_page
from pipeline.progress import FailureStatus, Status, TaskStatus

VOID = {"meta", "link", "img", "br", "path"}


class Checker(HTMLParser):
    """Every element is closed in order; collects tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def checked(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert "script" not in {tag for tag, _ in checker.tags}
    for _, attributes in checker.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style
    assert "url(" not in style[1]
    assert style[1].count("{") == style[1].count("}")
    return checker


def task(name: str, states: str, grid: tuple[int, int, int], **more: float) -> TaskStatus:
    names = {"done": "d", "masked": "m", "failed": "f", "waiting": "w", "running": "r"}
    counts = {name: states.count(letter) for name, letter in names.items()}
    return TaskStatus(name, "cpu", grid, grid[0] * grid[1] * grid[2], states=states, **counts, **more)


def failure(block: str, what: str = "it broke\n  where: here\n  way out: there") -> FailureStatus:
    command = f"neurotile worker /runs/a predict/blocks --block {block} --debug"
    return FailureStatus(
        "predict/blocks", block, "ChunkCorrupt", what, False, "failed/predict/blocks/" + block, command
    )


def running() -> Status:
    tasks = [
        task("resample/blocks", "d" * 8, (2, 2, 2), seconds=4.0, blocks_per_s=2.0, kept=3),
        task("predict/blocks", "ddmfwr..", (2, 2, 2), seconds=90.0, blocks_per_s=0.02, seconds_left=4000.0),
        TaskStatus("fragments/up0", "cpu", (2, 2, 2), 8),
        TaskStatus("fragments/up1", "cpu", (1, 1, 1), 1),
    ]
    started, updated = "2026-07-15T12:03:05+00:00", "2026-07-15T12:04:39+00:00"
    return Status("/runs/a", 3, "running", started, updated, 94.0, tasks, [failure("0.1.1")])


def test_a_running_page_shows_everything_and_refreshes():
    html = status_page(running())
    seen = checked(html)
    assert ("meta", {"http-equiv": "refresh", "content": "5"}) in seen.tags
    for told in (
        "Running",
        "started 2026-07-15 12:03:05 UTC, 1 min 34 s so far",
        "11 of 25 blocks, over all tasks",
        "8 of 8 blocks",
        "3 kept from before · 2 blocks/s",
        "3 of 8 blocks",
        "1.2 blocks/min · 1 h 06 min left",
        "1 running",
        "1 waiting",
        "1 failed",
        "1 masked",
        "1 block to do",
        "it broke",
        "neurotile worker /runs/a predict/blocks --block 0.1.1 --debug",
        "neurotile retry /runs/a",
    ):
        assert told in seen.text
    assert html.count('class="map"') == 2  # of the tasks that have begun
    assert "<title>44 % a · neurotile</title>" in html


@pytest.mark.parametrize("state", ["done", "failed", "stopped"])
def test_a_page_at_rest_does_not_refresh(state):
    status = running()
    status.state = state
    html = status_page(status)
    checked(html)
    assert "refresh" not in html
    assert {"done": "every block is done", "failed": "incomplete", "stopped": "Stopped"}[state] in html


def test_what_comes_from_a_run_cannot_become_markup():
    nasty = "<script>alert('1')</script>\"&"
    status = running()
    status.run = f"/runs/{nasty}"
    status.tasks[0].task = nasty
    status.failures = [
        FailureStatus(nasty, nasty, nasty, f"{nasty}\n  where: {nasty}\n{nasty}", True, nasty, nasty),
    ]
    html = status_page(status)
    assert nasty in checked(html).text
    assert "<script" not in html


def test_where_and_way_out_stand_apart():
    html = failure_list([failure("1.2.3")])
    assert "<p>it broke</p>" in html
    assert "<dt>where</dt><dd>here</dd>" in html
    assert "<dt>way out</dt><dd>there</dd>" in html
    assert "<code>neurotile worker /runs/a predict/blocks --block 1.2.3 --debug</code>" in html


def test_a_huge_run_gives_a_small_page():
    grid = (40, 70, 70)
    states = "d" * 100_000 + "r" * 64 + "f" * 36 + "." * 95_900
    tasks = [task(f"fragments/up{level}", states, grid, seconds=10.0) for level in range(30)]
    failures = [failure(f"1.2.{n}", "x" * 5000) for n in range(50_000)]
    html = status_page(Status("/runs/a", 1, tasks=tasks, failures=failures))
    seen = checked(html)
    assert len(html.encode()) < 1_000_000
    assert "Failed blocks: 50,000" in seen.text
    assert "further ones, all in status.json" in seen.text


def test_a_task_beyond_the_map_limit_is_told_in_counts():
    huge = TaskStatus("predict/blocks", "gpu", (100, 100, 100), 1_000_000, done=5)
    seen = checked(status_page(Status("/runs/a", 1, tasks=[huge])))
    assert "too many blocks for a map" in seen.text
    assert "5 of 1,000,000 blocks" in seen.text


def test_a_run_without_tasks():
    checked(status_page(Status("a", 1)))


def test_a_page_forbids_scripts_and_requests():
    html = page("a < b", "<p>c</p>", state="done")
    checked(html)
    assert "default-src 'none'" in html
    assert "<title>a &lt; b</title>" in html


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (9.96, "10.0 s"),
        (42.4, "42 s"),
        (59.7, "60 s"),
        (60, "1 min 00 s"),
        (3599.6, "1 h 00 min"),
        (90_061, "1 d 1 h"),
    ],
)
def test_durations(seconds, said):
    assert duration(seconds) == said
