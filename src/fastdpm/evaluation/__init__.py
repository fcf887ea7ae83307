"""Measuring samples: features, statistics and metrics, each a stage of its own."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
