"""The command line, as real processes see it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import amorsize
from amorsize import _bounds, _demo
from amorsize.__main__ import main
from amorsize._cli import to_json

on_posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and pipes are POSIX's")

JOBS = '''
"""Functions of one item for the command line."""
import os, sys, time

import amorsize


def double(x):
    return 2 * x


def length(line):
    return len(line)


def picky(x):
    if x == 7:
        raise ValueError("seven is right out\\nand that is that")
    return x


def leave(x):
    sys.exit("enough")


def sleep(x):
    open("started", "w").close()
    time.sleep(60)


def patient(x):
    while x and not os.path.exists("seen"):
        time.sleep(0.01)
    return x


@amorsize.parallel
def decorated(x):
    return -x


class Group:
    @staticmethod
    def negate(x):
        return -x


async def later(x):
    return x
'''


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    (tmp_path / "jobs.py").write_text(JOBS, encoding="utf-8")
    (tmp_path / "broken.py").write_text("1 / 0\n", encoding="utf-8")
    return tmp_path


def call(folder: Path, *words: str, stdin: bytes = b"", **environment: str) -> tuple[int, str, str]:
    """Run one command; returns its exit code, what it printed, and what it complained about."""
    done = subprocess.run(
        [sys.executable, "-m", "amorsize", *words],
        cwd=folder,
        input=stdin,
        capture_output=True,
        timeout=100,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "AMORSIZE_CACHE_DIR"} | environment,
    )
    return done.returncode, done.stdout.decode().replace("\r\n", "\n"), done.stderr.decode().replace("\r\n", "\n")


class TestWords:
    """Usage, help and version."""

    @pytest.mark.parametrize("words", [["--help"], ["plan", "--help"], ["run", "--help"], ["cache", "--help"]])
    def test_help_teaches_by_example_within_80_columns(
        self, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However wide the terminal."""
        monkeypatch.setenv("COLUMNS", "200")
        assert main(words) == 0
        text = capsys.readouterr().out
        assert "example" in text
        assert max(map(len, text.splitlines())) <= 80

    def test_a_bare_command_shows_the_help(self, folder: Path) -> None:
        """Who types the name only wants to know what there is."""
        code, out, err = call(folder)
        assert (code, err) == (0, "")
        assert "examples:" in out

    def test_version(self, folder: Path) -> None:
        """It is the package's own."""
        assert call(folder, "--version") == (0, f"amorsize {amorsize.__version__}\n", "")

    @pytest.mark.parametrize(
        "words",
        [
            ["fly"],
            ["plan"],
            ["plan", "math:sqrt"],
            ["run", "math:sqrt", "--data", "range(3)", "--json", "--jsonl"],
            ["run", "math:sqrt", "--data", "range(3)", "--n-jobs", "many"],
            ["run", "math:sqrt", "--data", "range(3)", "--errors", "ignore"],
            ["cache", "burn"],
        ],
    )
    def test_usage_errors_are_2(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        """With a word on standard error and nothing on standard output."""
        assert main(words) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "usage: amorsize" in printed.err

    @pytest.mark.parametrize(
        ("job", "data", "complaint"),
        [
            ("sqrt", "range(3)", "is not MODULE:FUNCTION"),
            ("math:", "range(3)", "is not MODULE:FUNCTION"),
            ("jobs.py:double", "range(3)", "'jobs:double'"),
            ("no_such_module:f", "range(3)", "cannot import 'no_such_module'"),
            ("math:no_such", "range(3)", "has no 'no_such'"),
            ("math:sqr", "range(3)", "did you mean 'sqrt'?"),
            ("math:pi", "range(3)", "decorates a callable"),
            ("jobs:later", "range(3)", "async"),
            ("math:sqrt", "nowhere.txt", "no such file: 'nowhere.txt'"),
            ("math:sqrt", "range(1.5)", "whole numbers only"),
            ("math:sqrt", "range(1, 2, 0)", "must not be zero"),
            ("math:sqrt", "*.nothing", "no file matches"),
            ("math:sqrt", ".", "is a folder"),
        ],
    )
    @pytest.mark.parametrize("command", ["plan", "run"])
    def test_words_that_make_no_sense_are_2(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *,
        command: str, job: str, data: str, complaint: str,
    ) -> None:  # fmt: skip
        """One line names what is wrong."""
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(folder)
        assert main([command, job, "--data", data]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert complaint in printed.err
        assert printed.err.startswith("amorsize: error: ")
        assert printed.err.count("\n") == 1

    def test_options_out_of_range_are_2(self, capsys: pytest.CaptureFixture[str]) -> None:
        """As the decorator refuses them."""
        assert main(["run", "math:sqrt", "--data", "range(3)", "--n-jobs", "0"]) == 2
        assert "n_jobs must not be 0" in capsys.readouterr().err
        assert main(["plan", "math:sqrt", "--data", "range(3)", "--timeout", "-1"]) == 2
        assert "timeout" in capsys.readouterr().err
        assert main(["plan", "math:sqrt", "--data", "range(3)", "--max-memory", "2 parsecs"]) == 2
        assert "max_memory must be bytes" in capsys.readouterr().err

    def test_a_variable_that_makes_no_sense_is_2(self, folder: Path) -> None:
        """It was a traceback, with the words at its end."""
        code, out, err = call(folder, "run", "jobs:double", "--data", "range(3)", AMORSIZE_N_JOBS="two")
        assert (code, out) == (2, "")
        (line,) = err.splitlines()
        assert "AMORSIZE_N_JOBS must be a whole number other than 0, not 'two'" in line

    @pytest.mark.parametrize(
        ("text", "n_bytes"),
        [("5000", 5000), ("2GB", 2 * 10**9), ("1.5 GiB", 3 * 2**29), ("500m", 5 * 10**8), ("0.5", 0.5), (".25", 0.25)],
    )
    def test_sizes_are_read_as_people_write_them(
        self, text: str, n_bytes: float, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With and without a unit, decimal and binary, or as a share of all."""
        assert main(["plan", "math:sqrt", "--data", "range(3)", "--json", "--max-memory", text]) == 0
        assert json.loads(capsys.readouterr().out)["limits"]["max_memory"] == n_bytes

    def test_the_options_arrive_under_their_names(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The plan shows what the decorator was given."""
        options = {"--n-jobs": 2, "--batch-size": 3, "--retries": 1, "--sample-size": 4, "--timeout": 1.5}
        words = [str(word) for pair in options.items() for word in pair]
        assert main(["plan", "math:sqrt", "--data", "range(3)", "--json", "--start-method", "loky", *words]) == 0
        limits = json.loads(capsys.readouterr().out)["limits"]
        assert {name: limits[name[2:].replace("-", "_")] for name in options} == options
        assert limits["start_method"] == "loky"

    def test_options_may_be_spelled_as_in_python(self, capsys: pytest.CaptureFixture[str]) -> None:
        """With and without ``=``."""
        words = ["--n_jobs", "2", "--start_method=fork", "--data", "range(3)"]
        assert main(["plan", "math:sqrt", "--json", *words]) == 0
        limits = json.loads(capsys.readouterr().out)["limits"]
        assert (limits["n_jobs"], limits["start_method"]) == (2, "fork")


class TestRun:
    """Results go to standard output, in order."""

    def test_one_line_per_item(self, folder: Path) -> None:
        """The default, and --jsonl."""
        expected = (0, "2\n4\n6\n", "")
        assert call(folder, "run", "jobs:double", "--data", "range(1, 4)") == expected
        assert call(folder, "run", "jobs:double", "--data", "range(1, 4)", "--jsonl") == expected

    def test_one_array(self, folder: Path) -> None:
        """With --json the whole output is one value, also where there are no items."""
        for data, expected in (("range(1, 4)", [2, 4, 6]), ("range(0)", [])):
            code, out, _ = call(folder, "run", "jobs:double", "--data", data, "--json")
            assert (code, json.loads(out)) == (0, expected)

    def test_lines_of_a_file_come_without_newlines(self, folder: Path) -> None:
        """Empty ones included, whatever the newline, with or without one at the end."""
        (folder / "lines.txt").write_bytes(b"one\n\nthree\r\nf\rour\n\nlast")
        assert call(folder, "run", "jobs:double", "--data", "lines.txt", "--json")[1] == (
            '[\n"oneone",\n"",\n"threethree",\n"f\\rourf\\rour",\n"",\n"lastlast"\n]\n'
        )

    def test_lines_of_standard_input_come_without_newlines(self, folder: Path) -> None:
        """Likewise."""
        assert call(folder, "run", "jobs:length", "--data", "-", stdin=b"one\n\nthree\r\n\n")[:2] == (0, "3\n0\n5\n0\n")
        assert call(folder, "run", "jobs:length", "--data", "-", "--json")[:2] == (0, "[]\n")

    def test_bytes_that_are_no_text_survive(self, folder: Path) -> None:
        """They come in as lone surrogates and leave as JSON's escapes; other scripts stay readable."""
        code, out, _ = call(folder, "run", "jobs:double", "--data", "-", stdin=b"\xff\n" + "é\n".encode())
        assert (code, out) == (0, '"\\udcff\\udcff"\n"éé"\n')
        assert [json.loads(line) for line in out.splitlines()] == ["\udcff\udcff", "éé"]

    def test_a_glob_gives_its_paths_in_order(self, folder: Path) -> None:
        """As the shell would have typed them."""
        assert call(folder, "run", "os.path:basename", "--data", "*.py")[1] == '"broken.py"\n"jobs.py"\n'

    @pytest.mark.parametrize("name", ["jobs:decorated", "jobs:Group.negate"])
    def test_decorated_functions_and_static_methods(self, folder: Path, name: str) -> None:
        """Are functions as any other."""
        assert call(folder, "run", name, "--data", "range(3)") == (0, "0\n-1\n-2\n", "")

    def test_workers_give_what_the_loop_gives(self, folder: Path) -> None:
        """With --n-jobs there are processes; the results are the same."""
        words = ("run", "jobs:double", "--data", "range(500)")
        assert call(folder, *words, "--n-jobs", "2") == call(folder, *words)

    def test_standard_input_is_a_stream(self, folder: Path) -> None:
        """The first results are there before the input ends."""
        with subprocess.Popen(
            [sys.executable, "-m", "amorsize", "run", "jobs:length", "--data", "-"],
            cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
        ) as process:  # fmt: skip
            watchdog = _kill_later(process)
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"x\n" * 2000)
            assert process.stdout.readline().strip() == b"1"
            rest = process.communicate(timeout=60)[0]
            watchdog.cancel()
        assert rest.split() == [b"1"] * 1999
        assert process.returncode == 0

    def test_results_are_written_as_they_come(self, folder: Path) -> None:
        """The first line is there while the second item waits for the reader to have seen it."""
        with subprocess.Popen(
            [sys.executable, "-m", "amorsize", "run", "jobs:patient", "--data", "range(2)", "--n-jobs", "1"],
            cwd=folder, stdout=subprocess.PIPE, bufsize=0,
        ) as process:  # fmt: skip
            watchdog = _kill_later(process)
            assert process.stdout is not None
            assert process.stdout.readline() == b"0\n"
            (folder / "seen").touch()
            rest = process.communicate(timeout=60)[0]
            watchdog.cancel()
        assert (rest, process.returncode) == (b"1\n", 0)

    def test_json_lines_are_values(self, folder: Path) -> None:
        """Of a file and of standard input, with nothing for an empty line."""
        lines = b'{"a": [1, 2]}\n\n"text"\n3.5\n'
        (folder / "in.jsonl").write_bytes(lines)
        expected = (0, '{"a": [1, 2]}\n"text"\n3.5\n', "")
        assert call(folder, "run", "copy:copy", "--data", "in.jsonl", "--parse-json") == expected
        assert call(folder, "run", "copy:copy", "--data", "-", "--parse-json", stdin=lines) == expected

    @pytest.mark.parametrize("data", ["in.jsonl", "-"])
    def test_a_line_that_is_no_json_is_named(self, folder: Path, data: str) -> None:
        """With its number, and not taken for a failure of the function."""
        lines = b"1\n2\n{3\n"
        (folder / "in.jsonl").write_bytes(lines)
        code, _, err = call(folder, "run", "copy:copy", "--data", data, "--parse-json", stdin=lines)
        assert code == 2
        assert "amorsize: error: line 3 of " in err
        assert err.count("\n") == 1

    def test_paths_and_numbers_are_no_json(self, folder: Path) -> None:
        """Only lines are."""
        code, _, err = call(folder, "run", "jobs:double", "--data", "range(3)", "--parse-json")
        assert code == 2
        assert "--parse-json reads the lines" in err

    @pytest.mark.parametrize("form", ["--jsonl", "--json"])
    def test_results_go_into_a_file(self, folder: Path, form: str) -> None:
        """The same bytes that standard output would have got, and nothing there."""
        words = ("run", "jobs:double", "--data", "range(3)", form)
        assert call(folder, *words, "--output", "out.txt") == (0, "", "")
        assert (folder / "out.txt").read_text(encoding="utf-8") == call(folder, *words)[1]

    def test_a_file_that_cannot_be_written_is_2(self, folder: Path) -> None:
        """Before anything is computed."""
        code, out, err = call(folder, "run", "jobs:leave", "--data", "range(3)", "--output", "no/such/folder.txt")
        assert (code, out) == (2, "")
        assert "cannot write 'no/such/folder.txt'" in err

    def test_explain_goes_to_standard_error(self, folder: Path) -> None:
        """So that results stay clean."""
        code, out, err = call(folder, "run", "jobs:double", "--data", "range(3)", "--explain")
        assert (code, out) == (0, "0\n2\n4\n")
        assert err.startswith("3 items: serial")

    def test_progress_goes_to_standard_error(self, folder: Path) -> None:
        """And is not drawn for what is over at once."""
        pytest.importorskip("tqdm")
        assert call(folder, "run", "jobs:double", "--data", "range(3)", "--progress") == (0, "0\n2\n4\n", "")


class TestFailure:
    """What happens when the function does not do its job."""

    @pytest.mark.parametrize("data", ["range(20)", "-"])
    def test_a_failing_function_is_1(self, folder: Path, data: str) -> None:
        """One line names function, error and item; no traceback."""
        name = "jobs:picky" if data != "-" else "zlib:crc32"
        code, _, err = call(folder, "run", name, "--data", data, stdin=b"a\n")
        assert code == 1
        assert err.count("\n") == 1
        expected = "picky failed: ValueError: seven is right out (raised by item 7: 7)"
        assert err == f"amorsize: error: {expected}\n" if data != "-" else "crc32 failed: TypeError" in err

    @pytest.mark.parametrize("form", ["--jsonl", "--json"])
    @pytest.mark.parametrize("options", [(), ("--n-jobs", "2")])
    def test_what_was_computed_before_a_failure_is_printed(
        self, folder: Path, form: str, options: tuple[str, ...]
    ) -> None:
        """In order, and as an array that can be read."""
        code, out, _ = call(folder, "run", "jobs:picky", "--data", "range(20)", form, *options)
        assert code == 1
        results = json.loads(out) if form == "--json" else [json.loads(line) for line in out.splitlines()]
        assert results == [0, 1, 2, 3, 4, 5, 6]

    def test_failures_can_be_results(self, folder: Path) -> None:
        """Each at its place, told from other results; how many there are is said."""
        code, out, err = call(folder, "run", "jobs:picky", "--data", "range(6, 9)", "--errors", "return")
        assert (code, err) == (0, "amorsize: 1 of 3 items failed\n")
        failure = {"error": "ValueError", "message": "seven is right out\nand that is that"}
        assert [json.loads(line) for line in out.splitlines()] == [6, failure, 8]

    def test_failures_can_be_left_out(self, folder: Path) -> None:
        """How many there were is said."""
        code, out, err = call(folder, "run", "jobs:picky", "--data", "range(6, 9)", "--errors", "skip")
        assert (code, out, err) == (0, "6\n8\n", "amorsize: 1 of 3 items failed\n")

    @on_posix
    def test_an_item_that_takes_too_long_is_1(self, folder: Path) -> None:
        """With the seconds that it was given."""
        code, _, err = call(folder, "run", "jobs:sleep", "--data", "range(1)", "--timeout", "0.2")
        assert code == 1
        assert "took longer than timeout=0.2 s" in err

    def test_a_traceback_is_to_be_had(self, folder: Path) -> None:
        """On request."""
        code, _, err = call(folder, "run", "jobs:picky", "--data", "range(20)", "--traceback")
        assert code == 1
        assert "Traceback" in err
        assert "jobs.py" in err

    def test_a_failing_dry_run_is_1(self, folder: Path) -> None:
        """A plan runs a sample."""
        code, out, err = call(folder, "plan", "jobs:picky", "--data", "range(7, 20)")
        assert (code, out) == (1, "")
        assert "raised by item 0: 7" in err

    def test_a_function_that_leaves_has_failed(self, folder: Path) -> None:
        """Its exit is not ours."""
        assert call(folder, "run", "jobs:leave", "--data", "range(3)")[::2] == (
            1,
            "amorsize: error: leave failed: SystemExit: enough (raised by item 0: 0)\n",
        )

    def test_a_module_that_cannot_be_run_is_1(self, folder: Path) -> None:
        """It was found, and its code failed."""
        code, _, err = call(folder, "run", "broken:f", "--data", "range(3)")
        assert code == 1
        assert "importing 'broken' failed: ZeroDivisionError" in err

    @on_posix
    def test_an_interrupt_is_130(self, folder: Path) -> None:
        """And says nothing more."""
        with subprocess.Popen(
            [sys.executable, "-m", "amorsize", "run", "jobs:sleep", "--data", "range(3)"],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            watchdog = _kill_later(process)
            while not (folder / "started").exists() and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
            watchdog.cancel()
        assert (process.returncode, out, err) == (130, b"", b"")

    @on_posix
    @pytest.mark.parametrize("data", ["range(200000)", "lines.txt", "-"])
    def test_a_closed_pipe_is_quiet(self, folder: Path, data: str) -> None:
        """The reader has seen enough: no traceback."""
        (folder / "lines.txt").write_text("x\n" * 200_000)
        with (folder / "lines.txt").open() as lines, subprocess.Popen(
            [sys.executable, "-m", "amorsize", "run", "jobs:double", "--data", data],
            cwd=folder, stdin=lines, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            watchdog = _kill_later(process)
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            err = process.stderr.read()
            process.wait(timeout=60)
            watchdog.cancel()
        assert (process.returncode, err) == (141, b"")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
    def test_a_full_disk_is_1(self, folder: Path) -> None:
        """And is told once."""
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "amorsize", "run", "jobs:double", "--data", "range(3)"],
                cwd=folder, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False,
            )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.count(b"\n") == 1


def _kill_later(process: subprocess.Popen[bytes]) -> Any:
    import threading  # noqa: PLC0415 - a watchdog for reads that have no timeout of their own

    watchdog = threading.Timer(60, process.kill)
    watchdog.daemon = True
    watchdog.start()
    return watchdog


class TestPlanAndHost:
    """What is asked without running the work."""

    def test_a_plan_recommends(self, folder: Path) -> None:
        """In words, within 80 columns, with n_jobs and chunksize on the last line."""
        code, out, err = call(folder, "plan", "math:factorial", "--data", "range(1, 500)")
        assert (code, err) == (0, "")
        assert out.splitlines()[-1].startswith("n_jobs=1 chunksize=")
        assert max(map(len, out.splitlines())) <= 80

    @pytest.mark.skipif(sys.platform != "linux", reason="forks")
    def test_it_says_that_other_programs_had_the_cores(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Else nothing told why it was slower than predicted, or than the loop."""
        lines: list[str] = []
        monkeypatch.setattr(_demo, "parcels", lambda: [[_demo.__file__]] * 40)
        forked = _demo.count_nodes.with_options(n_jobs=2, start_method="fork")
        monkeypatch.setattr(_demo, "count_nodes", forked)
        for busy in (0.0, math.inf):
            monkeypatch.setattr(_bounds, "DEMO_BUSY", busy)
            _demo.run(lines.append)
        assert sum("other programs are running: the map had" in line for line in lines) == 1

    def test_a_plan_is_machine_readable(self, folder: Path) -> None:
        """With every field of the record."""
        code, out, _ = call(folder, "plan", "math:factorial", "--data", "range(1, 500)", "--json")
        plan = json.loads(out)
        assert code == 0
        assert plan["n_items"] == 499
        assert {"n_jobs", "chunksize", "reason", "profile", "host", "limits"} <= set(plan)

    def test_a_plan_of_a_stream_reads_the_sample_only(self, folder: Path) -> None:
        """An endless producer does not keep it."""
        code, out, _ = call(folder, "plan", "jobs:length", "--data", "-", "--json", stdin=b"x\n" * 100_000)
        assert (code, json.loads(out)["n_items"]) == (0, None)

    def test_a_host_is_told_in_words(self, folder: Path) -> None:
        """Cores, memory, where each limit comes from, and what workers cost."""
        code, out, err = call(folder, "host", "--no-measure", LOKY_MAX_CPU_COUNT="1")
        assert (code, err) == (0, "")
        assert "CPUs     1 usable" in out
        assert any(line.split() == ["LOKY_MAX_CPU_COUNT", "1", "<-", "counts"] for line in out.splitlines())
        assert "per chunk" in out
        assert max(map(len, out.splitlines())) <= 80

    def test_a_host_is_machine_readable_and_measured(self, folder: Path) -> None:
        """Each reading stands there, and what was measured says so."""
        code, out, _ = call(folder, "host", "--json")
        host = json.loads(out)
        assert code == 0
        assert host["n_cpus"] >= 1
        assert host["readings"]["memory_bytes"]["machine"] > 0
        assert host["costs"]["loky"]["is_measured"]


class TestCache:
    """Showing and clearing what is kept."""

    def test_without_a_folder_it_says_how_to_name_one(self, folder: Path) -> None:
        """Nothing is kept by default."""
        code, _, err = call(folder, "cache", "show")
        assert code == 2
        assert "AMORSIZE_CACHE_DIR" in err

    def test_without_a_word_it_shows(self, folder: Path) -> None:
        """What is kept, or that nothing is."""
        code, out, err = call(folder, "cache", AMORSIZE_CACHE_DIR=str(folder / "empty"))
        assert (code, err) == (0, "")
        assert out.endswith("empty: 0 profiles, no costs of workers measured yet\n")

    def test_costs_are_kept_shown_and_cleared(self, folder: Path) -> None:
        """By three processes in turn."""
        kept = str(folder / "kept")
        assert call(folder, "host", AMORSIZE_CACHE_DIR=kept)[0] == 0
        code, out, _ = call(folder, "cache", "show", "--json", "--dir", kept)
        assert code == 0
        assert json.loads(out)["costs"]["loky"]["is_measured"]
        shown = call(folder, "cache", "show", AMORSIZE_CACHE_DIR=kept)[1]
        assert "measured costs of " in shown
        assert "served" not in shown
        assert call(folder, "cache", "clear", "--dir", kept)[0] == 0
        assert json.loads(call(folder, "cache", "show", "--json", "--dir", kept)[1])["costs"] == {}

    def test_profiles_are_shown_by_the_names_of_their_functions(self, folder: Path) -> None:
        """Hashes say nothing to people; partials and bound methods go by what is inside."""
        kept = str(folder / "kept")
        for name in ("jobs:double", "jobs:Group.negate", "math:sqrt"):
            assert call(folder, "run", name, "--data", "range(3)", AMORSIZE_CACHE_DIR=kept)[0] == 0
        code, out, _ = call(folder, "cache", "show", "--dir", kept)
        assert code == 0
        assert {line.split()[0] for line in out.splitlines()[1:]} == {
            "jobs.double", "jobs.Group.negate", "math.sqrt",
        }  # fmt: skip
        profiles = json.loads(call(folder, "cache", "show", "--json", "--dir", kept)[1])["profiles"]
        assert {profile["name"] for profile in profiles} == {"jobs.double", "jobs.Group.negate", "math.sqrt"}
        assert all(profile["key"] for profile in profiles)

    def test_a_file_that_is_not_ours_is_not_cleared(self, folder: Path) -> None:
        """It is told, and left."""
        from amorsize._store import FILE_NAME  # noqa: PLC0415 - only here

        (folder / FILE_NAME).write_text("precious" * 1000)
        code, _, err = call(folder, "cache", "clear", "--dir", ".")
        assert code == 1
        assert "remove the file by hand" in err
        assert (folder / FILE_NAME).read_text() == "precious" * 1000


class TestDemo:
    """The main job."""

    def test_it_compares_with_the_loop_and_explains(self, folder: Path) -> None:
        """Within 80 columns."""
        code, out, err = call(folder, "demo")
        assert (code, err) == (0, "")
        assert "same results: yes" in out
        assert "last_plan.explain()" in out
        assert "measured" in out
        assert max(map(len, out.splitlines())) <= 80

    def test_its_function_can_be_imported_by_workers(self) -> None:
        """Under the name it has."""
        assert _demo.count_nodes.__module__ == "amorsize._demo"
        assert _demo.count_nodes([_demo.__file__]) > 100

    def test_its_files_are_the_same_every_time(self) -> None:
        """And none of them is a test."""
        paths = _demo.modules()
        assert paths == _demo.modules()
        assert len(paths) > 100
        assert not any("site-packages" in path for path in paths)
        assert [path for parcel in _demo.parcels() for path in parcel] == paths

    def test_its_first_items_are_like_the_others(self) -> None:
        """Its forecast was half of the truth every time: the first modules are small. Nodes stand for seconds here."""
        nodes = [_demo.count_nodes(parcel) for parcel in _demo.parcels()]
        assert len(nodes) > 50
        assert sum(nodes[:5]) / 5 == pytest.approx(sum(nodes) / len(nodes), rel=0.3)

    def test_a_difference_is_a_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It would be told, with exit code 1."""
        monkeypatch.setattr(_demo, "run", lambda say: (False, None))
        assert main(["demo"]) == 1


@dataclasses.dataclass
class Point:
    """A record as users have them."""

    x: int
    where: Any


class Mute:
    """Something that does not even have a repr."""

    def __repr__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ([1, 2.5, "a\nb"], '[1, 2.5, "a\\nb"]'),
        (float("nan"), "null"),
        ({"a": float("inf")}, '{"a": null}'),
        ({1: "x", (2, 3): "y"}, '{"1": "x", "(2, 3)": "y"}'),
        ({3, 1, 2}, "[1, 2, 3]"),
        (Path("a"), '"a"'),
        (b"\xff", "\"b'\\\\xff'\""),
        (Point(1, {2}), '{"x": 1, "where": [2]}'),
        (1j, '"1j"'),
        (KeyError("k"), '{"error": "KeyError", "message": "\'k\'"}'),
        (Mute(), '"<Mute>"'),
    ],
)
def test_every_result_is_one_line_of_json(value: object, text: str) -> None:
    """Exactly where JSON can, else as its nearest relative."""
    assert to_json(value) == text
    json.loads(text)


def test_numpy_results_are_numbers_and_lists() -> None:
    """Not their reprs."""
    numpy = pytest.importorskip("numpy")
    assert to_json(numpy.float64(1.5)) == "1.5"
    assert to_json([numpy.int64(3), numpy.arange(3)]) == "[3, [0, 1, 2]]"


def test_a_value_inside_itself_is_its_repr() -> None:
    """There is no end to it."""
    value: list[Any] = []
    value.append(value)
    assert to_json(value) == '"[[...]]"'
