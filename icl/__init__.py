"""A reproducible companion to two papers on in-context learning.

Import the module that owns what you need (`icl.contexts`, `icl.heads`, ...); `icl.load`
opens a trained model by name.
"""

from icl.checkpoints import load

__all__ = ["load"]
