from .options import TuneOptions as TuneOptions
from .tune import Tuning as Tuning
from .tune import tune as tune
