"""Every opcode of this Python has a meaning here, and code is decoded as dis decodes it."""

from __future__ import annotations

import dis
import json
import sysconfig
import types
from pathlib import Path

import pytest

from amorsize._analysis import bytecode
from amorsize._analysis.bytecode import _asked, _decode, chains_of, meaning, unknown_ops
from amorsize._analysis.effects import effects_of
from amorsize._analysis.opcodes import HANDLERS

# What only a module's own code, or an interactive prompt, consists of: no function has it.
ELSEWHERE = {"IMPORT_STAR", "PRINT_EXPR"}


# Those of tracing stand in running code only, never in what co_code gives.
@pytest.mark.parametrize(
    "name", sorted(name for name in set(dis.opmap) - ELSEWHERE if not name.startswith("INSTRUMENTED_"))
)
def test_every_opcode_has_a_meaning(name: str) -> None:
    """What a new version of Python adds is told here, before it makes functions unknown."""
    assert meaning(dis.opmap[name]) != "unknown" or dis.opmap[name] > 255


def test_every_meaning_has_its_instruction() -> None:
    """What an instruction means is also done, and nothing is done that no instruction means."""
    assert set(HANDLERS) == {"unknown", *bytecode.MEANING_OF.values()}


def test_an_opcode_without_a_meaning_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is taken for harmless because nobody has described it."""
    meanings = ["unknown" if op == dis.opmap["UNARY_INVERT"] else known for op, known in enumerate(bytecode._BY_OP)]
    monkeypatch.setattr(bytecode, "_BY_OP", meanings)
    assert unknown_ops((lambda x: ~x).__code__) == {"UNARY_INVERT"}
    assert not unknown_ops((lambda x: -x).__code__)
    assert "UNARY_INVERT" in effects_of(lambda x: ~x).unproved


def codes(code: types.CodeType) -> list[types.CodeType]:
    """Return a code object and all nested in it."""
    found = [code]
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            found += codes(const)
    return found


LIBRARY = Path(sysconfig.get_path("stdlib"))


@pytest.mark.parametrize(
    "name", ["argparse", "ast", "collections/__init__", "dataclasses", "enum", "inspect", "typing"]
)
def test_code_is_decoded_as_dis_does(name: str) -> None:
    """Offsets, arguments, names and targets of jumps are those of dis, for thousands of instructions."""
    source = (LIBRARY / f"{name}.py").read_text(encoding="utf-8")
    n_steps = 0
    for code in codes(compile(source, name, "exec")):
        ours, theirs = _decode(code), _asked(code)
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            n_steps += 1
            assert (one.offset, one.op, one.arg) == (other.offset, other.op, other.arg)
            assert one.target in {-1, other.target}
            if one.value is not None and one.meaning not in {"kw names", "end"}:
                assert repr(one.value) == repr(other.value), one
    assert n_steps > 1000


def test_attributes_of_a_global_are_told_as_one() -> None:
    """What code takes from a module is known without guessing from names that stand elsewhere."""

    def work(x: int) -> object:
        return json.decoder.JSONDecoder, [json for _ in range(x)]

    assert chains_of(work.__code__) >= {("json", "decoder", "JSONDecoder"), ("json",), ("range",)}
