"""Running plans with PyTorch: noise predictors, noise, and the one loop."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
