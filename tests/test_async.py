"""Maps awaited: under asyncio, anyio and trio, in a web handler, cancelled, with the context of the task that asks."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any

import joblib
import pytest

import amorsize
from amorsize import _async, exceptions
from tests import awaited

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

# Seconds within which whatever a test waits for has happened, if it ever does.
PATIENCE_S = 60

QUESTION: contextvars.ContextVar[str] = contextvars.ContextVar("QUESTION", default="nobody's")


def under_asyncio(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine under asyncio."""
    return asyncio.run(asyncio.wait_for(main(), PATIENCE_S))


def under_anyio(main: Callable[[], Coroutine[Any, Any, Any]], backend: str) -> Any:
    """Run a coroutine under anyio."""
    anyio = pytest.importorskip("anyio", reason="anyio is not installed")
    if backend == "trio":
        pytest.importorskip("trio", reason="trio is not installed")

    async def bounded() -> Any:
        with anyio.fail_after(PATIENCE_S):
            return await main()

    return anyio.run(bounded, backend=backend)


@pytest.fixture(
    name="run",
    params=[under_asyncio, partial(under_anyio, backend="asyncio"), partial(under_anyio, backend="trio")],
    ids=["asyncio", "anyio", "anyio on trio"],
)
def _run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]:
    """Run a coroutine under one of the libraries."""
    runner: Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any] = request.param
    return runner


def no_thread_of_ours() -> bool:
    """Tell whether all threads of maps have ended, waiting for them within bounds."""
    deadline = time.monotonic() + PATIENCE_S
    while any(thread.name == "amorsize-async" for thread in threading.enumerate()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Leave no thread behind, beside which the tests after this one could not fork."""
    yield
    gc.collect()
    assert no_thread_of_ours()


def test_amap_returns_what_map_returns(run: Callable[..., Any]) -> None:
    """The results, in order, and a plan."""
    square = amorsize.parallel(awaited.square)

    async def main() -> list[int]:
        return await square.amap(range(1000))

    assert run(main) == [x * x for x in range(1000)]
    assert square.last_plan is not None
    assert square.last_plan.n_items == 1000


def test_amap_goes_to_workers(run: Callable[..., Any]) -> None:
    """With workers asked for, other processes compute."""
    where = amorsize.parallel(awaited.pid_after, n_jobs=2, retries=1)

    async def main() -> list[int]:
        return await where.amap([0.002] * 200)

    assert set(run(main)) - {os.getpid()}


def test_aimap_yields_what_imap_yields(run: Callable[..., Any]) -> None:
    """In order, from workers and before."""
    square = amorsize.parallel(awaited.square, n_jobs=2)

    async def main() -> list[int]:
        return [result async for result in square.aimap(iter(range(500)))]

    assert run(main) == [x * x for x in range(500)]


def test_the_event_loop_runs_while_an_item_does(run: Callable[..., Any], tmp_path: Path) -> None:
    """Items wait for what another task does meanwhile: a loop that is blocked would never do it."""
    wait = amorsize.parallel(awaited.await_file, n_jobs=1)
    path = tmp_path / "there"

    async def main() -> list[str]:
        async def touch() -> None:
            path.touch()

        return await both(touch, lambda: wait.amap([str(path)] * 3))

    assert run(main) == [str(path)] * 3


async def both(first: Callable[[], Coroutine[Any, Any, Any]], second: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Begin *second*, do *first* once it has begun, return what *second* does; under any library."""
    anyio = pytest.importorskip("anyio", reason="anyio is not installed")
    results = []

    async def do_second() -> None:
        results.append(await second())

    async with anyio.create_task_group() as group:
        group.start_soon(do_second)
        await anyio.sleep(0.01)
        await first()
    return results[0]


def test_an_exception_is_the_functions_own(run: Callable[..., Any]) -> None:
    """With the note that names its item."""
    fails = amorsize.parallel(awaited.fail_at_seven)

    async def main() -> None:
        await fails.amap(range(20))

    with pytest.raises(ValueError, match="seven") as caught:
        run(main)
    assert caught.value.__notes__ == ["amorsize: raised by item 7: 7"]
    assert [entry.name for entry in traceback.extract_tb(caught.tb)][-2:] == ["main", "fail_at_seven"]


def test_an_exception_ends_aimap_after_the_results_before_it(run: Callable[..., Any]) -> None:
    """What was yielded stays."""
    fails = amorsize.parallel(awaited.fail_at_seven)
    seen = []

    async def collect() -> None:
        async for result in fails.aimap(range(20)):
            seen.append(result)  # noqa: PERF401 - what came before the failure counts

    with pytest.raises(ValueError, match="seven"):
        run(collect)
    assert seen == list(range(7))


def test_no_items_are_refused_at_once() -> None:
    """As by map."""
    with pytest.raises(TypeError, match="at least one iterable"):
        asyncio.run(amorsize.parallel(awaited.square).amap())
    with pytest.raises(TypeError, match="at least one iterable"):
        amorsize.parallel(awaited.square).aimap()


@pytest.mark.parametrize("options", [{"n_jobs": 1}, {"n_jobs": 2}, {"prefer": "threads", "n_jobs": 2}])
def test_a_cancelled_map_ends(run: Callable[..., Any], tmp_path: Path, options: dict[str, Any]) -> None:
    """Its items are not begun any more, its thread ends, and the next map finds workers."""
    tick = amorsize.parallel(awaited.tick, **options)
    path = tmp_path / "ticks"
    path.touch()

    async def main() -> None:
        anyio = pytest.importorskip("anyio", reason="anyio is not installed")

        async def work() -> None:
            await tick.amap([str(path)] * 100_000)

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            while path.stat().st_size < 20:
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()

    run(main)
    n_begun = settled_size(path)
    assert n_begun < 100_000

    async def again() -> list[int]:
        return await amorsize.parallel(awaited.square, **options).amap(range(100))

    assert run(again) == [x * x for x in range(100)]
    assert path.stat().st_size == n_begun


def settled_size(path: Path) -> int:
    """Return the size of a file once it has not grown for a while."""
    deadline, size = time.monotonic() + PATIENCE_S, -1
    while (now := path.stat().st_size) != size:
        assert time.monotonic() < deadline
        size = now
        time.sleep(0.5)
    return size


def test_a_stream_that_is_left_ends(run: Callable[..., Any]) -> None:
    """Its thread ends with the block, and when it is dropped."""
    square = amorsize.parallel(awaited.square)

    async def main() -> list[int]:
        seen = []
        async with square.aimap(iter(int, 1)) as stream:
            async for result in stream:
                seen.append(result)
                break
        assert [result async for result in stream] == []
        async for result in square.aimap(iter(int, 1)):
            seen.append(result)
            break
        return seen

    assert run(main) == [0, 0]


def test_with_buffersize_nothing_is_read_before_it_is_asked_for() -> None:
    """A consumer that does not ask stops the reading."""
    n_read = 0

    def items() -> Any:
        nonlocal n_read
        while n_read < 1000:
            n_read += 1
            yield n_read

    async def main() -> int:
        async with amorsize.parallel(awaited.square).aimap(items(), buffersize=2) as stream:
            await anext(stream)
            await asyncio.sleep(0.05)
            return n_read

    assert under_asyncio(main) <= 3


@pytest.mark.skipif(sys.platform != "linux", reason="fork is only used on Linux")
@pytest.mark.parametrize("end", ["finished", "cancelled", "left"])
def test_a_fork_is_not_refused_beside_a_thread_that_ends(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """The thread of an awaited map is alive for a moment after its task has been told: a fork waits for it."""
    tell = _async._Signal.set

    def tell_and_linger(signal: Any) -> None:
        tell(signal)
        time.sleep(0.1)

    square, forked = amorsize.parallel(awaited.square), amorsize.parallel(n_jobs=2, start_method="fork")(awaited.square)

    async def main() -> None:
        if end == "left":
            async with square.aimap(iter(int, 1)) as stream:
                await anext(stream)
            return
        task = asyncio.create_task(square.amap(iter(int, 1) if end == "cancelled" else range(10)))
        await asyncio.sleep(0.02)
        if end == "cancelled":
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    monkeypatch.setattr(_async._Signal, "set", tell_and_linger)
    asyncio.run(main())
    monkeypatch.undo()
    assert any(thread.name == "amorsize-async" for thread in threading.enumerate())
    assert forked.map(range(100)) == [x * x for x in range(100)]
    assert forked.last_plan is not None
    assert forked.last_plan.backend == "fork"


def test_where_the_system_gives_no_thread_the_error_comes_and_the_next_map_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is asked for later does not wait for what failed."""
    square = amorsize.parallel(awaited.square)

    def refuse(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    async def main() -> list[Any]:
        return await asyncio.gather(*(square.amap([k]) for k in range(2)), return_exceptions=True)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert [type(outcome) for outcome in under_asyncio(main)] == [RuntimeError, RuntimeError]
    assert under_asyncio(main) == [[0], [1]]


def test_the_event_loop_does_not_wait_until_a_map_s_thread_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside other maps that compute, each start took the event loop 7 ms, up to 90."""
    square, bootstrap = amorsize.parallel(awaited.square), threading.Thread._bootstrap  # type: ignore[attr-defined]
    order: list[str] = []
    may_run = threading.Event()

    def late(thread: threading.Thread) -> None:
        may_run.wait(5)
        order.append("thread")
        bootstrap(thread)

    async def main() -> list[int]:
        task = asyncio.create_task(square.amap([3]))
        await asyncio.sleep(0)
        order.append("event loop")
        may_run.set()
        return await task

    monkeypatch.setattr(threading.Thread, "_bootstrap", late)
    assert under_asyncio(main) == [9]
    assert order == ["event loop", "thread"]


CANCELLED = """
import asyncio, sys, time
import anyio
import amorsize

async def main():
    task = asyncio.create_task(amorsize.parallel(time.sleep, n_jobs=1).amap([0.001] * 100_000))
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.wait([task])

asyncio.run(main())
print("anyio._backends._asyncio" in sys.modules)
"""


def test_a_cancelled_task_of_asyncio_does_not_import_the_rest_of_anyio() -> None:
    """A web framework has imported anyio: the event loop stood for 60 ms at the first request that was given up."""
    run = subprocess.run([sys.executable, "-c", CANCELLED], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == "False\n"


def test_the_tasks_context_is_there() -> None:
    """Context variables, and joblib's parallel_config, which is one of the thread."""
    ask = amorsize.parallel(lambda _: QUESTION.get())
    where = amorsize.parallel(awaited.pid_after)

    async def main() -> list[str]:
        QUESTION.set("mine")
        with joblib.parallel_config(backend="threading", n_jobs=2):
            assert set(await where.amap([0.005] * 50)) == {os.getpid()}
            assert where.last_plan is not None
            assert where.last_plan.backend == "threading"
        return await ask.amap(range(3))

    assert under_asyncio(main) == ["mine"] * 3


def test_maps_inside_a_map_need_no_turn_of_their_own() -> None:
    """More at once than may compute, each of which waits for one inside: none waits for ever."""
    inner = amorsize.parallel(awaited.square)

    def outer(x: int) -> int:
        return sum(asyncio.run(inner.amap([x, x])))

    async def main() -> list[list[int]]:
        return await asyncio.gather(*(amorsize.parallel(outer, n_jobs=1).amap([n, n]) for n in range(20)))

    assert under_asyncio(main) == [[2 * n * n] * 2 for n in range(20)]


@pytest.mark.parametrize(("options", "n_maps"), [({"n_jobs": 1}, 8), ({"n_jobs": 2, "retries": 1}, 3)])
def test_items_that_wait_for_another_map_s_items_do_not_wait_for_ever(
    tmp_path: Path, options: dict[str, Any], n_maps: int
) -> None:
    """More maps at once than may compute, here or in workers: those that only wait keep nobody from it."""
    wait, path = amorsize.parallel(awaited.await_file, **options), tmp_path / "there"
    touch = amorsize.parallel(awaited.touch, **options)

    async def main() -> None:
        waiting = [asyncio.create_task(wait.amap([str(path)] * 2)) for _ in range(n_maps)]
        await asyncio.sleep(0.05)
        await touch.amap([str(path)] * 2)
        await asyncio.gather(*waiting)

    under_asyncio(main)


@pytest.mark.parametrize(("options", "n_maps"), [({"n_jobs": 1}, 3), ({"n_jobs": 2, "retries": 1}, 1)])
def test_a_short_map_does_not_wait_for_the_end_of_long_ones(options: dict[str, Any], n_maps: int) -> None:
    """Long maps let others compute, here and in workers, though their own items go on."""
    square = amorsize.parallel(awaited.slow_square, **options)

    async def main() -> list[int]:
        long = [asyncio.create_task(square.amap([2] * 1_000_000)) for _ in range(n_maps)]
        await asyncio.sleep(0.3)
        results = await square.amap(range(20))
        assert not any(task.done() for task in long)
        for task in long:
            task.cancel()
        await asyncio.gather(*long, return_exceptions=True)
        return results

    assert under_asyncio(main) == [x * x for x in range(20)]


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, work: Any) -> None:
    """Answer one HTTP request with the squares of what its path asks for; a client that hangs up cancels its map."""
    request = (await reader.readuntil(b"\r\n\r\n")).decode()
    answer = asyncio.create_task(work.amap([int(request.split()[1][1:])] * 50))
    hung_up = asyncio.create_task(reader.read())
    await asyncio.wait({answer, hung_up}, return_when=asyncio.FIRST_COMPLETED)
    if not answer.done():
        answer.cancel()
    else:
        body = json.dumps(answer.result()).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
    hung_up.cancel()
    writer.close()


async def get(port: int, n: int) -> Any:
    """Ask the server for the squares of *n*; returns the decoded body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET /{n} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        header = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert header.startswith("HTTP/1.1 200 OK")
        return json.loads(await reader.readexactly(int(header.split("Content-Length: ")[1].split("\r\n")[0])))
    finally:
        writer.close()


@pytest.mark.parametrize("options", [{}, {"n_jobs": 2}])
def test_a_web_server_answers_twenty_requests_at_once_of_which_one_is_given_up(options: dict[str, Any]) -> None:
    """Nineteen right answers; the twentieth's map ends, and the server goes on."""
    work = amorsize.parallel(awaited.slow_square, **options)

    async def main() -> list[Any]:
        server = await asyncio.start_server(partial(serve, work=work), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            clients = [asyncio.create_task(get(port, n)) for n in range(20)]
            await asyncio.sleep(0.05)
            clients[7].cancel()
            answers = await asyncio.gather(*clients, return_exceptions=True)
            assert await get(port, 30) == [900] * 50
            return answers

    answers = under_asyncio(main)
    assert isinstance(answers.pop(7), asyncio.CancelledError)
    assert answers == [[n * n] * 50 for n in range(20) if n != 7]


def test_a_dead_worker_is_told_of(run: Callable[..., Any]) -> None:
    """As by map."""
    die = amorsize.parallel(awaited.die_at_five, n_jobs=2, retries=0, timeout=60)

    async def main() -> None:
        await die.amap(range(20))

    with pytest.raises(exceptions.WorkerDied):
        run(main)
