from .options import TuneOptions as TuneOptions
from .quality import measured as measured
from .tune import Tuning as Tuning
from .tune import tune as tune
