"""Model cards, in the form that model hubs show."""

from __future__ import annotations

from fastdpm.models.config import ModelConfig

_HUB_LICENCES = ("apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "mit")


def model_card(config: ModelConfig) -> str:
    """The ``README.md`` of a model folder: data, licence, training and how to sample."""
    licence = config.licence.lower()
    data, recipe, made = config.data, config.recipe, config.provenance
    shape = " x ".join(map(str, data.shape))
    rate = f" at {data.sample_rate} Hz" if data.sample_rate else ""
    task = "unconditional-image-generation" if data.modality == "image" else "text-to-audio"
    rows = "".join(f"| {name.replace('_', ' ')} | {value} |\n" for name, value in made.items())
    attribution = f"\n{config.attribution}\n" if config.attribution else ""
    return f"""---
license: {licence if licence in _HUB_LICENCES else "other"}
library_name: fastdpm
pipeline_tag: {task}
---

# {config.name}

A diffusion model for {data.modality} data of shape {shape}{rate}.
Sample it with fastdpm, PATH being this folder:

```
fastdpm sample PATH
```

- Data: {data.description or "not said"}
- Network: {", ".join(f"{name} {value}" for name, value in config.network.items())}
- Schedule: {", ".join(f"{name} {value}" for name, value in config.schedule.items())}
- Recommended recipe: {recipe.describe()}
- Licence of the weights: {config.licence}
{attribution}
## Training

| what | value |
| --- | --- |
{rows}"""
