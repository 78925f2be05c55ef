"""
One map over worker processes of this machine: the caller's side, whichever way the workers are started.

    caller                                         worker 1 .. w  (one per slot)
      │  tokens (start, stop)                            ▲
      ├──────────► task pipe, shared by all ─────────────┤ reads one token, runs it in blocks of about 1 ms;
      │                 ▲                                │ if the pipe is empty then, a colleague is idle: it puts
      │                 └────── second half of a range ──┘ half of what it has left back into the pipe
      │
      │◄─────────── result pipe, one per worker ─────────  at the end of a range, and every 50 ms
      │◄ ─ ─ ─ ─ ─  board, shared memory: who is at which item ─ ─ ─ ─ ─

Why ranges in one pipe and not a queue per worker: nothing ever waits behind a long item, and no worker needs the caller
to find work, so the caller can compute too. Reading and writing 16 bytes of a pipe is atomic on Linux.

How workers are started and ended, and how items reach them, is a :class:`Crew`'s business: forked ones inherit the
items (_fork), those of the server find them in shared memory (_server_crew). The worker's side and the board are in
_local_worker. Of the caller's side the pipe of ranges and what comes home are in _channels, deaths and time limits in
_crew.

Guarantees: an item is started at most once. What a dead worker had taken but not started is on the board, and is
handed out again; what it was at is named. A worker that loses its caller ends by itself.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING

from amorsize import _pace as pace
from amorsize._backend import _blas, _worker
from amorsize._backend import _bounds as bounds
from amorsize._backend import _process as process
from amorsize._backend._channels import Handout, Inbox
from amorsize._backend._crew import CrewedTeam, Workers
from amorsize._backend._local_worker import Slots, goes_on
from amorsize._backend._worker import NoWorkersError
from amorsize._outside import is_outside, pass_on
from amorsize._records import Span

if sys.platform != "linux":
    raise ImportError("this way of starting workers is for Linux; nothing imports it elsewhere")

if TYPE_CHECKING:
    from amorsize._backend._channels import Worker
    from amorsize._backend._crew import Crew
    from amorsize._backend._job import Job, Outcome

clock = time.perf_counter


class Team(CrewedTeam):
    """Workers at one job, and the caller's side of it."""

    def __init__(self, job: Job, crew: Crew) -> None:
        super().__init__(job)
        self.crew = crew
        self.workers: Workers[Worker] = Workers()
        self.parent = os.getpid()
        self.n_slots = max(1, job.n_jobs - 1 if job.caller_computes else job.n_jobs)
        self.block = pace.first_block(job.item_s) if job.timeout is None else 1
        self._fork_s = 0.0
        self.slots = Slots(self.n_slots)
        self.handout = Handout(job, crew, self.n_slots, self.tell)
        self.inbox = Inbox(job, crew.buffers, self.outcome, self.handout, began=self.began)

    # -- setting up and tearing down ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Post the work and fork the workers; raises NoWorkersError if the system refuses even one."""
        try:
            self.slots.open(self.crew.board(self.slots.n_bytes))
            self.handout.open()
        except OSError as error:
            self.close(kill=True)
            pass_on(error)
            raise NoWorkersError(*error.args) from error
        self.handout.post_all()
        self._fork_all()

    def _fork_all(self) -> None:
        if not self.crew.reuses:
            # What waits in a stream would be in each fork too. In a notebook this waits for another thread: .8 ms.
            process.flush_streams()
        for slot in range(self.n_slots):
            try:
                self.start_one(slot)
            except OSError as error:
                # Those that are there do the work; without any, nothing has been begun.
                if self.workers and not is_outside(error):
                    break
                self.close(kill=True)
                pass_on(error)
                raise NoWorkersError(*error.args) from error
            except BaseException:
                self.close(kill=True)
                raise

    def start_one(self, slot: int) -> None:
        """Start one worker in *slot*; raises OSError if the system refuses another process or descriptor."""
        begin = clock()
        self.slots.clear(slot)
        with process.undisturbed():
            self.workers.add(self.crew.start(self, slot))
        self._fork_s += clock() - begin

    def close(self, *, kill: bool) -> None:
        """End the workers or let them go, and give every descriptor back. May be called again."""
        with process.undisturbed():
            if not self.slots.is_open:
                return
            if os.getpid() != self.parent:  # the function forked, in the caller, and its copy ends here
                self.abandon()
                return
            if kill:
                self.slots.set_limit(0)
            else:
                self.slots.activate(self.n_slots)
            self.handout.post_ends(len(self.workers))
            workers = list(self.workers)
            for worker in workers:
                self.workers.remove(worker)
                if kill and not (self.crew.reuses and self.slots.is_idle(worker.slot)):
                    self.crew.kill(worker)
                    self.crew.reap(worker)
                    worker.has_ended = True
            for worker in workers:
                self.crew.dismiss(worker)
            self.handout.close()
            self.crew.close()
            self.slots.close()

    def abandon(self) -> None:
        """Give back the descriptors only: the workers are those of the process that this one was forked from."""
        self.crew.abandon()
        for fd in self.workers.forget():
            with contextlib.suppress(OSError):
                os.close(fd)
        self.handout.close()
        self.slots.forget()

    def end(self, worker: Worker) -> int | None:
        """Wait for the end of a worker that dies, and be done with it; returns its wait status."""
        status = self.crew.reap(worker)
        self.workers.remove(worker)
        worker.has_ended = True
        self.crew.dismiss(worker)
        return status

    # -- the caller's side -------------------------------------------------------------------------------------------

    def finish(self) -> Outcome:
        """
        Start if that has not been done, take part until the work is done, and return the outcome.

        Raises what interrupts the caller; the function's own exceptions are values in the outcome.
        """
        finished = False
        try:
            if not self.handout.fds:
                with _worker.no_interrupt():
                    self.start()
            if self.job.caller_computes or (self.job.is_cold and self.job.caller_may_compute):
                with _blas.limited(self.job.threads):
                    self._compute()
            while not self.is_done():
                self.wait(bounds.HOUSEKEEPING_S)
                self._look_after()
            finished = not self.handout.is_alone and self.limit == self.n_items and not self.outcome.died
        finally:
            closing = clock()
            self.close(kill=not finished)
            self.outcome.close_s = clock() - closing
        return self._measured()

    def _compute(self) -> None:
        """
        Work on ranges like a worker does, looking at the others' results in between.

        A caller that is not one of the jobs does so until the first worker has answered.
        """
        job = self.job
        while (token := self.handout.take()) is not None:
            self._compute_range(*token)
            if self.is_done():
                return
            self._look_after()
            if not (job.caller_computes or self.handout.is_alone) and self.inbox.first_message_s is not None:
                return

    def _compute_range(self, start: int, stop: int) -> None:
        job, begin = self.job, clock()
        stretch = pace.Stretch(
            start, stop, self.block, begin, is_fixed=job.batch_size is not None, is_single=job.timeout is not None
        )
        while stretch.current < min(stretch.stop, self.limit):
            before = clock()
            done, failed = job.run_here(_worker.cut(job.items, stretch.current, min(stretch.high, self.limit)))
            took_s = clock() - before
            self.accept(stretch.current, done, failed)
            stretch.ran(len(done), took_s)
            if failed and not goes_on(failed, keep_going=job.keep_going):
                break
            self.wait(0)
            if self.crew.packs and self.handout.backlog:
                self.handout.post_backlog()
            if stretch.may_share and self.workers and self.handout.is_dry():
                self.handout.post_some([stretch.half()])
                stretch.stop = stretch.half()[0]
        n_items = stretch.current - start
        self.outcome.spans.append(
            Span(lane="caller", begin_s=begin, end_s=clock(), start=job.base + start, n_items=n_items)
        )

    def drop_from(self, position: int) -> None:
        """Forget the work at and after a position; what is before it must still be done."""
        self.slots.set_limit(position)
        self.handout.drop_from(position)

    def wait(self, timeout_s: float) -> None:
        """Take in what workers have sent; waits at most *timeout_s* for the first of it."""
        if self.job.check is not None:
            self.job.check()
        if self.job.timeout is not None:
            timeout_s = min(timeout_s, self.next_deadline_s())
        for worker, fd in self.workers.poll(timeout_s):
            is_conn = worker.conn is not None and fd == worker.conn.fileno()
            if is_conn and self.crew.hear(self, worker):
                continue
            if not self.inbox.receive(worker, self.accept):
                self.let_go(worker)
            # A worker whose socket is gone has ended, whichever descriptor says so first.
            if (is_conn or fd == worker.pid_fd) and worker in self.workers:
                self.bury(worker)
        for worker in self.workers:
            worker.voice.look()

    def _look_after(self) -> None:
        """Do what no message announces: refill the pipe, end overrun items, hand out what was lost."""
        if self.handout.backlog:
            self.handout.post_backlog()
        while self.handout.mine and not self.is_done():
            self._compute_range(*self.handout.mine.pop())
        if self.handout.is_alone:
            self._compute()
        self.report()
        if self.job.timeout is not None:
            self.end_overrun()
        if self.job.is_tight is not None:
            self.slots.activate(self.n_wanted(self.slots.n_active(), self.n_slots))
        if not self.workers and not self.is_done() and not self.handout.is_alone:
            self.start_last()
        if self.is_stalled():
            self.repost_missing()

    def _measured(self) -> Outcome:
        """Add what the run tells about the costs of forking."""
        outcome = self.outcome
        outcome.start_each_s = self._fork_s / self.n_slots
        if self.inbox.first_message_s is not None:
            outcome.start_s = self.inbox.first_message_s
            if not outcome.is_warm:
                outcome.start_s += outcome.close_s
        return outcome
