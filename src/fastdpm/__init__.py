"""Sample trained diffusion models in few network evaluations.

The public names are those of ``__init__.pyi``; each is loaded when first used, so that importing
the package costs nothing.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
