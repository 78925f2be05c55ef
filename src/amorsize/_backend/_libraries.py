"""
What programs set in libraries for the whole process: read at a call, entered by workers, where a function uses them.

    pandas.set_option("display.precision", 2)    sklearn.set_config(transform_output="pandas")    numpy.seterrcall(log)
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final

from amorsize import _analysis
from amorsize._modules import loaded

if TYPE_CHECKING:
    from collections.abc import Callable

    from amorsize._analysis import Dependencies


def used(known: Dependencies) -> frozenset[str]:
    """Return the packages that a function names, imports or holds objects of, and those that its module has."""
    values = [part.value for part in known.parts.values()]
    for helper in known.functions:
        values += helper.__globals__.values()  # its items may be of any of them
    held = {str(kind.__module__).partition(".")[0] for _, _, _, kind in known.held}
    return known.packages.union(held, *map(_analysis.packages_of, values))


def _where_used(root: str, get: Callable[[Any], Any]) -> Callable[[Any, Dependencies], Any]:
    """Return how to read what is set in a library: nothing, for a function that does not use it."""

    def read(module: Any, known: Dependencies) -> Any:
        found = get(module)
        return found if found and root in used(known) else {}

    return read


# -- pandas ------------------------------------------------------------------------------------------------------------

# How many options there are, and what they are by default, in the form in which pandas keeps them.
_usual: tuple[int, dict[str, Any]] = (0, {})


def _read_pandas(_: Any) -> dict[str, Any]:
    """Return the options that are not as pandas sets them, by their names."""
    global _usual  # noqa: PLW0603 - a cache of one tuple, replaced in one statement
    config: Any = loaded("pandas._config.config")
    options = config._registered_options  # noqa: SLF001 - no public way that is quick
    if _usual[0] != len(options):
        tree: dict[str, Any] = {}
        for key, option in options.items():
            _put(tree, key, option.defval)
        _usual = len(options), tree
    if config._global_config == _usual[1]:  # noqa: SLF001 - as above
        return {}
    values = {key: _get(config._global_config, key) for key in options}  # noqa: SLF001 - as above
    return {key: value for key, value in values.items() if value != options[key].defval}


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *parts, last = key.split(".")
    for part in parts:
        tree = tree.setdefault(part, {})
    tree[last] = value


def _get(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[part]
    return tree


def _enter_pandas(pandas: Any, value: dict[str, Any]) -> None:
    with warnings.catch_warnings():  # that an option is deprecated is known to who has set it
        warnings.simplefilter("ignore")
        for key in _read_pandas(pandas).keys() - value.keys():
            pandas.reset_option(key)
        for key, option in value.items():
            pandas.set_option(key, option)


# -- scikit-learn ------------------------------------------------------------------------------------------------------


def _read_sklearn(sklearn: Any) -> dict[str, Any]:
    usual = sklearn._config._global_config  # noqa: SLF001 - no public way
    return {key: value for key, value in sklearn.get_config().items() if usual.get(key) != value}


def _enter_sklearn(sklearn: Any, value: dict[str, Any]) -> None:
    config = sklearn._config  # noqa: SLF001 - set_config takes None for no change
    config._get_threadlocal_config().update({**config._global_config, **value})  # noqa: SLF001 - as above


# -- NumPy: what its printing and its errors are like travels with the ambience ----------------------------------------


def _read_numpy(numpy: Any) -> dict[str, Any]:
    found = {"bufsize": numpy.getbufsize(), "errcall": numpy.geterrcall()}
    return {} if found == _NUMPY else found


def _enter_numpy(numpy: Any, value: dict[str, Any]) -> None:
    value = value or _NUMPY
    numpy.setbufsize(value["bufsize"])
    numpy.seterrcall(value["errcall"])


_NUMPY: Final[dict[str, Any]] = {"bufsize": 8192, "errcall": None}

WAYS: Final[dict[str, tuple[Callable[[Any, Dependencies], Any], Callable[[Any, Any], Any]]]] = {
    "numpy": (_where_used("numpy", _read_numpy), _enter_numpy),
    "pandas": (_where_used("pandas", _read_pandas), _enter_pandas),
    "sklearn": (_where_used("sklearn", _read_sklearn), _enter_sklearn),
}
