"""A reproducible companion to two papers on in-context learning.

Import the module that owns what you need (`icl.contexts`, `icl.heads`, ...); `icl.load`
opens a trained model by name. `icl.experiments` has a file per chapter of the book.
"""

from icl.files import load

__all__ = ["load"]
