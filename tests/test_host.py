from __future__ import annotations

import contextlib
import gc
import itertools
import math
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

import amorsize
from amorsize import Host, _backend, _bounds, _host, _profile
from amorsize._cgroup import cgroup_paths, parse_bytes, parse_cpu_max
from amorsize._cost import PRIORS, SERVED
from amorsize._gate import is_never_worth
from amorsize._host import (
    CostBook,
    Readings,
    available_memory,
    cpu_limits,
    memory_limits,
    n_others,
    read_host,
    usable_cpus,
)
from tests.factories import GB

if TYPE_CHECKING or sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

V2 = "/sys/fs/cgroup"


def files(contents: Mapping[str, str]) -> Callable[[str], str]:
    """Return a reader that knows these files only."""

    def read(path: str) -> str:
        if path not in contents:
            raise FileNotFoundError(path)
        return contents[path]

    return read


def raises() -> int:
    """Fail as a reading may."""
    raise PermissionError("not for you")


def make_readings(**changes: Any) -> Readings:
    """Return the readings of an 8-core machine with 16 threads and 32 GB, without cgroups or limits."""
    values: dict[str, Any] = {
        "logical": lambda: 16,
        "physical": lambda: 8,
        "affinity": lambda: None,
        "available": lambda: 32 * GB,
        "address_space": lambda: None,
        "read_text": files({}),
        "environ": {},
        "platform": "linux",
    }
    return Readings(**values | changes)


# -- CPUs ------------------------------------------------------------------------------------------------------------


def test_physical_cores_are_told_from_logical_ones() -> None:
    """Both numbers are there (S3)."""
    host = read_host(make_readings())
    assert (host.n_cpus, host.n_physical_cpus) == (16, 8)
    assert host.sources["n_cpus"] == "machine"


@pytest.mark.parametrize(
    ("changes", "expected", "source"),
    [
        ({"affinity": lambda: 4}, (4, 4), "affinity"),
        ({"affinity": lambda: 1}, (1, 1), "affinity"),
        ({"affinity": lambda: 12}, (12, 8), "affinity"),
        ({"affinity": lambda: 64}, (16, 8), "machine"),
        ({"environ": {"LOKY_MAX_CPU_COUNT": "3"}}, (3, 3), "LOKY_MAX_CPU_COUNT"),
        ({"environ": {"LOKY_MAX_CPU_COUNT": " 3 "}}, (3, 3), "LOKY_MAX_CPU_COUNT"),
        ({"environ": {"LOKY_MAX_CPU_COUNT": "1000"}}, (16, 8), "machine"),
        ({"environ": {"LOKY_MAX_CPU_COUNT": "0"}}, (16, 8), "machine"),
        ({"environ": {"LOKY_MAX_CPU_COUNT": "-2"}}, (16, 8), "machine"),
        ({"environ": {"LOKY_MAX_CPU_COUNT": ""}}, (16, 8), "machine"),
        ({"environ": {"LOKY_MAX_CPU_COUNT": "many"}}, (16, 8), "machine"),
        ({"environ": {"LOKY_MAX_CPU_COUNT": "1e400"}}, (16, 8), "machine"),
        ({"environ": None}, (16, 8), "machine"),
        ({"physical": lambda: None}, (16, 16), "machine"),
        ({"physical": raises}, (16, 16), "machine"),
        ({"physical": lambda: 0}, (16, 16), "machine"),
        ({"physical": lambda: -1}, (16, 16), "machine"),
        ({"physical": lambda: 32}, (16, 16), "machine"),
        ({"affinity": raises}, (16, 8), "machine"),
        ({"affinity": lambda: 0}, (16, 8), "machine"),
        ({"logical": lambda: None, "physical": lambda: None}, (1, 1), "unknown"),
        ({"logical": raises, "physical": raises}, (1, 1), "unknown"),
        ({"logical": lambda: 0, "physical": lambda: 0}, (1, 1), "unknown"),
        ({"logical": lambda: math.nan, "physical": lambda: math.inf}, (1, 1), "unknown"),
    ],
)
def test_odd_readings_of_cpus(changes: dict[str, Any], expected: tuple[int, int], source: str) -> None:
    """A reading that is missing, fails or makes no sense is left out; of the others the smallest counts."""
    assert usable_cpus(make_readings(**changes)) == (*expected, source)


def test_an_unknown_machine_with_a_known_affinity_has_those_cpus() -> None:
    """Where the machine's count cannot be had, what this process may run on is the reading there is."""
    n_cpus, n_physical, source = usable_cpus(make_readings(logical=raises, physical=raises, affinity=lambda: 8))
    assert (n_cpus, n_physical, source) == (8, 8, "affinity")


# -- cgroups ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        ({}, None),
        ({"/proc/self/cgroup": ""}, None),
        ({f"{V2}/cpu.max": "150000 100000\n"}, 1.5),
        ({"/proc/self/cgroup": "nonsense\n::\n0:\n"}, None),
        ({"/proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "150000 100000\n"}, 1.5),
        ({"/proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "max 100000\n"}, None),
        ({"/proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": ""}, None),
        ({"/proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "200000"}, 2.0),
        ({"/proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "-1 100000"}, None),
        ({"/proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "100000 0"}, None),
        ({"/proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "0 100000"}, None),
        ({"/proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "abc def"}, None),
        ({"/proc/self/cgroup": "0::/a/b\n", f"{V2}/a/b/cpu.max": "300000 100000"}, 3.0),
        ({"/proc/self/cgroup": "0::/a/b\n", f"{V2}/a/cpu.max": "200000 100000"}, 2.0),
        (
            {
                "/proc/self/cgroup": "0::/a/b\n",
                f"{V2}/a/b/cpu.max": "max 100000",
                f"{V2}/a/cpu.max": "400000 100000",
                f"{V2}/cpu.max": "700000 100000",
            },
            4.0,
        ),
        (
            {
                "/proc/self/cgroup": "0::/a/b\n",
                f"{V2}/a/b/cpu.max": "300000 100000",
                f"{V2}/a/cpu.max": "100000 100000",
            },
            1.0,
        ),
        ({"/proc/self/cgroup": "0::/../outside\n", f"{V2}/cpu.max": "250000 100000"}, 2.5),
        ({"/proc/self/cgroup": "0::/odd:name\n", f"{V2}/odd:name/cpu.max": "250000 100000"}, 2.5),
        (
            {
                "/proc/self/cgroup": "12:pids:/x\n4:cpu,cpuacct:/docker/1\n3:memory:/docker/1\n",
                f"{V2}/cpu/docker/1/cpu.cfs_quota_us": "50000\n",
                f"{V2}/cpu/docker/1/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
        (
            {
                "/proc/self/cgroup": "4:cpuacct,cpu:/docker/1\n",
                f"{V2}/cpu/docker/1/cpu.cfs_quota_us": "-1\n",
                f"{V2}/cpu/docker/1/cpu.cfs_period_us": "100000\n",
                f"{V2}/cpu/docker/cpu.cfs_quota_us": "600000\n",
                f"{V2}/cpu/docker/cpu.cfs_period_us": "100000\n",
            },
            6.0,
        ),
        (
            {
                "/proc/self/cgroup": "4:cpu:/docker/1\n",
                f"{V2}/cpu/cpu.cfs_quota_us": "200000\n",
                f"{V2}/cpu/cpu.cfs_period_us": "50000\n",
            },
            4.0,
        ),
        (
            {
                "/proc/self/cgroup": "4:cpu:/x\n",
                f"{V2}/cpu/x/cpu.cfs_quota_us": "",
                f"{V2}/cpu/x/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        (
            {
                "/proc/self/cgroup": "1:name=systemd:/x\n0::/u/v\n",
                f"{V2}/unified/u/cpu.max": "350000 100000",
            },
            3.5,
        ),
    ],
)
def test_the_cpu_quota_of_the_own_cgroup_and_its_parents(contents: dict[str, str], expected: float | None) -> None:
    """Both versions of cgroups are read along the path of this process; the smallest quota counts (S3)."""
    assert cpu_limits(make_readings(read_text=files(contents)))["cgroup CPU quota"] == expected


@pytest.mark.parametrize(
    ("paths", "n_files"), [("0::/\n", 3), ("2:memory:/\n1:cpu:/\n0::/\n", 6), ("2:memory:/a\n1:cpu:/\n", 5)]
)
def test_files_of_cgroups_are_looked_for_where_they_may_be(paths: str, n_files: int) -> None:
    """Those of both versions were looked for everywhere, 15 us for each that is not there."""
    asked: list[str] = []

    def read(path: str) -> str:
        asked.append(path)
        return paths if path == "/proc/self/cgroup" else ""

    read_host(make_readings(read_text=read))
    assert len(asked) == n_files


@pytest.mark.parametrize(("quota", "n_cpus"), [("50000", 1), ("100000", 1), ("150000", 2), ("1", 1), ("99999999", 16)])
def test_a_part_of_a_cpu_counts_as_one(quota: str, n_cpus: int) -> None:
    """A quota is rounded up to whole CPUs and never exceeds the machine."""
    contents = {"/proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": f"{quota} 100000"}
    assert usable_cpus(make_readings(read_text=files(contents)))[0] == n_cpus


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        ({}, None),
        ({"/proc/self/cgroup": "0::/\n", f"{V2}/memory.max": "max\n"}, None),
        ({"/proc/self/cgroup": "0::/\n", f"{V2}/memory.max": ""}, None),
        ({"/proc/self/cgroup": "0::/\n", f"{V2}/memory.max": "lots"}, None),
        ({"/proc/self/cgroup": "0::/\n", f"{V2}/memory.max": "-5"}, None),
        ({"/proc/self/cgroup": "0::/\n", f"{V2}/memory.max": "1000"}, 1000),
        ({"/proc/self/cgroup": "0::/\n", f"{V2}/memory.max": "1000", f"{V2}/memory.current": "300"}, 700),
        ({"/proc/self/cgroup": "0::/\n", f"{V2}/memory.max": "1000", f"{V2}/memory.current": "1300"}, 0),
        ({"/proc/self/cgroup": "0::/\n", f"{V2}/memory.max": "1000", f"{V2}/memory.current": "odd"}, 1000),
        (
            {
                "/proc/self/cgroup": "0::/\n",
                f"{V2}/memory.max": "1000",
                f"{V2}/memory.current": "900",
                f"{V2}/memory.stat": "anon 100\nfile 800\ninactive_file 600\n",
            },
            700,
        ),
        (
            {
                "/proc/self/cgroup": "0::/\n",
                f"{V2}/memory.max": "1000",
                f"{V2}/memory.current": "100",
                f"{V2}/memory.stat": "inactive_file 600\n",
            },
            1000,
        ),
        (
            {
                "/proc/self/cgroup": "0::/a/b\n",
                f"{V2}/a/b/memory.max": "5000",
                f"{V2}/a/memory.max": "3000",
                f"{V2}/a/memory.current": "1000",
            },
            2000,
        ),
        (
            {
                "/proc/self/cgroup": "3:memory:/docker/1\n",
                f"{V2}/memory/docker/1/memory.limit_in_bytes": "5000",
                f"{V2}/memory/docker/1/memory.usage_in_bytes": "2000",
                f"{V2}/memory/docker/1/memory.stat": "cache 1\ntotal_inactive_file 500\n",
            },
            3500,
        ),
        (
            {
                "/proc/self/cgroup": "3:memory:/docker/1\n",
                f"{V2}/memory/docker/1/memory.limit_in_bytes": "9223372036854771712",
                f"{V2}/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            None,
        ),
    ],
)
def test_the_memory_limit_of_the_own_cgroup_and_its_parents(contents: dict[str, str], expected: int | None) -> None:
    """What is left under the tightest limit on the path counts; file cache that can be dropped counts as left (S5)."""
    assert memory_limits(make_readings(read_text=files(contents)))["cgroup"] == expected


# -- memory ----------------------------------------------------------------------------------------------------------

LIMITED = files({"/proc/self/cgroup": "0::/\n", f"{V2}/memory.max": str(2 * GB)})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (32 * GB, "machine")),
        ({"read_text": LIMITED}, (2 * GB, "cgroup")),
        ({"read_text": LIMITED, "available": lambda: GB}, (GB, "machine")),
        ({"address_space": lambda: GB}, (GB, "RLIMIT_AS")),
        ({"address_space": lambda: 0}, (0, "RLIMIT_AS")),
        ({"address_space": raises}, (32 * GB, "machine")),
        ({"address_space": lambda: -1}, (32 * GB, "machine")),
        ({"available": raises, "read_text": LIMITED}, (2 * GB, "cgroup")),
        ({"available": lambda: math.nan}, (_bounds.UNKNOWN_MEMORY_BYTES, "unknown")),
        ({"available": lambda: math.inf}, (_bounds.UNKNOWN_MEMORY_BYTES, "unknown")),
        ({"available": lambda: -3}, (_bounds.UNKNOWN_MEMORY_BYTES, "unknown")),
        ({"available": lambda: None}, (_bounds.UNKNOWN_MEMORY_BYTES, "unknown")),
        ({"available": lambda: "8 GB"}, (_bounds.UNKNOWN_MEMORY_BYTES, "unknown")),
        ({"available": raises}, (_bounds.UNKNOWN_MEMORY_BYTES, "unknown")),
    ],
)
def test_odd_readings_of_memory(changes: dict[str, Any], expected: tuple[int, str]) -> None:
    """The smallest sensible reading counts; with none at all a modest figure is assumed (S5)."""
    assert available_memory(make_readings(**changes)) == expected


# -- the whole -------------------------------------------------------------------------------------------------------

odd_values = st.one_of(
    st.none(), st.integers(), st.floats(), st.text(max_size=5), st.booleans(), st.just(10**400), st.just([])
)
odd_texts = st.one_of(st.text(max_size=80), st.from_regex(r"(\d+|max|-1) (\d+|max)?\n?", fullmatch=True))


@given(odd_values, odd_values, odd_values, odd_values, odd_values, odd_texts, odd_texts, st.text(max_size=20))
def test_no_reading_stops_the_work(  # noqa: PLR0917 - one argument per reading
    logical: Any, physical: Any, affinity: Any, available: Any, space: Any, paths: str, text: str, override: str
) -> None:
    """Whatever a machine says, a valid host comes out."""
    host = read_host(
        Readings(
            logical=lambda: logical,
            physical=lambda: physical,
            affinity=lambda: affinity,
            available=lambda: available,
            address_space=lambda: space,
            read_text=lambda path: paths if path == "/proc/self/cgroup" else text,
            environ={"LOKY_MAX_CPU_COUNT": override, "AMORSIZE_SERIAL": override},
        )
    )
    assert 1 <= host.n_physical_cpus <= host.n_cpus
    assert host.memory_bytes >= 0
    assert set(host.sources) == {"n_cpus", "memory_bytes"}


def test_a_machine_where_nothing_can_be_read_has_one_cpu() -> None:
    """All readings raising leaves a small serial machine."""
    readings = Readings(
        logical=raises,
        physical=raises,
        affinity=raises,
        available=raises,
        address_space=raises,
        read_text=lambda path: str(raises()),
        environ={},
        platform="plan9",
    )
    host = read_host(readings)
    assert (host.n_cpus, host.n_physical_cpus) == (1, 1)
    assert host.memory_bytes == _bounds.UNKNOWN_MEMORY_BYTES
    assert host.platform == "plan9"
    assert "fork" not in host.costs


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_priors_are_those_of_the_platform(platform: str) -> None:
    """Before the first measurement the documented priors of the operating system stand (S4)."""
    host = read_host(make_readings(platform=platform))
    assert host.costs == PRIORS[platform]
    assert ("fork" in host.costs) == (platform == "linux")
    assert not any(known.is_measured for known in host.costs.values())


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", True), ("yes", True), (" TRUE ", True), ("0", False), ("", False), ("false", False), (" No ", False)],
)
def test_an_environment_variable_switches_parallel_off(value: str, expected: bool) -> None:
    """AMORSIZE_SERIAL disables workers unless it says no."""
    assert read_host(make_readings(environ={"AMORSIZE_SERIAL": value})).is_disabled is expected
    assert not read_host(make_readings()).is_disabled


@given(st.text())
def test_parsers_never_raise(text: str) -> None:
    """Any text is a valid content of a cgroup file."""
    quota = parse_cpu_max(text)
    assert quota is None or (quota > 0 and math.isfinite(quota))
    size = parse_bytes(text)
    assert size is None or 0 <= size < 1 << 60
    paths = cgroup_paths(text)
    assert all(isinstance(path, str) for path in paths.values())


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_a_quota_is_time_per_period(quota: int, period: int) -> None:
    """cpu.max holds microseconds per period."""
    assert parse_cpu_max(f"{quota} {period}\n") == quota / period


@given(st.integers(0, (1 << 60) - 1))
def test_a_figure_is_read_as_it_stands(value: int) -> None:
    """memory.max holds bytes."""
    assert parse_bytes(f"{value}\n") == value


def test_the_first_path_of_a_controller_counts() -> None:
    """/proc/self/cgroup is read by controller; the unified hierarchy has no name."""
    text = "5:cpu,cpuacct:/a\n3:memory:/b\n1:name=systemd:/c\n0::/d:e\n"
    assert cgroup_paths(text) == {"cpu": "/a", "cpuacct": "/a", "memory": "/b", "name=systemd": "/c", "": "/d:e"}


# -- this machine ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "n_cpus", "expected"),
    [
        ("0.1 0.2 0.3 1/100 4242", 16, 0),  # this thread
        ("0.1 0.2 0.3 3/100 4242", 16, 2),
        ("0.1 0.2 0.3 3/100 4242", 2, 0),  # they have CPUs that this process may not use
        ("0.1 0.2 0.3 16/100 4242", 2, 1),
        ("0.1 0.2 0.3 0/100 4242", 2, 0),
        ("0.1 0.2", 2, 0),
        ("0.1 0.2 0.3 x/y 4242", 2, 0),
        ("", 2, 0),
    ],
)
def test_threads_of_other_programs_are_counted(text: str, n_cpus: int, expected: int) -> None:
    """On a machine of 16 CPUs."""
    assert n_others(n_cpus, make_readings(read_text=files({"/proc/loadavg": text}))) == expected
    assert n_others(n_cpus, make_readings(read_text=files({"/proc/loadavg": text}), platform="darwin")) == 0


def test_this_machine_can_be_read() -> None:
    """amorsize.host() describes the machine the tests run on."""
    host = amorsize.host()
    assert isinstance(host, Host)
    assert 1 <= host.n_physical_cpus <= host.n_cpus
    assert host.memory_bytes > 0
    assert host.platform == sys.platform
    assert not host.is_nested
    assert {"loky", "threading"} <= set(host.costs) | set(host.unavailable)


@pytest.mark.parametrize(("reading", "expected"), [(lambda: True, True), (lambda: False, False), (raises, True)])
def test_a_build_without_the_gil_is_known(reading: Callable[[], bool], expected: bool) -> None:
    """Where nothing says that the lock is off it is on."""
    assert read_host(make_readings(has_gil=reading)).has_gil is expected


def test_the_gil_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing an extension module that needs the lock switches it on in the middle of a program."""
    for has_gil in (False, True):
        monkeypatch.setattr(sys, "_is_gil_enabled", lambda has_gil=has_gil: has_gil, raising=False)
        assert _host.snapshot().has_gil is amorsize.host().has_gil is has_gil


def test_the_environment_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switching workers off is seen by the next call."""
    monkeypatch.delenv("AMORSIZE_SERIAL", raising=False)
    assert not amorsize.host().is_disabled
    monkeypatch.setenv("AMORSIZE_SERIAL", "1")
    assert amorsize.host().is_disabled
    assert _host.snapshot().is_disabled
    monkeypatch.setenv("AMORSIZE_SERIAL", "0")
    assert not _host.snapshot().is_disabled


def test_loky_max_cpu_count_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable that joblib's users know caps the CPUs here too (S3)."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert amorsize.host().n_cpus == 1
    monkeypatch.delenv("LOKY_MAX_CPU_COUNT")
    assert amorsize.host().n_cpus == usable_cpus(Readings())[0]


# -- costs -----------------------------------------------------------------------------------------------------------


def test_the_first_measurement_replaces_the_prior() -> None:
    """A prior counts for nothing once something was measured; later observations move it by a third."""
    book = CostBook("linux")
    assert not book.get("loky").is_measured
    book.learn("loky", start_s=2.0)
    assert book.get("loky").start_s == 2.0
    assert book.get("loky").is_measured
    book.learn("loky", start_s=5.0)
    assert book.get("loky").start_s == pytest.approx(3.0)


def test_a_first_measurement_of_one_cost_does_not_make_the_others_measured() -> None:
    """Each figure's own first observation replaces its prior."""
    book = CostBook("linux")
    book.learn("loky", start_s=2.0)
    book.learn("loky", batch_overhead_s=0.01)
    assert book.get("loky").batch_overhead_s == 0.01


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_nonsense_is_not_learned(value: float) -> None:
    """Only positive finite figures count as observations."""
    book = CostBook("linux")
    before = dict(book.known)
    book.learn("loky", start_s=value)
    assert dict(book.known) == before


def test_kept_costs_do_not_replace_measured_ones() -> None:
    """What an earlier process knew fills in where this one has not measured yet."""
    book = CostBook("linux")
    book.learn("loky", start_s=2.0)
    kept = {name: replace(known, start_s=9.0, is_measured=True) for name, known in PRIORS["linux"].items()}
    book.restore(kept)
    assert book.get("loky").start_s == 2.0
    assert book.get("fork").start_s == 9.0


def test_an_unknown_backend_costs_what_a_cluster_does() -> None:
    """A name never seen is taken for a cluster over a network."""
    assert CostBook("linux").get("somewhere").start_s > 0
    assert "fork" not in CostBook("win32").known


def test_warm_workers_cost_nothing_to_start() -> None:
    """Running workers are there already; backends that cannot be used are left out."""
    cold = _host.local_costs(warm=frozenset(), unavailable={})
    warm = _host.local_costs(warm=frozenset({"loky"}), unavailable={"threading": "why"})
    assert cold["loky"].start_s > 0
    assert (warm["loky"].start_s, warm["loky"].start_each_s) == (0.0, 0.0)
    assert "threading" not in warm


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere psutil is what is asked")
def test_linux_itself_says_what_psutil_says() -> None:
    """Both read the same files; memory moves between two readings."""
    readings = Readings()
    cores, psutil_cores = readings.physical(), psutil.cpu_count(logical=False)
    assert cores is not None
    assert psutil_cores is not None
    assert cores <= psutil_cores
    if len(os.sched_getaffinity(0)) == psutil.cpu_count():
        assert cores == psutil_cores
    assert readings.available() == pytest.approx(psutil.virtual_memory().available, rel=0.1)


def printed(lines: tuple[str, ...]) -> str:
    """Run a program in an interpreter of its own; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_a_first_parallel_call_need_not_load_psutil() -> None:
    """Loading it takes 17 ms, and on Linux its figures are in small files."""
    lines = (
        "import sys, time",
        "import amorsize",
        "def f(x):",
        "    time.sleep(5e-3)",
        "    return x",
        "func = amorsize.parallel(f)",
        "assert func.map(range(40)) == list(range(40))",
        "assert func.last_plan.is_parallel",
        "print('psutil' in sys.modules)",
    )
    assert printed(lines).strip() == str(sys.platform != "linux")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_decision_opens_no_file_a_moment_after_another() -> None:
    """Forking costs by the resident memory, which was read each time: 8 us, and 50 after other work."""
    lines = (
        "import math, sys",
        "from amorsize import Limits, Profile",
        "from amorsize._gate import decide_here",
        "opened, counts = [], []",
        "sys.addaudithook(lambda event, args: opened.append(args[0]) if event == 'open' else None)",
        "for _ in range(5):  # one may have to read, since a second has passed",
        "    opened.clear()",
        "    plan, _ = decide_here(math.sqrt, Profile(n_sampled=5, item_s=1e-3), 100, Limits())",
        "    counts.append(len(opened))",
        "print('fork' in plan.host.costs, min(counts))",
    )
    assert printed(lines) == "True 0\n"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_that_grows_is_seen_at_once() -> None:
    """The peak grows with it."""
    before, peak = _host.resident_bytes(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    more = b"x" * (peak - before + (32 << 20))
    assert _host.resident_bytes() >= before + len(more) // 2


def test_work_shorter_than_the_start_of_an_idle_worker_is_not_thought_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether workers are idle is not even asked."""
    monkeypatch.setattr(_backend, "is_warm", lambda: True)
    host = read_host()
    monkeypatch.setattr(_host, "_snapshot", (0.0, os.getpid(), host))
    idle_s = _host.BOOK.get(SERVED).start_s
    assert is_never_worth(0.9 * idle_s, None)
    assert not is_never_worth(1.1 * idle_s, None)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the file closes itself
@pytest.mark.parametrize("read", [_host._read_resident, lambda: _profile.scheduled_s(threading.get_native_id())])
def test_ctrl_c_after_any_call_leaves_no_descriptor_open(read: Callable[[], object]) -> None:
    """A descriptor that had just been opened was lost, once in hundreds of maps on a busy machine."""
    read()  # what is loaded on the way is loaded
    before = len(list(Path("/proc/self/fd").iterdir()))
    for n_calls in range(1, 10):
        calls = itertools.count(1)

        def interrupt(_frame: object, event: str, _what: object, *, calls: Any = calls, last: int = n_calls) -> None:
            if event == "c_return" and next(calls) == last:
                raise KeyboardInterrupt

        sys.setprofile(interrupt)
        with contextlib.suppress(KeyboardInterrupt):
            read()
        sys.setprofile(None)
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
