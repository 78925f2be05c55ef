"""
Bounds and waits of the workers and their transports: how long, how much and how many at most.

Each has its unit, where it comes from, and what happens if it is wrong by a factor of two. Those of a call stand in
:mod:`amorsize._bounds`, what the model of costs needs in :mod:`amorsize._cost`, what is decided in flight in
:mod:`amorsize._schedule`. Numbers of a protocol and of the system are no bounds; they stay where they are spoken.
"""

from __future__ import annotations

from typing import Final

# -- all workers -------------------------------------------------------------------------------------------------------

# Seconds after which an idle worker leaves by itself; joblib's own figure. Half: a notebook's next cell starts them
# anew. Twice: their memory is kept as much longer.
IDLE_S: Final = 300

# Seconds to wait for the end of loky's pool before its workers are killed, and then again: it takes 5 to 60 ms. Half:
# workers that are slow to leave are killed. Twice: where loky waits for itself, the program goes on so much later.
POOL_END_S: Final = 10.0

# Seconds between two looks for what no message or callback announces: pressure of memory, limits, clusters' deaths.
# Half: 0.02 % more of a core. Twice: as much later.
HOUSEKEEPING_S: Final = 0.5

# Seconds a worker that may not work waits before it asks again. Half: 0.1 % more of a core. Twice: it comes back 20 ms
# later.
PAUSE_S: Final = 0.02

# Workers in a row that may die before they have begun an item; then whatever ends them will end the next one too, and
# what is left is for those that have begun one, or fails. Half: two that happen to be killed end a map. Twice: it takes
# twice as long to say so.
MOST_IDLE_DEATHS: Final = 5

# Threads of the pool: seconds that they wait for another run, long enough for maps in a loop; and seconds to wait for
# the end of one that has left, which takes some instructions, and objects may go with it. tqdm's monitor, which sleeps
# nearly always, is waited for as long before a fork. Half or twice: nothing shows.
THREADS_IDLE_S: Final = 1.0
THREADS_END_S: Final = 1.0

# Seconds in which a thread that has been joined is gone: one of twenty was still there after joining, 5 ms at most.
# Half: such a thread forbids a fork. Twice: 10 ms in the worst case.
JOINED_S: Final = 0.01

# Seconds for which one that waits for a CPU is given time beyond that: beside other work on all cores, six of 4,000
# tests met one. Half: that happens more often. Twice: a library's thread that computes all the time delays the first
# decision of a program by as much.
RUNNABLE_S: Final = 0.1

# Spans that a stream keeps, the latest: it may be endless. At one per chunk they tell of some minutes. Half or twice:
# as many minutes.
MOST_SPANS: Final = 10_000

# Bytes of a pickle from which other threads may run while it is opened: that costs 3 us, and less takes 1 ms at most.
# Half or twice: 3 us more or less for pickles between the two.
FRAMES_BYTES: Final = 64 * 1024

# -- ranges, pipes and chunks ------------------------------------------------------------------------------------------

# Tokens posted at once at most, and in one write: up to PIPE_BUF, 4,096 bytes, a write happens whole or not at all.
# Half: more writes. Twice: a write could be torn.
MOST_TOKENS: Final = 3000
PART_TOKENS: Final = 250

# Bytes that the result pipes of a map are asked to hold together, so that workers can go on while the caller computes,
# and one of them at most and at least. 1 MiB is what Linux allows everybody for one pipe (/proc/sys/fs/pipe-max-size),
# and 64 MiB for all pipes of a user (pipe-user-pages-soft): beyond, every new pipe of that user holds a page or two.
# Half: workers wait sooner for a caller that computes. Twice: half as many maps may run at once before that.
PIPES_BYTES: Final = 4 << 20
PIPE_BYTES: Final = 1 << 20
LEAST_PIPE_BYTES: Final = 64 << 10

# Ranges that wait for each worker where items are packed as they are handed out: one is packed while the other runs.
# Half: workers wait for the caller. Twice: twice the memory.
PACKED_AHEAD: Final = 2

# Seconds of an item from which the caller, busy with one of its own, may leave workers without work: everything is
# packed first then. Half or twice: a first worker begins later or may run dry, with items of 1 to 4 ms.
LONG_ITEM_S: Final = 2e-3

# Seconds to wait after a death for the other chunks that went down with it; loky tells of all of them at once. Half:
# some are missed on a busy machine. Twice: a retry begins 0.25 s later.
LAST_WORDS_S: Final = 0.25

# Seconds the caller waits at most while items speak: workers that say much wait for it. Half or twice: as much sooner
# or later their lines appear.
LIVELY_S: Final = 0.02

# -- packages and memory -----------------------------------------------------------------------------------------------

# Bytes of a parcel above which it goes through a file: below, sending it with each chunk costs less than a file does.
# Half or twice: 20 us per chunk with parcels between the two.
PARCEL_BYTES: Final = 64 * 1024

# Functions that one may call of its own and still be looked at instead of being pickled anew: beyond, the look takes as
# long as the pickle. Half: functions of ten helpers are pickled for each map, 0.3 ms. Twice: 10 us more in vain.
MOST_FUNCTIONS: Final = 16

# Decorators around one function. Half: five are unusual. Twice: a cycle of them is noticed 1 us later.
MOST_WRAPPED: Final = 10

# Bytes of settings that are sent: pickling as many takes 0.1 to 0.3 s, each way. A function that reads more than that
# from modules runs where it is. Half or twice: functions with tables of that size run there, or wait as much longer.
MOST_SETTINGS_BYTES: Final = 256 << 20

# Items in one block of shared memory at most, and bytes that more items than one may take in it: a block is opened
# whole by each worker that has a part of it. Half: twice the entries. Twice: twice as much is opened in vain at the
# edges of ranges.
BLOCK_ITEMS: Final = 1024
BLOCK_BYTES: Final = 64 << 10

# Bytes up to which all items travel with the job's own message: there a memory of their own costs more than it saves.
# Half or twice: 20 us per map of items between the two.
INLINE_BYTES: Final = 24 << 10

# Bytes of a buffer from which it stays out of the pickle: below, copying it is cheaper than mapping it. Half or twice:
# some microseconds per buffer between the two.
BESIDE_BYTES: Final = 16 << 10

# Bytes of all such buffers in one message of results from which they travel in memory of their own: that costs about
# 20 us to make and to map, as much as copying 100 kB through the pipe twice. Half or twice: 20 us per message.
RESULT_MEMORY_BYTES: Final = 256 << 10

# Bytes of one posted range, so that a worker has something to do before much has been packed. Half: twice the tokens.
# Twice: the first worker begins 0.5 ms later.
RANGE_BYTES: Final = 1 << 20

# Bytes of one message on a socket at most: what does not fit lies in memory whose descriptor comes with it; and those
# that may. The default send buffer is 208 kB (net.core.wmem_default). Half: more messages need memory. Twice: it must
# hold four of them.
MESSAGE_BYTES: Final = 48 << 10
MOST_FDS: Final = 8

# Bytes that are read from a pipe in one go: what a pipe holds at most by default (/proc/sys/fs/pipe-max-size). Half or
# twice: as many system calls.
READ_BYTES: Final = 1 << 20

# -- what items say ----------------------------------------------------------------------------------------------------

# Seconds for which something said waits in a worker at most: this much is lost with a worker that dies. Half: twice the
# messages of items that talk. Twice: 0.1 s is lost.
SEND_S: Final = 0.05

# Bytes, about, from which what has been said is sent at once: a worker that says more waits until the caller has taken
# it in, so that neither side's memory fills up. Half or twice: as much memory.
SAID_BYTES: Final = 1 << 20

# Seconds for which the caller holds back what an item under way has said, so that it appears in one piece. Whoever
# watches an item that takes longer sees its lines as they come. Half or twice: as much sooner or later.
HOLD_S: Final = 1.0

# Bytes of a record or a warning beside its text. Half or twice: nothing shows but in programs that log millions.
RECORD_BYTES: Final = 500

# Bytes of what has been said on a pool of loky and not heard from which a worker waits, and seconds between two looks
# whether there is room. Half or twice: as much memory, as many looks.
UNHEARD_BYTES: Final = 4 << 20
ROOM_LOOK_S: Final = 0.005

# -- the fork server ---------------------------------------------------------------------------------------------------

# Seconds between two looks of the server at whether the caller is there, on kernels that do not tell. Half: 0.01 % of a
# core. Twice: it outlives its caller by four seconds.
CALLER_LOOK_S: Final = 2

# Servers in a row that may end by themselves before they are ready, or be killed before; then this process gets none.
# Half: one that is killed by chance counts. Twice: a broken installation is tried 50 ms longer.
MOST_FAILURES: Final = 2
MOST_KILLED: Final = 20

# Seconds that a server takes to be ready, as measured on the 2-core reference host; of one that is starting, what is
# left of them is counted. Half or twice: one call more or less waits for it.
START_S: Final = 0.05

# Seconds to wait for the server's word on how a worker ended. It answers in microseconds unless it imports a package.
# Half or twice: how a worker ended is "unknown" sooner or later.
WORD_S: Final = 10.0

# -- loky --------------------------------------------------------------------------------------------------------------

# Slots of the board of a pool: tasks that may be out at once. Half: enough for 1,000 workers. Twice: 64 kB more.
BOARD_SLOTS: Final = 4096

# Seconds after which a worker that has not seen that its chunk is closed has told that it began: a store reaches the
# other core in well under a microsecond. Half or twice: as much longer or shorter after a death.
SETTLED_S: Final = 0.5e-3

# Seconds that a stream which is given up waits for the chunks that run, each of which ends within its quantum. Half:
# the pool is ended where it need not be. Twice: a second longer.
STREAM_END_S: Final = 1.0

# Pools that may be ended by other runs while one task is handed over. Half or twice: nothing shows; more than two have
# not been seen.
MOST_POOLS: Final = 20

# -- joblib.Parallel ---------------------------------------------------------------------------------------------------

# Seconds of one batch that the caller computes itself: as long as a chunk may be, so that joblib's 50 us per batch stay
# below one per cent, and short enough to look at the evidence a hundred times a second. Half: 1 % for joblib. Twice: a
# start comes 10 ms later.
BATCH_HERE_S: Final = 0.01

# Seconds of work after which cold workers are started although nobody knows how much is left. joblib starts them at
# once; waiting for up to 0.7 of their start (0.4 s and more), with the caller computing meanwhile, is never later.
# Half: more starts in vain. Twice: later than joblib.
COLD_S: Final = 0.25

# Times what the running item has taken so far that it is expected to take in all. Tasks given to joblib.Parallel are
# long more often than not, and workers started in vain cost less than workers started late. Half or twice: as much
# later or earlier a start.
OPTIMISM: Final = 8.0

# Times by which tasks may be shorter than those of their kind that are remembered. Half: every task contradicts. Twice:
# workers start for tasks of a third of the length.
ALIKE: Final = 2.0

# Seconds of work from which it is remembered what the tasks of a call came to, and of one or two batches from which
# they tell. Another program may have the core for 5 to 10 ms during one of them, after which each later call went to
# workers. Half: some do again. Twice: calls of 20 to 40 ms begin in the caller each time.
REMEMBER_FROM_S: Final = 0.02

# Kinds of tasks of which it is remembered what they came to. 100 bytes each. Half or twice: as many programs.
MOST_KINDS: Final = 256

# Seconds until the running item is looked at for the first time, and between two looks at most. Half or twice: a start
# that much earlier or later; a look costs 5 us.
FIRST_LOOK_S: Final = 0.005
LAST_LOOK_S: Final = 0.02

# Seconds that whoever waits for a result waits in one go, and others that want the workers at most. Half: twice the
# wakings. Twice: a second thread waits 0.2 s.
DRIVE_S: Final = 0.1

# Objects within one another, and attributes or items of one, that are looked through for what can be sent of an object
# that cannot be pickled: a client with its settings has three and twenty. Half or twice: a worker's own does as it was
# imported, or 1 ms more is looked for.
DEEPEST_UPDATE: Final = 5
MOST_PARTS: Final = 200
