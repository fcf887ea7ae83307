from .diffuse import DiffusionChain as DiffusionChain
from .diffuse import diffusion_chain as diffusion_chain
from .encode import Latents as Latents
from .encode import decode as decode
from .latents_file import read_latents as read_latents
from .latents_file import write_latents as write_latents
from .likelihood import Bound as Bound
from .likelihood import bits_per_dimension as bits_per_dimension
