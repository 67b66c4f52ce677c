"""Formulas as MathML, which browsers draw themselves: no script and no network, neither in the build nor on the page."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import pick_math_environment
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.errors import ExtensionError

__all__ = ["as_mathml", "setup"]


def as_mathml(tex: str, block: bool) -> str:
    """Return a formula in LaTeX as a MathML element.

    Raises:
        ExtensionError: When it has a command that cannot be translated.
    """
    source = tex.strip()
    if block and pick_math_environment(source) == "align*":
        source = rf"\begin{{align*}}{source}\end{{align*}}"
    try:
        return str(tex2mathml(source, as_block=block))
    except SyntaxError as error:  # docutils' MathError is one
        msg = f"formula {source!r}: {error}"
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
