"""Words and HTML of plans, profiles and hosts."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
import re
from html.parser import HTMLParser
from types import MappingProxyType
from typing import Any

import pytest

from amorsize import Costs, Host, Limits, Plan, Profile, Reason, Revision, decide, parallel
from amorsize._html import host_html, plan_html, profile_html
from amorsize._render import explain, seconds, size, span

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
    bounds = plan.predicted_range_s
    assert plan.is_parallel
    assert bounds is not None
    for fact in (
        "1,000 items: fork, n_jobs=4",
        f"[{plan.reason}]",
        plan.reason.sentence,
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
        f"predicted {span(*bounds)} from 4 items, {seconds(plan.predicted_s)} by their mean",
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


def test_a_profile_that_was_not_weighed_says_so() -> None:
    """Nothing takes 0 bytes or 0 ns: what was not measured is not given a figure."""
    unweighed = dataclasses.replace(PROFILE, arg_bytes=0, result_bytes=0, pickle_s=0.0, arg_pickle_s=0.0)
    text = unfolded(decide(unweighed, HOST, 1000, Limits()))
    assert "items and results not weighed" in text
    assert "0 bytes" not in text
    assert "not weighed" in repr(unweighed)
    assert "0 bytes" not in profile_html(unweighed)


def test_a_remembered_profile_says_what_it_is_of() -> None:
    """Its seconds per item are no longer those of the sample alone."""
    kept = dataclasses.replace(PROFILE, n_head=0, head_s=0.0)
    assert repr(kept).startswith("<Profile of 5 items sampled, and of the calls since: 10 ms each +- 1 ms, ")
    assert "Profile of 5 items sampled, and of the calls since" in profile_html(kept)


def waiting(**limits: Any) -> Plan:
    """Return a decision for a function that waits."""
    return decide(dataclasses.replace(PROFILE, cpu_fraction=0.02), HOST, 1000, Limits(**limits))


def test_a_function_that_waits_is_told_of_threads() -> None:
    """In the words and in the table, with what stands in their way."""
    hint = 'hint the function waits for 98% of its time: if it is thread-safe, prefer="threads"'
    assert f"{hint} lets more items wait at once than there are CPUs" in unfolded(waiting())
    assert f"{hint} without n_jobs=2 lets more items wait" in unfolded(waiting(n_jobs=2))
    assert "prefer=&quot;threads&quot; lets more items wait" in plan_html(waiting())


@pytest.mark.parametrize(
    ("busy", "n_jobs", "is_told"), [(0.45, 2, True), (0.45, 4, False), (0.2, 4, True), (0.6, 2, False)]
)
def test_threads_are_named_where_they_overlap_more_items_than_the_workers(
    busy: float, n_jobs: int, *, is_told: bool
) -> None:
    """With the GIL, threads overlap ``1 / cpu_fraction`` items, and processes one each."""
    plan = decide(dataclasses.replace(PROFILE, cpu_fraction=busy), HOST, 1000, Limits(n_jobs=n_jobs))
    assert ("hint" in unfolded(plan)) is is_told


@pytest.mark.parametrize(
    "plan",
    [
        plan_of(),
        waiting(prefer="threads"),
        waiting(prefer="processes"),
        waiting(start_method="fork"),
        waiting(timeout=1.0),
        waiting(n_jobs=1),
        decide(dataclasses.replace(PROFILE, cpu_fraction=0.02), HOST, 6, Limits()),
        decide(
            dataclasses.replace(PROFILE, cpu_fraction=0.02, item_s=1e-6, n_head=0, head_s=0.0), HOST, 1000, Limits()
        ),
        decide(dataclasses.replace(PROFILE, cpu_fraction=0.02, mutates=("seen",)), HOST, 1000, Limits()),
        decide(Profile(cpu_fraction=0.02), HOST, 1000, Limits()),
    ],
)
def test_others_are_not_told_of_threads(plan: Plan) -> None:
    """Who computes, has said which workers to take, has too little to do or could not use them."""
    assert "hint" not in unfolded(plan)


def test_an_explanation_shows_itself_as_it_is_read() -> None:
    """At the end of a cell and in a shell; otherwise it is a string like any other."""
    text = plan_of().explain()
    printed: list[str] = []
    text._repr_pretty_(type("Printer", (), {"text": staticmethod(printed.append)})(), cycle=False)  # type: ignore[attr-defined]
    assert [repr(text)] == printed == [str(text)] == [str(plan_of())]
    assert isinstance(text, str)
    assert type(str(text)) is type(str(plan_of())) is str
    assert json.loads(json.dumps(text)) == text
    for copied in (pickle.loads(pickle.dumps(text)), copy.deepcopy(text)):
        assert copied == text
        assert type(copied) is str


def test_an_explanation_of_no_call_shows_itself_too() -> None:
    """It says that there was none."""
    assert repr(parallel(abs).explain()).startswith("abs has not been mapped yet; ")


def test_a_forecast_from_few_items_is_an_interval() -> None:
    """It is wider the more the items differ, and narrower the more there are of them; alike items need none."""
    alike = dataclasses.replace(PROFILE, item_s_std=0.00001, first_s=0.01)
    few, many = (dataclasses.replace(PROFILE, n_sampled=n, first_s=0.01) for n in (3, 300))
    spread_of = []
    for profile in (few, many):
        plan = decide(profile, HOST, 10_000, Limits())
        low, high = plan.predicted_range_s or (0.0, 0.0)
        assert low < plan.predicted_s < high
        spread_of.append(high / low)
        assert f"from {profile.n_sampled} items" in unfolded(plan) or high < 1.1 * low
    assert spread_of[0] > spread_of[1] > 1
    assert "by their mean" not in unfolded(decide(alike, HOST, 1000, Limits()))


def test_one_steady_item_has_no_spread() -> None:
    """Where the first of two was a warm-up, the other says nothing about how much items differ."""
    profile = Profile(n_sampled=2, item_s=0.047, first_s=0.159)
    assert profile.n_steady == 1
    text = unfolded(decide(profile, HOST, 90, Limits()))
    assert "+-" not in text
    assert "from 1 item" in text
    assert "+-" not in repr(profile) + profile_html(profile)
    assert Profile().n_steady == 0


def test_the_interval_of_a_forecast_follows_its_formula() -> None:
    """Student's quantile, the deviation of the steady items, and those left: by hand for a loop of 4 more items."""
    profile = Profile(n_sampled=3, item_s=2.0, item_s_std=1.0, first_s=2.0, n_head=3, head_s=6.0)
    plan = decide(profile, HOST, 7, Limits(n_jobs=1))
    ratio = 2.920 * math.sqrt(3 / 2) / 2.0 * math.sqrt(1 / 3 + 1 / 4)
    assert plan.predicted_s == pytest.approx(6 + 4 * 2)
    assert plan.predicted_range_s == pytest.approx((6 + 8 / (1 + ratio), 6 + 8 * (1 + ratio)))


@pytest.mark.parametrize(
    "plan",
    [
        decide(Profile(n_sampled=1, item_s=1.0, first_s=1.0), HOST, 10, Limits()),
        decide(Profile(n_sampled=2, item_s=1.0, first_s=9.0), HOST, 10, Limits()),
        decide(PROFILE, HOST, None, Limits()),
        decide(Profile(), HOST, 10, Limits()),
    ],
    ids=["one item", "one and a warm-up", "unknown length", "nothing"],
)
def test_where_nothing_is_known_of_the_spread_there_is_no_interval(plan: Plan) -> None:
    """A single item says nothing about how much items differ."""
    assert plan.predicted_range_s is None


@pytest.mark.parametrize("options", [{"timeout": 1.0}, {"n_jobs": 2}, {}], ids=["isolated", "fixed", "undecided"])
def test_a_forecast_before_any_item_is_a_lower_bound(options: dict[str, Any]) -> None:
    """It says so in words, in one line and as a dictionary, claims no gain, and is not compared with what was done."""
    plan = decide(Profile(head_s=0.5), HOST, 10, Limits(**options))
    assert plan.is_lower_bound
    assert plan.to_dict()["is_lower_bound"] is True
    assert plan.speedup == 1
    assert "predicted at least 5" in repr(plan)
    done = dataclasses.replace(plan, actual_s=60.0)
    for each in (plan, done):
        assert "predicted at least 5" in unfolded(each)
        assert "equation" not in unfolded(each)
        assert "times" not in unfolded(each)
    assert unfolded(done).endswith("as no item had been timed; measured 60 s")
    assert not plan_of().is_lower_bound
    assert "predicted unknown" in repr(decide(Profile(), HOST, None, Limits()))
    assert not decide(Profile(), HOST, 0, Limits()).is_lower_bound


def test_one_line_says_what_it_is() -> None:
    """What is typed first, ``f.last_plan``, ``f.profile`` and ``amorsize.host()``, is short."""
    plan = dataclasses.replace(plan_of(), actual_s=1.0)
    assert repr(plan).startswith("<Plan: 1,000 items, fork, n_jobs=4, batch_size=")
    assert "measured 1 s" in repr(plan)
    assert "not run" in repr(plan_of())
    assert repr(PROFILE) == "<Profile of 5 items: 10 ms each +- 1 ms, item 120 bytes, result 2.5 MB>"
    assert repr(Profile()) == "<Profile: nothing sampled>"
    assert repr(HOST) == "<Host: 8 CPUs, 4 physical, 16 GB of memory free; fork prior>"
    for record in (plan, PROFILE, HOST):
        assert len(repr(record)) < 160
        assert "\n" not in repr(record)


@pytest.mark.parametrize("record", [plan_of(), PROFILE, Profile(), HOST], ids=["plan", "profile", "empty", "host"])
def test_ipython_shows_a_few_lines(record: Any) -> None:
    """Of at most the width of an explanation, with the facts of the HTML."""
    pretty = pytest.importorskip("IPython.lib.pretty").pretty
    lines = pretty(record).splitlines()
    assert 1 <= len(lines) <= 20
    assert max(map(len, lines)) <= 96
    assert pretty([record]) == f"[{record!r}]"


def test_what_was_done_stands_before_what_had_been_decided() -> None:
    """A loop that went parallel, and workers that could not be had: both are told, and both replay."""
    decided = decide(PROFILE, HOST, 1000, Limits())
    serial = dataclasses.replace(decided, backend="sequential", n_jobs=1, decided=decided)
    assert "1,000 items: serial; decided was fork, n_jobs=4" in unfolded(serial)
    loop = decide(dataclasses.replace(PROFILE, item_s=1e-7, item_s_std=0.0), HOST, 1000, Limits())
    promoted = dataclasses.replace(loop, backend="fork", n_jobs=2, decided=loop)
    assert "1,000 items: serial at first, because " in unfolded(promoted)
    assert "; then fork, n_jobs=2" in unfolded(promoted)
    for plan in (serial, promoted):
        assert decide(plan.profile, plan.host, plan.n_items, plan.limits) == plan
        assert plan.decision is plan.decided
        assert plan.to_dict()["decision"]["backend"] == plan.decision.backend != plan.backend
    assert decided.decision is decided


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
