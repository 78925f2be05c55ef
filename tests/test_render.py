"""Words and HTML of plans, profiles and hosts."""

from __future__ import annotations

import dataclasses
import math
import re
from html.parser import HTMLParser
from types import MappingProxyType
from typing import Any

import pytest

from amorsize import Costs, Host, Limits, Plan, Profile, Reason, Revision, decide
from amorsize._render import explain, host_html, plan_html, profile_html, seconds, size
from amorsize._types import SENTENCES

HOST = Host(
    n_cpus=8,
    n_physical_cpus=4,
    memory_bytes=16 * 10**9,
    costs={"fork": Costs(start_s=0.002, start_each_s=0.001, batch_overhead_s=1e-4, receive_bytes_per_s=1e9)},
    unavailable={"loky": "daemonic processes may not have children"},
    sources=MappingProxyType({"n_cpus": "affinity", "memory_bytes": "cgroup"}),
)
PROFILE = Profile(
    n_sampled=5,
    item_s=0.01,
    item_s_std=0.001,
    first_s=0.2,
    cpu_fraction=0.97,
    arg_bytes=120,
    result_bytes=2_500_000,
    func_bytes=321,
    pickle_s=0.0005,
    arg_pickle_s=0.0001,
    peak_bytes=70_000_000,
    n_head=5,
    head_s=0.24,
)


def plan_of(n_items: int | None = 1000, **limits: Any) -> Plan:
    """Return a decision for the machine above."""
    return decide(PROFILE, HOST, n_items, Limits(**limits))


def unfolded(plan: Plan) -> str:
    """Return an explanation as one line of words."""
    return re.sub(r"\s+", " ", explain(plan))


def test_an_explanation_holds_every_fact() -> None:
    """Sample, sizes, the three terms, the limit, what is not used, prediction: all of it is there."""
    plan = plan_of()
    text = unfolded(plan)
    assert plan.is_parallel
    for fact in (
        "1,000 items: fork, n_jobs=4",
        f"[{plan.reason}]",
        SENTENCES[plan.reason],
        "5 items, 10 ms each +- 1 ms",
        "97% CPU",
        "item 120 bytes, result 2.5 MB, function 321 bytes",
        "500 us to pickle and unpickle",
        "peak memory +70 MB",
        "the first took 200 ms: a warm-up, left out",
        "T_serial > T_overhead + T_serial/N + T_IPC",
        f"{seconds(plan.serial_s)} > {seconds(plan.overhead_s)} + ",
        f"+ {seconds(plan.transfer_s)} = {seconds(plan.parallel_s)}",
        "limited by the CPUs: 8 CPUs usable (affinity), 4 physical, 16 GB of memory free (cgroup)",
        "not used loky: daemonic processes may not have children",
        f"predicted {seconds(plan.predicted_s)}",
        f"{plan.speedup:.2f} times as fast as the loop; not run",
    ):
        assert fact in text


def test_what_happened_is_set_beside_what_was_predicted() -> None:
    """Revisions, skipped items, warnings and the measured time of a run are told."""
    revision = Revision(at_s=0.5, n_done=40, what="go parallel: fork, n_jobs=4", why="items take 0.1 s of late")
    plan = dataclasses.replace(
        plan_of(),
        actual_s=plan_of().predicted_s * 1.5,
        revisions=(revision,),
        skipped=tuple(range(12)),
        warnings=("the function reads CONFIG, which can change",),
    )
    text = unfolded(plan)
    assert "revised after 500 ms and 40 items: go parallel: fork, n_jobs=4, because items take 0.1 s of late" in text
    assert "skipped 12 items that failed: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..." in text
    assert "note the function reads CONFIG, which can change" in text
    assert f"measured {seconds(plan.actual_s)}, +50%" in text


def test_a_remembered_profile_is_not_called_a_sample() -> None:
    """A run that sampled nothing of its own says so."""
    plan = decide(dataclasses.replace(PROFILE, n_head=0, head_s=0.0), HOST, 1000, Limits())
    assert "sampled 5 items" in unfolded(plan)
    assert "remembered 5 items" in unfolded(dataclasses.replace(plan, actual_s=1.0))


@pytest.mark.parametrize("reason", list(Reason))
@pytest.mark.parametrize("n_items", [None, 0, 1, 1000])
@pytest.mark.parametrize("backend", ["sequential", "fork"])
def test_every_plan_can_be_explained_within_its_width(reason: Reason, n_items: int | None, backend: str) -> None:
    """Whatever the reason and the length, words come out, and no line is longer than asked for."""
    plan = dataclasses.replace(plan_of(n_items), reason=reason, backend=backend)
    for width in (80, 96):
        assert all(len(line) <= width for line in explain(plan, width).splitlines())
    assert f"[{reason}]" in explain(plan)
    assert explain(plan) == str(plan) == plan.explain()


def test_a_fixed_n_jobs_is_called_the_callers() -> None:
    """It was not limited by anything here."""
    assert "fixed at 3 by the caller" in unfolded(plan_of(n_jobs=3))


def test_an_unsampled_plan_says_so() -> None:
    """There is nothing to make up."""
    assert "sampled nothing" in unfolded(decide(Profile(), HOST, 0, Limits()))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 ns"),
        (1e-9, "1 ns"),
        (0.9999e-6, "1 us"),
        (1.5e-6, "1.5 us"),
        (0.0123, "12.3 ms"),
        (0.9999, "1 s"),
        (12.345, "12.3 s"),
        (123456.0, "123,456 s"),
        (math.inf, "unknown (length unknown)"),
        (math.nan, "unknown"),
        (None, "unknown"),
    ],
)
def test_seconds_have_a_unit_that_fits(value: float | None, text: str) -> None:
    """Two or three digits and a unit, at every magnitude."""
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (999_999, "1 MB"), (2.5e9, "2.5 GB"), (3e12, "3 TB")],
)
def test_sizes_have_a_unit_that_fits(value: float, text: str) -> None:
    """Likewise for bytes."""
    assert size(value) == text


class _Page(HTMLParser):
    """Checks that tags are closed in order, and collects text and tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag != "br":
            self.open.append(tag)
        assert not any(name.startswith("on") or name in {"src", "href"} for name, _ in attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def pages() -> list[str]:
    """Return HTML of everything that has some."""
    plans = [plan_of(), plan_of(None), plan_of(0), dataclasses.replace(plan_of(), actual_s=1.0)]
    profiles = [PROFILE, Profile(), dataclasses.replace(PROFILE, mutates=("A",), reads_mutable=("B",))]
    nested = dataclasses.replace(HOST, is_nested=True, is_disabled=True, context_backend="dask", costs={})
    return [*map(plan_html, plans), *map(profile_html, profiles), host_html(HOST), host_html(nested)]


@pytest.mark.parametrize("html", pages())
def test_html_is_well_formed_and_inert(html: str) -> None:
    """Tags close, nothing is fetched, nothing is run."""
    page = _Page(html)
    assert page.tags <= {"div", "table", "tr", "th", "td", "br", "span"}


@pytest.mark.parametrize("html", pages())
def test_html_leaves_text_and_ground_to_the_page(html: str) -> None:
    """So that it reads in light and in dark notebooks: no colour of text, no opaque ground beneath text."""
    assert set(re.findall(r"(?<!-)color:([^;\"]+)", html)) <= {"inherit"}
    grounds = set(re.findall(r"background:([^;\"]+)", html))
    assert grounds - {"transparent"} <= {"#c1762b", "#3f87c4", "#a05fb5", "#808890"}


def test_html_says_what_the_words_say() -> None:
    """The notebook's view has the same facts."""
    plan = plan_of()
    page = re.sub(r"\s+", " ", _Page(plan_html(plan)).text)
    for fact in ("1,000 items: fork", "97% CPU", "T_overhead", "T_IPC", "not used", "predicted"):
        assert fact in page


def test_html_escapes_what_users_named() -> None:
    """A warning, a name or an error text is text."""
    plan = dataclasses.replace(plan_of(), warnings=("<script>alert(1)</script>",))
    profile = dataclasses.replace(PROFILE, is_picklable=False, problem="<img src=x>", mutates=("<b>",))
    host = dataclasses.replace(HOST, unavailable={"fork": "<i>"})
    for html in (plan_html(plan), profile_html(profile), host_html(host)):
        assert not re.search(r"<(script|img|b|i)\b", html)
