"""Pictures of plans: what is drawn, not how it looks."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import pytest

import amorsize
from amorsize import Limits, Plan, Profile, Revision, Span, _plot, decide
from amorsize._plot import plot_plan, plot_timeline
from tests.factories import make_host, make_profile

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(name="pyplot", autouse=True)
def _pyplot() -> Iterator[Any]:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    yield pyplot
    pyplot.close("all")


def plan_of(n_items: int | None = 1000, n_cpus: int = 8, **host: Any) -> Plan:
    """Return a decision for a made-up machine."""
    return decide(make_profile(), make_host(n_cpus=n_cpus, **host), n_items, Limits())


def legend(ax: Any) -> str:
    """Return the legend as one line."""
    return " | ".join(text.get_text() for text in ax.get_legend().get_texts())


class TestPlan:
    """The forecast over the number of workers."""

    def test_a_forecast_before_any_item_is_called_a_lower_bound(self) -> None:
        """The bars have only what is known: starting workers."""
        ax = plot_plan(decide(Profile(), make_host(n_cpus=8), 100, Limits(timeout=1.0)))
        assert ax.get_ylabel().startswith("predicted time at least [")
        assert plot_plan(plan_of()).get_ylabel().startswith("predicted time [")

    def test_it_marks_loop_break_even_memory_and_choice(self) -> None:
        """All four are in the legend, with their numbers."""
        plan = plan_of()
        text = legend(plot_plan(plan))
        assert "loop: 1 s" in text
        assert "break-even: pays from 2 on" in text
        assert "memory: room for" in text
        assert f"chosen: fork, n_jobs={plan.n_jobs}" in text

    def test_bars_are_the_terms_of_the_equation(self) -> None:
        """At the chosen number of workers they add up to the plan's own forecast."""
        plan = plan_of()
        ax = plot_plan(plan)
        at = plan.n_jobs
        heights = [b.get_height() for b in ax.patches if abs(b.get_x() + b.get_width() / 2 - at) < 1e-9]
        factor = {"s": 1, "ms": 1e3, "us": 1e6}[ax.get_ylabel().partition("[")[2].rstrip("]")]
        assert sum(heights) == pytest.approx(plan.parallel_s * factor)

    def test_a_low_memory_ceiling_is_a_line(self) -> None:
        """Where fewer workers fit than there are cores."""
        plan = plan_of(n_cpus=16, memory_bytes=100 << 20)
        assert plan.limited_by == "memory"
        ax = plot_plan(plan)
        room = int(legend(ax).partition("memory: room for ")[2].split()[0])
        assert plan.n_jobs <= room < 16
        assert any(line.get_xdata()[0] == room + 0.5 for line in ax.lines)

    def test_work_that_never_pays_says_so(self) -> None:
        """No break-even is no line."""
        plan = decide(make_profile(item_s=1e-6), make_host(), 500, Limits())
        text = legend(plot_plan(plan))
        assert "no break-even" in text
        assert "chosen: the loop" in text

    @pytest.mark.parametrize("n_items", [None, 0, 1, 1000])
    @pytest.mark.parametrize("n_cpus", [1, 2, 8, 500])
    def test_every_plan_can_be_drawn(self, n_items: int | None, n_cpus: int, pyplot: Any) -> None:
        """Unknown lengths, no items, one core, many cores."""
        ax = plot_plan(plan_of(n_items, n_cpus))
        ax.figure.canvas.draw()
        pyplot.close("all")

    @pytest.mark.parametrize("changes", [{"is_nested": True}, {"is_disabled": True}, {"costs": {}}])
    def test_a_host_without_workers_can_be_drawn(self, changes: dict[str, Any]) -> None:
        """Only the loop stands there."""
        assert "chosen: the loop" in legend(plot_plan(plan_of(**changes)))

    def test_it_draws_on_given_axes(self, pyplot: Any) -> None:
        """And returns them."""
        _, ax = pyplot.subplots()
        assert plan_of().plot(ax) is ax


class TestTimeline:
    """The run that happened."""

    def run_of(self, **changes: Any) -> Plan:
        """Return the plan of a run of three lanes."""
        spans = (
            Span(lane="caller", begin_s=0.0, end_s=0.1, start=0, n_items=5, kind="sample"),
            Span(lane="worker 10", begin_s=0.3, end_s=0.9, start=5, n_items=60),
            Span(lane="worker 9", begin_s=0.3, end_s=0.6, start=65, n_items=35),
            Span(lane="caller", begin_s=0.2, end_s=0.8, start=100, n_items=900),
        )
        return dataclasses.replace(plan_of(), **{"actual_s": 1.0, "timeline": spans} | changes)

    def test_lanes_are_the_caller_and_the_workers_in_order(self) -> None:
        """The caller first, worker 9 before worker 10."""
        ax = plot_timeline(self.run_of())
        assert [label.get_text() for label in ax.get_yticklabels()] == ["caller", "worker 9", "worker 10"]

    def test_chunks_start_up_sample_and_idle_time_are_told_apart(self) -> None:
        """Each kind has its entry in the legend, once."""
        text = legend(plot_timeline(self.run_of()))
        assert sorted(text.split(" | ")) == ["chunk", "idle", "sample", "start-up"]

    def test_it_says_how_busy_each_lane_was(self) -> None:
        """In per cent of the whole call."""
        ax = plot_timeline(self.run_of())
        assert [text.get_text() for text in ax.texts] == ["70% busy", "30% busy", "60% busy"]

    def test_a_promotion_is_a_line_with_its_words(self) -> None:
        """And what the caller did before it is its loop."""
        revision = Revision(at_s=0.15, n_done=50, what="go parallel: fork, n_jobs=2", why="slow")
        later = tuple(dataclasses.replace(s, start=s.start + 45 * (s.kind == "work")) for s in self.run_of().timeline)
        ax = plot_timeline(self.run_of(revisions=(revision,), timeline=later))
        assert "change of plan" in legend(ax)
        assert "loop" in legend(ax)
        assert "go parallel: fork, n_jobs=2" in [text.get_text() for text in ax.texts]

    def test_a_serial_run_is_one_lane_of_loop(self) -> None:
        """Also where no sample was taken."""
        plan = self.run_of(backend="sequential", timeline=())
        ax = plot_timeline(plan)
        assert [label.get_text() for label in ax.get_yticklabels()] == ["caller"]
        assert "loop" in legend(ax)

    def test_a_plan_that_has_not_run_is_refused(self) -> None:
        """With the way out."""
        with pytest.raises(ValueError, match=r"map first"):
            plot_timeline(plan_of())

    def test_a_real_run_can_be_drawn(self, pyplot: Any) -> None:
        """With workers of flesh and blood, on given axes."""
        work = amorsize.parallel(abs, n_jobs=2)
        work.map(range(1000))
        _, ax = pyplot.subplots()
        assert work.last_plan is not None
        assert work.last_plan.plot_timeline(ax) is ax
        ax.figure.canvas.draw()


def test_a_missing_matplotlib_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ImportError says what to install, and no more than that."""
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"amorsize\[plot\]") as caught:
        plan_of().plot()
    assert len(caught.traceback) == 2  # this function and the method
    assert caught.value.__suppress_context__


def test_a_module_that_matplotlib_needs_is_named_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """To install matplotlib would not help."""

    def lack(_: str) -> None:
        raise ModuleNotFoundError("No module named 'kiwisolver'", name="kiwisolver")

    with monkeypatch.context() as patched:
        patched.setattr(_plot.importlib, "import_module", lack)
        with pytest.raises(ModuleNotFoundError, match="kiwisolver"):
            plan_of().plot()
