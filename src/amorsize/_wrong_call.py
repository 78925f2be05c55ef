"""
What was meant where a name, a value, a function or an item is wrong: words for the way out of it.

What options, values and methods are called in other libraries, and by people who guess; and what to do instead where
items were given in the wrong shape, a pair as one argument, or an argument missing. Calls nothing of the user's.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import FrameType


# -- names -------------------------------------------------------------------------------------------------------------


_SYNONYMS: Final[Mapping[str, tuple[str, ...]]] = {
    "n_jobs": (
        "njobs", "jobs", "n_job", "workers", "n_workers", "nworkers", "num_workers", "max_workers", "worker_count",
        "processes", "n_processes", "num_processes", "nprocs", "n_procs", "nproc", "num_proc", "pool_size",
        "cpus", "n_cpus", "num_cpus", "cpu_count", "cores", "n_cores", "ncores", "nb_workers", "concurrency",
        "parallelism",
    ),
    "batch_size": (
        "chunksize", "chunk_size", "chunk", "chunks", "n_chunks", "batchsize", "batch", "batches", "n_splits",
        "items_per_chunk", "block_size", "blocksize",
    ),
    "prefer='threads'": ("threads", "threaded", "use_threads", "thread", "n_threads", "num_threads", "threading"),
    "prefer='threads', start_method='fork' or start_method='loky'": ("backend", "executor", "pool", "engine", "mode"),
    "start_method": ("mp_context", "context", "start", "startmethod", "method", "mp_start_method", "spawn", "fork"),
    "max_memory": (
        "memory", "mem", "memory_limit", "max_mem", "mem_limit", "maxmem", "max_memory_bytes", "max_bytes", "ram",
        "max_ram", "maxtasksperchild", "max_tasks_per_child",
    ),
    "errors='return' or errors='skip'": (
        "return_exceptions", "ignore_errors", "skip_errors", "raise_errors", "on_error", "onerror", "error", "catch",
        "raise_exceptions", "exceptions", "error_callback",
    ),
    "progress": (
        "progress_bar", "progressbar", "show_progress", "verbose", "bar", "pbar", "tqdm", "use_tqdm", "disable_tqdm",
        "callback", "progress_callback",
    ),
    "progress=dict(desc=...)": (
        "desc", "position", "leave", "unit", "total", "ncols", "colour", "bar_format", "progress_bar_options",
        "tqdm_kwargs", "progress_kwargs",
    ),
    "retries": ("retry", "n_retries", "max_retries", "tries", "attempts", "max_attempts", "max_tries"),
    "timeout": ("timeout_s", "time_limit", "task_timeout", "max_time", "limit_s", "timeout_seconds", "item_timeout"),
    "initializer": ("init", "init_fn", "worker_init", "worker_init_fn", "setup", "init_worker"),
    "checkpoint": ("resume", "cache", "cache_file", "checkpoint_file", "checkpoint_path", "cachedir"),
    "initargs": ("init_args", "initializer_args", "initargs_"),
    "sample_size": ("samples", "n_samples", "n_sampled", "sample"),
    "kwargs={'name': value}": ("kwds", "args", "func_kwargs", "fn_kwargs", "keywords"),
    "imap(..., ordered=False)": ("unordered", "as_completed", "ordered"),
    "imap(...)": ("return_as", "lazy", "generator"),
    "imap(..., buffersize=...)": (
        "buffersize", "buffer_size", "pre_dispatch", "prefetch", "max_in_flight", "queue_size",
    ),
}  # fmt: skip
_MEANT: Final[Mapping[str, str]] = {word: way for way, guesses in _SYNONYMS.items() for word in guesses}


def _closest(name: str, words: Iterable[str], cutoff: float) -> list[str]:
    """Return the one of *words* that is most like *name*, if one is."""
    import difflib  # noqa: PLC0415 - 1.4 ms that only mistakes pay

    return difflib.get_close_matches(name.lower(), list(words), n=1, cutoff=cutoff)


def meant_by(name: str, options: Iterable[str]) -> str | None:
    """Return what was meant by a *name* that is none of the *options*, None where nothing is like it."""
    close = _closest(name, [*options, *_MEANT], 0.75)
    return _MEANT.get(name.lower()) or (_MEANT.get(close[0], close[0]) if close else None)


# -- values ----------------------------------------------------------------------------------------------------------

_VALUES: Final[Mapping[str, str]] = {
    "ignore": "skip", "drop": "skip", "coerce": "return", "strict": "raise", "spawn": "loky",
    "threading": "threads", "multiprocessing": "processes",
}  # fmt: skip


# The option that takes a word, for words that people give to another one.
_OPTION_OF: Final[Mapping[str, str]] = {
    **dict.fromkeys(("threads", "processes"), "prefer"),
    **dict.fromkeys(("fork", "forkserver", "loky"), "start_method"),
}


def value_meant_by(value: Any, words: tuple[str, ...]) -> str | None:
    """Return what was meant by a *value* that is none of the *words*, None where nothing is like it."""
    if not isinstance(value, str):
        return None
    if value in _OPTION_OF:
        return f"{_OPTION_OF[value]}={value!r}"
    meant = _VALUES.get(value.lower())
    close = [meant] if meant in words else _closest(value, words, 0.6)
    return repr(close[0]) if close else None


# -- methods ---------------------------------------------------------------------------------------------------------

_METHODS: Final[Mapping[str, tuple[str, ...]]] = {
    "imap(items, ordered=False)": (
        "imap_unordered", "uimap", "umap", "map_unordered", "as_completed", "unordered", "istarmap_unordered",
    ),
    "istarmap(items)": ("starimap", "imap_star", "star_imap", "istar_map"),
    "starmap(items)": ("star_map", "map_star", "smap"),
    "map(items)": (
        "apply", "pmap", "parallel_map", "parallel_apply", "progress_apply", "map_parallel", "pool_map", "applymap",
        "for_each", "foreach",
    ),
    "imap(items), which yields results as they come, or await f.amap(items)": (
        "submit", "map_async", "apply_async", "starmap_async", "map_reduce", "async_map", "gather",
    ),
    "imap(items)": ("stream", "iter", "lazy_map", "map_iter", "imap_lazy"),
    "with_options(n_jobs=2)": ("options", "set_options", "set_params", "configure", "override"),
    "explain()": ("why", "report", "summary", "describe", "explain_plan"),
}  # fmt: skip
_METHOD_MEANT: Final[Mapping[str, str]] = {word: way for way, guesses in _METHODS.items() for word in guesses}
_OF_FUNCTIONS: Final = ("aimap", "amap", "imap", "istarmap", "starmap", "with_options")
_OF_THE_LATEST: Final = {"explain": "explain()", "last_plan": "last_plan", "profile": "profile"}
_OF_PLANS: Final = (
    "n_jobs", "batch_size", "chunksize", "backend", "reason", "speedup", "predicted_s", "actual_s", "plot",
    "plot_timeline", "to_dict",
)  # fmt: skip
_OF_THE_MODULE: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("Pool", "ThreadPool", "Executor", "ProcessPoolExecutor", "ThreadPoolExecutor", "Parallel", "WorkerPool"),
        "map(f, items)",
    ),
    **dict.fromkeys(("delayed", "parallelize", "decorate", "optimize", "task", "remote"), "parallel(f).map(items)"),
    **dict.fromkeys(("set_defaults", "config", "settings", "options"), "configure(n_jobs=2)"),
    **dict.fromkeys(("close", "terminate", "stop"), "shutdown()"),
    **dict.fromkeys(("cpu_count", "n_cpus"), "host().n_cpus"),
}


def method_meant_by(name: str) -> str | None:
    """Return what to call instead of a method that a decorated function does not have, None where nothing is known."""
    meant = f"last_plan.{name}" if name in _OF_PLANS else _METHOD_MEANT.get(name)
    return None if meant is None else f"f.{meant}"


def meant_of_module(name: str) -> str | None:
    """Return what to call instead of a name that the module does not have, None where nothing is known."""
    if name in _OF_THE_LATEST:
        return f"f = amorsize.parallel(function); f.map(items); f.{_OF_THE_LATEST[name]}"
    if name in _OF_FUNCTIONS:
        return f"amorsize.parallel(f).{name}"
    meant = _OF_THE_MODULE.get(name)
    if meant is None and name in _METHOD_MEANT:
        meant = f"parallel(f).{_METHOD_MEANT[name]}"
    return None if meant is None else f"amorsize.{meant}"


def is_import(frame: FrameType) -> bool:
    """Tell whether a frame is at the instruction of ``from module import name`` that takes a name from the module."""
    at = frame.f_lasti
    return at >= 0 and frame.f_code.co_code[at] == dis.opmap["IMPORT_FROM"]


# -- items -------------------------------------------------------------------------------------------------------------


def way_out(func: Callable[..., Any], item: Any, *, star: bool, kwargs: Mapping[str, Any] | None) -> str:
    """
    Return what to do where *func* cannot take *item* in the way it was given; "" where it can, or nothing helps.

    With *star* the item was unpacked into arguments; *kwargs* were given with every item.
    """
    kind = type(item)  # and not isinstance: an item may answer that with code of its own
    if kind is tuple and not star and len(item) == 2 and _is_series(item[1]):
        return (
            "df.iterrows() yields pairs of a label and a row; did you mean map(row for _, row in df.iterrows()), or "
            "starmap, which gives both as arguments? (df.itertuples(index=False) is faster)"
        )
    if star:
        is_many = hasattr(kind, "__iter__") or hasattr(kind, "__getitem__")
        return "" if is_many else "starmap unpacks each item into arguments; map gives it as it is"
    try:
        # Its own: what it calls in turn may have refused the call, not the function that was mapped.
        signature = inspect.signature(func, follow_wrapped=False)
    except Exception:  # noqa: BLE001 - builtins without one, and objects that raise anything when asked
        return ""
    return _fitting(func, signature, item, kwargs or {})


def _fitting(func: Any, signature: inspect.Signature, item: Any, given: Mapping[str, Any]) -> str:
    """Return how to give a function what its signature asks for; "" where the item fits, or nothing helps."""
    kind = type(item)
    if _takes(signature, (item,), given):
        return ""
    if _is_method(func):
        owner, _, name = func.__qualname__.rpartition(".")
        return f"{name} is a method of an object: map it as one, as in {owner}(...).{name}.map(items)"
    if _takes(signature, (), given):
        return "map gives each item as an argument, and the function takes none"
    is_row = kind.__module__ == "numpy" and kind.__name__ == "ndarray" and getattr(item, "ndim", 0) == 1
    if (kind in {tuple, list} or is_row) and _takes(signature, tuple(item), given):
        return "map gives each item as one argument; did you mean starmap, which unpacks it? (istarmap for a stream)"
    missing = _missing(signature, item, given)
    if not missing:
        return ""
    return (
        f"map gives one argument per iterable, and the function needs {' and '.join(missing)} as well: the same value "
        f"for every item goes into kwargs={{{missing[0]!r}: ...}}, a value for each item into a further iterable"
    )


def instead_of_items(value: Any, position: int, others: tuple[Any, ...]) -> str:
    """Return what to give instead of a *value* without items, the *position*-th of *others*; "" if nothing helps."""
    kind = type(value)
    if position > 0:
        return "a value that is the same for every item goes into kwargs={'name': ...}"
    if callable(value):
        alone = "the items alone are given here; did you mean amorsize.map(function, items)?"
        return alone if len(others) > 1 else "did you mean to call it?"
    if value is None:
        return "a function without a return gives None: look at what makes the items"
    if kind is int and len(others) == 1 and value > 0:
        return f"did you mean range({value})?"
    if hasattr(kind, "__aiter__"):
        return "items that come asynchronously are collected first: [item async for item in ...]"
    return "several items are given as one list" if len(others) > 1 else ""


def instead_of_function(value: Any, items: tuple[Any, ...], caller: str) -> str:
    """Return what is wrong with a *value* that a *caller* of the package was given, before *items*, for a function."""
    message = f"the first argument of amorsize.{caller} must be the function, not {type(value).__name__}: {value!r}"
    if type(value) is str:
        return f"{message}; give the function itself, not its name"
    if not items or not callable(items[0]):
        return message
    return f"{message}; did you mean amorsize.{caller}({getattr(items[0], '__name__', 'function')}, items)?"


def instead_of_decorated(value: Any) -> str:
    """Return what was meant by decorating a *value* that cannot be called; "" where nothing helps."""
    if type(value) is int:
        return f"options are given by name: @amorsize.parallel(n_jobs={value})"
    if type(value) is str and value in _OPTION_OF:
        return f"options are given by name: @amorsize.parallel({_OPTION_OF[value]}={value!r})"
    if hasattr(type(value), "__iter__") and not isinstance(value, str | bytes):
        return "items are given to f.map(items), or to amorsize.map(function, items)"
    return ""


def _is_method(func: Any) -> bool:
    """Tell whether a function is a method, asked of its class: the item would be taken for the object."""
    names = getattr(getattr(func, "__code__", None), "co_varnames", ())
    is_plain = type(func).__name__ == "function" and "." in func.__qualname__
    return is_plain and not func.__qualname__.rpartition(".")[0].endswith("<locals>") and names[:1] == ("self",)


def _is_series(value: Any) -> bool:
    """Tell whether a value is a row or a column of a data frame of pandas."""
    return type(value).__name__ == "Series" and type(value).__module__.partition(".")[0] == "pandas"


def _takes(signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Tell whether arguments fit a signature."""
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _missing(signature: inspect.Signature, item: Any, kwargs: Mapping[str, Any]) -> list[str]:
    """Return the names of arguments that have no value yet, none where what is given does not fit anyhow."""
    try:
        bound = signature.bind_partial(item, **kwargs).arguments
    except TypeError:
        return []
    named = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    parameters = signature.parameters.values()
    return [p.name for p in parameters if p.kind in named and p.default is p.empty and p.name not in bound]
