"""
``@amorsize.parallel``: the decorator, what it makes of a function, and how that behaves in a class.

Composes nothing and measures nothing: a call goes through :mod:`amorsize._wrapper` to :mod:`amorsize._call`.
"""

from __future__ import annotations

import copy
import inspect
import types
from collections.abc import Callable
from typing import Any, Concatenate, Literal, Never, NoReturn, Unpack, overload

from amorsize import _arguments, _known, _options, _record
from amorsize._methods import MapMethods, StreamMethods
from amorsize._options import Options, OtherOptions
from amorsize._plans import Plan
from amorsize._records import Profile
from amorsize._render import Text
from amorsize._wrapper import M, P, Q, R


class ParallelFunction(MapMethods[P, R, M], StreamMethods[P, R, M]):
    """
    A function that can also be mapped over data.

    ``f(...)`` is the plain call, unchanged. Everything else about the function (name, docstring, signature) is kept.
    Made by :func:`parallel`; works on functions, methods, static and class methods, partials and callable objects.
    """

    __slots__ = ()

    @overload
    def with_options(
        self, *, errors: Literal["return"], **options: Unpack[OtherOptions]
    ) -> ParallelFunction[P, R, R | Exception]: ...
    @overload
    def with_options(
        self, *, errors: Literal["raise", "skip"], **options: Unpack[OtherOptions]
    ) -> ParallelFunction[P, R, R]: ...
    @overload
    def with_options(self, **options: Unpack[OtherOptions]) -> ParallelFunction[P, R, M]: ...
    def with_options(self, **options: Any) -> Any:
        """
        Return the same function with other options; profile, workers and ``last_plan`` are shared.

        Args:
            options: Any option of :func:`parallel`; those not named stay.

        Raises:
            TypeError: For an option that does not exist or a value of the wrong type.
            ValueError: For a value out of range.
        """
        return type(self)(self.__wrapped__, self._self_options.with_(self._self_checked(options)), self._self_state)

    @property
    def last_plan(self) -> Plan | None:
        """The :class:`Plan` of the latest call in this process, None before the first."""
        record = self._self_state.last
        return None if record is None else record.build()

    def explain(self) -> str:
        """Say in plain words what the latest call did and why: the text of its plan, or that there was no call yet."""
        plan = self.last_plan
        if plan is not None:
            return plan.explain()
        return Text(
            f"{_arguments.name_of(self)} has not been mapped yet; after a call this says what was decided, and why"
        )

    @property
    def profile(self) -> Profile | None:
        """The :class:`Profile` of this function that this process or an earlier one has kept, or None."""
        if (kept := _record.store()) is not None:
            kept.load()
        known = _known.CACHE.get(self._self_state.key)
        return None if known is None else known.profile

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> ParallelFunction[P, R, M]: ...
    @overload
    def __get__(
        self: ParallelFunction[Concatenate[Any, Q], R, M], instance: object, owner: type | None = None
    ) -> ParallelFunction[Q, R, M]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is not None and instance is owner:
            raise TypeError(_arguments.WRONG_ORDER.format(_arguments.name_of(self), "@classmethod"))
        wrapped = self.__wrapped__
        get = getattr(type(wrapped), "__get__", None)
        if get is None:
            return self
        bound = get(wrapped, instance, owner)
        if bound is wrapped:
            return self
        return BoundParallelFunction(bound, self)


class BoundParallelFunction(ParallelFunction[P, R, M]):
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

    def __copy__(self) -> BoundParallelFunction[P, R, M]:
        return BoundParallelFunction(self.__wrapped__, self._self_parent)

    def __deepcopy__(self, memo: dict[int, Any]) -> BoundParallelFunction[P, R, M]:
        return BoundParallelFunction(copy.deepcopy(self.__wrapped__, memo), self._self_parent)

    def __reduce_ex__(self, protocol: Any) -> Any:
        wrapped = self.__wrapped__
        if isinstance(wrapped, types.MethodType):
            return getattr, (wrapped.__self__, wrapped.__name__)
        return self._self_parent.__reduce_ex__(protocol)


@overload
def parallel(func: Callable[P, R], /) -> ParallelFunction[P, R]: ...
@overload
def parallel(
    func: Callable[P, R], /, *, errors: Literal["return"], **options: Unpack[OtherOptions]
) -> ParallelFunction[P, R, R | Exception]: ...
@overload
def parallel(
    func: Callable[P, R], /, *, errors: Literal["raise", "skip"] = "raise", **options: Unpack[OtherOptions]
) -> ParallelFunction[P, R]: ...
@overload
def parallel(
    func: None = None, /, *, errors: Literal["return"], **options: Unpack[OtherOptions]
) -> _ReturningDecorator: ...
@overload
def parallel(
    func: None = None, /, *, errors: Literal["raise", "skip"] = "raise", **options: Unpack[OtherOptions]
) -> _Decorator: ...
def parallel(func: Any = None, /, **options: Any) -> Any:
    """
    Give a function methods that call it on many items, in parallel where that pays.

    ``f.map(items)`` returns a list, ``f.starmap(pairs)`` unpacks each item; ``f.imap`` and ``f.istarmap`` yield results
    as they come, ``await f.amap(items)`` and ``async for`` over ``f.aimap`` are for coroutines; ``f.plan(items)`` only
    says what would be done, and ``f.explain()`` what the latest call did.

    Written bare (``@parallel``) or with options (``@parallel(n_jobs=2)``), and above ``@staticmethod`` or
    ``@classmethod``.
    Every option can be given to a single call too, and to :func:`configure` for the whole program.

    Args:
        func: The function of one item.
        options: Those listed below.

    Returns:
        The decorated function, or a decorator where *func* is left out.

    Raises:
        TypeError: If *func* is not callable, is an ``async def`` or a generator function, or an option is unknown or
            of the wrong type.
        ValueError: If an option is out of range.
    """
    chosen = Options(_options.checked(options))
    return _Decorator(chosen) if func is None else decorate(func, options=chosen)


def decorate(func: Callable[P, R], /, *, options: Options) -> ParallelFunction[P, R]:
    """Return a function with options that have been checked."""
    _arguments.check_function(func)
    return ParallelFunction(func, options)


class _Decorator:
    """What ``parallel(...)`` without a function returns."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def __call__(self, func: Callable[P, R], /, *items: Never) -> ParallelFunction[P, R]:
        if items:
            message = "amorsize.parallel(...) takes the function alone"
            raise TypeError(f"{message}: f = amorsize.parallel(...)(function); f.map(items)")
        return decorate(func, options=self._options)

    def __getattr__(self, name: str) -> NoReturn:
        message = f"amorsize.parallel(...) without a function has no {name!r}"
        meant = f"; did you mean amorsize.parallel(function, ...).{name}?" if hasattr(ParallelFunction, name) else ""
        raise AttributeError(message + meant, name=name, obj=self)


class _ReturningDecorator:
    """The same to type checkers, with ``errors="return"``: results may be exceptions."""

    def __call__(self, func: Callable[P, R], /) -> ParallelFunction[P, R, R | Exception]:
        raise NotImplementedError


_arguments.show_options(parallel, ParallelFunction.with_options, BoundParallelFunction.with_options)
parallel.__doc__ = f"{inspect.cleandoc(parallel.__doc__ or '')}\n\nOptions:\n{_options.words('    ')}\n"
