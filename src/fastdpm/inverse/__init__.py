"""From data towards noise: encode, interpolate, edit, and bound the likelihood."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
