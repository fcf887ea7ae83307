from .core.errors import (
    DataError as DataError,
)
from .core.errors import (
    FastDPMError as FastDPMError,
)
from .core.errors import (
    InterruptedRunError as InterruptedRunError,
)
from .core.errors import (
    InvalidArgumentError as InvalidArgumentError,
)
from .core.errors import (
    MissingExtraError as MissingExtraError,
)
from .core.errors import (
    ModelError as ModelError,
)
from .core.errors import (
    SamplingError as SamplingError,
)
from .core.levels import (
    NoiseLevels as NoiseLevels,
)
from .core.levels import (
    levels_all as levels_all,
)
from .core.levels import (
    levels_custom as levels_custom,
)
from .core.levels import (
    levels_from_variances as levels_from_variances,
)
from .core.levels import (
    levels_step as levels_step,
)
from .core.levels import (
    levels_var as levels_var,
)
from .core.likelihood import GreyLevels as GreyLevels
from .core.multistep import dpmpp_2m as dpmpp_2m
from .core.multistep import dpmpp_3m as dpmpp_3m
from .core.multistep import multistep_3 as multistep_3
from .core.plan import Plan as Plan
from .core.recipe import Recipe as Recipe
from .core.reverse import ddim_rev as ddim_rev
from .core.reverse import standard as standard
from .core.schedule import VarianceSchedule as VarianceSchedule
from .data.inputs import read_samples as read_samples
from .evaluation.compare import compare as compare
from .evaluation.drawn import DrawOptions as DrawOptions
from .evaluation.evaluate import MeasureOptions as MeasureOptions
from .evaluation.evaluate import evaluate as evaluate
from .evaluation.methods import choose_methods as choose_methods
from .evaluation.reconstruct import Reconstruction as Reconstruction
from .evaluation.reconstruct import reconstruct as reconstruct
from .evaluation.scores import Evaluation as Evaluation
from .integrations.diffusers.inverse import FastDPMInverseScheduler as FastDPMInverseScheduler
from .integrations.diffusers.scheduler import FastDPMScheduler as FastDPMScheduler
from .inverse.diffuse import diffuse as diffuse
from .inverse.diffuse import diffusion_chain as diffusion_chain
from .inverse.edit import edit as edit
from .inverse.encode import Latents as Latents
from .inverse.encode import decode as decode
from .inverse.encode import encode as encode
from .inverse.interpolate import interpolate as interpolate
from .inverse.latents_file import read_latents as read_latents
from .inverse.latents_file import write_latents as write_latents
from .inverse.likelihood import bits_per_dimension as bits_per_dimension
from .models.config import builtin_models as builtin_models
from .models.load import load_model as load_model
from .models.model import Decoder as Decoder
from .models.model import Model as Model
from .sampling.ask import (
    NoisePredictor as NoisePredictor,
)
from .sampling.implicit import ImplicitOptions as ImplicitOptions
from .sampling.noise import SampleNoise as SampleNoise
from .sampling.prediction import (
    Autocast as Autocast,
)
from .sampling.prediction import (
    ClipX0 as ClipX0,
)
from .sampling.prediction import (
    DynamicThreshold as DynamicThreshold,
)
from .sampling.prediction import (
    Guidance as Guidance,
)
from .sampling.prediction import (
    VPrediction as VPrediction,
)
from .sampling.prediction import (
    X0Prediction as X0Prediction,
)
from .sampling.run import run as run

__version__: str
