"""References to parts of caloforge under the name by which a package passes them on, and to those that the API pages leave out.

``caloforge.showers.Showers`` is documented where it is defined, as ``caloforge.showers.container.Showers``. What exists in the code and has no
entry, such as a private class in a signature, becomes text; what does not exist stays an error.
"""

from __future__ import annotations

import builtins
import sys
from importlib import import_module
from typing import Any

from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.ext.autodoc.mock import mock
from sphinx.util.nodes import make_refnode

__all__ = ["exists", "setup"]


def exists(name: str) -> bool:
    """Return whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for number in range(len(parts), 0, -1):
        try:
            found: Any = import_module(".".join(parts[:number]))
        except ImportError:
            continue
        for part in parts[number:]:
            if part in getattr(found, "__annotations__", {}) and not hasattr(found, part):
                return True  # a field without a default
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def _foreign(name: str) -> bool:
    """Return whether a name is of Python or of a package that is imported, and not of caloforge."""
    root = name.partition(".")[0]
    return hasattr(builtins, name) or (root != "caloforge" and "." in name and root in sys.modules)


def _drop_foreign(app: Any, doctree: Element) -> None:
    """Make text of the types of other packages in signatures, which Sphinx would look for among all names of ours."""
    for node in list(doctree.findall(pending_xref)):
        if node.get("refdomain") == "py" and _foreign(str(node.get("reftarget", ""))):
            node.replace_self(node.children)


def _resolve(app: Any, env: Any, node: Element, content: Element) -> Element | None:
    """Return a link, or the text alone, for a reference without an entry of that name."""
    name = str(node.get("reftarget", ""))
    if node.get("refdomain") != "py" or not name.startswith("caloforge."):
        return None
    package, _, last = name.rpartition(".")
    objects = env.domains["py"].objects
    found = [key for key in objects if key.startswith(f"{package}.") and key.endswith(f".{last}")]
    if len(found) == 1:
        entry = objects[found[0]]
        return make_refnode(
            app.builder, node.get("refdoc", ""), entry.docname, entry.node_id, content, found[0]
        )
    return content if exists(name) else None


def _keep_mocks(app: Any, config: Any) -> None:
    """Keep the mocked packages, since Sphinx would import those of base classes: geant4-pybind then asks for its data sets."""
    with mock(config.autodoc_mock_imports):
        made = {name: import_module(name) for name in config.autodoc_mock_imports}
    sys.modules.update(made)


def setup(app: Any) -> dict[str, bool]:
    """Connect to the references that Sphinx does not find."""
    app.connect("config-inited", _keep_mocks)
    app.connect("doctree-read", _drop_foreign)
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
