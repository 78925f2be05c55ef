"""Sphinx configuration; `nox -s docs` builds, with every warning an error."""

from __future__ import annotations

import builtins
import re
import sys
from importlib import metadata

from docutils.nodes import Element, SkipNode
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.writers.html5 import HTML5Translator

project = "amorsize"
author = "The amorsize authors"
project_copyright = f"2026, {author}"
release = metadata.version("amorsize")
version = release

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_title = f"amorsize {release}"
# Formulas become MathML when the pages are built: browsers draw it, and no page loads scripts from elsewhere.
html_math_renderer = "mathml"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3

# Notebooks are kept as text without outputs; each build runs them anew, and a cell that fails fails the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
# Attributes become fields of the class; as entries of their own they would be described twice, here
# and where autodoc finds the annotated field.
napoleon_use_ivar = True

# Prompts and outputs are not copied.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_selector = "div:not(.output) > div.highlight pre"

# References into other projects stay plain text: to resolve them takes inventories from the
# network, and the build must do without. A reference to anything not listed here is an error.
FOREIGN = [*sys.stdlib_module_names, "joblib", "matplotlib", "numpy", "psutil", "tqdm", "wrapt"]
nitpick_ignore_regex = [
    (r"py:.*", rf"({'|'.join(map(re.escape, FOREIGN))})(\..*)?"),
    (r"py:.*", "|".join(map(re.escape, dir(builtins)))),
    # Type variables appear in signatures and have no page of their own.
    (r"py:.*", r"(amorsize\.([a-z_]+\.)?)?_?[A-Z](_co|_contra)?"),
    (r"py:.*", r"_?[A-Z]\.(args|kwargs)"),
    # What overloads return to type checkers only; at run time a ParallelFunction.
    (r"py:class", r"(amorsize\._decorator\.)?(_Decorator|_ReturningDecorator|ReturningFunction)"),
    # What aimap returns; its page is how-to/async. And the options of calls that take fewer of them.
    (r"py:class", r"AsyncStream|(amorsize\._options\.)?OtherOptions"),
    # Fields of records are described in their class, not as entries of their own.
    (r"py:attr", r"batch_size|decision"),
]


def resolve_public_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: Element) -> Element | None:
    """Lead a signature that names `amorsize._room.Name` to the page of `amorsize.Name`."""
    private = re.fullmatch(r"amorsize\.(?:_\w+\.)+(\w+)", node.get("reftarget", ""))
    if private is None or node.get("refdomain") != "py":
        return None
    return env.domains.python_domain.resolve_xref(
        env, node["refdoc"], app.builder, "obj", f"amorsize.{private[1]}", node, contnode
    )


def leave_out_class_signature(*event: object) -> tuple[str, None] | None:
    """Show classes without the arguments of their constructors: the fields below say it, with their types."""
    what = event[1]
    return ("", None) if what == "class" else None


def show_one_signature(app: Sphinx) -> None:
    """Show functions as they are called, not the overloads that tell type checkers of their results."""
    del app
    for name in ("_decorator", "_methods", "_toplevel"):
        analyzer = ModuleAnalyzer.for_module(f"amorsize.{name}")
        analyzer.analyze()
        analyzer.overloads.clear()


def write_inline_formula(translator: HTML5Translator, node: Element) -> None:
    """Write a formula within a line."""
    translator.body.append(tex2mathml(node.astext(), as_block=False))
    raise SkipNode


def write_formula(translator: HTML5Translator, node: Element) -> None:
    """Write a formula of its own; it scrolls where it is wider than the page."""
    translator.body.append(
        f'<div style="overflow-x:auto;padding:.2em 0">{tex2mathml(node.astext(), as_block=True)}</div>'
    )
    raise SkipNode


def setup(app: Sphinx) -> None:
    """Register what is above."""
    app.add_html_math_renderer("mathml", (write_inline_formula, None), (write_formula, None))
    app.connect("builder-inited", show_one_signature)
    app.connect("autodoc-process-signature", leave_out_class_signature)
    app.connect("missing-reference", resolve_public_name)
