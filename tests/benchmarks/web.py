"""
Gaps of the event loop of a web server whose handler maps: the longest time in which it could do nothing else.

A server of its own for each way and round; 20 requests at once over a real connection, one of which gives up after
20 ms; each handler maps 50 items of 1 ms. Gaps are those of a task that sleeps 1 ms again and again. `sleep` computes
nothing in its handler and shows what the machine and the framework take.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import socket
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import report
import workloads
from station import shuffled

# ruff: noqa: PLC0415  the server's libraries are not the client's, and other commands do without both

# Milliseconds of the longest gap under amorsize.
BAR_MS = 20

N_REQUESTS = 20
N_ITEMS = 50
N_LATER = 3

# Seconds that a server may take until it answers, and a request.
LIMIT_S = 60

# Seconds after which one of the requests is given up.
GIVE_UP_S = 0.02

WAYS = ("amap", "executor", "to_thread", "sleep")


def mapper(way: str, loops: int) -> Any:
    """Return a coroutine function that maps as one would write it in a handler."""
    items = [loops] * N_ITEMS
    if way == "amap":
        import amorsize

        spin = amorsize.parallel(workloads.spin)
        return lambda: spin.amap(items)
    if way == "executor":
        pool = ProcessPoolExecutor()

        async def by_executor() -> list[int]:
            loop = asyncio.get_running_loop()
            return await asyncio.gather(*[loop.run_in_executor(pool, workloads.spin, item) for item in items])

        return by_executor
    if way == "to_thread":
        return lambda: asyncio.to_thread(lambda: [workloads.spin(item) for item in items])

    async def asleep() -> list[int]:
        await asyncio.sleep(0.05)
        return items

    return asleep


async def serve(listening: socket.socket, way: str, loops: int) -> None:
    """Serve `/`, which maps, and `/gap`, which tells the longest gap since it was asked last."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    call = mapper(way, loops)
    gaps = [0.0]

    async def look() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(1e-3)
            gaps.append(time.perf_counter() - began - 1e-3)

    async def answer(request: Any) -> Any:
        del request
        return JSONResponse(len(await call()))

    async def gap(request: Any) -> Any:
        del request
        longest = max(gaps)
        gaps[:] = [0.0]
        return JSONResponse(longest)

    looking = asyncio.create_task(look())
    app = Starlette(routes=[Route("/", answer), Route("/gap", gap)])
    await uvicorn.Server(uvicorn.Config(app, log_level="error")).serve(sockets=[listening])
    looking.cancel()


async def ask(port: int) -> list[float]:
    """Send the requests, once and again; returns the longest gap of each time, in seconds."""
    import aiohttp

    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

        async def get(path: str, timeout_s: float = LIMIT_S) -> Any:
            async with session.get(path, timeout=aiohttp.ClientTimeout(total=timeout_s)) as response:
                return await response.json()

        await get("/gap")
        await asyncio.sleep(0.5)  # the server has come to rest
        await get("/gap")
        gaps = []
        for _ in range(1 + N_LATER):
            answers = [asyncio.ensure_future(get("/")) for _ in range(N_REQUESTS - 1)]
            with contextlib.suppress(TimeoutError):
                await get("/", GIVE_UP_S)
            assert await asyncio.gather(*answers) == [N_ITEMS] * (N_REQUESTS - 1)
            gaps.append(await get("/gap"))
        return gaps


def measure(way: str, loops: int) -> list[float]:
    """Start a server for one way and ask it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        command = [sys.executable, __file__, str(listening.fileno()), way, str(loops)]
        server = subprocess.Popen(command, pass_fds=[listening.fileno()])
    try:
        return asyncio.run(ask(port))
    finally:
        server.terminate()
        server.wait(LIMIT_S)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `web`."""
    parser.add_argument("-r", "--rounds", type=int, default=7, metavar="N", help="default: 7")


def main(options: argparse.Namespace) -> None:
    """Measure round by round, then print the median of each way's longest gaps."""
    workloads.LOOPS_PER_MS = workloads.loops_per_ms()
    loops = workloads.loops_for(1)
    print(report.machine_line(), flush=True)
    seen: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way in shuffled(WAYS):
            seen[way].append(measure(way, loops))
    for way, rounds in seen.items():
        first = statistics.median(gaps[0] for gaps in rounds) * 1e3
        later = statistics.median(itertools.chain.from_iterable(gaps[1:] for gaps in rounds)) * 1e3
        bar = f" (bar: {BAR_MS}) {'ok' if max(first, later) <= BAR_MS else 'over'}" if way == "amap" else ""
        print(f"  {way:10s} longest gap, median: first requests {first:6.1f} ms, later ones {later:6.1f} ms{bar}")


if __name__ == "__main__":
    asyncio.run(serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], int(sys.argv[3])))
