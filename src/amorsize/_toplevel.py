"""The functions of the package that need no decorator: ``map``, ``plan``, ``host`` and ``configure``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Unpack, cast, overload

from amorsize import _arguments, _gate, _host, _options, _record, _wrapper
from amorsize._decorator import ParallelFunction, decorate
from amorsize._options import Given, MapOptions, Options, OtherOptions, Raising, Returning
from amorsize._plans import Plan
from amorsize._records import LOKY, Host
from amorsize._wrapper import A, B, C, R
from amorsize._wrong_call import instead_of_function


@overload
def map_(func: ParallelFunction[..., Any, A], /, *iterables: Iterable[Any], **options: Unpack[Given]) -> list[A]: ...
@overload
def map_(func: Callable[[A], R], items: Iterable[A], /, **options: Unpack[OtherOptions]) -> list[R]: ...
@overload
def map_(
    func: Callable[[A, B], R], first: Iterable[A], second: Iterable[B], /, **options: Unpack[OtherOptions]
) -> list[R]: ...
@overload
def map_(
    func: Callable[[A, B, C], R],
    first: Iterable[A],
    second: Iterable[B],
    third: Iterable[C],
    /,
    **options: Unpack[OtherOptions],
) -> list[R]: ...
@overload
def map_(func: Callable[..., R], /, *iterables: Iterable[Any], **options: Unpack[Returning]) -> list[R | Exception]: ...
@overload
def map_(func: Callable[..., R], /, *iterables: Iterable[Any], **options: Unpack[Raising]) -> list[R]: ...
@overload
def map_(
    func: Callable[..., R], /, *iterables: Iterable[Any], kwargs: Mapping[str, Any], **options: Unpack[OtherOptions]
) -> list[R]: ...
def map_(func: Any, /, *iterables: Iterable[Any], kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
    """
    Apply a function to every item, in parallel where that pays, without decorating it.

    What is learned of a function that can be imported is remembered for the next call, as for a decorated one.
    Decorate the function to ask for its plan afterwards.

    Args:
        func: The function of one item, decorated or not.
        iterables: The items; several iterables are zipped up to the end of the shortest, as by the builtin ``map``.
        kwargs: Keyword arguments of the function that are the same for every item.
        options: As for :func:`parallel`.

    Returns:
        The results, in the order of the items.

    Raises:
        TypeError: As :func:`parallel` and :meth:`ParallelFunction.map`.
        ValueError: As :func:`parallel`.
        Exception: The function's own, of the failing item with the lowest index, with a note that names the item.
    """
    # Not through its method, so that a traceback shows one frame of amorsize.
    return _decorated(func, iterables, "map")._self_run(iterables, kwargs, options)  # noqa: SLF001 - see above


def plan(
    func: Callable[..., Any],
    /,
    *iterables: Iterable[Any],
    kwargs: Mapping[str, Any] | None = None,
    star: bool = False,
    **options: Unpack[MapOptions],
) -> Plan:
    """
    Recommend ``n_jobs`` and ``batch_size`` for mapping *func* over items, without running more than a sample.

    Args:
        func: The function of one item, decorated or not.
        iterables: The items, as for :func:`map`. For a one-shot iterator ``Plan.data`` yields every item, the sampled
            ones included.
        kwargs: As for :func:`map`.
        star: Whether each item is unpacked into arguments.
        options: As for :func:`parallel`.

    Returns:
        The plan; ``plan.n_jobs``, ``plan.chunksize`` and ``plan.explain()``.

    Raises:
        TypeError: As :func:`parallel`, or if an argument is not iterable.
        ValueError: As :func:`parallel`.
        Exception: The function's own, if it fails on a sampled item, with a note that names the item.
    """
    return cast("Plan", _decorated(func, iterables, "plan")._self_plan(iterables, kwargs, options, star=star))  # noqa: SLF001 - as in map_


# Functions that were mapped without being decorated, by module and name: only those that live as long as the program.
_mapped: dict[tuple[str, str], ParallelFunction[..., Any, Any]] = {}


def _decorated(func: Any, items: tuple[Any, ...], caller: str) -> Any:
    """Return a function that a *caller* was given before *items* decorated, with what is remembered of it."""
    if isinstance(func, ParallelFunction):
        return func
    if not callable(_arguments.callable_of(func)):
        raise TypeError(instead_of_function(func, items, caller))
    module, qualname = getattr(func, "__module__", None), getattr(func, "__qualname__", None)
    if not (isinstance(module, str) and isinstance(qualname, str)) or _wrapper.find(module, qualname) is not func:
        return decorate(func, options=Options())
    found = _mapped.get((module, qualname))
    if found is None or found.__wrapped__ is not func:
        found = _mapped[module, qualname] = decorate(func, options=Options())
    return found


def host() -> Host:
    """Read this machine as this process may use it now: CPUs, memory, and what workers cost here."""
    _host.forget_snapshot()
    return _gate.current_host(len, start_method=LOKY)[0]  # so that all ways are looked at


def configure(
    *, cache_dir: str | os.PathLike[str] | Literal[False] | None = False, **options: Unpack[MapOptions]
) -> None:
    """
    Set defaults of the program: for every call that is not told otherwise by itself, its decorator or a joblib context.

    What is not named stays as it is. Nothing is kept beyond the process unless *cache_dir* or the environment variable
    ``AMORSIZE_CACHE_DIR`` says where; this call takes precedence over that variable.

    Args:
        cache_dir: A folder in which profiles and measured costs outlive the process, made if it does not exist and
            readable by its owner only; None turns that off. Left out, it stays as it is.
        options: Any option of :func:`parallel`.

    Raises:
        TypeError: If *cache_dir* is no path, or an option is unknown or of the wrong type.
        ValueError: If an option is out of range.
    """
    _options.configure(options)
    if cache_dir is not False:
        _record.opened_store().configure(cache_dir=cache_dir)


map_.__name__ = map_.__qualname__ = "map"
_arguments.show_options(map_, plan, configure)
