"""
The equations, and every constant they need: unit, value, reason, source, and what comes of it if it is wrong by two.

Pure arithmetic: nothing here chooses. The derivations are in ``docs/explanation/cost-model.md``.
"""

from __future__ import annotations

import math
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from amorsize import _bounds as bounds
from amorsize._records import FORK, FORKSERVER, LOKY, THREADS, Costs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amorsize._records import Profile

# Seconds of work below which nothing is even considered. One wake-up of a worker and one of the caller took 50 us on a
# warm forked worker and 250 us through loky (tests/benchmarks/probes.py, 2 cores, Linux); no start method can gain
# anything on less work than that. Half: decisions of 50 us that never pay. Twice: 0.1 ms of a map is not saved.
FLOOR_S: Final = 200e-6

# Share of the loop's time that parallel must be predicted to save. A sample of five items knows its mean to a few per
# cent at best, and staying serial can still be revised in flight; a start cannot be taken back. Half: some starts lose
# what they should gain. Twice: gains of 5 to 10 % are left.
MARGIN: Final = 0.05

# The same where nothing has been measured here yet: priors may be off by a factor of two, and the first items come with
# cold caches. (Summing 24 arrays of 8 MB: predicted to gain 10 % in the first call, it lost 60 %.) Half: such calls
# lose again. Twice: first calls leave gains of up to 30 %.
FIRST_MARGIN: Final = 0.15

# Seconds that the first forked workers of a process take longer than the others (measured: 1.5 ms of modules to load, 1
# of libraries and system functions to look up). Half or twice: first calls of 3 to 6 ms go the other way.
LOADING_RUNS_S: Final = 3e-3

# Seconds that the first decision of a process takes: it reads CPUs, memory and loaded libraries for the first time
# (measured: 1.1 to 1.5 ms), and imports psutil where that is needed and has not been done (12 ms more). Shorter work is
# not worth it. Half or twice: first calls of 2 to 4 ms go the other way.
READING_S: Final = 1.5e-3
PSUTIL_S: Final = 15e-3

# Share of the quantum that a chunk is sized for. At the whole of it the usual scatter of 5 % would cut every other
# chunk just before its end, and each cut costs a dispatch; a smaller chunk costs only a fourth of one. Half: twice the
# chunks. Twice: nearly every chunk is cut.
SIZED: Final = 0.8

# Share of a chunk's time that its dispatch may cost. The optimum is flat ("bathtub", oneTBB's documentation), so two
# per cent is a choice, not a fit. Half: tails twice as long on clusters. Twice: 2 % more for dispatch.
DISPATCH_SHARE: Final = 0.02

# The same for the last chunks of a run: two of them and not one bound by half what uneven items cost at the end. Half:
# fewer runs have them. Twice: the last chunks cost 10 % for their dispatch.
LAST_DISPATCH_SHARE: Final = 0.05

# The name under which the costs of the fork server's idle workers are filed; in a plan their backend is "forkserver".
SERVED: Final = "served"

# Share of a start of the fork server that the caller itself pays, loading what it needs and spawning a process: 10 to
# 20 ms of 50. The rest passes on another core while the caller goes on, so calls that miss workers need not have missed
# all of it. Half or twice: the server is started for calls that have missed 6 or 25 ms instead of 12.
SERVER_SHARE: Final = 0.25

# Seconds that a server which is there takes to fork a worker and to have it ready (measured: 2 ms, on 60 runs). Half or
# twice: maps of 2 to 5 ms go the other way.
SERVER_FORK_S: Final = 2.5e-3

# Seconds per module that a worker of the server imports. Over all modules of a package, CPU seconds in a fresh
# interpreter: scikit-learn .78 ms, pandas .68, networkx .46; of 15 packages .26 to 1.5. Half or twice: first calls of
# 0.2 to 0.5 s go the other way, if their functions use such a package.
IMPORT_S: Final = 0.7e-3

# Seconds per chunk of the founding rule (S7), used for the recommendation of a serial plan only. Half or twice: that
# number.
FOUNDING_CHUNK_S: Final = 0.2

# Caller's speed while spawned workers start on the same cores: two interpreters importing on two cores left it 60 %.
# Prototype of the design brief, repeated in tests/benchmarks/probes.py. Half or twice: cold starts are predicted too
# late or too early by a quarter of theirs.
STARTING_SPEED: Final = 0.6

# Most computing processes beside which the caller computes too. Past it, the caller's time is better spent on feeding:
# with p workers it must answer p times as often as it can compute. Half: a quarter of four cores idles. Twice: seven
# workers wait for a caller that computes.
MAX_CALLER_JOBS: Final = 4

# Share of the caller's time that handling results may take before it stops computing itself. Half: a core idles with
# results of 1 kB and items of 0.1 ms. Twice: workers wait for the caller to read.
MAX_CALLER_TRAFFIC: Final = 0.1

# Share of what moving an item and its result takes that falls to the calling process, when a worker does the item. Half
# or twice: many workers with large results are predicted that much too fast or too slow.
CALLER_SHARE: Final = 0.5

# Bytes per second that all cores together read from memory: a function that only streams through its input gains
# nothing from more cores beyond that. Summing 8 MB arrays on the 2-core reference host: 12 GB/s on one core, 24 on both
# (tests/benchmarks/probes.py); less is assumed, since the caller's other memory traffic counts too. Half: sums over
# arrays stay loops. Twice: they go parallel for nothing.
MEMORY_BYTES_PER_S: Final = 20e9

# Seconds of forking per byte of resident memory: the kernel copies page tables, and tears them down at the end. For 400
# MB more, 2.2 ms in the caller and 5.9 ms until the worker has ended (tests/benchmarks/probes.py); the design brief
# measured 10 ms for 800 MB. Half or twice: in a process of 1 GB, maps of 10 to 20 ms go the other way.
FORK_S_PER_BYTE: Final = 13e-12
FORK_CALLER_S_PER_BYTE: Final = 5e-12

# Share of the seconds of pickling and unpickling a result that keeping it costs beside: weighing uses the same memory
# again and again, a run needs fresh pages for each (measured: 0.2 to 0.25 for dictionaries, integers, rows of text).
# Half or twice: an eighth or a quarter of the transfer is missed, or counted too much.
KEPT_SHARE: Final = 0.25

# Share of the seconds of pickling and unpickling an item that a forked process loses on touching it: it counts
# references, and so copies the page of every object it looks at. On the reference host 0.15 of them for dictionaries,
# 0.25 for integers, 0.4 for floats and strings (tests/benchmarks/probes.py). The caller loses as much on a result: the
# memory that it is unpickled into is shared, too. Flat buffers are not touched that way: what their bytes take is left
# out. Half or twice: functions that only look at their items go parallel where they lose up to 10 %, or stay loops
# where they would gain it.
TOUCH_SHARE: Final = 0.25
FLAT_S_PER_BYTE: Final = 2e-9

# Windows waits on at most 64 handles at once, which leaves 61 workers (concurrent.futures.process and loky apply the
# same limit). A limit of the system: half of it would leave workers out, and more hang.
MAX_WINDOWS_JOBS: Final = 61

# Share of the available memory that workers may be given; the rest is for what grows beside them. Half: half the
# workers where memory is short. Twice would be more than there is.
MEMORY_SHARE: Final = 0.8

# Threads at most when they only wait; the default ceiling of concurrent.futures.ThreadPoolExecutor. Half or twice: that
# many requests wait at once.
MAX_THREADS: Final = 32

# CPU share of the wall time under which a thread mostly waits, so that more threads than cores help. Half: functions
# that wait for half of their time get one thread per core. Twice would be all functions.
WAITING_FRACTION: Final = 0.8

# CPU seconds per wall second above which a function is taken to run on several cores by itself. A busy single thread
# measures 0.98 to 1.02, and up to 1.3 in the milliseconds after NumPy was imported, while OpenBLAS's threads still
# spin. Half: functions that compute look parallel. Twice: those that use two cores get workers that fight for them.
SEVERAL_CORES: Final = 1.5

# Priors, by start method, until the first measurement here. Seconds: fork and the pipes measured with
# tests/benchmarks/probes.py on Linux (0.9 ms until a forked child answers, 0.4 ms of it in the caller; 1.3 ms with its
# end); loky from a fresh start of two workers on Linux (0.35 to 0.6 s), macOS and Windows taken as twice that, since
# both must start interpreters with slower process creation and file systems. Bytes per second: pickled bytes through a
# pipe and through loky's queue. Half or twice: maps of 1 to 3 ms go the other way, until the first run has measured it.
_FORK = Costs(
    start_s=1.3e-3,
    start_each_s=0.45e-3,
    batch_overhead_s=60e-6,
    item_overhead_s=60e-9,
    send_bytes_per_s=math.inf,
    receive_bytes_per_s=1.0e9,
    efficiency=0.96,
    worker_bytes=8 << 20,
)
# The fork server and its first worker: 40 to 60 ms on the reference host, an interpreter and the modules that a worker
# needs; items in memory that is mapped, results in the pipe or in memory of their own (tests/benchmarks/probes.py).
# Half or twice: first calls of 0.1 to 0.3 s go the other way.
_FORKSERVER = Costs(
    start_s=0.05,
    start_each_s=1.0e-3,
    batch_overhead_s=60e-6,
    item_overhead_s=100e-9,
    send_bytes_per_s=1.5e9,
    receive_bytes_per_s=1.5e9,
    efficiency=0.96,
    worker_bytes=12 << 20,
)
# Its idle workers: until one has begun, 0.3 ms, and 60 us of the caller for each further one. Half or twice: nothing
# shows; a run has measured it.
_SERVED = replace(_FORKSERVER, start_s=0.3e-3, start_each_s=60e-6)
_LOKY = Costs(
    start_s=0.5,
    start_each_s=0.02,
    batch_overhead_s=300e-6,
    item_overhead_s=100e-9,
    send_bytes_per_s=0.6e9,
    receive_bytes_per_s=0.6e9,
    efficiency=0.96,
    worker_bytes=60 << 20,
)
_LOKY_SLOW_START = Costs(
    start_s=1.0,
    start_each_s=0.05,
    batch_overhead_s=500e-6,
    item_overhead_s=100e-9,
    send_bytes_per_s=0.4e9,
    receive_bytes_per_s=0.4e9,
    efficiency=0.96,
    worker_bytes=60 << 20,
)
_THREADS = Costs(start_s=150e-6, start_each_s=60e-6, batch_overhead_s=60e-6, item_overhead_s=60e-9, efficiency=0.95)

PRIORS: Final[Mapping[str, Mapping[str, Costs]]] = MappingProxyType(
    {
        "linux": MappingProxyType(
            {FORK: _FORK, FORKSERVER: _FORKSERVER, SERVED: _SERVED, LOKY: _LOKY, THREADS: _THREADS}
        ),
        "darwin": MappingProxyType({LOKY: _LOKY_SLOW_START, THREADS: _THREADS}),
        "win32": MappingProxyType({LOKY: _LOKY_SLOW_START, THREADS: _THREADS}),
    }
)

# Backends of this machine; every other name is a cluster's.
LOCAL: Final = frozenset({FORK, FORKSERVER, SERVED, LOKY, THREADS})

# Those among them whose workers are processes.
PROCESSES: Final = LOCAL - {THREADS}

# A cluster over a network, before its round trip has been measured: about 1 ms per task through a scheduler (dask's
# documentation), 100 MB/s each way. Half or twice: work of some milliseconds per item is sent or stays, until the
# cluster has been measured.
EXTERNAL_PRIOR: Final = Costs(
    start_s=2e-3,
    batch_overhead_s=2e-3,
    item_overhead_s=200e-9,
    send_bytes_per_s=0.1e9,
    receive_bytes_per_s=0.1e9,
    efficiency=0.95,
)

# Times what a dispatch costs on a cluster where chunks carry much data, and bytes from which that is much. Such
# messages go through the engine's store, with a round trip more for each, and copying them delays the next ones. On two
# workers of the reference host one more chunk of 1 MB arrays takes 8 ms of a worker on Ray and 14 ms on Dask, an empty
# one 2 and 4 (tests/benchmarks/clusters.py, hand-written ways with 2, 8 and 25 chunks). Half or twice: chunks of arrays
# are half or twice as large.
DATA_DISPATCH: Final = 3.0
DATA_BYTES: Final = 1 << 20


# -- the equations -----------------------------------------------------------------------------------------------------


class Forecast(NamedTuple):
    """
    Predicted seconds of doing the items that are left, and the terms they are made of.

    Attributes:
        total_s: All of it.
        overhead_s: Starting workers and dispatching chunks.
        transfer_s: Moving items and results.
    """

    total_s: float
    overhead_s: float
    transfer_s: float


def of_function(profile: Profile, costs: Costs, backend: str, *, has_gil: bool = True) -> Costs:
    """
    Return what *backend* costs for this function: its measured speed there, its bytes in what a chunk costs.

    What threads reach with the interpreter's lock says nothing of what they reach without it, and the other way round.
    """
    changes: dict[str, Any] = {}
    if backend not in LOCAL and profile.item_s > 0.0:
        n_bytes = (profile.arg_bytes + profile.result_bytes) * max(1.0, bounds.QUANTUM_S / profile.item_s)
        if n_bytes > DATA_BYTES:
            changes["batch_overhead_s"] = DATA_DISPATCH * costs.batch_overhead_s
    seen = 0.0
    if backend in PROCESSES:
        seen = profile.efficiency
    elif backend == THREADS:
        seen = profile.thread_efficiency if has_gil else profile.free_thread_efficiency
    if seen > 0.0:
        changes["efficiency"] = seen
    return replace(costs, **changes) if changes else costs


def beside_others(costs: Costs, n_jobs: int, n_cpus: int, n_others: int) -> Costs:
    """Return the costs where *n_others* threads of other programs compete for the CPUs, each for an equal share."""
    if not n_others:
        return costs
    alone, together = (min(1.0, n_cpus / (n + n_others)) for n in (1, n_jobs))
    return replace(costs, efficiency=costs.efficiency * together / alone)


def serial_s(profile: Profile, n_left: int) -> float:
    """Predict the seconds of the plain loop over *n_left* items."""
    return n_left * profile.item_s


class Moved(NamedTuple):
    """
    What one item costs beyond the function, however many jobs there are.

    Attributes:
        transfer_s: Packaging, pickling both ways (the item only where items are sent), and the wire.
        touch_s: What processes that share their memory lose on touching the item and its result.
    """

    transfer_s: float
    touch_s: float


def moving(profile: Profile, costs: Costs) -> Moved:
    """Predict what moving an item and its result takes."""
    if math.isinf(costs.receive_bytes_per_s):
        return Moved(costs.item_overhead_s, 0.0)  # all is in one process
    results_s = _objects_s(profile.pickle_s - profile.arg_pickle_s, profile.result_bytes)
    pickle_s = profile.pickle_s + KEPT_SHARE * results_s
    touch_s = 0.0
    if math.isinf(costs.send_bytes_per_s):
        pickle_s -= profile.arg_pickle_s
        if not profile.efficiency:  # else it is in the speed that has been measured
            touch_s = TOUCH_SHARE * (_objects_s(profile.arg_pickle_s, profile.arg_bytes) + results_s)
    wire_s = profile.arg_bytes / costs.send_bytes_per_s + profile.result_bytes / costs.receive_bytes_per_s
    return Moved(costs.item_overhead_s + max(0.0, pickle_s) + wire_s, touch_s)


def gain_of_two(profile: Profile, costs: Costs, item_s: float) -> float:
    """Return the share of an item's seconds that a second worker saves."""
    return 0.5 * costs.efficiency - 0.5 * sum(moving(profile, costs)) / max(item_s, 1e-9)


def start_of_two_s(costs: Costs) -> float:
    """Return the seconds until two workers are at work."""
    return costs.start_s + costs.start_each_s + 2 * costs.batch_overhead_s


def _objects_s(pickle_s: float, n_bytes: int) -> float:
    """Return the seconds of pickling that are due to objects: not to flat bytes."""
    return max(0.0, pickle_s - FLAT_S_PER_BYTE * n_bytes)


def chunk_size(profile: Profile, costs: Costs, moved: Moved, n_left: int, n_jobs: int) -> int:
    """Choose the items of the first chunks: :func:`next_chunk` of what items take with their transfer."""
    each_s = profile.item_s + moved.transfer_s
    if each_s <= 0.0:
        return max(1, math.ceil(n_left / n_jobs))
    return next_chunk(n_left, n_jobs, each_s, costs.batch_overhead_s)[0]


def next_chunk(n_left: int, n_jobs: int, each_s: float, batch_overhead_s: float) -> tuple[int, int]:
    """
    Choose the items of the next chunk, and how many chunks of that size are to be handed out in a row.

    Half of an equal share per worker (factoring, Flynn Hummel, Schonberg and Flynn 1992, with the factor two of
    Hummel's FAC2), at most four fifths of the quantum
    (:data:`amorsize._bounds.QUANTUM_S`) of work, at least :func:`dispatch_floor_s`; never more than an equal share, so
    that every worker gets work.

    Where one dispatch asks for more than the quantum, as on a cluster, few chunks are made, and a worker cannot take
    over items of another: they must end together. So factoring's rounds are kept, one chunk of a size for each worker.
    They are as long as dispatch asks for while there is work for two rounds, then halves of what is left as long as one
    more costs no more than :data:`LAST_DISPATCH_SHARE`, then equal shares.
    """
    each_s = max(each_s, 1e-9)
    share = n_left / n_jobs
    least = dispatch_floor_s(batch_overhead_s, n_jobs) / each_s
    most = max(1, int(SIZED * bounds.QUANTUM_S / each_s))
    if batch_overhead_s <= DISPATCH_SHARE * SIZED * bounds.QUANTUM_S:
        at_least = math.ceil(min(math.ceil(share), least))
        return max(1, at_least, min(most, math.ceil(share / 2))), 1
    if share < 2 * least:
        halves = LAST_DISPATCH_SHARE * share * each_s >= batch_overhead_s
        least = share / 2 if halves else share
    return max(1, math.ceil(least)), n_jobs


def dispatch_floor_s(batch_overhead_s: float, n_jobs: int) -> float:
    """Return the seconds of a chunk at least. In that time the one caller must be able to hand out one per worker."""
    return batch_overhead_s * max(1 / DISPATCH_SHARE, n_jobs)


def founding_chunk_size(profile: Profile, n_left: int) -> int:
    """Return ``max(1, int(0.2 / t_avg))``, the founding rule, capped at the items there are."""
    if profile.item_s <= 0.0:
        return max(1, n_left)
    return int(max(1, min(n_left, FOUNDING_CHUNK_S / profile.item_s)))


def parallel(
    profile: Profile,
    costs: Costs,
    moved: Moved,
    n_left: int,
    n_jobs: int,
    *,
    batch_size: int,
    n_cpus: int,
    caller_computes: bool = False,
    is_fixed: bool = False,
) -> Forecast:
    """
    Predict the seconds of doing *n_left* items with *n_jobs* at once.

    ``T = start + max((W + transfer + dispatch) / p, caller's share)``, where W is the work on one core. Work that
    already runs on several cores (``cpu_fraction`` above 1) is counted in CPU seconds, since workers share these
    cores. Few long items run in rounds: ``ceil(n / p)`` of them one after the other; chunks of a size that *is_fixed*
    are not cut short and run in rounds too.
    """
    item_s = profile.item_s
    if profile.cpu_fraction > SEVERAL_CORES:
        item_s *= min(profile.cpu_fraction, n_cpus)
    item_s = item_s / costs.efficiency + moved.touch_s
    n_chunks = math.ceil(n_left / batch_size)
    rounds_s = math.ceil(n_chunks / n_jobs) * min(batch_size, n_left) * item_s if is_fixed else 0.0
    touched_s = n_left * (profile.arg_bytes + profile.result_bytes) / MEMORY_BYTES_PER_S
    work_s = max(math.ceil(n_left / n_jobs) * item_s, rounds_s, touched_s)
    transfer_s = n_left * moved.transfer_s / n_jobs
    home_s = n_left * CALLER_SHARE * moved.transfer_s
    start_s = costs.start_s + costs.start_each_s * (n_jobs - 1)
    if caller_computes:
        # The caller works while its workers start, and what it does itself is not moved.
        workers = (n_jobs - 1) / n_jobs
        start_s = costs.start_each_s * (n_jobs - 1) + max(0.0, costs.start_s - costs.start_each_s) * workers
        transfer_s *= workers
        home_s = 0.0
    else:
        # Overlapped start: beyond the first moments the caller goes on at STARTING_SPEED until the workers answer.
        start_s -= min(work_s, STARTING_SPEED * max(0.0, costs.start_s - bounds.QUANTUM_S) / n_jobs)
    dispatch_s = n_chunks * costs.batch_overhead_s / n_jobs
    busy_s = max(work_s + transfer_s + dispatch_s, home_s)
    return Forecast(start_s + busy_s, start_s + dispatch_s, max(0.0, busy_s - work_s - dispatch_s))
