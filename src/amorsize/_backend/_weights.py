"""What tasks of ``joblib.Parallel`` weigh on their way to workers."""

from __future__ import annotations

import pickle
import time
from typing import Any, Final, NamedTuple

from amorsize._backend import _pickles
from amorsize._outside import pass_on

clock = time.perf_counter

# Bytes that no plan sends: of tasks and results that cannot be pickled.
_UNSENDABLE_BYTES: Final = 1 << 50


class Weights(NamedTuple):
    """
    What tasks weigh on their way to workers.

    Attributes:
        arg_bytes: Pickled bytes of one task's arguments beyond those of the batch.
        result_bytes: Those of its result.
        pickle_s: Seconds to pickle both and unpickle them again.
        batch_bytes: Pickled bytes of what all tasks of a batch share: scikit-learn gives all of them the same data.
        batch_s: Seconds to pickle that and unpickle it.
        has_maps: Whether joblib would send some of it as memory maps.
    """

    arg_bytes: int = 0
    result_bytes: int = 0
    pickle_s: float = 0.0
    batch_bytes: int = 0
    batch_s: float = 0.0
    has_maps: bool = False


def kind_of(task: tuple[Any, Any, Any]) -> str:
    """Name the kind of a task: its function, and the types of its arguments."""
    func, args, _ = task
    func = getattr(func, "function", func)  # scikit-learn wraps what it gives to joblib
    name = getattr(func, "__qualname__", type(func).__qualname__)
    return ", ".join((f"{getattr(func, '__module__', '')}.{name}", *(type(arg).__qualname__ for arg in args)))


def weigh(task: tuple[Any, Any, Any], result: Any, max_nbytes: int | None) -> Weights:
    """Weigh a task and its result as joblib sends them."""
    arg_bytes, arg_s, has_maps = _weigh(task[1:], max_nbytes)
    result_bytes, result_s, _ = _weigh(result, None)
    return Weights(arg_bytes, result_bytes, 2 * (arg_s + result_s), has_maps=has_maps)


def shared(
    weights: Weights, task: tuple[Any, Any, Any], other: tuple[Any, Any, Any], max_nbytes: int | None
) -> Weights:
    """Tell what each task has for itself from what it shares with another one: the same objects as arguments."""
    _, args, keywords = task
    own = [arg for arg, its in zip(args, other[1], strict=False) if arg is not its]
    own += [arg for name, arg in keywords.items() if arg is not other[2].get(name)]
    if len(own) == len(args) + len(keywords):
        return weights
    own_bytes, own_s, _ = _weigh(own, max_nbytes)
    batch_bytes = max(0, weights.arg_bytes - own_bytes)
    # In proportion: what is pickled together with all its parts, and what is alone, do not add up.
    batch_s = max(0.0, weights.pickle_s - 2 * own_s) * batch_bytes / max(1, weights.arg_bytes + weights.result_bytes)
    return weights._replace(
        arg_bytes=weights.arg_bytes - batch_bytes,
        pickle_s=weights.pickle_s - batch_s,
        batch_bytes=batch_bytes,
        batch_s=batch_s,
    )


def _weigh(value: Any, max_nbytes: int | None) -> tuple[int, float, bool]:
    """Return the bytes of a value pickled, the seconds that took, and whether joblib would map some of it."""
    begin = clock()
    file = _Counter()
    scales = _Scales(file, max_nbytes)
    try:
        scales.dump(value)
    except Exception as error:  # noqa: BLE001 - objects raise anything when pickled; the second pickler decides
        pass_on(error)
        begin = clock()
        return _bytes_by_value(value), clock() - begin, scales.has_maps
    return file.n_bytes, clock() - begin, scales.has_maps


def _bytes_by_value(value: Any) -> int:
    """Return the bytes of what plain pickle refuses: more than can be sent where it cannot be pickled at all."""
    try:
        return len(_pickles.dumps_by_value(value))
    except Exception as error:  # noqa: BLE001 - as above
        pass_on(error)
        return _UNSENDABLE_BYTES


class _Counter:
    """A file that only counts."""

    def __init__(self) -> None:
        self.n_bytes = 0

    def write(self, data: Any) -> int:
        n_bytes = memoryview(data).nbytes
        self.n_bytes += n_bytes
        return n_bytes


class _Scales(pickle.Pickler):
    """Weighs as joblib sends: large arrays lie in memory maps and do not travel."""

    def __init__(self, file: _Counter, max_nbytes: int | None) -> None:
        super().__init__(file, protocol=5)
        self._max_nbytes = max_nbytes
        self.has_maps = False

    def reducer_override(self, obj: Any) -> Any:
        n_bytes = getattr(obj, "nbytes", None) if type(obj).__module__ == "numpy" else None
        if self._max_nbytes is not None and isinstance(n_bytes, int) and n_bytes > self._max_nbytes:
            self.has_maps = True
            return int, ()
        return NotImplemented
