"""The methods of a decorated function that map: their types, and the words of their help."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Literal, Required, Unpack, cast, overload

from amorsize import _arguments, _trace
from amorsize._async import AsyncStream, in_thread
from amorsize._options import Given, MapOptions, Raising, Returning
from amorsize._plans import Plan
from amorsize._wrapper import A, B, C, M, P, Q, R, Wrapper

if TYPE_CHECKING:
    from amorsize._stream import Stream


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


# What else can be given to a stream: *pairs* changes the type of what it yields, too.
class _Given(Given, total=False):
    ordered: bool
    buffersize: int | None


class _Plain(_Given, total=False):
    pairs: None


class _Returning(_Plain, Returning, total=False): ...


class _Raising(_Plain, Raising, total=False): ...


class _WithItem(_Given, total=False):
    pairs: Required[Literal["item"]]
    errors: Literal["raise", "skip"]


class _WithIndex(_Given, total=False):
    pairs: Required[Literal["index"]]
    errors: Literal["raise", "skip"]


class StreamMethods(Wrapper[P, R, M]):
    """What a decorated function computes one by one."""

    __slots__ = ()

    @overload
    def imap(
        self: StreamMethods[Concatenate[A, Q], R, M], items: Iterable[A], /, **options: Unpack[_Plain]
    ) -> Stream[M]: ...
    @overload
    def imap(
        self: StreamMethods[Concatenate[A, B, Q], R, M],
        first: Iterable[A],
        second: Iterable[B],
        /,
        **options: Unpack[_Plain],
    ) -> Stream[M]: ...
    @overload
    def imap(
        self: StreamMethods[Concatenate[A, B, C, Q], R, M],
        first: Iterable[A],
        second: Iterable[B],
        third: Iterable[C],
        /,
        **options: Unpack[_Plain],
    ) -> Stream[M]: ...
    @overload
    def imap(
        self: StreamMethods[Concatenate[A, Q], R, M], items: Iterable[A], /, **options: Unpack[_WithItem]
    ) -> Stream[tuple[A, M]]: ...
    @overload
    def imap(self, *iterables: Iterable[Any], **options: Unpack[_WithItem]) -> Stream[tuple[Any, M]]: ...
    @overload
    def imap(self, *iterables: Iterable[Any], **options: Unpack[_WithIndex]) -> Stream[tuple[int, M]]: ...
    @overload
    def imap(self, *iterables: Iterable[Any], **options: Unpack[_Returning]) -> Stream[R | Exception]: ...
    @overload
    def imap(self, *iterables: Iterable[Any], **options: Unpack[_Raising]) -> Stream[R]: ...
    @overload
    def imap(  # a class method, asked of its class
        self: StreamMethods[Concatenate[type[Any], A, Q], R, M], items: Iterable[A], /, **options: Unpack[_Plain]
    ) -> Stream[M]: ...
    @overload
    def imap(
        self,
        first: Iterable[Any],
        second: Iterable[Any],
        third: Iterable[Any],
        fourth: Iterable[Any],
        /,
        *more: Iterable[Any],
        **options: Unpack[_Plain],
    ) -> Stream[M]: ...
    def imap(
        self,
        *iterables: Iterable[Any],
        kwargs: Mapping[str, Any] | None = None,
        ordered: bool = True,
        buffersize: int | None = None,
        pairs: Literal["index", "item"] | None = None,
        **options: Any,
    ) -> Any:
        """
        Apply the function to every item, lazily: a stream of results with bounded look-ahead.

        Args:
            iterables: The items, read in the caller's thread only, never more than *buffersize* ahead of
                what has been yielded; endless ones work.
            kwargs: Keyword arguments of the function that are the same for every item.
            ordered: Yield in the order of the items; otherwise as they complete.
            buffersize: Items read ahead at most; by default enough to keep the workers busy: some 8 MB, more only for
                items that are large and quick.
            pairs: ``"item"`` yields ``(item, result)``, ``"index"`` yields ``(index, result)``: what belongs to what
                where results come as they complete, or some are skipped.
            options: Any option of :func:`parallel`, for this call.

        Returns:
            A :class:`Stream`, which is an iterator; closing or dropping it stops the work.

        Raises:
            TypeError: As :meth:`map`.
            ValueError: If *buffersize* is below 1, or as :meth:`map`.
        """
        start = self._self_stream(iterables, kwargs, options, ordered=ordered, buffersize=buffersize, pairs=pairs)
        return start(None)

    @overload
    def istarmap(self, iterable: Iterable[Iterable[Any]], **options: Unpack[_Plain]) -> Stream[M]: ...
    @overload
    def istarmap(self, iterable: Iterable[Iterable[Any]], **options: Unpack[_WithItem]) -> Stream[tuple[Any, M]]: ...
    @overload
    def istarmap(self, iterable: Iterable[Iterable[Any]], **options: Unpack[_WithIndex]) -> Stream[tuple[int, M]]: ...
    @overload
    def istarmap(self, iterable: Iterable[Iterable[Any]], **options: Unpack[_Returning]) -> Stream[R | Exception]: ...
    @overload
    def istarmap(self, iterable: Iterable[Iterable[Any]], **options: Unpack[_Raising]) -> Stream[R]: ...
    def istarmap(
        self,
        iterable: Iterable[Iterable[Any]],
        *,
        kwargs: Mapping[str, Any] | None = None,
        ordered: bool = True,
        buffersize: int | None = None,
        pairs: Literal["index", "item"] | None = None,
        **options: Any,
    ) -> Any:
        """
        Like :meth:`imap`, with each item unpacked: the stream of :meth:`starmap`.

        Args:
            iterable: The argument tuples.
            kwargs: As for :meth:`imap`.
            ordered: As for :meth:`imap`.
            buffersize: As for :meth:`imap`.
            pairs: As for :meth:`imap`; the item is the tuple.
            options: As for :meth:`imap`.

        Returns:
            A :class:`Stream`.

        Raises:
            TypeError: As :meth:`map`.
            ValueError: As :meth:`imap`.
        """
        start = self._self_stream(
            (iterable,), kwargs, options, star=True, ordered=ordered, buffersize=buffersize, pairs=pairs
        )
        return start(None)

    @overload
    def aimap(self, *iterables: Iterable[Any], **options: Unpack[_Plain]) -> AsyncStream[M]: ...
    @overload
    def aimap(self, *iterables: Iterable[Any], **options: Unpack[_WithItem]) -> AsyncStream[tuple[Any, M]]: ...
    @overload
    def aimap(self, *iterables: Iterable[Any], **options: Unpack[_WithIndex]) -> AsyncStream[tuple[int, M]]: ...
    @overload
    def aimap(self, *iterables: Iterable[Any], **options: Unpack[_Returning]) -> AsyncStream[R | Exception]: ...
    @overload
    def aimap(self, *iterables: Iterable[Any], **options: Unpack[_Raising]) -> AsyncStream[R]: ...
    def aimap(
        self,
        *iterables: Iterable[Any],
        kwargs: Mapping[str, Any] | None = None,
        ordered: bool = True,
        buffersize: int | None = None,
        pairs: Literal["index", "item"] | None = None,
        **options: Any,
    ) -> Any:
        """
        Like :meth:`imap`, without blocking the event loop: ``async for result in f.aimap(items)``.

        Args:
            iterables: As for :meth:`imap`; they are read in a thread.
            kwargs: As for :meth:`imap`.
            ordered: As for :meth:`imap`.
            buffersize: As for :meth:`imap`; with it, nothing is taken from the stream before it is asked for.
            pairs: As for :meth:`imap`.
            options: As for :meth:`imap`.

        Returns:
            An asynchronous iterator and context manager; closing or dropping it stops the work.

        Raises:
            TypeError: As :meth:`map`.
            ValueError: As :meth:`imap`.
        """
        start = self._self_stream(iterables, kwargs, options, ordered=ordered, buffersize=buffersize, pairs=pairs)
        return AsyncStream(start, is_exact=buffersize is not None)


_arguments.show_options(
    MapMethods.map, MapMethods.starmap, MapMethods.amap, MapMethods.plan,
    StreamMethods.imap, StreamMethods.istarmap, StreamMethods.aimap,
)  # fmt: skip
