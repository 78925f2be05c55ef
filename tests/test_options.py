"""Options: the table, where they may be given, what takes precedence, and what a wrong one leads to."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import pytest

import amorsize
from amorsize import Costs, Host, Limits, Profile, _options, _wrong_call
from amorsize._options import OPTIONS, Options, checked, unknown
from amorsize.exceptions import AmorsizeWarning
from tests.functions import Counter, combine, square

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

REFERENCE = Path(__file__).parents[1] / "docs" / "reference.md"

SIGNED: list[Callable[..., Any]] = [
    amorsize.parallel,
    amorsize.map,
    amorsize.plan,
    amorsize.configure,
    square.map,
    square.starmap,
    square.imap,
    square.istarmap,
    square.amap,
    square.aimap,
    square.plan,
    square.with_options,
    Counter(1).add.map,
    Counter(1).add.with_options,
]


@pytest.fixture(autouse=True)
def own_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a program without defaults."""
    monkeypatch.setattr(_options, "_program", {})
    monkeypatch.delenv("AMORSIZE_N_JOBS", raising=False)


def limits_of(function: Any) -> Limits:
    """Return the limits that the latest call went by."""
    plan = function.last_plan
    assert plan is not None
    assert isinstance(plan.limits, Limits)
    return plan.limits


def fresh() -> Any:
    """Return a decorated function of its own."""
    return amorsize.parallel(lambda x: x + 1)


# -- the table -------------------------------------------------------------------------------------------------------


def test_the_table_and_the_limits_have_the_same_defaults() -> None:
    """What the decision goes by where nobody says anything is written down once."""
    assert Options().limits == Limits()
    assert {f for f in Limits.__dataclass_fields__ if f not in OPTIONS} == set()


@pytest.mark.parametrize("name", OPTIONS)
def test_a_default_passes_its_own_check(name: str) -> None:
    """Saying what holds anyway changes nothing."""
    option = OPTIONS[name]
    assert option.check(name, option.default) == option.default
    assert option.words[-1] not in ".;"


@pytest.mark.parametrize("function", SIGNED, ids=map(str, range(len(SIGNED))))
def test_every_signature_names_every_option(function: Any) -> None:
    """With its default, keyword-only, as shells and notebooks show it."""
    shown = inspect.signature(function).parameters
    for name, option in OPTIONS.items():
        assert shown[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert shown[name].default == option.default
    assert not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in shown.values())
    assert "self" not in shown


def test_the_type_checkers_see_the_same_options() -> None:
    """The TypedDict is the table."""
    assert set(typing.get_type_hints(amorsize.MapOptions)) == set(OPTIONS)


def test_help_tells_every_option() -> None:
    """The docstring of the decorator has each, in lines that fit a terminal."""
    lines = (inspect.getdoc(amorsize.parallel) or "").splitlines()
    text = " ".join(line.strip() for line in lines)
    for name, option in OPTIONS.items():
        assert f"{name}: {option.words.replace('`', '``')}." in text
    assert max(map(len, lines)) <= 120


def test_help_begins_with_the_methods() -> None:
    """What one looks for there, before the options."""
    first = (inspect.getdoc(amorsize.parallel) or "").partition("Args:")[0]
    for name in ("map", "starmap", "imap", "istarmap", "amap", "aimap", "plan", "explain"):
        assert re.search(rf"\bf\.{name}\b", first), name


def test_the_reference_has_the_table() -> None:
    """Name, default and words of each option stand in the reference, as they are in the table."""
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", REFERENCE.read_text("utf-8"), re.MULTILINE))
    for name, option in OPTIONS.items():
        default = repr(option.default).replace("'", '"')
        assert rows[name] == f"`{default}` | {option.words}"


# -- where options may be given --------------------------------------------------------------------------------------


def test_a_call_takes_options() -> None:
    """For this call only; the function keeps its own."""
    work = fresh()
    assert work.map([1, 2], n_jobs=1, sample_size=3) == [2, 3]
    assert (limits_of(work).n_jobs, limits_of(work).sample_size) == (1, 3)
    assert work.map([1, 2]) == [2, 3]
    assert limits_of(work) == Limits()
    assert work.starmap([(1,)], sample_size=2) == [2]
    assert limits_of(work).sample_size == 2
    assert list(work.imap([1], sample_size=4)) == [2]
    assert limits_of(work).sample_size == 4
    assert list(work.istarmap([(1,)], sample_size=6)) == [2]
    assert limits_of(work).sample_size == 6
    assert work.plan([1], sample_size=7).limits.sample_size == 7


def test_a_call_on_a_method_takes_options() -> None:
    """Bound methods have the same surface."""
    add = Counter(10).add
    assert add.map([1, 2], errors="return", n_jobs=1) == [11, 12]
    assert limits_of(add).errors == "return"


def test_errors_and_progress_of_a_call() -> None:
    """The options that change what comes back work per call as well."""
    seen: list[int] = []
    work = amorsize.parallel(lambda x: 1 // x)
    back = work.map([1, 0], errors="return", progress=lambda done, total, elapsed_s: seen.append(done))
    assert back[0] == 1
    assert isinstance(back[1], ZeroDivisionError)
    assert seen[-1] == 2
    assert work.map([1, 0], errors="skip") == [1]


def test_keyword_arguments_of_the_function_go_into_kwargs() -> None:
    """Its own names and those of options do not meet."""

    def wait(x: int, timeout: int = 1) -> tuple[int, int]:
        return x, timeout

    work = amorsize.parallel(wait)
    assert work.map([1], kwargs={"timeout": 7}) == [(1, 7)]
    assert limits_of(work).timeout is None
    with pytest.raises(TypeError, match=r"unknown option 'y': an argument of .*combine goes|kwargs=\{'y': \.\.\.\}"):
        combine.map([1], y=2)


def test_map_of_the_module_is_map_without_a_decorator() -> None:
    """Plain functions, decorated ones and builtins; options and kwargs too."""
    assert amorsize.map(abs, [-1, 2]) == [1, 2]
    assert amorsize.map(pow, [2, 3], [2, 2], n_jobs=1) == [4, 9]
    assert amorsize.map(square, range(3)) == [0, 1, 4]
    assert amorsize.map(int, ["11"], kwargs={"base": 2}) == [3]
    assert amorsize.map(lambda x: 1 // x, [0, 1], errors="skip") == [1]
    with pytest.raises(TypeError, match=r"must be the function, not list: \[1\]$"):
        amorsize.map([1], [2])  # type: ignore[call-overload]


def test_the_module_is_completed_with_its_public_names() -> None:
    """Shells offered what its file imports, too: `Any`, `sys`, and every module that begins with an underscore."""
    importlib.import_module("amorsize.testing")
    public = {*amorsize.__all__, "testing"}
    assert [name for name in dir(amorsize) if not name.startswith("__")] == sorted(
        name for name in public if not name.startswith("__")
    )


def test_map_of_the_module_remembers_an_importable_function() -> None:
    """The second call goes on with what the first has learned; a function of the same name is another one."""
    amorsize.map(types.new_class, ["A"])
    known = amorsize._toplevel._decorated(types.new_class, (), "map")
    assert amorsize._toplevel._decorated(types.new_class, (), "map") is known
    assert known.last_plan is not None

    def local(x: int) -> int:
        return x

    assert amorsize._toplevel._decorated(local, (), "map") is not amorsize._toplevel._decorated(local, (), "map")


def test_a_plan_of_starmap() -> None:
    """Each item is unpacked, by method and by function."""
    pairs = [(2, 3), (3, 2)]
    assert amorsize.plan(pow, pairs, star=True).n_items == 2
    assert amorsize.parallel(pow).plan(pairs, star=True).n_items == 2
    assert amorsize.plan(pow, [2, 3], [3, 2]).n_items == 2
    assert amorsize.plan(int, ["11"], kwargs={"base": 2}).n_items == 1
    with pytest.raises(TypeError):
        amorsize.plan(pow, pairs)


# -- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (1 << 30, 1 << 30),
        ("2GB", 2_000_000_000),
        ("2 gb", 2_000_000_000),
        ("512 MiB", 512 << 20),
        ("1.5GiB", 3 << 29),
        ("1_000 kB", 1_000_000),
        ("4G", 4_000_000_000),
        ("100", 100),
        (2e9, 2_000_000_000),
        (0.5, 0.5),
        (1.0, 1.0),
        (None, None),
    ],
)
def test_sizes_are_read_as_people_write_them(given: Any, meant: Any) -> None:
    """Bytes, units of a thousand and of 1,024, and shares."""
    found = checked({"max_memory": given})["max_memory"]
    assert found == meant
    assert type(found) is type(meant)


def test_a_share_of_the_memory_is_that_of_the_host() -> None:
    """Half of what is available holds half of the workers; a plan of it replays."""
    costs = {"fork": Costs(start_s=0.001, worker_bytes=0)}
    host = Host(n_cpus=64, n_physical_cpus=64, memory_bytes=100 * 10**9, costs=costs)
    profile = Profile(n_sampled=5, item_s=1.0, peak_bytes=10**9)
    plans = [amorsize.decide(profile, host, 1000, Limits(max_memory=m)) for m in (0.1, 0.4, 40 * 10**9)]
    assert [plan.limited_by for plan in plans] == ["memory"] * 3
    assert plans[0].n_jobs < plans[1].n_jobs == plans[2].n_jobs
    assert amorsize.decide(plans[0].profile, plans[0].host, plans[0].n_items, plans[0].limits) == plans[0]


# -- what takes precedence -------------------------------------------------------------------------------------------


def test_configure_sets_defaults_of_the_program() -> None:
    """Functions decorated before and after go by them; what is not named stays."""
    before = fresh()
    amorsize.configure(n_jobs=1)
    amorsize.configure(sample_size=3)
    for work in (before, fresh()):
        work.map([1])
        assert (limits_of(work).n_jobs, limits_of(work).sample_size) == (1, 3)
    amorsize.configure(n_jobs=None)
    before.map([1])
    assert limits_of(before).n_jobs is None


def test_configure_takes_progress() -> None:
    """A callable for all maps of the program."""
    seen: list[int] = []
    amorsize.configure(progress=lambda done, total, elapsed_s: seen.append(done))
    fresh().map([1, 2, 3])
    assert seen[-1] == 3


def test_configure_refuses_what_a_decorator_refuses() -> None:
    """And then changes nothing."""
    with pytest.raises(TypeError, match=r"did you mean n_jobs\?"):
        amorsize.configure(workers=2)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="n_jobs must not be 0"):
        amorsize.configure(sample_size=2, n_jobs=0)
    with pytest.raises(ValueError, match="exclude each other"):
        amorsize.configure(prefer="threads", start_method="fork")
    assert _options._program == {}


def test_what_is_nearest_to_the_call_takes_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call, decorator, joblib context, configure, environment: each goes before those behind it."""
    plain, decorated = fresh(), amorsize.parallel(lambda x: x, n_jobs=5)
    monkeypatch.setenv("AMORSIZE_N_JOBS", "2")
    assert plain.plan([1]).limits.n_jobs == 2
    amorsize.configure(n_jobs=3)
    assert plain.plan([1]).limits.n_jobs == 3
    with joblib.parallel_config(n_jobs=4):
        in_context = plain.plan([1])
        assert in_context.limits.n_jobs is None
        assert in_context.host.context_n_jobs == 4
        assert decorated.plan([1]).limits.n_jobs == 5
    assert decorated.plan([1]).limits.n_jobs == 5
    assert decorated.plan([1], n_jobs=6).limits.n_jobs == 6
    assert decorated.plan([1], n_jobs=None).limits.n_jobs is None
    assert plain.plan([1], n_jobs=6).limits.n_jobs == 6


def test_a_joblib_context_leaves_other_defaults_alone() -> None:
    """It says how many of which kind, and nothing about errors or samples."""
    amorsize.configure(sample_size=2, prefer="threads")
    with joblib.parallel_config(n_jobs=2):
        plan = fresh().plan([1])
    assert (plan.limits.sample_size, plan.limits.prefer) == (2, None)


def test_threads_of_a_call_go_before_a_start_method_of_the_program() -> None:
    """They exclude each other, and the nearer one was meant."""
    amorsize.configure(start_method="loky")
    assert fresh().plan([1], prefer="threads").limits == Limits(prefer="threads")
    amorsize.configure(start_method=None, prefer="threads")
    assert fresh().plan([1], start_method="loky").limits == Limits(start_method="loky")


@pytest.mark.parametrize("text", ["two", "0", "1.5"])
def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """AMORSIZE_N_JOBS is a whole number other than 0, or unset."""
    monkeypatch.setenv("AMORSIZE_N_JOBS", text)
    with pytest.raises(ValueError, match="AMORSIZE_N_JOBS must be a whole number other than 0"):
        fresh().map([1])


def test_an_empty_variable_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As most programs read them."""
    monkeypatch.setenv("AMORSIZE_N_JOBS", " ")
    assert fresh().plan([1]).limits.n_jobs is None


def test_one_job_of_the_environment_switches_everything_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """As AMORSIZE_SERIAL does, for calls that fix nothing themselves."""
    monkeypatch.setenv("AMORSIZE_N_JOBS", "1")
    work = amorsize.parallel(_own_pid)
    assert set(work.map(range(500))) == {os.getpid()}
    assert limits_of(work).n_jobs == 1


def _own_pid(x: int) -> int:
    return os.getpid()


# -- 40 wrong calls --------------------------------------------------------------------------------------------------


def wait(url: str, pause: float = 0.0) -> str:
    """Stand for a function with an argument of its own."""
    return url


f = amorsize.parallel(wait)


async def _endless() -> AsyncIterator[int]:
    while True:
        yield 1


# What a newcomer would type, and what the error leads to.
WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: f.map(["a"], njobs=2), r"did you mean n_jobs\?"),
    (lambda: f.map(["a"], workers=2), r"did you mean n_jobs\?"),
    (lambda: f.map(["a"], max_workers=2), r"did you mean n_jobs\?"),
    (lambda: f.map(["a"], processes=2), r"did you mean n_jobs\?"),
    (lambda: f.map(["a"], n_workers=2), r"did you mean n_jobs\?"),
    (lambda: f.map(["a"], num_workers=2), r"did you mean n_jobs\?"),
    (lambda: f.map(["a"], N_JOBS=2), r"did you mean n_jobs\?"),
    (lambda: f.map(["a"], chunksize=2), r"did you mean batch_size\?"),
    (lambda: f.map(["a"], chunk_size=2), r"did you mean batch_size\?"),
    (lambda: f.map(["a"], backend="threading"), "did you mean prefer='threads', start_method="),
    (lambda: f.map(["a"], threads=4), r"did you mean prefer='threads'\?"),
    (lambda: f.map(["a"], verbose=10), r"did you mean progress\?"),
    (lambda: f.map(["a"], proggress=True), r"did you mean progress\?"),
    (lambda: f.map(["a"], desc="pages"), r"did you mean progress=dict\(desc=\.\.\.\)\?"),
    (lambda: f.map(["a"], return_exceptions=True), r"did you mean errors='return' or errors='skip'\?"),
    (lambda: f.map(["a"], max_retries=3), r"did you mean retries\?"),
    (lambda: f.map(["a"], memory_limit="2GB"), r"did you mean max_memory\?"),
    (lambda: f.map(["a"], ordered=False), r"did you mean imap\(\.\.\., ordered=False\)\?"),
    (lambda: f.map(["a"], return_as="generator"), r"did you mean imap"),
    (lambda: f.map(["a"], mp_context="spawn"), r"did you mean start_method\?"),
    (lambda: f.map(["a"], pause=0.1), r"an argument of wait .* goes into kwargs=\{'pause': \.\.\.\}"),
    (lambda: f.map(["a"], args=(0.1,)), r"did you mean kwargs=\{'name': value\}\?"),
    (lambda: f.map(["a"], frobnicate=True), "the options are batch_size, checkpoint, errors, "),
    (lambda: f.map(["a"], n_jobs="4"), "n_jobs must be a whole number, not '4'; None lets amorsize decide"),
    (lambda: f.map(["a"], n_jobs=0), "n_jobs must not be 0; None lets amorsize decide, 1 is serial, -1 is all CPUs"),
    (lambda: f.map(["a"], batch_size=0.5), r"batch_size must be a whole number, not 0\.5; None lets amorsize decide"),
    (lambda: f.map(["a"], max_memory="lots"), "a size such as '2GB' or '512 MiB', or a share such as 0.5, not 'lots'"),
    (
        lambda: f.map(["a"], errors="ignore"),
        "errors must be one of 'raise', 'return', 'skip' or left out, not 'ignore'",
    ),
    (lambda: f.map(["a"], timeout="5s"), "timeout must be seconds or None, not '5s'"),
    (lambda: f.map(["a"], progress="yes"), r"progress must be True, False, tqdm, .*dict\(desc='\.\.\.'\).*not 'yes'"),
    (lambda: f.map(["a"], prefer="gpu"), "prefer must be one of 'processes', 'threads' or left out, not 'gpu'"),
    (lambda: f.map(["a"], start_method="spawn"), "start_method must be one of 'fork', 'forkserver', 'loky'"),
    (lambda: f.plan(5), "items must be iterable, not int: 5"),
    (lambda: f.map(5), "items must be iterable, not int: 5"),
    (f.map, "wait needs at least one iterable of items"),
    (lambda: f.map(["a"], kwargs=0.1), r"kwargs must be a mapping of keyword arguments such as \{'name': value\}, not"),
    (lambda: f.imap(["a"], buffersize=0), "buffersize must be at least 1, not 0; items to read ahead; leave it out"),
    (lambda: f.imap(["a"], pairs="both"), "pairs must be one of 'index', 'item' or left out, not 'both'"),
    (lambda: amorsize.parallel(f), r"wait is decorated already; change its options with \.with_options\(\.\.\.\)"),
    (lambda: amorsize.parallel(4)(wait), "decorates a callable, not int: 4"),
    (lambda: amorsize.parallel(workers=4)(wait), r"did you mean n_jobs\?"),
    (lambda: amorsize.map(["a"], wait), r"not list: \['a'\]; did you mean amorsize\.map\(wait, items\)\?"),
    (lambda: amorsize.plan(["a"], wait), r"did you mean amorsize\.plan\(wait, items\)\?"),
    (
        lambda: amorsize.map("wait", ["a"]),
        r"the first argument of amorsize\.map must be the function, not str: 'wait'; give the function itself",
    ),
    (lambda: f.map(5), r"did you mean range\(5\)\?"),
    (lambda: f.map("a", 5), r"same for every item goes into kwargs=\{'name': \.\.\.\}"),
    (lambda: f.map(1, 2, 3), "several items are given as one list"),
    (lambda: f.map(wait, ["a"]), r"the items alone are given here; did you mean amorsize\.map\(function, items\)\?"),
    (lambda: f.map(open), r"did you mean to call it\?"),
    (lambda: f.map(_endless()), r"collected first: \[item async for item in \.\.\.\]"),
    (lambda: f.map(items=["a"]), "needs at least one iterable of items, by position and not as items="),
    (lambda: f.map(["a"], frobnicate=True), r"and arguments of wait go into kwargs=\{\.\.\.\}"),
    (lambda: f.imap(["a"], ordered="no"), "ordered must be True or False, not 'no'"),
    (lambda: amorsize.parallel(4), r"options are given by name: @amorsize\.parallel\(n_jobs=4\)"),
    (lambda: amorsize.parallel(["a"]), r"items are given to f\.map\(items\), or to amorsize\.map\(function, items\)"),
    (lambda: amorsize.parallel(n_jobs=2)(["a"]), r"items are given to f\.map\(items\)"),
    (lambda: amorsize.parallel(n_jobs=2)(f(x) for x in "a"), r"items are given to f\.map\(items\)"),
    (lambda: amorsize.parallel(n_jobs=2)(wait, ["a"]), r"takes the function alone: f = amorsize\.parallel\("),  # type: ignore[arg-type]
    (lambda: f.map(["a"], maxtasksperchild=10), r"did you mean max_memory\?"),
    (lambda: f.map(["a"], return_as="generator"), r"did you mean imap\(\.\.\.\)\?"),
    (lambda: amorsize.parallel("wait"), "decorates a callable, not str: 'wait'$"),
    (lambda: f.imap(None), "a function without a return gives None"),
    (lambda: amorsize.plan(wait, ["a"], jobs=2), r"did you mean n_jobs\?"),
    (lambda: amorsize.configure(cache_folder="x"), "the options are|did you mean"),
    (lambda: amorsize.configure(cache_dir=3), "cache_dir must be a path or None, not 3"),
    (lambda: f.with_options(concurrency=8), r"did you mean n_jobs\?"),
]


@pytest.mark.parametrize(("call", "words"), WRONG, ids=map(str, range(len(WRONG))))
def test_a_wrong_call_names_the_way_out(call: Callable[[], Any], words: str) -> None:
    """One line, before anything runs."""
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_there_are_forty_of_them() -> None:
    """As many as were asked for, at least."""
    assert len(WRONG) >= 40


@pytest.mark.parametrize("word", sorted(_wrong_call._MEANT))
def test_a_synonym_is_no_option(word: str) -> None:
    """Each leads to something that exists."""
    assert word not in OPTIONS
    meant = str(unknown(word))
    assert "did you mean" in meant
    assert any(name in meant for name in [*OPTIONS, "kwargs", "imap"])


def test_a_synonym_leads_to_one_way() -> None:
    """No word is listed twice."""
    words = [word for words in _wrong_call._SYNONYMS.values() for word in words]
    assert len(words) == len(set(words))


# -- progress --------------------------------------------------------------------------------------------------------


@pytest.fixture(name="tqdm")
def _tqdm() -> Any:
    return pytest.importorskip("tqdm").tqdm


def drawn(progress: Any, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the bar of a run that has been going for two seconds."""
    from amorsize._progress import Follower  # noqa: PLC0415 - only here

    now = [100.0]
    follower = Follower(checked({"progress": progress})["progress"], "work", 400, clock=lambda: now[0])
    now[0] += 2
    follower.update(7)
    follower.close()
    return capsys.readouterr().err


def test_the_class_makes_the_bar(tqdm: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """``progress=tqdm`` and a class of one's own are made into a bar of this run."""
    made: list[Any] = []

    class Own(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append(kwargs)
            super().__init__(*args, **kwargs)

    assert "7/400" in drawn(tqdm, capsys)
    assert "7/400" in drawn(Own, capsys)
    assert made[0]["desc"] == "work"


def test_a_mapping_has_the_arguments_of_the_bar(tqdm: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Those given go before ours."""
    assert "pages:" in drawn({"desc": "pages"}, capsys)
    assert "7/400" in drawn({"unit": "page"}, capsys)
    assert "7/400" in drawn({}, capsys)


def test_a_wrong_argument_of_the_bar_is_refused_before_the_run(tqdm: Any) -> None:
    """Not a second later, when the bar is drawn."""
    ran: list[int] = []
    work = amorsize.parallel(ran.append)
    with pytest.raises(TypeError, match=r"tqdm has no argument of that name; it has desc"):
        work.map([1], progress={"description": "pages"})
    with pytest.raises(TypeError, match="as a mapping has the arguments of tqdm by name"):
        work.map([1], progress={1: "pages"})
    assert ran == []


def test_a_bar_that_is_open_already_is_refused(tqdm: Any) -> None:
    """A bar of one's own says what is wrong with it."""

    class Quiet(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # its thread would forbid forking in the tests to come

    with Quiet(total=1, disable=True) as bar, pytest.raises(TypeError, match=r"progress=tqdm"):
        fresh().map([1], progress=bar)


# -- f.explain -------------------------------------------------------------------------------------------------------


def test_explain_is_the_text_of_the_latest_plan() -> None:
    """Before the first call it says that there was none."""
    work = amorsize.parallel(wait)
    assert work.explain().startswith("wait has not been mapped yet")
    work.map(["a"])
    assert work.explain() == work.last_plan.explain()  # type: ignore[union-attr]


# -- data frames -----------------------------------------------------------------------------------------------------


def test_a_data_frame_maps_its_columns_and_a_warning_says_so() -> None:
    """As the loop does; for pandas and polars each with its own way to rows and groups."""

    class DataFrame(list[str]):
        """Iterates over the names of its columns, as pandas' does."""

        def itertuples(self) -> None:
            """Stand for the way to rows."""

    DataFrame.__module__ = "pandas.core.frame"
    work = amorsize.parallel(len)
    for way in (work.map, work.imap, work.plan):
        with pytest.warns(
            AmorsizeWarning,
            match=r"len maps the column names .*itertuples\(index=False, name=None\) to starmap.*groupby",
        ):
            way(DataFrame(["a", "bc"]))
    DataFrame.__module__ = "polars.dataframe.frame"
    with pytest.warns(AmorsizeWarning, match=r"len maps the columns .*iter_rows\(\).*group_by"):
        assert work.map(DataFrame(["a", "bc"])) == [1, 2]


def test_a_real_data_frame_is_recognised() -> None:
    """Of whichever package is installed."""
    pandas = pytest.importorskip("pandas")
    with pytest.warns(AmorsizeWarning, match="maps the column names"):
        assert amorsize.map(str, pandas.DataFrame({"a": [1], "b": [2]})) == ["a", "b"]
