"""``map``, ``starmap``, ``amap`` and ``plan`` of a decorated function: their types, and the words of their help."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Concatenate, Unpack, cast, overload

from amorsize import _arguments, _trace
from amorsize._async import in_thread
from amorsize._options import Given, MapOptions, Raising, Returning
from amorsize._plans import Plan
from amorsize._wrapper import A, B, C, M, P, Q, R, Wrapper


class MapMethods(Wrapper[P, R, M]):
    """What a decorated function computes all at once."""

    __slots__ = ()

    @overload
    def map(self: MapMethods[Concatenate[A, Q], R, M], items: Iterable[A], /, **options: Unpack[Given]) -> list[M]: ...
    @overload
    def map(
        self: MapMethods[Concatenate[A, B, Q], R, M],
        first: Iterable[A],
        second: Iterable[B],
        /,
        **options: Unpack[Given],
    ) -> list[M]: ...
    @overload
    def map(
        self: MapMethods[Concatenate[A, B, C, Q], R, M],
        first: Iterable[A],
        second: Iterable[B],
        third: Iterable[C],
        /,
        **options: Unpack[Given],
    ) -> list[M]: ...
    @overload
    def map(  # a class method, asked of its class
        self: MapMethods[Concatenate[type[Any], A, Q], R, M], items: Iterable[A], /, **options: Unpack[Given]
    ) -> list[M]: ...
    @overload
    def map(
        self,
        first: Iterable[Any],
        second: Iterable[Any],
        third: Iterable[Any],
        fourth: Iterable[Any],
        /,
        *more: Iterable[Any],
        **options: Unpack[Given],
    ) -> list[M]: ...
    @overload
    def map(self, *iterables: Iterable[Any], **options: Unpack[Returning]) -> list[R | Exception]: ...
    @overload
    def map(self, *iterables: Iterable[Any], **options: Unpack[Raising]) -> list[R]: ...
    def map(self, *iterables: Iterable[Any], kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """
        Apply the function to every item; equal to ``[f(x) for x in items]``, computed in parallel where that pays.

        Args:
            iterables: The items; several iterables are zipped up to the end of the shortest, as by the builtin ``map``.
                A map over an endless iterator never returns; use :meth:`imap` there.
            kwargs: Keyword arguments of the function that are the same for every item.
            options: Any option of :func:`parallel`, for this call.

        Returns:
            The results, in the order of the items. With ``errors="return"`` an exception stands at its item's
            place, with ``errors="skip"`` failed items are left out.

        Raises:
            TypeError: If an argument is not iterable, *kwargs* is no mapping with string keys, or an option is unknown
                or of the wrong type.
            ValueError: If an option is out of range.
            Exception: The function's own, of the failing item with the lowest index, with a note that names the item.
            WorkerDied: If a worker process was killed and ``retries`` did not help.
        """
        return self._self_run(iterables, kwargs, options)

    @overload
    def starmap(self, iterable: Iterable[Iterable[Any]], **options: Unpack[Given]) -> list[M]: ...
    @overload
    def starmap(self, iterable: Iterable[Iterable[Any]], **options: Unpack[Returning]) -> list[R | Exception]: ...
    @overload
    def starmap(self, iterable: Iterable[Iterable[Any]], **options: Unpack[Raising]) -> list[R]: ...
    def starmap(
        self, iterable: Iterable[Iterable[Any]], *, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """
        Like :meth:`map`, with each item unpacked: ``[f(*item) for item in iterable]``.

        Args:
            iterable: The argument tuples.
            kwargs: As for :meth:`map`.
            options: As for :meth:`map`.

        Returns:
            The results, as :meth:`map` does.

        Raises:
            Exception: As :meth:`map`.
        """
        return self._self_run((iterable,), kwargs, options, star=True)

    @overload
    async def amap(
        self: MapMethods[Concatenate[A, Q], R, M], items: Iterable[A], /, **options: Unpack[Given]
    ) -> list[M]: ...
    @overload
    async def amap(  # a class method, asked of its class
        self: MapMethods[Concatenate[type[Any], A, Q], R, M], items: Iterable[A], /, **options: Unpack[Given]
    ) -> list[M]: ...
    @overload
    async def amap(
        self, first: Iterable[Any], second: Iterable[Any], /, *more: Iterable[Any], **options: Unpack[Given]
    ) -> list[M]: ...
    @overload
    async def amap(self, *iterables: Iterable[Any], **options: Unpack[Returning]) -> list[R | Exception]: ...
    @overload
    async def amap(self, *iterables: Iterable[Any], **options: Unpack[Raising]) -> list[R]: ...
    async def amap(self, *iterables: Iterable[Any], kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """
        Like :meth:`map`, without blocking the event loop: ``results = await f.amap(items)``.

        A thread runs the map, with workers as usual and with the context variables of the task.
        Cancelling the task ends the work. Works under asyncio, anyio and trio.

        Args:
            iterables: As for :meth:`map`; they are read in the thread.
            kwargs: As for :meth:`map`.
            options: As for :meth:`map`.

        Returns:
            The results, as :meth:`map` does.

        Raises:
            Exception: As :meth:`map`.
        """
        try:
            return await in_thread(lambda halt: self._self_run(iterables, kwargs, options, check=halt))
        except BaseException as error:
            _trace.trim(error)
            raise

    def plan(
        self,
        *iterables: Iterable[Any],
        kwargs: Mapping[str, Any] | None = None,
        star: bool = False,
        **options: Unpack[MapOptions],
    ) -> Plan:
        """
        Dry run: sample some items, decide, and run nothing else.

        ``last_plan`` is left alone. For a one-shot iterator, ``plan.data`` yields every item, the sampled
        ones included.

        Args:
            iterables: As for :meth:`map`.
            kwargs: As for :meth:`map`.
            star: Whether each item is unpacked, as :meth:`starmap` does.
            options: As for :meth:`map`.

        Returns:
            The plan for all items.

        Raises:
            TypeError: As :meth:`map`.
            ValueError: As :meth:`map`.
            Exception: The function's own, if it fails on a sampled item, with a note that names the item.
        """
        return self._self_plan(iterables, kwargs, cast("dict[str, Any]", options), star=star)


_arguments.show_options(MapMethods.map, MapMethods.starmap, MapMethods.amap, MapMethods.plan)
