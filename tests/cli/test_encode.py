"""``encode``, ``decode`` and ``reconstruct`` keep their inputs, or say why they cannot."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from fastdpm.cli.app import run as fastdpm
from fastdpm.data.inputs import read_samples
from fastdpm.evaluation.reconstruction import reconstruct
from fastdpm.inverse import encoding as latents_module
from fastdpm.inverse.latents_file import read_latents
from fastdpm.output import folder as output
from fastdpm.sampling import implicit
from tests.conftest import IMAGE, SOUND, write_model
from tests.messages import tells


@pytest.fixture
def call(folders, tmp_path, capsys, monkeypatch):
    """Run a command; {image}, {sound} and {vocoder} stand for the small models."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = fastdpm([argument.format(**folders) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    for name, image in zip("abc", pixels, strict=True):
        Image.fromarray(image).save(folder / f"{name}.png")
    return Path(folder)


@pytest.fixture
def sound(tmp_path) -> Path:
    wave = 0.5 * np.sin(np.arange(512) * 0.3)
    soundfile.write(tmp_path / "a.wav", wave, 8000, subtype="FLOAT")
    return Path(tmp_path, "a.wav")


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_images_come_back_from_their_latents_pixel_by_pixel(call, images, tmp_path):
    code, out, _ = call("encode", "{image}", "in", "-S", "6", "--out", "a.safetensors")
    assert code == 0
    assert re.search(tells("3 of 3", "a.safetensors", 2.11), out)  # the latents' deviation
    saved = read_latents("a.safetensors")
    assert [Path(name).name for name in saved.inputs] == ["a.png", "b.png", "c.png"]
    assert saved.latents.method == "invertible"
    code, out, _ = call("decode", "{image}", "a.safetensors", "--out", "back")
    assert code == 0
    for i, name in enumerate("abc"):
        found = _pixels(tmp_path / "back" / f"{i:06d}.png")
        assert np.array_equal(found, _pixels(images / f"{name}.png"))
    assert (tmp_path / "back" / "grid.png").is_file()
    record = json.loads((tmp_path / "back" / "samples.json").read_text())
    assert [Path(name).name for name in record["inputs"]] == ["a.png", "b.png", "c.png"]
    assert record["plan"]["fingerprint"] == saved.latents.plan.fingerprint
    assert call("decode", "{image}", "a.safetensors", "--out", "back")[0] == 2
    assert call("decode", "{image}", "a.safetensors", "--out", "back", "--overwrite")[0] == 0


def test_sounds_come_back_from_their_latents(call, sound, tmp_path):
    assert call("encode", "{sound}", "a.wav", "-S", "10", "--out", "a.safetensors")[0] == 0
    assert call("decode", "{sound}", "a.safetensors", "--out", "back")[0] == 0
    found, rate = soundfile.read(tmp_path / "back" / "000000.wav")
    assert rate == 8000
    np.testing.assert_allclose(found, soundfile.read(sound)[0], atol=2 / 32768)


def test_a_vocoder_encodes_a_sound_for_its_own_mel_spectrogram(call, tmp_path):
    wave = 0.9 * np.sin(np.arange(640) * 0.3)
    soundfile.write(tmp_path / "b.wav", wave, 8000, subtype="FLOAT")
    assert call("encode", "{vocoder}", "b.wav", "-S", "10", "--out", "a.safetensors")[0] == 0
    condition = read_latents("a.safetensors").latents.condition
    assert condition is not None
    assert condition.shape == (1, 8, 40)
    assert call("decode", "{vocoder}", "a.safetensors", "--out", "back")[0] == 0
    found, _ = soundfile.read(tmp_path / "back" / "000000.wav")
    peak = np.abs(wave).max()
    np.testing.assert_allclose(found, wave * 0.9 / peak, atol=2 / 32768)


def test_a_recipes_noise_does_not_apply_and_chosen_levels_do(call, sound):
    code, out, _ = call(
        "encode", "{sound}", "a.wav", "--levels", "var", "-S", "7", "--out", "a.safetensors"
    )
    assert code == 0
    plan = read_latents("a.safetensors").latents.plan
    assert not plan.draws_noise
    assert "VAR linear, S = 7" in plan.label
    assert re.search(tells("a.safetensors", 7), out.replace(plan.label, ""))


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (("--kappa", "0.5"), ["--kappa"]),
        (("--method", "dpmpp-2m"), ["--method"]),
        (("--by", "magic"), ["--by", "first", "second", "implicit", "invertible", "magic"]),
        (("--tolerance", "1e-3"), ["--by", "invertible", "--tolerance"]),
        (("--by", "first", "--keep-best"), ["--by", "first", "--keep-best"]),
        (("--by", "implicit", "--tolerance", "0"), ["--tolerance", "(0, 1)", "got 0"]),
        (("--by", "implicit", "--tolerance", "nan"), ["--tolerance", 0, 1, "nan"]),
        (("-S", "2", "--without-last-row"), [2, 1]),
        (("--condition", "3"), ["condition"]),
        (("-S", "1"), ["at least 2", "got 1"]),
    ],
)
def test_what_an_encoder_has_not_is_refused(call, images, arguments, values):
    code, _, err = call("encode", "{image}", "in", "--out", "a.safetensors", *arguments)
    assert code == 2
    assert re.search(tells(*values), err)
    assert err.count("\n") == 1
    assert not Path("a.safetensors").exists()


def test_what_does_not_fit_the_model_is_refused_in_one_line(call, images, sound, tmp_path):
    Image.fromarray(np.zeros((9, 12), dtype=np.uint8)).save(tmp_path / "big.png")
    code, _, err = call("encode", "{image}", "big.png", "--out", "a.safetensors")
    assert code == 1
    assert re.search(tells("big.png", "12 x 9", "8 x 8", "--resize"), err)
    assert call("encode", "{image}", "big.png", "--out", "a.safetensors", "--resize")[0] == 0
    soundfile.write(tmp_path / "fast.wav", np.zeros(1024) + 0.1, 16000)
    code, _, err = call("encode", "{sound}", "fast.wav", "--out", "b.safetensors")
    assert code == 1
    assert re.search(tells("fast.wav", "16000 Hz", "8000 Hz", "--resample"), err)
    assert call("encode", "{sound}", "fast.wav", "--out", "b.safetensors", "--resample")[0] == 0
    soundfile.write(tmp_path / "nan.wav", np.full(512, np.nan), 8000, subtype="FLOAT")
    code, _, err = call("encode", "{sound}", "nan.wav", "--out", "c.safetensors")
    assert code == 1
    assert re.search(tells("nan.wav", "512 of 512"), err)
    code, _, err = call("encode", "{image}", "none", "--out", "d.safetensors")
    assert code == 2
    assert re.search(tells("none"), err)
    code, _, err = call("encode", "{image}", "in", "--out", "nowhere/a.safetensors")
    assert code == 2
    assert re.search(tells("nowhere/a.safetensors"), err)


def test_latents_of_another_model_or_plan_are_refused(call, images, tmp_path):
    call("encode", "{image}", "in", "--out", "a.safetensors")
    code, _, err = call("encode", "{image}", "in", "--out", "a.safetensors")
    assert code == 2
    assert re.search(tells("a.safetensors", "--out", "--overwrite"), err)
    other = write_model(tmp_path / "other", replace(IMAGE, time_scale=2.0))
    code, _, err = call("decode", str(other), "a.safetensors", "--out", "back")
    assert code == 2
    assert re.search(tells("tiny-image"), err)
    assert err.count("\n") == 1
    assert not Path("back").exists()
    Path("b.safetensors").write_bytes(b"words")
    code, _, err = call("decode", "{image}", "b.safetensors", "--out", "back")
    assert code == 1
    assert re.search(tells("b.safetensors"), err)
    fingerprint = read_latents("a.safetensors").latents.plan.fingerprint.encode()
    changed = Path("a.safetensors").read_bytes().replace(fingerprint, b"0" * 16)
    Path("c.safetensors").write_bytes(changed)
    code, _, err = call("decode", "{image}", "c.safetensors", "--out", "back")
    assert code == 1
    assert re.search(tells("c.safetensors", fingerprint.decode(), "0" * 16), err)


def test_an_output_never_takes_the_place_of_an_input(call, images, sound):
    before = (images / "a.png").read_bytes()
    for out, values in (("in/a.png", ["in/a.png", ".safetensors"]), ("in", ["in"])):
        code, _, err = call("encode", "{image}", "in/a.png", "--out", out, "--overwrite")
        assert code == 2
        assert re.search(tells(*values), err)
        assert err.count("\n") == 1
    code, _, err = call("likelihood", "{image}", "in/a.png", "-S", "4", "--plot", "in/a.png")
    assert code == 2
    assert re.search(tells("in/a.png"), err)
    assert not re.search(tells(".pdf"), err)  # it is refused for what it is, not for its name
    assert (images / "a.png").read_bytes() == before
    code, out, err = call("likelihood", "{image}", "in/a.png", "-S", "4", "--plot", "a.xyz")
    assert (code, out) == (2, "")
    assert re.search(tells("a.xyz", ".png", ".pdf", ".svg"), err)


def test_fifty_steps_are_taken_unless_others_are_set(call, images):
    call("encode", "{image}", "in", "--out", "a.safetensors")
    assert "S = 50" in read_latents("a.safetensors").latents.plan.label


def test_sounds_come_back_at_their_own_level(call, tmp_path):
    """Of a model whose sounds were scaled to a peak: an eighth of it here."""
    model = write_model(tmp_path / "scaled", replace(SOUND, data=replace(SOUND.data, peak=0.8)))
    wave = (np.sin(np.arange(512) * 0.3) * 3276.7).round().astype(np.int16)
    soundfile.write(tmp_path / "a.wav", wave, 8000)
    assert call("encode", str(model), "a.wav", "-S", "10", "--out", "a.safetensors")[0] == 0
    assert read_latents("a.safetensors").gain.item() == pytest.approx(0.1 / 0.8, rel=1e-3)
    assert call("decode", str(model), "a.safetensors", "--out", "back")[0] == 0
    found = soundfile.read("back/000000.wav", dtype="int16")[0]
    assert np.abs(found.astype(int) - wave).max() <= 1
    _, x, gain, _ = read_samples(Path("back"), replace(SOUND.data, peak=0.8))
    assert float(x.abs().max()) == pytest.approx(0.8, abs=1e-6)
    assert gain.item() == pytest.approx(0.1 / 0.8, rel=1e-2)
    assert call("edit", str(model), "a.wav", "--span", "0.01:0.03", "--out", "x")[0] == 0
    found = soundfile.read("x/000000.wav", dtype="int16")[0]
    kept = np.ones(512, dtype=bool)
    kept[80:240] = False
    assert np.array_equal(found[kept], wave[kept])


def test_an_interrupt_leaves_the_earlier_folder(call, images, monkeypatch):
    call("encode", "{image}", "in", "-S", "6", "--out", "a.safetensors")
    call("decode", "{image}", "a.safetensors", "--out", "back")
    before = {path: path.read_bytes() for path in Path("back").iterdir()}

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(output, "write_picture", interrupt)
    for arguments in (
        ("decode", "{image}", "a.safetensors", "--out", "back", "--overwrite"),
        ("edit", "{image}", "in", "-S", "4", "--out", "back", "--overwrite"),
        ("edit", "{image}", "in", "-S", "4", "--out", "new"),
    ):
        call(*arguments)
        assert {path: path.read_bytes() for path in Path("back").iterdir()} == before
    # The new one has all samples but no picture, and can be resumed.
    assert json.loads(Path("new/samples.json").read_text())["complete"] is False


def test_samples_that_do_not_converge_are_named_and_the_others_written(call, images, monkeypatch):
    solve = implicit.invert

    def lose_one(*arguments, **options):
        found = solve(*arguments, **options)
        found.row[1], found.residual[1] = 2, 0.25
        if not arguments[3].keep_best:
            found.x[1] = np.nan
        return found

    monkeypatch.setattr(latents_module, "invert", lose_one)
    arguments = ("encode", "{image}", "in", "-S", "20", "--spacing", "quadratic")
    code, out, err = call(*arguments, "--by", "implicit", "--out", "a.safetensors")
    assert code == 1
    assert re.search(tells(Path("in") / "b.png", "row 2 of 18", 0.25), out)
    assert re.search(tells("1 of 3", "a.safetensors", "--by invertible", "--keep-best"), err)
    assert [Path(n).name for n in read_latents("a.safetensors").inputs] == ["a.png", "c.png"]
    code, out, _ = call(*arguments, "--by", "implicit", "--keep-best", "--out", "b.safetensors")
    assert code == 0
    assert re.search(tells(Path("in") / "b.png", 0.25), out)
    assert len(read_latents("b.safetensors").inputs) == 3


def test_the_row_that_ends_at_clean_data_can_be_left_out(call, images, tmp_path):
    arguments = ("{image}", "in", "--levels", "step", "--without-last-row")
    assert call("encode", *arguments, "-S", "8", "--out", "a.safetensors")[0] == 0
    plan = read_latents("a.safetensors").latents.plan
    assert 0.9 < plan.level[-1] < 1
    assert "rows 0 to 6" in plan.label
    assert call("decode", "{image}", "a.safetensors", "--out", "back")[0] == 0
    assert np.array_equal(_pixels(tmp_path / "back/000000.png"), _pixels(images / "a.png"))
    chosen = ("-S", "8", "--by", "invertible", "--out", "rec")
    assert call("reconstruct", *arguments, *chosen)[0] == 0
    record = json.loads((tmp_path / "rec" / "reconstruct.json").read_text())
    [result] = record["results"]
    assert [sample["total_evaluations"] for sample in result["samples"]] == [13] * 3
    assert max(sample["relative_error"] for sample in result["samples"]) < 1e-4


def test_reconstructions_are_measured_sample_by_sample(call, images, tmp_path):
    code, _, _ = call(
        *("reconstruct", "{image}", "in", "-S", "6,12", "--levels", "var,step"),
        *("--by", "first,invertible", "--out", "rec"),
    )
    assert code == 0
    with (tmp_path / "rec" / "reconstruct.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 2 * 2 * 2
    assert {row["levels"] for row in rows} == {"VAR linear", "STEP linear"}
    exact = [float(row["psnr_db"]) for row in rows if row["by"] == "invertible"]
    near = [float(row["psnr_db"]) for row in rows if row["by"] == "first"]
    assert min(exact) > 80 > max(near)
    assert {row["total_evaluations"] for row in rows if row["by"] == "first"} == {"12", "24"}
    assert {row["total_evaluations"] for row in rows if row["by"] == "invertible"} == {"11", "23"}
    record = json.loads((tmp_path / "rec" / "reconstruct.json").read_text())
    assert record["format"] == "fastdpm-reconstruction"
    samples = record["results"][0]["samples"]
    assert [Path(sample["input"]).name for sample in samples] == ["a.png", "b.png", "c.png"]
    assert samples[0]["psnr_db"] == pytest.approx(float(rows[0]["psnr_db"]))
    for name in ("psnr.png", "samples.png"):
        assert (tmp_path / "rec" / name).stat().st_size > 5000
    arguments = ("reconstruct", "{image}", "in", "-S", "6", "--by", "first", "--out", "rec")
    assert call(*arguments)[0] == 2
    assert call(*arguments, "--overwrite")[0] == 0


def test_the_psnr_is_that_of_the_images_and_their_reconstructions(call, images, image_model):
    x = read_samples(images, IMAGE.data).x
    levels = image_model.config.recipe.replace(num_steps=8).choose_levels(image_model.schedule)
    found = reconstruct(image_model, x, levels, "first", batch_size=2)
    error = (found.x.clamp(-1, 1) - x).square().mean(dim=(1, 2, 3))
    np.testing.assert_allclose(found.psnr, (10 * torch.log10(4 / error)).numpy(), rtol=1e-5)
    relative = (found.x - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    np.testing.assert_allclose(found.relative, relative.numpy(), rtol=1e-5)
    assert found.snr is None
    assert found.row == (-1, -1, -1)


def test_sounds_have_their_own_distances(call, tmp_path):
    wave = 0.9 * np.sin(np.arange(1024) * 0.3)
    soundfile.write(tmp_path / "b.wav", wave, 8000, subtype="FLOAT")
    code, _, _ = call(
        *("reconstruct", "{vocoder}", "b.wav", "-S", "10", "--by", "first", "--out", "rec")
    )
    assert code == 0
    with (tmp_path / "rec" / "reconstruct.csv").open() as file:
        (row,) = csv.DictReader(file)
    power = np.mean(np.square(wave * 0.9 / np.abs(wave).max()))
    wanted = float(row["psnr_db"]) + 10 * np.log10(power / 4)
    assert float(row["snr_db"]) == pytest.approx(wanted, abs=1e-4)
    assert float(row["log_mel_nepers"]) > 0
    assert (tmp_path / "rec" / "samples.png").stat().st_size > 5000


def test_a_reconstruction_without_a_latent_has_no_value(call, images, tmp_path, soon_given_up):
    code, out, _ = call(
        *("reconstruct", "{image}", "in", "-S", "4", "--by", "implicit"),
        *("--tolerance", "1e-30", "--out", "rec"),
    )
    assert code == 0
    for name in "abc":
        assert re.search(
            tells(Path("in") / f"{name}.png", "implicit", "STEP linear", "S = 4", "row 3"), out
        )
    samples = json.loads((tmp_path / "rec" / "reconstruct.json").read_text())["results"][0]
    assert samples["samples"][0]["psnr_db"] is None
    assert samples["samples"][0]["row_not_converged"] == 3


def test_bad_choices_of_a_reconstruction_are_refused(call, images):
    for arguments, values in (
        (("-S", "ten"), ["--steps", "ten"]),
        (("--by", "first,magic"), ["--by", "first", "invertible", "magic"]),
        (("--levels", "other"), ["levels", "var", "step", "other"]),
        (("--keep-best",), ["--by", "--keep-best"]),
    ):
        code, _, err = call("reconstruct", "{image}", "in", "--out", "rec", *arguments)
        assert code == 2
        assert re.search(tells(*values), err)
    assert not Path("rec").exists()
