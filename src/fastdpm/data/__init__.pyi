from .inputs import read_samples as read_samples
from .spec import DataSpec as DataSpec
from .spec import MelSpec as MelSpec
