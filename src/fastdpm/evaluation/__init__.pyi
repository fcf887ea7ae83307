from .drawn import DrawOptions as DrawOptions
from .estimate import CostEstimate as CostEstimate
from .evaluate import MeasureOptions as MeasureOptions
from .methods import choose_methods as choose_methods
from .reconstruct import Reconstruction as Reconstruction
from .results import Comparison as Comparison
from .scores import Evaluation as Evaluation
