"""Model cards in the format of the Hugging Face Hub."""

from __future__ import annotations

from typing import Any

from fastdpm.core.text import markdown_text
from fastdpm.models.config import FeaturesConfig, FolderConfig, ModelConfig

_TASKS = {"image": "unconditional-image-generation", "audio": "text-to-audio"}
_HUB_LICENSES = ("apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "mit")
_MODEL = """A diffusion model for {data}.
Sample it with fastdpm, where PATH is this folder:

```
fastdpm sample PATH{option}
```"""
_CLASSIFIER = """A classifier of {data}. fastdpm uses its last hidden layer as the
features of metrics. Distances computed with it carry its name and are not comparable to FID."""


def card_of(config: FolderConfig) -> str:
    """The text of a folder's ``README.md``: data, license, training and use of the network."""
    data = config.data
    facts = {"Data": data.description or "not stated"}
    about, option, task = _MODEL, "", _TASKS.get(data.modality, "other")
    if isinstance(config, FeaturesConfig):
        about = _CLASSIFIER
        task = "image-classification" if data.modality == "image" else "audio-classification"
        facts["Classes"] = ", ".join(config.classes)
    elif data.classes is not None:
        facts["Classes"] = ", ".join(data.class_names or (f"0 to {data.classes - 1}",))
        option, task = (" --class NAME" if data.class_names else " --class NUMBER"), "other"
        if isinstance(config, ModelConfig) and config.null_class is not None:
            facts["Null class"] = "none (no class), so that the model can be guided: --guidance"
    facts["Network"] = _pairs(config.network)
    if isinstance(config, ModelConfig):
        facts["Prediction"] = config.prediction
        facts["Schedule"] = _pairs(config.schedule)
        facts["Recommended recipe"] = config.recipe.describe()
        for name, recipe in (config.recipes or {}).items():
            facts[f"Recipe {name}"] = recipe.describe()
    rate = f" at {data.sample_rate} Hz" if data.sample_rate else ""
    described = f"{data.modality} data of shape {' x '.join(map(str, data.shape))}{rate}"
    license_tag = config.license.lower() if config.license.lower() in _HUB_LICENSES else "other"
    lines = "".join(f"- {name}: {markdown_text(fact)}\n" for name, fact in facts.items())
    attribution = f"\n{markdown_text(config.attribution)}\n" if config.attribution else ""
    rows = "".join(
        f"| {markdown_text(name.replace('_', ' '))} | {markdown_text(value)} |\n"
        for name, value in config.provenance.items()
    )
    return f"""---
license: {license_tag}
library_name: fastdpm
pipeline_tag: {task}
---

# {config.name}

{about.format(data=described, option=option)}

{lines}- License of the weights: {markdown_text(config.license)}
{attribution}
## Training

| Setting | Value |
| --- | --- |
{rows}"""


def _pairs(values: dict[str, Any]) -> str:
    """Names and values in one line."""
    return ", ".join(f"{name} {value}" for name, value in values.items())
