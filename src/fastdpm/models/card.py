"""Model cards, in the form that model hubs show."""

from __future__ import annotations

from typing import Any

from fastdpm.models.config import FeaturesConfig, FolderConfig, ModelConfig

_TASKS = {"image": "unconditional-image-generation", "audio": "text-to-audio"}
_HUB_LICENSES = ("apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "mit")
_MODEL = """A diffusion model for {data}.
Sample it with fastdpm, PATH being this folder:

```
fastdpm sample PATH
```"""
_CLASSIFIER = """A classifier of {data}, whose last hidden layer measures
samples in fastdpm. Distances measured with it are named after it and are no FID."""


def card_of(config: FolderConfig) -> str:
    """The ``README.md`` of a folder: data, license, training and how to use the network."""
    data = config.data
    facts = {"Data": data.description or "not said"}
    about, task = _MODEL, _TASKS.get(data.modality, "other")
    if isinstance(config, FeaturesConfig):
        about = _CLASSIFIER
        task = "image-classification" if data.modality == "image" else "audio-classification"
        facts["Classes"] = ", ".join(config.classes)
    facts["Network"] = _listed(config.network)
    if isinstance(config, ModelConfig):
        facts["Schedule"] = _listed(config.schedule)
        facts["Recommended recipe"] = config.recipe.describe()
    rate = f" at {data.sample_rate} Hz" if data.sample_rate else ""
    described = f"{data.modality} data of shape {' x '.join(map(str, data.shape))}{rate}"
    known = config.license.lower() if config.license.lower() in _HUB_LICENSES else "other"
    told = "".join(f"- {name}: {fact}\n" for name, fact in facts.items())
    named = f"\n{config.attribution}\n" if config.attribution else ""
    rows = "".join(f"| {n.replace('_', ' ')} | {v} |\n" for n, v in config.provenance.items())
    return f"""---
license: {known}
library_name: fastdpm
pipeline_tag: {task}
---

# {config.name}

{about.format(data=described)}

{told}- License of the weights: {config.license}
{named}
## Training

| what | value |
| --- | --- |
{rows}"""


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
