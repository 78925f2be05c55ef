"""
What is known to be harmless: packages whose code keeps no state that results depend on, and types of plain values.

Allow-lists. What is not named here is followed into its code, or counts as unknown; nothing is dangerous by name only.
"""

from __future__ import annotations

import builtins
import collections
import functools
import operator
import re
import sys
import types
from typing import Final, TypeVar

from amorsize._attribute import bases_of, is_made_at_run_time, module_of, name_of, namespace_of, once_per_class, path_of

T = TypeVar("T")

# Modules of the standard library whose functions draw from, or advance, something that belongs to the whole process.
_STATEFUL: Final = frozenset({"random", "__main__", "__mp_main__", "this", "antigravity", "test", "idlelib", "ctypes"})

# Packages whose functions and methods change nothing that their caller did not hand them. Each was looked through for
# module-level state; what they have (caches of compiled patterns, registries filled at import) does not reach results.
# Generators of random numbers among them are told apart: see GENERATORS.
_PACKAGES: Final = frozenset(
    [
        "_pytest", "amorsize", "attr", "attrs", "backoff", "beartype", "bs4", "cachetools", "cloudpickle", "cytoolz",
        "dateutil", "decorator", "deprecated", "diskcache", "joblib", "jsonschema", "lxml", "markdown",
        "more_itertools", "msgpack", "networkx", "numba", "numexpr", "numpy", "orjson", "packaging", "pandas",
        "patsy", "pluggy", "pydantic", "pydantic_core", "pytest", "pytz", "regex", "scipy", "shapely", "simplejson",
        "six", "skimage", "sklearn", "sortedcontainers", "stamina", "statsmodels", "tabulate", "tenacity",
        "threadpoolctl", "toml", "tomli", "toolz", "typeguard", "typing_extensions", "tzlocal", "ujson", "wrapt",
        "yaml",
    ]
)  # fmt: skip

INERT: Final = (frozenset(sys.stdlib_module_names) | _PACKAGES) - _STATEFUL

# Packages whose functions draw from NumPy's shared generator, or that of random, where they are given none.
DRAWING: Final = frozenset({"networkx", "pandas", "scipy", "skimage", "sklearn", "statsmodels"})

# Inside inert packages: modules whose functions are methods of one generator that everybody shares.
GENERATORS: Final = frozenset({"numpy.random", "numpy.random.mtrand", "random"})


def is_inert(module: object) -> bool:
    """Tell whether code of a module is a leaf: it need not be followed to know that it changes nothing by itself."""
    name = str(module)
    return name.partition(".")[0] in INERT and name not in GENERATORS


def is_inert_package(module: object) -> bool:
    """Tell whether a module belongs to a package whose functions that are no methods change nothing by themselves."""
    return str(module).partition(".")[0] in INERT


def code_module(func: types.FunctionType) -> str:
    """Return the module a function was defined in; ``__module__`` may be another's, copied by functools.wraps."""
    return str(func.__globals__.get("__name__", ""))


SCALARS: Final[frozenset[type]] = frozenset(
    {type(None), bool, int, float, complex, str, bytes, types.EllipsisType, types.NotImplementedType}
)

# Types whose instances never change and reach nothing.
_IMMUTABLE: Final[frozenset[type]] = SCALARS | {
    range, slice, re.Pattern, re.Match, types.CodeType, types.GenericAlias, types.UnionType, types.MethodDescriptorType,
    types.WrapperDescriptorType, types.MethodWrapperType, types.GetSetDescriptorType, types.MemberDescriptorType,
    types.ClassMethodDescriptorType, operator.itemgetter, operator.attrgetter, operator.methodcaller, object,
}  # fmt: skip

# The same by name, for types of modules that need not be loaded.
_IMMUTABLE_NAMES: Final = frozenset(
    [
        "datetime.date", "datetime.datetime", "datetime.time", "datetime.timedelta", "datetime.timezone",
        "decimal.Decimal", "fractions.Fraction", "ipaddress.IPv4Address", "ipaddress.IPv4Network",
        "ipaddress.IPv6Address", "ipaddress.IPv6Network", "numpy.dtype", "numpy.ufunc", "pathlib.Path",
        "pathlib.PosixPath", "pathlib.PurePath", "pathlib.PurePosixPath", "pathlib.PureWindowsPath",
        "pathlib.WindowsPath", "_struct.Struct", "uuid.UUID", "zoneinfo.ZoneInfo", "_contextvars.ContextVar",
        "contextvars.ContextVar", "weakref.ReferenceType", "numpy._ArrayFunctionDispatcher", "typing.TypeVar",
        "typing.ParamSpec", "typing.TypeAliasType", "typing.ForwardRef",
        "pathlib._local.Path", "pathlib._local.PosixPath", "pathlib._local.PurePath", "pathlib._local.PurePosixPath",
        "regex.Pattern", "_regex.Pattern", "logging.Logger", "logging.RootLogger", "logging.LoggerAdapter",
        # What pydantic makes of annotations, and the names it resolves them with.
        "pydantic_core._pydantic_core.SchemaValidator", "pydantic_core._pydantic_core.SchemaSerializer",
        "pydantic_core._pydantic_core.PydanticUndefinedType", "pydantic._internal._namespace_utils.NsResolver",
        "pydantic._internal._config.ConfigWrapper",
        # Caches on disk, made for many processes at once: each opens its files anew.
        "diskcache.core.Cache", "diskcache.fanout.FanoutCache", "joblib.memory.Memory",
        "numpy.finfo", "numpy.iinfo", "_collections._tuplegetter", "string.Template", "functools._lru_list_elem",
        "amorsize._analysis.settings.Shared",
    ]
)  # fmt: skip

# Plain data that can change: the values in it are looked at, where there are any.
CONTAINERS: Final[tuple[type, ...]] = (
    list, tuple, dict, set, frozenset, collections.deque, collections.OrderedDict, collections.defaultdict,
    types.MappingProxyType, types.SimpleNamespace,
)  # fmt: skip

# Data without references: a copy of its bytes is all of it. By name, so that nothing is imported.
_DATA_NAMES: Final = frozenset(
    [
        "builtins.bytearray", "array.array", "pandas.DataFrame", "pandas.Series", "pandas.Index", "pandas.RangeIndex",
        "pandas.MultiIndex", "pandas.DatetimeIndex", "pandas.Timestamp", "pandas.Timedelta", "pandas.Categorical",
        "pandas.core.frame.DataFrame", "pandas.core.series.Series", "pandas.core.indexes.base.Index",
        "pandas.core.indexes.range.RangeIndex", "pandas.core.indexes.multi.MultiIndex",
        "pandas.core.indexes.datetimes.DatetimeIndex", "pandas._libs.tslibs.timestamps.Timestamp",
        "pandas._libs.tslibs.timedeltas.Timedelta",
    ]
)  # fmt: skip

_GENERATOR_NAMES: Final = frozenset(
    ["random.Random", "_random.Random", "random.SystemRandom", "numpy.random._generator.Generator",
     "numpy.random.mtrand.RandomState", "numpy.random._pcg64.PCG64", "numpy.random._pcg64.PCG64DXSM",
     "numpy.random._mt19937.MT19937", "numpy.random._philox.Philox", "numpy.random._sfc64.SFC64"]
)  # fmt: skip

_ITERATOR_MODULES: Final = frozenset({"itertools", "builtins", "collections", "_collections", "csv", "_csv", "re"})

# Builtins through which a function can reach, or change, anything.
OPEN_BUILTINS: Final = frozenset(["breakpoint", "compile", "eval", "exec", "globals", "help", "input", "locals"])

CACHED: Final = type(functools.cache(lambda: None))


def type_path(kind: type) -> str:
    """Spell a type as ``module.qualname``."""
    return path_of(kind)


_WRAPPED: Final = frozenset({staticmethod, classmethod})


@once_per_class
def is_python_class(kind: type) -> bool:
    """Tell whether a class was written in Python, so that its methods can be looked at."""
    # What a compiler has laid out is C, even if some of its methods are functions of Python.
    if kind is object or not is_made_at_run_time(kind) or module_of(kind) == "builtins":
        return False
    held = namespace_of(kind)
    if "__slots__" in held:
        return True
    # The class statement gives these two their words; types made in C that have such attributes have others.
    for name, words in (("__dict__", "dictionary for instance"), ("__weakref__", "list of weak references")):
        if str(getattr(held.get(name), "__doc__", "")).startswith(words):
            return True
    # Those of a metaclass may all be of the class itself, as __new__ and __prepare__ are.
    if any(type(getattr(value, "__func__", value) if type(value) in _WRAPPED else value) is types.FunctionType
           for value in held.values()):  # fmt: skip
        return True
    return any(is_python_class(base) for base in bases_of(kind)[1:])


@once_per_class
def kind_of_class(kind: type) -> str:  # noqa: C901, PLR0911, PLR0912 - one line per kind
    """
    Say what an instance of a class is, by what it is built on.

    Returns:
        ``"immutable"``, ``"container"``, ``"data"``, ``"object"`` (written in Python: its attributes are all of it),
        ``"generator"`` (of random numbers), ``"iterator"``, ``"state"`` (a stream, lock, handle or the like), or
        ``"unknown"``.
    """
    for base in bases_of(kind):
        if type(base) is type and base in _IMMUTABLE and base is not object:
            return "immutable"
        path = type_path(base)
        if path in _IMMUTABLE_NAMES:
            return "immutable"
        if path in _DATA_NAMES:
            return "data"
        if path == "numpy.ndarray":
            return "state" if any(type_path(b).endswith(".memmap") for b in bases_of(kind)) else "array"
        if path == "numpy.generic":
            return "immutable"
        if path in _GENERATOR_NAMES:
            return "generator"
        if type(base) is type and base in CONTAINERS:
            return "container"
        if base is types.GeneratorType or base is types.CoroutineType or base is types.AsyncGeneratorType:
            return "iterator"
        if base is BaseException:
            return "object"
        if base is object or is_python_class(base):
            continue
        if path == "_sre.SRE_Scanner" or (module_of(base) in _ITERATOR_MODULES and "__next__" in namespace_of(base)):
            return "iterator"
        if module_of(base).partition(".")[0] in {
            "_io",
            "io",
            "_thread",
            "_socket",
            "_ssl",
            "mmap",
            "sqlite3",
            "select",
        }:
            return "state"
        if base is type or issubclass(base, type) or base in _CALLABLES:
            return "callable"
        if name_of(base) in {"cython_function_or_method", "fused_cython_function"}:
            return "callable"
        if base in _TRANSPARENT:
            continue
        return "unknown"
    return "object"


_CALLABLES: Final = frozenset(
    {
        types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, functools.partial, CACHED,
        property, classmethod, staticmethod, types.CellType,
    }
)  # fmt: skip

# C classes that add no data of their own to what is built on them.
_TRANSPARENT: Final = frozenset(
    base
    for base in (getattr(builtins, "object", None), *(getattr(sys.modules.get("typing"), "Generic", object).__mro__))
    if base is not None
)
