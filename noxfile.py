"""
The one way to run anything: `nox` for all that must pass, `nox -l` for the list.

Needs nothing but Python and nox; each session installs what `pyproject.toml` lists for it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml("pyproject.toml")
PLATFORMS = ("linux", "darwin", "win32")


def runs(version: str) -> bool:
    """
    Say whether Python *version* can be started here.

    It is started, not looked up: a version manager's `python3.12` may be on the path for a version
    that is not active, and then only fails.
    """
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return True
    launchers = [["py", f"-{version}"]] if sys.platform == "win32" else []
    for command in [[f"python{version}"], *launchers]:
        if shutil.which(command[0]) is None:
            continue
        probe = [*command, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        try:
            done = subprocess.run(probe, capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0 and done.stdout.strip() == version:
            return True
    return False


# Only what is here is asked for: with CI=true, nox takes a missing interpreter for a failure.
# Where no supported version exists, the Python that runs nox is tried: it may be newer.
PYTHONS: list[str] = [v for v in nox.project.python_versions(PYPROJECT) if runs(v)] or [
    f"{sys.version_info.major}.{sys.version_info.minor}"
]
OTHERS: list[str] = [v for v in PYTHONS if v != f"{sys.version_info.major}.{sys.version_info.minor}"]

# Tests of what goes by instructions, code objects, frames, modules and signatures, and one look at each way of mapping.
# The others are about processes, memory and signals of the operating system, which are the same below every Python.
BY_VERSION = [
    *(f"tests/test_{name}.py" for name in (
        "async", "bytecode", "cases", "decorated", "decorator", "dependencies", "effects", "observation", "odd_objects",
        "options", "private_names", "profile", "programs", "special_methods", "traceback", "travel", "turns",
        "wrong_calls",
    )),
    "README.md",
    "docs",
    "src",
]  # fmt: skip


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group of `pyproject.toml`."""
    return list(nox.project.dependency_groups(PYPROJECT, name))


def promised() -> list[str]:
    """Return the dependencies, and those of the extras that the tests use; each has a lower bound."""
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *extras["plot"], *extras["progress"]]


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, spelling, and that the rooms stay apart."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", env={"PYTHONPATH": "src"})
    session.run("codespell", "README.md", "docs", "noxfile.py", "pyproject.toml", "src", "tests")


@nox.session
def typing(session: nox.Session) -> None:
    """Check types: mypy for three platforms, pyright, the public surface as editors see it, and all examples."""
    session.install(".", *group("typing"))
    for platform in PLATFORMS:
        session.run("mypy", "--platform", platform)
    session.run("pyright")
    session.run("pyright", "--verifytypes", "amorsize", "--ignoreexternal")
    with tempfile.TemporaryDirectory() as folder:
        # The examples of README.md and docs/, as their readers' type checkers see them.
        session.run("python", "tests/blocks.py", folder)
        with session.chdir(folder):
            session.run("mypy", ".")
            session.run("pyright")
    session.install(*group("tests"))
    session.run("python", "-m", "pytest", "tests/test_editors.py", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests, and every example of README.md, docs/ and the docstrings; `-P 3.13` on another Python."""
    session.install(".", *group("tests"))
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=OTHERS or None)
def versions(session: nox.Session) -> None:
    """Run, on each other Python that is here, the tests whose outcome may differ from one version to the next."""
    if not OTHERS:
        session.skip("no other supported Python is here")
    session.install(".", *group("tests"))
    session.run("python", "-m", "pytest", *(session.posargs or BY_VERSION))


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build/html, its notebook executed; a warning is an error."""
    session.install(".[plot]", *group("docs"))
    options = ["-n", "-W", "--keep-going", "--fresh-env", "-b", "html"]
    session.run("sphinx-build", *options, *session.posargs, "docs", "docs/_build/html")


@nox.session
def examples(session: nox.Session) -> None:
    """Run the examples and tests that need pandas, Polars, pydantic and others, which the other sessions skip."""
    session.install(".[progress]", *group("examples"))
    # Each in a process of its own: Polars leaves threads behind, and beside these nothing is forked any more.
    for page in ("async", "dataframes", "progress"):
        session.run("python", "-m", "pytest", f"docs/how-to/{page}.md", *session.posargs)
    for tests in (
        ("tests/test_decorated.py",),
        ("tests/test_models.py", "tests/test_draws.py", "tests/test_attrs.py"),
        ("tests/test_fresh_workers.py", "tests/test_options.py", "-k", "pandas or sklearn or frame"),
    ):
        session.run("python", "-m", "pytest", *tests, *session.posargs)


@nox.session
def package(session: nox.Session) -> None:
    """Build sdist and, from it, wheel; install that in an empty environment and use it there."""
    session.install(*group("package"))
    with tempfile.TemporaryDirectory() as folder:
        away = Path(folder)
        session.run("python", "-m", "build", "--outdir", str(away / "dist"), str(ROOT))
        (wheel,) = (away / "dist").glob("*.whl")
        session.run("python", "-m", "venv", str(away / "env"))
        python = str(away / "env" / ("Scripts" if sys.platform == "win32" else "bin") / "python")
        smoke = shutil.copy(ROOT / "tests" / "smoke.py", away)
        with session.chdir(away):
            session.run(python, "-m", "pip", "install", "--quiet", str(wheel), external=True)
            session.run(python, "-m", "pip", "check", external=True)
            session.run(python, smoke, PYPROJECT["project"]["version"], external=True)
            session.run(python, "-m", "amorsize", "demo", external=True)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Compare with the peers, and measure the figures that have a bar to meet."""
    session.install(".[dask,ray]" if "clusters" in session.posargs else ".", *group("bench"))
    if "adopted" in session.posargs:
        session.install(*group("clusters"))
    session.run("python", "tests/benchmarks/run.py", *session.posargs)


@nox.session(default=False)
def faults(session: nox.Session) -> None:
    """Run the tests that kill workers and fill memory."""
    session.install(".", *group("tests"))
    session.run("python", "-m", "pytest", "-m", "faults", "tests", *session.posargs)


@nox.session(default=False)
def clusters(session: nox.Session) -> None:
    """Run the tests that need Dask, Ray or scikit-learn, which the others skip."""
    session.install(".[dask,ray]", *group("clusters"))
    # Each in a process of its own: Dask leaves threads behind, and beside these nothing may be forked any more.
    session.run("python", "-m", "pytest", "tests/test_clusters.py", *session.posargs)
    session.run("python", "-m", "pytest", "tests/test_joblib.py", "-k", "scikit_learn", *session.posargs)


@nox.session(default=False)
def spark(session: nox.Session) -> None:
    """Run the tests on a real Spark, which needs Java."""
    session.install(".", *group("spark"))
    session.run("python", "-m", "pytest", "tests/test_spark.py", *session.posargs)


@nox.session(default=False)
def coverage(session: nox.Session) -> None:
    """Run the tests and report the lines and branches that none reached, workers included."""
    session.install(".", *group("coverage"))
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine")
    session.run("coverage", "report")


@nox.session(python=PYTHONS[0], default=False)
def minimums(session: nox.Session) -> None:
    """Run the tests with the oldest versions of the dependencies and extras that are promised to work."""
    # Matplotlib of that age calls names of pyparsing that 3.3 has deprecated, and a warning fails a test.
    oldest = [*(line.replace(">=", "==") for line in promised()), "pyparsing<3.3"]
    session.install(".", *oldest, *group("tests"))
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=PYTHONS[-1], default=False)
def newest(session: nox.Session) -> None:
    """Run the tests with the newest versions of the dependencies and extras, those not yet released included."""
    session.install("--upgrade", "--upgrade-strategy=eager", ".", *group("tests"))
    # Only of what is named here: a preview of everything below would test the test tools' previews.
    session.install("--upgrade", "--pre", *promised())
    session.run("python", "-m", "pip", "list")
    session.run("python", "-m", "pytest", *session.posargs)
