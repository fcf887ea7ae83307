"""The examples do what docs/any-model.md says, and the page's code is theirs or runs as it is."""

import re
import runpy
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch import nn

from fastdpm import (
    FastDPMError,
    Model,
    VarianceSchedule,
    ddim_rev,
    evaluate,
    levels_step,
    run,
)

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
NAMES = ("own_betas", "class_guidance", "latent_decoder", "sound_1d", "toy_2d")
PAGE = (ROOT / "docs" / "any-model.md").read_text(encoding="utf-8")
NUMBER = r"(\d+\.?\d*(?:e[+-]\d+)?)"


@pytest.fixture
def example(monkeypatch, capsys, tmp_path):
    """Runs an example in an empty folder, on one thread; returns what it printed."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def call(name: str, *arguments: str) -> str:
        monkeypatch.setattr("sys.argv", [name, *arguments])
        with torch.random.fork_rng(devices=[]):
            runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        out: str = capsys.readouterr().out
        return out

    yield call
    torch.set_num_threads(threads)


def numbers(pattern: str, text: str) -> list[float]:
    found = re.search(pattern.replace("#", NUMBER), text)
    assert found, f"{pattern!r} not in {text!r}"
    return [float(value) for value in found.groups()]


def test_a_module_with_its_own_betas_gives_the_same_samples_by_run_and_as_a_model(example):
    out = example("own_betas", "--steps", "300", "-n", "100")
    assert numbers("differ by at most #", out)[0] < 1e-5
    (real,) = numbers(r"held-out digits: FD \(digits-features\) #", out)
    for name in ("T = 200", "S = 10"):
        distance, error = numbers(rf"{name}: FD \(digits-features\) # ± #", out)
        # 24 and more untrained, about 6 after 300 steps.
        assert real < distance < 14
        assert 0 < error < 0.2 * distance


def test_guided_samples_are_of_their_class_more_often(example):
    out = example("class_guidance", "--steps", "250", "-n", "200")
    ignored, plain, guided = (numbers(f"scale {s}: # ± # %", out) for s in (0, 1, 2))
    assert abs(ignored[0] - 10) < 4 * ignored[1]
    assert plain[0] > 30
    assert guided[0] > plain[0] + 2 * np.hypot(guided[1], plain[1])


def test_scaled_latents_are_decoded_to_better_images(example):
    out = example("latent_decoder", "--steps", "200", "-n", "100")
    (floor,) = numbers(r"decoded: FD \(digits-features\) #", out)
    deviation, scaled = numbers(r"scaled, deviation #, S = 10: FD \(digits-features\) #", out)
    assert deviation == 1
    deviation, raw = numbers(r"as-they-are, deviation #, S = 10: FD \(digits-features\) #", out)
    assert deviation == pytest.approx(7.99)
    assert floor < scaled < 0.85 * raw


def test_sampled_tones_have_the_pitches_of_the_data(example):
    out = example("sound_1d", "--steps", "150", "-n", "24")
    (data,) = numbers("data: # ±", out)
    (noise,) = numbers("noise: # ±", out)
    assert data < 1
    for name in ("T = 200", "S = 20"):
        assert numbers(f"{name}: # ±", out)[0] < 60 < 0.1 * noise
    sound, rate = soundfile.read("plucked.wav")
    assert (rate, sound.shape) == (4000, (16 * 1024,))
    strongest = np.abs(np.fft.rfft(sound.reshape(16, 1024))).argmax(1) * 4000 / 1024
    assert np.mean((strongest > 200) & (strongest < 420)) > 0.7


def test_points_of_few_steps_lie_near_the_spiral(example):
    out = example("toy_2d", "--steps", "800")
    (data,) = numbers("data: off by #", out)
    off = [
        numbers(f"{n}: off by # ± #", out)[0] for n in ("T = 1000", "S = 20", "S = 10", "S = 5")
    ]
    # Points of N(0, 1) are off by 0.3.
    assert data < 0.006 < off[0] < 0.2
    assert off[0] < off[3] < 0.25
    pixels = np.asarray(Image.open("toy-2d.png").convert("RGB"), dtype=np.int64)
    blue = pixels[..., 2] > pixels[..., 0] + 50
    assert all(panel.mean() > 0.005 for panel in np.array_split(blue, 5, axis=1))


def test_the_toy_fits_into_sixty_lines():
    assert len((EXAMPLES / "toy_2d.py").read_text(encoding="utf-8").splitlines()) <= 60


def code_blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)


def without_indents(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


def own_blocks() -> list[str]:
    """The blocks of the page that are no excerpts of an example."""
    sources = [without_indents((EXAMPLES / f"{n}.py").read_text(encoding="utf-8")) for n in NAMES]
    return [
        block
        for block in code_blocks()
        if not any(without_indents(block) in source for source in sources)
    ]


def quick(block: str) -> str:
    """A block with fewer steps and samples."""
    return re.sub(r"steps=\(5, 10.*?\)", "steps=(2, 3)", re.sub(r"\bn=\d+\b", "n=24", block))


def test_code_of_the_page_is_taken_from_an_example_or_runs_as_it_stands(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    *own, adapter = own_blocks()
    assert "class Adapter" in adapter
    space: dict[str, Any] = {}
    for block in own:
        exec(compile(quick(block), "any-model.md", "exec"), space)  # noqa: S102
    assert space["images"].shape == (4, 3, 32, 32)
    assert space["images"].std() == pytest.approx(0.3, rel=0.6)  # of few steps
    assert Path("comparison.png").stat().st_size > 1000
    assert space["model"].sample(1, num_steps=2).shape == (1, 3, 32, 32)


def test_the_readme_ends_in_a_figure_of_ones_own_network(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    own, compared, pipeline = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert "from_pipeline" in pipeline
    space: dict[str, Any] = {}
    for block in (own, quick(compared)):
        exec(compile(block, "README.md", "exec"), space)  # noqa: S102
    assert space["images"].shape == (4, 3, 32, 32)
    assert Path("comparison.png").stat().st_size > 1000


def names_of(block: str) -> dict[str, Any]:
    space: dict[str, Any] = {}
    exec(compile(textwrap.dedent(block), "any-model.md", "exec"), space)  # noqa: S102
    return space


def test_every_way_of_calling_a_network_on_the_page_gives_what_it_says():
    schedule = VarianceSchedule.linear()
    adapter = names_of(next(b for b in code_blocks() if "class Adapter" in b))["Adapter"]
    rows = re.findall(r"^\| (.*?) \| `(lambda net.*?)`", PAGE, re.M)
    t = torch.tensor([0.0, 411.75, 999.0])
    wanted = {
        "counts steps from one": t + 1,
        "takes t in (0, 1], T = 1,000": (t + 1) / 1000,
        "takes the noise level √ᾱ": torch.tensor(schedule.R(t.double().numpy() + 1)).float(),
        "looks up integer steps in a table": torch.tensor([0, 412, 999]),
        "returns a tuple with eps first": t,
    }
    assert [name for name, _ in rows] == list(wanted)
    for name, source in rows:
        call = eval(source, {"torch": torch, "schedule": schedule})  # noqa: S307

        class Net(nn.Module):
            def forward(self, x, received, pair="tuple" in name):
                return (received, x) if pair else received

        received = adapter(Net(), call)(torch.zeros(3, 1), t)
        torch.testing.assert_close(received, wanted[name])


def test_the_errors_of_the_page_are_those_that_are_raised():
    schedule = VarianceSchedule.linear()
    plan, x = ddim_rev(levels_step(schedule, 4)), torch.zeros(2, 1, 8, 8)
    other = ddim_rev(levels_step(VarianceSchedule.cosine(), 4))

    def model(shape: tuple[int, ...], network: nn.Module) -> Model:
        return Model.wrap(network.eval(), schedule, shape, name="mine")

    causes: list[Callable[[], object]] = [  # in the order of the page
        lambda: Model.wrap(lambda x, t: x, schedule, (1, 8, 8)),  # type: ignore[arg-type]
        lambda: Model.wrap(nn.Dropout(), schedule, (1, 8, 8)),
        lambda: model((1, 8, 8), nn.MultiheadAttention(1, 1)).sample(1),
        lambda: run(plan, lambda x, t: (x,), x),  # type: ignore[arg-type, return-value]
        lambda: run(plan, lambda x, t: x[:1], x),
        lambda: run(plan, lambda x, t: x.long(), x),
        lambda: run(plan, lambda x, t: x.to("meta"), x),
        lambda: run(plan, lambda x, t: x / 0, x),
        lambda: run(ddim_rev(levels_step(schedule, 4), 1.0), lambda x, t: x, x),
        lambda: run(
            ddim_rev(levels_step(schedule, 4), 1.0), lambda x, t: x, x, noise=lambda row, x: x[:1]
        ),
        lambda: run(plan, lambda x, t: x, x.half()),
        lambda: model((1, 8, 8), nn.Identity()).sample(1, plan=other),
        lambda: VarianceSchedule.from_betas([0.5, 1.0]),
        lambda: evaluate(model((1, 8, 8), nn.Identity()), n=20),
        lambda: evaluate(model((3, 40, 40), nn.Bilinear(1, 1, 1)), n=20),
    ]
    section = PAGE.split("## What goes wrong")[1]
    messages = re.findall(r"^\| `(.*?)` \|", section, re.M)
    for message, cause in zip(messages, causes, strict=True):
        with pytest.raises(FastDPMError, match=re.escape(message)):
            cause()


def test_the_table_of_schedules_gives_the_betas_it_says():
    total, a, b = 50, 1e-4, 0.05
    betas = np.linspace(a, b, total)
    alpha_bar = np.cumprod(1 - betas)
    rows = dict(re.findall(r"^\| (.*?) \| `(.*?)` \|$", PAGE, re.M))
    names = {"np": np, "T": total, "a": a, "b": b, "betas": betas, "alpha_bar": alpha_bar}
    names |= {"VarianceSchedule": VarianceSchedule, "from_betas": VarianceSchedule.from_betas}
    names["linspace"] = np.linspace
    for row in ("`linspace(a, b, T)`", "`linspace(a ** 0.5, b ** 0.5, T) ** 2`"):
        schedule = eval(rows[row], names)  # noqa: S307
        np.testing.assert_allclose(schedule.betas, eval(row.strip("`"), names), rtol=1e-12)  # noqa: S307
    tables = "any table of betas, shape (T,); for a tensor, pass `betas.numpy()`", "ᾱ at T steps"
    for row in tables:
        np.testing.assert_allclose(eval(rows[row], names).betas, betas, rtol=1e-9)  # noqa: S307


def test_links_of_the_page_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", PAGE)
    assert len(links) >= 5
    for link in links:
        assert (ROOT / "docs" / link).exists(), link
