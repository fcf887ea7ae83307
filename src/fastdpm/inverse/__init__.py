"""Encoding, interpolation, editing and likelihood: everything that runs from data to noise."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
