"""
``@amorsize.parallel``: the decorator, its options, and how it behaves as a descriptor and a pickle.

The only room that knows wrapt. Composes nothing and measures nothing: a call goes to :mod:`amorsize._call`.
"""

from __future__ import annotations

import copy
import functools
import gc
import importlib
import inspect
import os
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, cast, overload

import wrapt

from amorsize import _call, _function, _here, _host, _profile, _record, _source
from amorsize._types import Host, Limits, Plan, Profile

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

_LIMITS = frozenset(f.name for f in fields(Limits))
_OPTIONS = _LIMITS | {"progress", "initializer", "initargs"}


if TYPE_CHECKING:

    class _Proxy:
        """What is seen of wrapt's proxy. Annotations stay out of the class below: they would hide the function's."""

        __wrapped__: Any
        __name__: str
        __qualname__: str
else:
    _Proxy = wrapt.CallableObjectProxy


class ParallelFunction(_Proxy, Generic[P, R]):
    """
    A function that can also be mapped over data.

    ``f(...)`` is the plain call, unchanged. Everything else about the function (name, docstring, signature) is kept.
    Made by :func:`parallel`; works on functions, methods, static and class methods, partials and callable objects.
    """

    __slots__ = ("_self_options", "_self_owner", "_self_state")

    def __init__(self, wrapped: Any, options: _record.Options, state: _record.State | None = None) -> None:
        cast("Any", super()).__init__(wrapped)
        self._self_options = options
        self._self_state = state or _record.State(_callable(wrapped))
        self._self_owner: type | None = None

    if TYPE_CHECKING:
        # At run time the call is the proxy's own, in C.
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """Call the function."""
            raise NotImplementedError

    # -- what users call ---------------------------------------------------------------------------------------------

    def map(self, *iterables: Iterable[Any], kwargs: Mapping[str, Any] | None = None) -> list[R]:
        """
        Apply the function to every item; equal to ``[f(x) for x in items]``, computed in parallel where that pays.

        Args:
            iterables: The items; several iterables are zipped, the shortest ends, as in the builtin ``map``. An endless
                iterator never ends; use :meth:`imap`.
            kwargs: Keyword arguments that are the same for every item.

        Returns:
            The results, in the order of the items. With ``errors="return"`` an exception stands at its item's
            place, with ``errors="skip"`` failed items are left out.

        Raises:
            TypeError: If an argument is not iterable, or *kwargs* is no mapping with string keys.
            Exception: The function's own, of the lowest failing index, with a note that names the item.
            WorkerDied: If a worker process was killed and ``retries`` did not help.
        """
        return cast("list[R]", self._self_run(iterables, kwargs, star=False))

    def starmap(self, iterable: Iterable[Iterable[Any]], *, kwargs: Mapping[str, Any] | None = None) -> list[R]:
        """
        Like :meth:`map`, with each item unpacked: ``[f(*item) for item in iterable]``.

        Args:
            iterable: The argument tuples.
            kwargs: Keyword arguments that are the same for every item.

        Returns:
            The results, in order.

        Raises:
            TypeError: As :meth:`map`.
            Exception: As :meth:`map`.
        """
        return cast("list[R]", self._self_run((iterable,), kwargs, star=True))

    def imap(
        self,
        *iterables: Iterable[Any],
        kwargs: Mapping[str, Any] | None = None,
        ordered: bool = True,
        buffersize: int | None = None,
    ) -> Iterator[R]:
        """
        Apply the function to every item, lazily: an iterator over results with bounded look-ahead.

        Args:
            iterables: The items, read in the caller's thread only, never more than *buffersize* ahead of
                what has been yielded; endless ones work.
            kwargs: Keyword arguments that are the same for every item.
            ordered: Yield in the order of the items; otherwise as they complete.
            buffersize: Items read ahead at most; by default enough to keep the workers busy: some 8 MB, more only for
                items that are large and quick.

        Returns:
            An iterator; closing or dropping it stops the work.

        Raises:
            TypeError: As :meth:`map`.
            ValueError: If *buffersize* is below 1.
        """
        from amorsize._stream import Stream  # noqa: PLC0415 - only streams need it

        func, options, state = self._self_call_parts(iterables)
        if buffersize is not None:
            _whole("buffersize", buffersize, 1, "items to read ahead; leave it out to have it chosen")
        source = _source.Source(iterables, star=False)
        stream = Stream(func, state, options, source, _checked_kwargs(kwargs), ordered=ordered, buffersize=buffersize)
        return cast("Iterator[R]", stream)

    def plan(self, *iterables: Iterable[Any], kwargs: Mapping[str, Any] | None = None) -> Plan:
        """
        Dry run: sample the first items, decide, and run nothing else.

        ``last_plan`` is left alone. For a one-shot iterator, ``plan.data`` yields every item, the sampled
        ones included.

        Args:
            iterables: As for :meth:`map`.
            kwargs: As for :meth:`map`.

        Returns:
            The plan for all items.

        Raises:
            TypeError: As :meth:`map`.
            Exception: The function's own, if it fails on a sampled item, with a note that names the item.
        """
        func, options, _ = self._self_call_parts(iterables)
        source = _source.Source(iterables, star=False)
        from amorsize._dry import dry_run  # noqa: PLC0415 - only dry runs need it

        return dry_run(func, self._self_state, options, source, _checked_kwargs(kwargs))

    @overload
    def with_options(self, *, errors: Literal["return"], **options: Any) -> ReturningFunction[P, R]: ...
    @overload
    def with_options(self, **options: Any) -> ParallelFunction[P, R]: ...
    def with_options(self, **options: Any) -> ParallelFunction[P, R]:
        """
        Return the same function with other options; profile, workers and ``last_plan`` are shared.

        Args:
            options: Any option of :func:`parallel`; those not named stay.

        Raises:
            TypeError: For an option that does not exist or a value of the wrong type.
            ValueError: For a value out of range.
        """
        changed = make_options(options, self._self_options)
        return type(self)(self.__wrapped__, changed, self._self_state)

    @property
    def last_plan(self) -> Plan | None:
        """The :class:`Plan` of the latest call in this process, None before the first."""
        record = self._self_state.last
        return None if record is None else record.build()

    @property
    def profile(self) -> Profile | None:
        """The remembered :class:`Profile` of this function, or None."""
        known = _profile.CACHE.get(self._self_state.key)
        return None if known is None else known.profile

    # -- the call ----------------------------------------------------------------------------------------------------

    def _self_call_parts(self, iterables: tuple[Any, ...]) -> tuple[Callable[..., Any], _record.Options, _record.State]:
        if not iterables:
            raise TypeError(f"{_name(self)} needs at least one iterable of items")
        func: Any = self.__wrapped__
        if self._self_owner is None and not self._self_state.is_checked:
            _refuse_outer_descriptor(self)
            self._self_state.is_checked = True
        return _callable(func), self._self_options, self._self_state

    def _self_run(self, iterables: tuple[Any, ...], kwargs: Mapping[str, Any] | None, *, star: bool) -> list[Any]:
        func, options, state = self._self_call_parts(iterables)
        if options.is_plain and len(iterables) == 1 and kwargs is None and not star:
            results = _call.quick_map(func, state, options, iterables[0])
            if results is not None:
                return results
        source = _source.Source(iterables, star=star)
        checked = None if kwargs is None else _checked_kwargs(kwargs)
        call = _call.Call(func, state, options, source, checked)
        if options.progress:
            from amorsize._progress import following  # noqa: PLC0415 - only progress needs it

            with following(call, options.progress, _name(self)):
                return call.run()
        return call.run()

    # -- being a descriptor ------------------------------------------------------------------------------------------

    def __set_name__(self, owner: type, name: str) -> None:
        self._self_owner = owner

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> ParallelFunction[P, R]: ...
    @overload
    def __get__(
        self: ParallelFunction[Concatenate[Any, Q], R], instance: object, owner: type | None = None
    ) -> ParallelFunction[Q, R]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is not None and instance is owner:
            raise TypeError(_WRONG_ORDER.format(_name(self), "@classmethod"))
        wrapped = self.__wrapped__
        get = getattr(type(wrapped), "__get__", None)
        if get is None:
            return self
        bound = get(wrapped, instance, owner)
        if bound is wrapped:
            return self
        return BoundParallelFunction(bound, self)

    @property  # type: ignore[misc]  # object's can be set
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The wrapped function's class, as a proxy says; its own to cloudpickle, which would take it for a function."""
        asker = sys._getframe(1).f_code.co_filename  # noqa: SLF001 - the pickler does not say who it is
        return type(self) if "cloudpickle" in asker else type(self.__wrapped__)

    # -- copies and pickles ------------------------------------------------------------------------------------------

    def _amorsize_unwrap(self) -> Any:
        return self.__wrapped__

    def __copy__(self) -> ParallelFunction[P, R]:
        return type(self)(self.__wrapped__, self._self_options, self._self_state)

    def __deepcopy__(self, memo: dict[int, Any]) -> ParallelFunction[P, R]:
        wrapped = copy.deepcopy(self.__wrapped__, memo)
        state = self._self_state if wrapped is self.__wrapped__ else None
        return type(self)(wrapped, self._self_options, state)

    def __reduce__(self) -> Any:
        return self.__reduce_ex__(2)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """By name where that name leads back to this very function, else with the function inside."""
        wrapped = _callable(self.__wrapped__)
        module, qualname = getattr(wrapped, "__module__", None), getattr(wrapped, "__qualname__", None)
        found = _find(module, qualname) if module and qualname else None
        if found is not None and _same(found, self) and (module != "__main__" or not _by_value()):
            if found._self_options == self._self_options:  # noqa: SLF001 - its own kind
                return _by_name, (module, qualname)
            return _with_options, (module, qualname, self._self_options)
        return _rebuild, (type(self), self.__wrapped__, self._self_options)

    def __dir__(self) -> list[str]:
        """The wrapped function's names and those added here: what shells and notebooks complete."""
        return sorted({*dir(self.__wrapped__), *_ADDED})

    def __repr__(self) -> str:
        return f"<amorsize.parallel {self.__wrapped__!r}>"


class BoundParallelFunction(ParallelFunction[P, R]):
    """A decorated function bound to an instance or a class; shares profile, options and ``last_plan`` with it."""

    __slots__ = ("_self_parent",)

    def __init__(self, wrapped: Any, parent: ParallelFunction[..., Any], state: Any = None) -> None:
        del state
        super().__init__(wrapped, parent._self_options, parent._self_state)  # noqa: SLF001 - its own kind
        self._self_parent = parent
        self._self_owner = type

    def with_options(self, **options: Any) -> Any:
        """Return the same bound function with other options."""
        return BoundParallelFunction(self.__wrapped__, self._self_parent.with_options(**options))

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self

    def __copy__(self) -> ParallelFunction[P, R]:
        return BoundParallelFunction(self.__wrapped__, self._self_parent)

    def __deepcopy__(self, memo: dict[int, Any]) -> ParallelFunction[P, R]:
        return BoundParallelFunction(copy.deepcopy(self.__wrapped__, memo), self._self_parent)

    def __reduce_ex__(self, protocol: Any) -> Any:
        wrapped = self.__wrapped__
        if isinstance(wrapped, types.MethodType):
            return getattr, (wrapped.__self__, wrapped.__name__)
        return self._self_parent.__reduce_ex__(protocol)


if TYPE_CHECKING:

    class ReturningFunction(ParallelFunction[P, R]):
        """What ``errors="return"`` makes of the results, to type checkers; at run time a :class:`ParallelFunction`."""

        def map(  # type: ignore[override]  # a list of more
            self, *iterables: Iterable[Any], kwargs: Mapping[str, Any] | None = None
        ) -> list[R | Exception]:
            """See :meth:`ParallelFunction.map`."""
            raise NotImplementedError

        def starmap(  # type: ignore[override]  # a list of more
            self, iterable: Iterable[Iterable[Any]], *, kwargs: Mapping[str, Any] | None = None
        ) -> list[R | Exception]:
            """See :meth:`ParallelFunction.starmap`."""
            raise NotImplementedError

        def imap(  # type: ignore[override]  # an iterator of more
            self,
            *iterables: Iterable[Any],
            kwargs: Mapping[str, Any] | None = None,
            ordered: bool = True,
            buffersize: int | None = None,
        ) -> Iterator[R | Exception]:
            """See :meth:`ParallelFunction.imap`."""
            raise NotImplementedError


_ADDED = frozenset(name for name in vars(ParallelFunction) if not name.startswith("_"))

_WRONG_ORDER = (
    "{0}: @amorsize.parallel must be outermost; write it above {1}, not below it, "
    "so that the map knows the class it belongs to"
)


def _refuse_outer_descriptor(function: ParallelFunction[..., Any]) -> None:
    """Refuse ``@classmethod`` or ``@staticmethod`` over the decorator, which hide it from its class."""
    qualname = str(getattr(function.__wrapped__, "__qualname__", ""))
    parent = qualname.rpartition(".")[0]
    if not parent or parent.endswith("<locals>") or not isinstance(function.__wrapped__, types.FunctionType):
        return
    for holder in gc.get_referrers(function):
        if type(holder) in {classmethod, staticmethod}:
            raise TypeError(_WRONG_ORDER.format(_name(function), f"@{type(holder).__name__}"))


def _callable(wrapped: Any) -> Any:
    """Return the function under a static or class method."""
    return wrapped.__func__ if isinstance(wrapped, staticmethod | classmethod) else wrapped


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", None) or getattr(function, "__name__", None) or "the function")


def _find(module: str, qualname: str) -> Any:
    """Look up a name without triggering descriptors."""
    value: Any = sys.modules.get(module)
    for part in qualname.split("."):
        if value is None or part == "<locals>":
            return None
        value = vars(value).get(part) if hasattr(value, "__dict__") else None
    return value


def _same(found: Any, function: Any) -> bool:
    if found is None:
        return False
    if found is function:
        return True
    return type(found) is type(function) and found.__wrapped__ is function.__wrapped__


def _by_value() -> bool:
    """Tell whether cloudpickle is at work: to it, functions of ``__main__`` are values, not names."""
    frame: types.FrameType | None = sys._getframe(1)  # noqa: SLF001 - the pickler does not say who it is
    while frame is not None:
        if "cloudpickle" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def _by_name(module: str, qualname: str) -> Any:
    """Find a decorated function again in another process."""
    importlib.import_module(module)
    found = _find(module, qualname)
    if not isinstance(found, ParallelFunction):
        message = f"{module}.{qualname} is not a function decorated with @amorsize.parallel here"
        raise AttributeError(message)  # noqa: TRY004 - what pickle raises where a name is not found
    return found


def _with_options(module: str, qualname: str, options: _record.Options) -> Any:
    found = _by_name(module, qualname)
    return type(found)(found.__wrapped__, options, found._self_state)  # noqa: SLF001 - its own kind


def _rebuild(kind: type[ParallelFunction[..., Any]], wrapped: Any, options: _record.Options) -> Any:
    return kind(wrapped, options)


# -- options ---------------------------------------------------------------------------------------------------------


def _whole(name: str, value: Any, at_least: int, meaning: str) -> None:
    """Refuse what is not a whole number in range, naming the value and the way out."""
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        raise TypeError(f"{name} must be a whole number, not {value!r}; {meaning}")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, not {value!r}; {meaning}")


def _choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        words = ", ".join(map(repr, allowed))
        raise ValueError(f"{name} must be one of {words} or left out, not {value!r}")


def _check(options: dict[str, Any]) -> None:
    """Refuse unknown options and bad values."""
    for name in options:
        if name not in _OPTIONS:
            words = ", ".join(sorted(_OPTIONS))
            hint = " (joblib and amorsize say batch_size)" if name == "chunksize" else ""
            raise TypeError(f"unknown option {name!r}{hint}; the options are {words}")
    for name, value in options.items():
        if value is not None or name in _NEVER_NONE:
            _CHECKS[name](name, value)


def _check_n_jobs(name: str, value: Any) -> None:
    _whole(name, value, -(10**6), "None lets amorsize decide, -1 is all CPUs")
    if value == 0:
        raise ValueError("n_jobs must not be 0; None lets amorsize decide, 1 is serial, -1 is all CPUs")


# Seconds that every system's timers take: they count nanoseconds in 63 bits.
_MOST_TIMEOUT_S = 10**9


def _check_timeout(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be seconds or None, not {value!r}")
    if not value > 0:
        raise ValueError(f"{name} must be more than 0 seconds, not {value!r}; None is no limit")
    if value > _MOST_TIMEOUT_S:
        raise ValueError(f"{name} must be at most {_MOST_TIMEOUT_S} seconds, which is 30 years; None is no limit")


def _check_progress(name: str, value: Any) -> None:
    if not isinstance(value, bool) and not callable(value):
        raise TypeError(f"{name} must be True, False or a callable of (done, total, elapsed_s), not {value!r}")


def _check_initializer(name: str, value: Any) -> None:
    if not callable(value):
        raise TypeError(f"{name} must be callable or None, not {value!r}")


def _check_initargs(name: str, value: Any) -> None:
    if not isinstance(value, tuple | list):
        raise TypeError(f"{name} must be a tuple of arguments, not {value!r}")


def _at_least(least: int, meaning: str) -> Callable[[str, Any], None]:
    return lambda name, value: _whole(name, value, least, meaning)


def _one_of(*words: str) -> Callable[[str, Any], None]:
    return lambda name, value: _choice(name, value, words)


_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "n_jobs": _check_n_jobs,
    "batch_size": _at_least(1, "None lets amorsize decide"),
    "max_memory": _at_least(1, "bytes for all workers together"),
    "sample_size": _at_least(1, "items to time before deciding"),
    "retries": _at_least(0, "how often an item whose worker died may run again"),
    "prefer": _one_of("processes", "threads"),
    "start_method": _one_of("fork", "loky"),
    "errors": _one_of("raise", "return", "skip"),
    "timeout": _check_timeout,
    "progress": _check_progress,
    "initializer": _check_initializer,
    "initargs": _check_initargs,
}
_NEVER_NONE = frozenset({"sample_size", "retries", "errors", "progress", "initargs"})


def make_options(given: dict[str, Any], base: _record.Options | None = None) -> _record.Options:
    """
    Check options and put them over *base*.

    Raises:
        TypeError: For an option that does not exist or a value of the wrong type.
        ValueError: For a value out of range.
    """
    _check(given)
    base = base or _record.Options()
    limits = replace(base.limits, **{name: value for name, value in given.items() if name in _LIMITS})
    if limits.prefer == "threads" and limits.start_method is not None:
        raise ValueError(
            f"prefer='threads' and start_method={limits.start_method!r} exclude each other: threads are not started "
            "as processes; give one of them"
        )
    return _record.Options(
        limits=limits,
        progress=given.get("progress", base.progress),
        initializer=given.get("initializer", base.initializer),
        initargs=tuple(given.get("initargs", base.initargs)),
    )


def _checked_kwargs(kwargs: Any) -> dict[str, Any] | None:
    if kwargs is None:
        return None
    if not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs must be a mapping of keyword arguments such as {{'name': value}}, not {kwargs!r}")
    for key in kwargs:
        if not isinstance(key, str):
            raise TypeError(f"kwargs must have strings for keys, not {key!r}")
    return dict(kwargs) or None


def _check_function(func: Any) -> None:
    target = _callable(func)
    if isinstance(func, ParallelFunction):
        raise TypeError(f"{_name(func)} is decorated already; change its options with .with_options(...)")
    if not callable(target):
        raise TypeError(f"@amorsize.parallel decorates a callable, not {type(func).__name__}: {func!r}")
    found, _ = _function.bare(target)
    flags = found.__code__.co_flags if found is not None and not inspect.isclass(target) else 0
    if flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
        raise TypeError(
            f"{_name(target)} is an async function; amorsize maps plain functions: "
            "decorate one that calls asyncio.run(...), or use asyncio.gather"
        )
    if flags & inspect.CO_GENERATOR:
        raise TypeError(
            f"{_name(target)} is a generator function, whose result cannot leave a worker; return list(...) instead"
        )


@overload
def parallel(func: Callable[P, R], /) -> ParallelFunction[P, R]: ...
@overload
def parallel(
    func: None = None,
    /,
    *,
    errors: Literal["return"],
    n_jobs: int | None = None,
    batch_size: int | None = None,
    prefer: Literal["processes", "threads"] | None = None,
    sample_size: int = 5,
    max_memory: int | None = None,
    progress: bool | Callable[[int, int | None, float], object] = False,
    start_method: Literal["fork", "loky"] | None = None,
    retries: int = 0,
    timeout: float | None = None,
    initializer: Callable[..., object] | None = None,
    initargs: tuple[Any, ...] = (),
) -> _ReturningDecorator: ...
@overload
def parallel(
    func: None = None,
    /,
    *,
    n_jobs: int | None = None,
    batch_size: int | None = None,
    prefer: Literal["processes", "threads"] | None = None,
    sample_size: int = 5,
    max_memory: int | None = None,
    errors: Literal["raise", "skip"] = "raise",
    progress: bool | Callable[[int, int | None, float], object] = False,
    start_method: Literal["fork", "loky"] | None = None,
    retries: int = 0,
    timeout: float | None = None,
    initializer: Callable[..., object] | None = None,
    initargs: tuple[Any, ...] = (),
) -> _Decorator: ...
@overload
def parallel(func: Callable[P, R], /, **options: Any) -> ParallelFunction[P, R]: ...
def parallel(func: Any = None, /, **options: Any) -> Any:
    """
    Give a function ``.map``, ``.starmap``, ``.imap`` and ``.plan``, which run in parallel where that pays.

    Bare (``@parallel``) or called (``@parallel(n_jobs=2)``); outermost over ``@staticmethod`` and ``@classmethod``.
    For every option None means "decide".

    Args:
        func: The function of one item.
        options: Those below.
        n_jobs: Processes (or threads) computing at once, exactly, in joblib's meaning: -1 is all CPUs, 1 is serial.
        batch_size: Items per chunk, exactly.
        prefer: ``"threads"`` for a function that is thread-safe and waits or releases the GIL; ``"processes"``.
        sample_size: Items timed one by one before deciding.
        max_memory: Bytes that all workers together may use.
        errors: ``"raise"`` the exception of the lowest failing item, ``"return"`` exceptions in place of results,
            or ``"skip"`` failed items.
        progress: True for a progress bar (extra ``amorsize[progress]``), or a callable that gets
            ``(done, total, elapsed_s)`` at most ten times a second and once at the end.
        start_method: ``"fork"`` or ``"loky"`` fixes how local workers start.
        retries: How often an item whose worker died may run again; keeps all items out of the calling process.
        timeout: Seconds one item may take; keeps all items out of the calling process. No effect with threads.
        initializer: Called once in each worker, and in the calling process before items run there.
        initargs: Its arguments.

    Returns:
        The decorated function, or a decorator where *func* is left out.

    Raises:
        TypeError: If *func* is not callable, is an ``async def`` or a generator function, or an option is unknown or
            of the wrong type.
        ValueError: If an option is out of range.
    """
    chosen = make_options(options)
    if func is None:
        return functools.partial(_decorate, options=chosen)
    return _decorate(func, options=chosen)


def _decorate(func: Any, /, *, options: _record.Options) -> Any:
    _check_function(func)
    return ParallelFunction(func, options)


class _Decorator:
    """What ``parallel(...)`` without a function returns, to type checkers."""

    def __call__(self, func: Callable[P, R], /) -> ParallelFunction[P, R]:
        raise NotImplementedError


class _ReturningDecorator:
    """The same with ``errors="return"``: results may be exceptions."""

    def __call__(self, func: Callable[P, R], /) -> ReturningFunction[P, R]:
        raise NotImplementedError


# -- functions of the module -----------------------------------------------------------------------------------------


def plan(func: Callable[..., Any], data: Iterable[Any], **options: Any) -> Plan:
    """
    Recommend ``n_jobs`` and ``batch_size`` for mapping *func* over *data*, without running more than a sample.

    Args:
        func: The function of one item, decorated or not.
        data: The items. For a one-shot iterator ``Plan.data`` yields every item, the sampled ones included.
        options: As for :func:`parallel`.

    Returns:
        The plan; ``plan.n_jobs``, ``plan.chunksize`` and ``plan.explain()``.

    Raises:
        TypeError: As :func:`parallel`, or if *data* is not iterable.
        ValueError: As :func:`parallel`.
        Exception: The function's own, if it fails on a sampled item, with a note that names the item.
    """
    decorated = func if isinstance(func, ParallelFunction) else cast("Any", parallel)(func)
    if options:
        decorated = decorated.with_options(**options)
    return cast("Plan", decorated.plan(data))


def host() -> Host:
    """Read this machine as this process may use it now: CPUs, memory, and what workers cost here."""
    _host.forget_snapshot()
    return _here.current_host(len)[0]


def configure(*, cache_dir: str | os.PathLike[str] | None) -> None:
    """
    Keep profiles and measured costs in a folder, so that the next process starts with them.

    Off by default. The environment variable ``AMORSIZE_CACHE_DIR`` does the same; this call goes before it.

    Args:
        cache_dir: The folder, made if it does not exist and readable by its owner only; None turns it off.

    Raises:
        TypeError: If *cache_dir* is no path.
    """
    from amorsize import _store  # noqa: PLC0415 - most programs keep nothing

    _store.configure(cache_dir=cache_dir)
