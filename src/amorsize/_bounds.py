"""
Bounds and waits beside the model of costs: how long, how much and how many at most, and what runs teach the model.

Each has its unit, where it comes from, and what happens if it is wrong by a factor of two. What the model needs stands
in :mod:`amorsize._cost`.
"""

from __future__ import annotations

from typing import Final

# -- the host --------------------------------------------------------------------------------------------------------

# Seconds a reading of CPUs and memory is used again. It takes 0.1 to 0.2 ms (some ten small files), and limits change
# by the second at most. Half: 0.02 % more of a busy second. Twice: a limit that was lowered is seen a second later.
SNAPSHOT_S: Final = 1.0

# Bytes assumed where no reading of the memory can be had at all: enough for a few small workers. Half or twice: as many
# workers fewer or more, on machines that say nothing.
UNKNOWN_MEMORY_BYTES: Final = 1 << 30

# Bytes available below which running work gets fewer workers: under that, Linux starts to reclaim and to kill. Half:
# workers may be killed first. Twice: small containers use fewer workers than they could.
TIGHT_BYTES: Final = 200 << 20

# -- the program's own objects -----------------------------------------------------------------------------------------

# Classes of which it is remembered how their objects are looked at: 100 bytes each. Half or twice: as much memory in
# programs that make classes without end.
MOST_CLASSES: Final = 4096

# Exceptions that led to one another and are looked into. Half: a handler's exception behind ten others is taken for an
# item's. Twice: 20 us more for such a chain.
MOST_CAUSES: Final = 20

# -- what runs teach ---------------------------------------------------------------------------------------------------

# Weight of a new observation of a cost against what was known: the first replaces the prior, later ones count a third,
# so that three runs after a change the estimate has moved 70 % of the way. And how many times what was known one
# observation may say at most: a start on a machine that was busy with something else took ten times the usual one.
# Half: a change is followed after six runs. Twice: one disturbed run moves the figure by two thirds of the difference.
NEW_WEIGHT: Final = 1 / 3
MOST_CHANGE: Final = 3.0

# Share of an item's seconds from which its transfer is worth learning from runs. Half or twice: as much less or more
# has to be moved before runs correct what weighing said.
LARGE_TRANSFER: Final = 0.2

# Seconds per item, and items timed alone in the same call, from which the speed of workers beside each other is
# compared with that of the caller alone: below, the difference is the clock's. Half: noise is learned. Twice: fewer
# functions have a speed of their own.
COMPARABLE_S: Final = 200e-6
COMPARABLE_ITEMS: Final = 3

# Ratio between the slow and the fast chunks of a run (9th and 1st decile) up to which its items are alike. Half would
# be none. Twice: uneven items are taken for a slow machine.
ALIKE: Final = 1.25

# Standard deviation of an item's seconds, as a share of them, up to which the sample's items are alike. Half: fewer
# functions have a speed of their own. Twice: it is that of the items.
STEADY: Final = 0.05

# Times the predicted seconds of moving an item from which runs correct them. Half would be always. Twice: data that is
# twice as dear as weighed stays so.
DEARER: Final = 1.2

# Seconds of a fork's start, and of each further one, at least: what is left once the process's size is taken off may be
# nothing. Half or twice: maps of 1 ms go the other way.
LEAST_START_S: Final = 3e-4
LEAST_EACH_S: Final = 1e-4

# Between which an efficiency is believed: below, something else had the cores or the items are others; above, they are.
# Half or twice: disturbed runs are believed, or slow machines are not.
LEAST_EFFICIENCY: Final = 0.3
MOST_EFFICIENCY: Final = 1.1

# Share by which a function's own efficiency returns to the host's with each call that ran as a loop: what one disturbed
# run said is tried again after some forty calls, at half a per cent of their time. Half: after eighty. Twice: after
# twenty, at one per cent.
FORGET: Final = 0.005

# How many times the prior a measured cost may be. A slower machine is slower by less; a busy one by more, for a moment.
# Half: slow machines are taken for faster ones. Twice: a busy moment closes a way for some runs.
PLAUSIBLE: Final = 5.0

# Bytes received from which their rate can be told: what takes a tenth of a millisecond. Half: the clock's noise is
# learned. Twice: fewer runs tell.
TELLING_BYTES: Final = 1 << 20

# Bytes per second that a fast cluster moves: Ray's object store on the reference host. Half or twice: a cluster is
# measured after twice or half as many calls that it might have served.
FAST_BYTES_PER_S: Final = 1e9

# Bytes moved between two chunks of a worker up to which the gap is dispatch: 0.3 ms at the 200 MB/s of a slow cluster,
# a few per cent of what a dispatch costs there. Half: fewer gaps tell. Twice: transfer is taken for dispatch.
MOST_GAP_BYTES: Final = 64 << 10

# -- files that keep something -----------------------------------------------------------------------------------------

# Seconds a call must have taken for its profile to be saved at once. Opening the file and one transaction, without
# waiting for the disk, took 0.2 ms on the 2-core reference host, and may take ten times that on a slower disk: 2 % of
# such a call. Half: 4 %. Twice: a process that is killed has kept less.
SAVE_AFTER_S: Final = 0.1

# Profiles kept in a file; the oldest leave first. As many as a process remembers. A kilobyte each.
MOST_PROFILES: Final = 1024

# Seconds to wait for another process's transaction on the store, which takes a millisecond, and on a checkpoint, where
# whole batches of results are written. Half or twice: as much sooner or later a process goes on without, or ends.
STORE_BUSY_S: Final = 0.25
CHECKPOINT_BUSY_S: Final = 30.0

# Seconds between two batches of a checkpoint, and bytes of results after which one is written sooner. A transaction
# took 1 to 10 ms on the disks at hand: 4 % at worst. Half: 8 %. Twice: a killed process loses half a second of results.
WRITE_S: Final = 0.25
WRITE_BYTES: Final = 4 << 20

# Characters or bytes of a global constant that a checkpoint looks at to tell one function from another. Half: fewer
# constants tell. Twice: 20 us more for such a constant.
MOST_CONSTANT: Final = 10_000

# -- progress ----------------------------------------------------------------------------------------------------------

# Seconds before a bar appears: what is over sooner needs none. Half or twice: bars of more or fewer calls.
SHOW_AFTER_S: Final = 1.0

# Seconds between two reports. Ten a second read as continuous, and cost 0.1 % at 100 us for one redrawn bar. Half:
# 0.2 %. Twice: it stutters.
INTERVAL_S: Final = 0.1

# -- words and pictures ------------------------------------------------------------------------------------------------

# How much the upper end of a forecast must be above the lower one for the interval to be worth telling. Half would be
# always. Twice: a forecast that may be wrong by a factor of two reads like a certain one.
CERTAIN: Final = 1.1

# Seconds of a loop from which it is worth a word that its function waits. Half or twice: as many calls that say it.
WORTH_A_WORD_S: Final = 0.05

# Seconds below which a forecast is not compared with what was measured: it leaves out the 0.1 to 0.3 ms of deciding.
# Half: calls of 0.5 ms are "60 % more". Twice: calls of 1 to 2 ms are not compared.
NEGLIGIBLE_S: Final = 1e-3

# Names of outside state in a note: more of them tell nobody more. Half or twice: that many.
MOST_NAMES: Final = 4

# Bars in a picture, one per number of workers: more do not fit. Half or twice: as many. And items that a plan of
# unknown length is drawn for; only the shape counts, so that no factor shows.
MOST_BARS: Final = 32
MANY_ITEMS: Final = 1_000_000

# Bytes of source in a parcel of the command line's demo. Of single modules the first few say little about the others,
# whatever their order: some take a hundred times as long as most, and a forecast from five was half of the truth.
# Parcels are alike: with each of five shuffles the mean of the first five was within 17 % of that of all (2-core
# reference host). Half: forecasts scatter more. Twice: too few parcels for many cores.
DEMO_BYTES: Final = 100_000

# Share of the CPUs below which others had the rest while the demo ran: alike parcels keep all workers busy but for the
# first and last of them, a twentieth of the time. Half: a busy machine is not told of. Twice would be always.
DEMO_BUSY: Final = 0.85

# -- clusters --------------------------------------------------------------------------------------------------------

# Bytes of a parcel above which it is put on each worker once instead of travelling with each chunk. Placing takes two
# round trips (20 ms on Dask), in which 32 KiB travel a hundred times over the slowest network assumed (100 MB/s).
# Half or twice: 10 ms per map with parcels between the two.
PLACED_BYTES: Final = 32 * 1024

# Bytes of a buffer from which it travels beside the pickle instead of in it: the engines take some 20 us for each, in
# which 64 KiB are copied several times. Half or twice: about 10 us per array between the two.
APART_BYTES: Final = 64 * 1024

# Parcels that a worker keeps open: two functions mapped in turn should not be opened anew for each chunk. Half: three
# in turn are. Twice: twice the memory of what they hold.
KEPT_PARCELS: Final = 4

# Seconds between two looks at whether the cluster is still there. Half: 2 ms more of the scheduler per second. Twice:
# its loss is told half a second later.
WATCH_S: Final = 0.5

# Seconds that a cluster may be without scheduler or workers before the run gives up; joblib's figure for the latter.
# Half: a scheduler that restarts is taken for gone. Twice: ten seconds more until the error.
GONE_S: Final = 10.0

# The same for a Ray cluster without CPUs: Ray itself would wait for ever, an autoscaler brings a node in minutes.
NO_CPU_S: Final = 300.0

# Seconds that the size of a cluster is taken to hold; asking takes 1 to 2 ms. Half: 0.2 % more of a second full of
# maps. Twice: new workers are counted a second later.
SIZE_S: Final = 1.0

# Seconds a probe waits at most: a fresh worker imports amorsize (0.2 s), an adaptive cluster starts one (seconds).
# Half: a slow cluster is taken to be unusable. Twice: one that is dead is noticed 15 s later.
PROBE_MOST_S: Final = 15.0

# Bytes of the message that measures the bandwidth, which takes 10 to 40 ms at 100 to 400 MB/s, several times a round
# trip; and such messages each way. Half: 20 % of scatter. Twice: 0.2 s more at the first use of a cluster.
PROBE_BYTES: Final = 4 << 20
PROBES: Final = 5

# -- the sample --------------------------------------------------------------------------------------------------------

# Seconds after which the sample stops once it has an item: five items of ten seconds each must not cost fifty before
# anything goes parallel. Four times what starting a forked worker takes, so stopping to decide always pays by then.
# Half or twice: one item less or more of some milliseconds.
SAMPLE_BOX_S: Final = 0.005

# Seconds of the first item from which no second one runs before workers start, where the first has prepared nothing for
# it: with one item per core, the second doubles what the call takes. Half or twice: one item of 50 ms more or less in
# the caller.
LONG_FIRST_S: Final = 0.05

# Items per CPU up to which that holds: of more, the second one is a small part of the call, and a forecast from two is
# an interval. Half: up to a fifth of a call is lost where it need not be. Twice: forecasts from one item where a second
# would have cost a seventeenth.
FEW_PER_CPU: Final = 8

# Bytes of a value above which its pickling is extrapolated from a part of it; weighing must cost microseconds. Half:
# more is extrapolated. Twice: 10 us more per weighed item.
WEIGH_BYTES: Final = 64 * 1024

# Bytes per second of copying a flat buffer into a pickle and out of it again, used only to extrapolate buffers above
# WEIGH_BYTES: one memory copy each way (tests/benchmarks/probes.py: 3 to 6 GB/s on the 2-core reference host). Half or
# twice: arrays look twice or half as dear to send, until the first run has measured it.
FLAT_BYTES_PER_S: Final = 2.0e9

# Seconds that the smallest value adds to a pickle: a number in a list of 1,000 (15 ns on the 2-core reference host).
# Half or twice: 40,000 numbers look 1 ms cheaper or 2 ms dearer to send than they are.
LEAST_PICKLE_S: Final = 15e-9

# Seconds of unpickling per second of pickling: of texts 1.0, of dictionaries, numbers and tuples 1.3 to 1.9, of bytes
# less than 1 (tests/benchmarks/probes.py, on the 2-core reference host). Runs correct it. Half: transfers look a third
# cheaper than they are. Twice: 60 % dearer.
LOADS_SHARE: Final = 1.5

# Seconds of a sample below which the CPU seconds of other threads say nothing, and those that are not counted beyond:
# OpenBLAS threads spin for 2**26 cycles, or 20 to 30 ms, after NumPy is imported and after each product, whatever the
# function does meanwhile. A sleep of 10 ms looked like 92 % computing. Half: it looks so again on slow machines. Twice:
# functions that use several cores are found out later.
SPINNING_S: Final = 0.1
SPUN_S: Final = 0.03

# Share by which seconds per item may differ from what is known without being news. Half: profiles are rewritten for
# noise. Twice: a drift of a tenth goes unnoticed.
SAME: Final = 0.05

# Share of an equal share of the work from which an item is big. Half or twice: as much earlier or later an item is
# handed out before the others.
BIG_SHARE: Final = 0.1

# Items whose sizes are looked at in one call, at most: 0.1 us each. Half: of longer inputs less is known. Twice: 2 ms.
MOST_SIZED: Final = 20_000

# How many times the steady seconds of an item the first must have taken to be a warm-up (an import, a cache being
# filled), which a profile leaves out. Half: an item that is half as long again is left out. Twice: a first item that
# loads something for five times an item's seconds is a fifth of the mean of five.
WARM_UP: Final = 3.0

# Ratio of sizes or of seconds beyond which data is said to have changed character. Half would be none. Twice: data
# that has become three times as heavy is planned by the old profile.
CHANGED: Final = 2.0

# Share of the predicted work that a call with a remembered profile spends on looking at items again. Half: a change is
# seen after twice as many items. Twice: 2 % of a call.
RESAMPLE_SHARE: Final = 0.01

# Items that are watched at least for what they change: the first may set something up that the others leave as it is.
# Half: that cannot be told apart. Twice: two more items before workers start.
WATCH_ITEMS: Final = 2

# Items in which it is looked for what they share: 1 us each. Half: what only later items share is seen less. Twice:
# 8 us more in a first call.
WATCH_SHARED: Final = 8

# Seconds of work left from which items are watched for what they change: looking takes 0.1 to 0.3 ms. Half: 6 % of such
# a call. Twice: calls of up to 10 ms run serially, unwatched.
WATCH_FROM_S: Final = 5e-3

# -- the loop ----------------------------------------------------------------------------------------------------------

# Seconds of a block from which its rate is worth more than five items timed one by one. Half: rates that a clock tick
# distorts by 1 %. Twice: five items say what a longer block could.
TELLING_S: Final = 100e-6

# Looks at the clock in one loop at least, and items that are not worth a look in between; of a function that is known,
# and in its first call. After a change of cost the rest of a block runs unwatched: a thousand items of nothing before
# 400 of 3 ms take 15 % more than the best plan with 20 looks, 11 % with 40. But a look costs 0.4 us.
LOOKS: Final = 20
LEAST_BLOCK: Final = 32
FIRST_LOOKS: Final = 64
FIRST_LEAST_BLOCK: Final = 16

# Items in the first block of a loop at most. Half: one look more. Twice: twice as many items run before the first.
FIRST_BLOCK: Final = 256

# Items in one block at most: slices of more than 128 kB are mapped and unmapped by the allocator each time, which made
# a loop over a million items a quarter slower. Half: twice the looks. Twice: up to that bound of the allocator.
MOST_LOOP_BLOCK: Final = 8192

# Items in a block from which its rate is that of many, whatever single ones take; and seconds of a block of fewer from
# which it is slow for nothing but its items: a lost core or a pass of the garbage collector over a hundred thousand
# objects takes 10 ms. Parsing rows of 0.35 ms, one of 0.8 looked like a reason to start workers, which took 25 ms
# longer than the loop. Half: so do blocks of 16 items. Twice: workers start 20 ms later for items that became long.
MANY: Final = 64
LONG_S: Final = 0.02

# Seconds after which a loop that somebody may cancel looks whether somebody has. Half or twice: as much sooner or later
# a cancelled task ends.
CANCEL_LOOK_S: Final = 0.1

# Items in a block below which its producer's seconds are told apart from the function's. Half or twice: blocks of that
# many cost 0.2 us more or less per item.
FEW: Final = 64

# Seconds of work up to which a decided loop is settled for SNAPSHOT_S: for longer work a decision costs nothing. Half
# or twice: a decision, 0.1 ms, more or less in calls of 10 to 40 ms.
SETTLED_S: Final = 0.02

# Seconds per item below which timing items one by one says little: such a function is timed in blocks, by the loop.
# Half or twice: items of 10 to 40 us are timed the other way.
TINY_S: Final = 20e-6

# Items that an input of unknown length is taken to have, when it is asked what is worth its time. Half or twice: no
# figure of a real input comes near.
ENDLESS: Final = 10**6

# -- the decision ------------------------------------------------------------------------------------------------------

# Seconds a map spends on reading the rest of an iterator of unknown length before it treats it as a stream. Reading a
# million integers takes about that long; a producer that is slower is worth overlapping with the work. Half or twice:
# that many items are read before workers start.
READ_BOX_S: Final = 0.05

# Seconds of the sample from which other programs that compute are looked for, which takes 60 us: a forecast of seconds
# that leaves them out is half of the truth. 24 items of .25 s on two cores, beside 7 to 11 other threads: measured 1.9
# and 2.3 times what was predicted without them, 1.5 and 1.9 times with them.
LONG_HEAD_S: Final = 0.1

# Seconds of the first item from which threads are decided on with a second one at hand. Half or twice: one item more or
# less in the caller.
LONG_FOR_THREADS_S: Final = 200e-6

# How much longer than decided on items must take for another decision in the same call. Half: noise decides anew.
# Twice: a fifth more work is planned too small.
WORSE: Final = 1.1

# Seconds of work left from which a cluster never used before is measured first: measuring takes 0.1 to 0.4 s, and is
# only done where the prior already says that the cluster pays, or earlier calls have missed more than it costs. Half:
# probes that cost as much as they may gain. Twice: a cluster is found out a call later.
PROBE_WORTH_S: Final = 1.0
PROBE_PRICE_S: Final = 0.4

# Seconds of an item from which a caller that follows the progress leaves all items to workers: twice the interval of
# reports. Computing one itself, it would report nothing meanwhile. Half or twice: the bar stutters or the caller idles
# with items of 0.1 to 0.4 s.
LISTEN_S: Final = 2 * INTERVAL_S

# -- streams -----------------------------------------------------------------------------------------------------------

# Share of the available memory that items read ahead and results waiting may take. Half or twice: as much.
STREAM_MEMORY_SHARE: Final = 0.1

# Chunks per worker that the buffer holds by default: one running, one waiting, and as many finished or being read.
# Half: a slow item stops the workers behind it. Twice: twice the memory.
CHUNKS_PER_WORKER: Final = 4

# Bytes of items and results that are worth holding for a consumer that comes and goes: more only where chunks would
# otherwise be too small for what their dispatch costs. With whole quanta in the buffer, 200,000 items of 1 kB that take
# 20 us took 78 MB, 10,000 of them 52 (tests/benchmarks, stream-memory). Half or twice: as much memory.
BUFFER_BYTES: Final = 8 << 20

# Bytes that an item in the buffer takes beside itself: two places in dictionaries, one in a list, and a number. Half or
# twice: buffers of tiny items are 5 % too large or too small.
PLACE_BYTES: Final = 256

# Seconds of reading input after which what has been read is handed out and what has come home is looked at; and of one
# item from which its source counts as slow: a result that is there is not kept back for it. With a source of 5 ms per
# item a result came 0.24 s after its item was read, the time to read a whole buffer. Half: twice the looks.
# Twice: results come so much later.
READ_S: Final = 0.002

# Seconds that a consumer of a stream waits in one go for what its workers send. Half or twice: as many looks at what no
# message announces.
STEP_S: Final = 0.5

# -- maps under asyncio ------------------------------------------------------------------------------------------------

# Seconds that a cancelled task waits for its thread: one that is in the middle of a long item ends behind it. Half: the
# task returns before workers have been let go. Twice: a second longer.
END_S: Final = 1.0

# Of a stream: seconds and results that its thread may be ahead of the task that asks, which saves waking it for each.
# Half: twice the wakings, 50 us each. Twice: results wait 2 ms.
AHEAD_S: Final = 0.001
MOST_AHEAD: Final = 64

# Maps that compute in this process at once. The interpreter changes threads after 5 ms (sys.getswitchinterval), and in
# no order: on a busy machine, the event loop waited up to 23 ms beside one thread that computes, and 115 beside two.
MOST_COMPUTING: Final = 1

# Seconds after which threads change beside such a map. The longest gap of the loop in a first round of twenty maps was
# 25 ms with the usual 5 ms, 8 with 1 ms, 7 with 0.2. Half or twice: 1 ms less or more of it.
SWITCH_S: Final = 0.0005

# Seconds between two looks for a turn; seconds of a look at who computes, and the share of a core above which one does.
# Half: twice the looks, 20 us each. Twice: turns change 10 ms later.
TURN_LOOK_S: Final = 0.01
TURN_WINDOW_S: Final = 0.02
BUSY_SHARE: Final = 0.05

# Seconds for which a map counts as computing where the system does not tell what a thread computes. Half or twice: as
# much longer or shorter others wait behind one that sleeps.
UNKNOWN_S: Final = 0.05

# Seconds of computing after which a map lets another one compute. Half: twice the changes of threads. Twice: a short
# map waits 20 ms behind a long one.
SLICE_S: Final = 0.01

# Seconds that a map waits for its turn while none of those before it comes to an end: they may be long, or wait for it.
# Half: two maps compute where one would have ended. Twice: maps that wait for one another lose two seconds.
PATIENCE_S: Final = 1.0

# -- in flight ---------------------------------------------------------------------------------------------------------

# Seconds of work in one chunk at most. Workers send finished results home after each chunk, so this bounds what a dying
# worker can lose and what the last chunk can cost; 50 ms is 500 times the measured dispatch of 60 to 100 us. Half:
# twice the messages. Twice: up to 0.1 s is lost with a worker, and progress is reported half as often.
QUANTUM_S: Final = 0.05

# Seconds of work between two looks at the clock and at the pipe of tasks. A look costs about 1 us, so it takes 0.1 %;
# it bounds how long a worker without work waits for a share of another worker's chunk. Half: 0.2 %. Twice: 2 ms.
CHECK_S: Final = 0.001

# Seconds of serial work between two looks at whether to go parallel: long enough that a look (5 us) does not show,
# short against the 2 ms from which a forked worker pays. Half: 0.5 % of a loop. Twice: workers start 2 ms later.
LOOK_S: Final = 0.002

# Seconds of one block of a loop: a block sized before items became fifty times as long must not hide them for long.
# Half: twice the looks at the clock, 0.1 us each. Twice: such a block takes 50 ms.
BEAT_S: Final = LOOK_S / 4

# Items in a worker's first block at most. A sample of nothing says nothing, and doubling reaches 1,000 in six looks.
# Half or twice: one look more or less.
WORKER_BLOCK: Final = 16

# Items in one block at most, so that a block of nothing measurable still ends. Half or twice: as soon or late.
MOST_BLOCK: Final = 1 << 16
