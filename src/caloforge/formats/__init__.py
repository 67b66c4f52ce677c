"""The field's other shower layouts, read and written.

    >>> from caloforge import formats
    >>> list(formats.FORMATS)[:3]
    ['caloforge', 'showerdata', 'calochallenge']

Other packages add formats through the entry-point group ``caloforge.formats``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from caloforge.registry import Registry

if TYPE_CHECKING:
    from caloforge.formats.base import Format, ReadOptions
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

FORMATS: Registry[Format] = Registry(
    "format",
    {
        "caloforge": "caloforge.formats.own:OWN",
        "showerdata": "caloforge.formats.own:SHOWERDATA",
        "calochallenge": "caloforge.formats.hdf5_arrays:CALOCHALLENGE",
        "calogan": "caloforge.formats.hdf5_arrays:CALOGAN",
        "getting-high": "caloforge.formats.hdf5_arrays:GETTING_HIGH",
        "3dgan": "caloforge.formats.hdf5_arrays:GAN3D",
        "lemurs": "caloforge.formats.hdf5_arrays:LEMURS",
        "edm4hep": "caloforge.formats.edm4hep:EDM4HEP",
        "root": "caloforge.formats.root:ROOT",
        "numpy": "caloforge.formats.numpy_files:NUMPY",
        "hdf5": "caloforge.formats.hdf5_arrays:HDF5",
    },
    group="caloforge.formats",
)

_LAZY = {
    "Conversion": "conversion",
    "ForeignShowers": "source",
    "Format": "base",
    "ReadOptions": "base",
    "convert": "conversion",
    "from_arrays": "conversion",
    "open_file": "conversion",
    "read": "conversion",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'caloforge.formats' has no attribute '{name}'")
    return getattr(import_module(f"caloforge.formats.{_LAZY[name]}"), name)
