"""The field's other shower layouts, read and written.

>>> list(FORMATS)[:3]
['caloforge', 'showerdata', 'calochallenge']
"""

from __future__ import annotations

from caloforge.formats.base import FORMATS, Format, ReadOptions
from caloforge.formats.conversion import Conversion, convert, from_arrays, open_file, read
from caloforge.formats.source import ForeignShowers

__all__ = [
    "FORMATS",
    "Conversion",
    "ForeignShowers",
    "Format",
    "ReadOptions",
    "convert",
    "from_arrays",
    "open_file",
    "read",
]
