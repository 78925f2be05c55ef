"""``imap``, ``istarmap`` and ``aimap`` of a decorated function: their types, and the words of their help."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Literal, Required, Unpack, overload

from amorsize import _arguments
from amorsize._async import AsyncStream
from amorsize._options import Given, Raising, Returning
from amorsize._wrapper import A, B, C, M, P, Q, R, Wrapper

if TYPE_CHECKING:
    from amorsize._stream import Stream


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


_arguments.show_options(StreamMethods.imap, StreamMethods.istarmap, StreamMethods.aimap)
