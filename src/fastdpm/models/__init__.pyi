from .config import builtin_models as builtin_models
from .conversion import convert as convert
from .decoder import Decoder as Decoder
from .load import load_model as load_model
from .model import Model as Model
from .trajectories import trajectory_costs as trajectory_costs
