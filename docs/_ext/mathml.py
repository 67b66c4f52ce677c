"""Formulas as MathML, which browsers draw themselves: no script and no network, neither in the build nor on the page."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import pick_math_environment
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.errors import ExtensionError

__all__ = ["as_mathml", "setup"]


_PLAINER = [
    (r"\\[tb]?frac\s*(\d)\s*(\w)", r"\\frac{\1}{\2}"),
    (r"\\binom\s*(\w)\s*(\w)", r"\\binom{\1}{\2}"),
    (r"\\tfrac", r"\\frac"),
    (r"\\([bB]igg?[lr]?|textstyle)(?![a-zA-Z])", ""),
    (r"\\dots(?![a-z])", r"\\ldots"),
]
"""Patterns and what stands for them: forms that the translation to MathML does not know, where MathML's brackets grow by themselves."""


def as_mathml(tex: str, block: bool) -> str:
    """Return a formula in LaTeX as a MathML element.

    Raises:
        ExtensionError: When it has a command that cannot be translated.
    """
    source = tex.strip()
    for pattern, plain in _PLAINER:
        source = re.sub(pattern, plain, source)
    if block and pick_math_environment(source) == "align*":
        source = rf"\begin{{align*}}{source}\end{{align*}}"
    try:
        return str(tex2mathml(source, as_block=block))
    except (SyntaxError, ValueError) as error:
        msg = f"formula {tex!r}: {error}"
        raise ExtensionError(msg) from error


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(as_mathml(node.astext(), False))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{as_mathml(node.astext(), True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer as ``html_math_renderer = "mathml"``."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
