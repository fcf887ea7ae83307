"""Model cards, in the form that model hubs show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastdpm.data.spec import DataSpec
from fastdpm.models.config import ModelConfig

if TYPE_CHECKING:
    from fastdpm.models.features import FeaturesConfig

_TASKS = {"image": "unconditional-image-generation", "audio": "text-to-audio"}
_HUB_LICENCES = ("apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "mit")


def model_card(config: ModelConfig) -> str:
    """The ``README.md`` of a model folder: data, licence, training and how to sample."""
    data = config.data
    task = _TASKS.get(data.modality, "other")
    return f"""{_header(config.licence, task)}
# {config.name}

A diffusion model for {_described(data)}.
Sample it with fastdpm, PATH being this folder:

```
fastdpm sample PATH
```

- Data: {data.description or "not said"}
- Network: {_listed(config.network)}
- Schedule: {_listed(config.schedule)}
- Recommended recipe: {config.recipe.describe()}
{_origin(config.licence, config.attribution, config.provenance)}"""


def features_card(config: FeaturesConfig) -> str:
    """The ``README.md`` of a feature network's folder."""
    task = "image-classification" if config.data.modality == "image" else "audio-classification"
    return f"""{_header(config.licence, task)}
# {config.name}

A classifier of {_described(config.data)}, whose last hidden layer measures
samples in fastdpm. Distances measured with it are named after it and are no FID.

- Data: {config.data.description or "not said"}
- Classes: {", ".join(config.classes)}
- Network: {_listed(config.network)}
{_origin(config.licence, config.attribution, config.provenance)}"""


def _header(licence: str, task: str) -> str:
    known = licence.lower() if licence.lower() in _HUB_LICENCES else "other"
    return f"---\nlicense: {known}\nlibrary_name: fastdpm\npipeline_tag: {task}\n---\n"


def _described(data: DataSpec) -> str:
    rate = f" at {data.sample_rate} Hz" if data.sample_rate else ""
    return f"{data.modality} data of shape {' x '.join(map(str, data.shape))}{rate}"


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _origin(licence: str, attribution: str, provenance: dict[str, Any]) -> str:
    rows = "".join(f"| {name.replace('_', ' ')} | {v} |\n" for name, v in provenance.items())
    named = f"\n{attribution}\n" if attribution else ""
    return f"""- Licence of the weights: {licence}
{named}
## Training

| what | value |
| --- | --- |
{rows}"""
