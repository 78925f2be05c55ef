"""
A decorated function as an object: the proxy of the function inside, its copies and pickles, and from there to a call.

The only room that knows wrapt.
"""

from __future__ import annotations

import copy
import functools
import importlib
import sys
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, cast

import wrapt

from amorsize import _arguments, _backend, _call, _checks, _options, _record, _trace
from amorsize._dry import dry_run
from amorsize._options import Options
from amorsize._outside import suppressed
from amorsize._progress import following
from amorsize._quick import quick_map
from amorsize._request import Request
from amorsize._source import Source
from amorsize._stream import stream
from amorsize._wrong_call import method_meant_by

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from amorsize._plans import Plan
    from amorsize._stream import Stream
    from amorsize._turns import Halt
else:
    from typing import TypeVar

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")

if TYPE_CHECKING:
    # What a map has for results: those of the function, and exceptions among them with errors="return".
    M = TypeVar("M", default=R)

    class _Proxy(Generic[P, R, M]):
        """What is seen of wrapt's proxy. Annotations stay out of the class below: they would hide the function's."""

        __wrapped__: Any
        __name__: str
        __qualname__: str
else:
    M = TypeVar("M")

    class _Proxy(wrapt.CallableObjectProxy):
        __slots__ = ()

        def __getattr__(self, name: str) -> Any:
            """Return what the function has; where it has nothing of that name, the error says what was meant."""
            try:
                return super().__getattr__(name)
            except AttributeError as error:
                # Protocols ask for private names: pickle, copy, notebooks. And an attribute that is there may fail.
                wrapped = self.__wrapped__
                asked = wrapped.__func__ if type(wrapped) is types.MethodType else wrapped
                if name.startswith("_") or error.name != name or error.obj is not asked:
                    raise

                meant = method_meant_by(name)
                if meant is None:
                    error.obj = self  # Python guesses from the names that this has: there are more of them
                    raise
                # With its name alone: Python would add a guess of its own to ours.
                raise AttributeError(f"{error}; did you mean {meant}?", name=name) from None

        # ParallelFunction[[int], str] in an annotation; Generic would insist on all three parameters.
        __class_getitem__ = classmethod(types.GenericAlias)


class Wrapper(_Proxy[P, R, M]):
    """A function with options and with what is remembered of it; whatever else is asked of it, the function answers."""

    __slots__ = ("_self_options", "_self_owner", "_self_state")

    def __init__(self, wrapped: Any, options: Options, state: _record.State | None = None) -> None:
        cast("Any", super()).__init__(wrapped)
        self._self_options = options
        self._self_state = state or _record.State(_arguments.callable_of(wrapped))
        self._self_owner: type | None = None

    if TYPE_CHECKING:
        # At run time the call is the proxy's own, in C.
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """Call the function."""
            raise NotImplementedError

    # -- from the function to a call ---------------------------------------------------------------------------------

    def _self_checked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        own = functools.partial(_arguments.names_of_arguments, self.__wrapped__)
        return _options.checked(given, own, _arguments.name_of(self))

    def _self_call_parts(
        self, iterables: tuple[Any, ...], given: Mapping[str, Any]
    ) -> tuple[Callable[..., Any], _record.State, Options]:
        """Return the function, what is remembered of it, and the options that hold for this call."""
        if not iterables:
            named = [f", by position and not as {name}=" for name in given if name not in _options.OPTIONS]
            raise TypeError(f"{_arguments.name_of(self)} needs at least one iterable of items{''.join(named[:1])}")
        state = self._self_state
        if self._self_owner is None and not state.is_checked:
            _arguments.refuse_outer_descriptor(self)
            state.is_checked = True
        options = self._self_options
        if given:
            options = options.with_(self._self_checked(given))
        if _options.has_defaults():
            options = options.over(_options.defaults(in_context=_in_context()))
        return _arguments.callable_of(self.__wrapped__), state, options

    def _self_source(self, iterables: tuple[Any, ...], *, star: bool) -> Source:
        _arguments.warn_of_frames(_arguments.name_of(self), iterables)
        return Source(iterables, star=star)

    def _self_run(
        self,
        iterables: tuple[Any, ...],
        kwargs: Mapping[str, Any] | None,
        given: Mapping[str, Any],
        *,
        star: bool = False,
        check: Halt | None = None,
    ) -> list[Any]:
        """Map; *check* is called now and then, and ends the map with what it raises."""
        try:
            func, state, options = self._self_call_parts(iterables, given)
            if check is None and options.is_plain and len(iterables) == 1 and kwargs is None and not star:
                results = quick_map(func, state, options, iterables[0])
                if results is not None:
                    return results
            source = self._self_source(iterables, star=star)
            checked = None if kwargs is None else _arguments.checked_kwargs(kwargs)
            request = Request(func, state, options, source, checked, check=check)
            if options.checkpoint is None:
                call = _call.Call(request)
                work = call.run
            else:
                from amorsize._checkpoint import resumed  # noqa: PLC0415 - 6 ms, with hashlib; only checkpoints need it

                left = resumed(request)
                call, work = left.call, left.run
            if options.progress is not False:
                with following(call.request, options.progress, _arguments.name_of(self)):
                    return work()
            return work()
        except BaseException as error:
            _trace.trim(error)
            raise

    def _self_stream(
        self,
        iterables: tuple[Any, ...],
        kwargs: Mapping[str, Any] | None,
        given: Mapping[str, Any],
        *,
        star: bool = False,
        buffersize: int | None,
        pairs: str | None,
        ordered: bool,
    ) -> Callable[[Halt | None], Stream[Any]]:
        """Return what makes a stream, given what it has to call now and then."""
        try:
            func, state, options = self._self_call_parts(iterables, given)
            _checks.stream(buffersize, pairs, ordered, options.checkpoint)
            source = self._self_source(iterables, star=star)
            checked = _arguments.checked_kwargs(kwargs)
        except BaseException as error:
            _trace.trim(error)
            raise

        def start(check: Halt | None) -> Stream[Any]:
            request = Request(func, state, options, source, checked, check=check)
            return stream(request, ordered=ordered, buffersize=buffersize, pairs=pairs)

        return start

    def _self_plan(
        self, iterables: tuple[Any, ...], kwargs: Mapping[str, Any] | None, given: Mapping[str, Any], *, star: bool
    ) -> Plan:
        """Decide, after a sample, and run nothing else."""
        try:
            func, state, options = self._self_call_parts(iterables, given)
            source = self._self_source(iterables, star=star)
            return dry_run(Request(func, state, options, source, _arguments.checked_kwargs(kwargs)))
        except BaseException as error:
            _trace.trim(error)
            raise

    # -- being an object ---------------------------------------------------------------------------------------------

    def __set_name__(self, owner: type, name: str) -> None:
        self._self_owner = owner

    @property  # type: ignore[misc]  # object's can be set
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The wrapped function's class, as a proxy says; its own to cloudpickle, which would take it for a function."""
        asker = sys._getframe(1).f_code.co_filename  # noqa: SLF001 - the pickler does not say who it is
        return type(self) if "cloudpickle" in asker else type(self.__wrapped__)

    def _amorsize_unwrap(self) -> Any:
        return self.__wrapped__

    def __copy__(self) -> Self:
        return type(self)(self.__wrapped__, self._self_options, self._self_state)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        wrapped = copy.deepcopy(self.__wrapped__, memo)
        state = self._self_state if wrapped is self.__wrapped__ else None
        return type(self)(wrapped, self._self_options, state)

    def __reduce__(self) -> Any:
        return self.__reduce_ex__(2)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return reduced(self)

    def __dir__(self) -> list[str]:
        """The wrapped function's names and those added here: what shells and notebooks complete."""
        added = {name for kind in type(self).__mro__ if issubclass(kind, Wrapper) for name in vars(kind)}
        return sorted({*dir(self.__wrapped__), *(name for name in added if not name.startswith("_"))})

    def __repr__(self) -> str:
        return f"<amorsize.parallel {self.__wrapped__!r}>"


def _in_context() -> bool:
    """Tell whether a joblib context says how many jobs of which kind there are."""
    with suppressed():  # there is one, and its cluster cannot be reached: the decision will tell
        return _backend.context() != (None, None, None)
    return True


# -- pickling ----------------------------------------------------------------------------------------------------------


def reduced(function: Any) -> tuple[Any, ...]:
    """Return what ``__reduce_ex__`` of a decorated function returns."""
    wrapped, options = _arguments.callable_of(function.__wrapped__), function._self_options  # noqa: SLF001 - of its decorator
    module, qualname = getattr(wrapped, "__module__", None), getattr(wrapped, "__qualname__", None)
    found = find(module, qualname) if module and qualname else None
    if found is not None and _is_same(found, function) and (module != "__main__" or not _by_value()):
        if found._self_options == options:  # noqa: SLF001 - as above
            return _by_name, (module, qualname)
        return _with_options, (module, qualname, options)
    return _rebuild, (type(function), function.__wrapped__, options)


def find(module: str, qualname: str) -> Any:
    """Look up a name without triggering descriptors; None where it leads to nothing."""
    value: Any = sys.modules.get(module)
    for part in qualname.split("."):
        if value is None or part == "<locals>":
            return None
        value = vars(value).get(part) if hasattr(value, "__dict__") else None
    return value


def _is_same(found: Any, function: Any) -> bool:
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
    found = find(module, qualname)
    if not _arguments.is_decorated(found):
        raise AttributeError(f"{module}.{qualname} is not a function decorated with @amorsize.parallel here")
    return found


def _with_options(module: str, qualname: str, options: Options) -> Any:
    found = _by_name(module, qualname)
    return type(found)(found.__wrapped__, options, found._self_state)  # noqa: SLF001 - of its decorator


def _rebuild(kind: Any, wrapped: Any, options: Options) -> Any:
    return kind(wrapped, options)
