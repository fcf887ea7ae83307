"""Models: finding, loading, converting and publishing them, and model folders."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
