"""Damaged and hostile files, and sizes that no machine has, end in one line and never hang."""

import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import typer

from fastdpm.cli import app
from fastdpm.core.text import visible
from tests import hostile as h
from tests.conftest import IMAGE
from tests.messages import tells

RED = "\x1b[31mred\x07\u202e"
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
FLOATS = np.random.default_rng(0).uniform(-1, 1, (3, 8, 8, 1)).astype(np.float32)
MODEL = f"""name = "mine"
schedule = {{ type = "linear", num_train_steps = 100 }}
data = {{ modality = "image", shape = [1, 8, 8] }}
[network]
{chr(10).join(f"{name} = {json.dumps(value)}" for name, value in IMAGE.network.items())}
"""
PRESET = MODEL + "[training]\nsteps = 1\nbatch_size = 2\n"
CLASSIFIER = """name = "mine"
classes = ["a", "b"]
data = { modality = "image", shape = [1, 8, 8] }
network = { type = "image-classifier", num_classes = 2, in_channels = 1, widths = [4] }
training = { steps = 1, batch_size = 2 }
"""

ENCODE = "encode {image} {file} -S 2 --out z.safetensors"
HEAR = "encode {sound} {file} -S 2 --out z.safetensors"
TRAIN = "train {preset} --data {file} --out run"
PLAN = "sample {image} -n 1 --plan {file} --out out"
MASK = "edit {image} {png} --mask {file} -S 2 --out out"
AGAINST = "evaluate {image} -n 20 --against {file}"
LOOK = "plan {file}"

IMAGES: list[tuple[str, h.Made, list[object]]] = [
    ("empty.png", b"", ["empty.png"]),
    ("text.png", "<html>", ["text.png"]),
    ("pointer.png", "version https://git-lfs.github.com/spec/v1\n", []),
    ("zero.png", h.png(0, 8), []),
    ("huge.png", h.png(100_000, 100_000), ["huge.png"]),
    ("large.png", h.png(9_000, 9_000), ["9000 x 9000", "67,108,864"]),
    ("short.png", h.png(8, 8, b"\0" * 10), []),
    ("text-bomb.png", h.png(8, 8, b"\0" * 72, h.chunk(b"zTXt", b"a\0\0" + h.zeros(2**21))), []),
    ("wide.png", h.png(8, 8, b"\0" * 136, depth=16), ["16-bit"]),
    ("cut.png", h.image()[:60], []),
    ("cut.jpg", h.image("JPEG")[:200], []),
    ("cut.webp", h.image("WEBP")[:40], []),
    ("cut.bmp", h.image("BMP")[:100], []),
    ("cut.tif", h.image("TIFF")[:60], []),
    ("moving.gif", h.frames("GIF"), ["2 frames"]),
    ("pages.tif", h.frames("TIFF"), ["2 frames"]),
    ("moving.webp", h.frames("WEBP"), ["2 frames"]),
    ("pipe.png", h.fifo, ["pipe.png", "pipe"]),
    ("broken.zip", b"PK\3\4", ["broken.zip"]),
    ("empty.zip", h.archive(), []),
    ("bomb.zip", h.bomb(h.archive(("a.png", h.image()))), ["bomb.zip", "2,147,483,648"]),
    ("large.zip", h.bomb(h.archive(("a.png", b"\0" * 9)), 2**32 - 2), []),
    ("coded.zip", h.patched(h.archive(("a.png", h.image())), 8, b"\1\0"), []),
    ("method.zip", h.patched(h.archive(("a.png", h.image())), 10, b"\x63\0"), []),
    ("crc.zip", h.patched(h.archive(("a.png", h.image())), 16, b"\0\0\0\0"), []),
    ("odd.zip", h.archive((f"../{RED}.png", b"x")), [r"\x1b", r"\u202e"]),
    ("phone.zip", h.archive(("a.png", h.image()), ("b.HEIC", b"x")), ["b.HEIC", "PNG"]),
    ("hidden.zip", h.archive(("__MACOSX/a.png", b"x"), (".b.png", b"x")), [".png"]),
    ("garbage.parquet", b"PAR1 nothing PAR1", ["garbage.parquet"]),
    ("cut.parquet", h.parquet(image=[h.image()])[:-20], []),
    ("other.parquet", h.parquet(picture=[b"x"]), ["picture", "img"]),
    ("null.parquet", h.parquet(image=[h.image(), None]), ["row 1"]),
    ("number.parquet", h.parquet(image=[1, 2]), ["row 0"]),
    ("struct.parquet", h.parquet(img=[{"path": "x"}]), ["row 0"]),
    ("a-00000-of-00002.parquet", h.parquet(image=[h.image()]), ["a-00001-of-00002.parquet"]),
    ("a-0-of-999999999.parquet", h.parquet(image=[h.image()]), ["10,000,000"]),
    ("pipes", h.folder({"a.png": h.image(), "b.png": h.fifo}), ["b.png", "pipe"]),
    ("broken-link", h.folder({"a.png": h.image(), "b.png": h.link("x")}), ["b.png"]),
    ("phone", h.folder({"a.png": h.image(), "b.heic": b"x"}), ["b.heic", "PNG"]),
    ("only-heic", h.folder({"b.heic": b"x"}), ["b.heic", "PNG"]),
    ("hidden", h.folder({".a.png": b"x", "Thumbs.db": b"x"}), [".png"]),
    ("loop", h.folder({"again": h.link("."), "x": h.link("../loop/again")}), [".png"]),
    ("two-sets", h.folder({f"{n}.parquet": h.parquet(img=[b"x"]) for n in "ab"}), ["a.parquet"]),
    ("half-set", h.folder({"a-1-of-2.parquet": h.parquet(img=[b"x"])}), ["a-0-of-2.parquet"]),
    ("no-record", h.folder({"samples.json": "[]"}), ["samples.json"]),
    ("deep-record", h.folder({"samples.json": h.deep(100_000)}), ["samples.json"]),
    ("latin-record", h.folder({"samples.json": b"\xff\xfe"}), ["samples.json"]),
    ("lost", h.record(files=["2.png"]), ["2.png"]),
    ("outside", h.record(files=["../../etc/passwd"]), ["passwd"]),
    ("no-names", h.record(files=[1, None]), ["samples.json"]),
    ("text-names", h.record(files="0.png"), ["samples.json"]),
    ("a-gain", h.record(gain="loud"), ["samples.json"]),
    ("few-labels", h.record(labels=[1]), ["labels", 2]),
    ("real-labels", h.record(labels=[0.5, 1]), ["labels", 2]),
    ("true-labels", h.record(labels=[True, False]), ["labels", 2]),
    ("open-run", h.record(files=["0.npy"]), ["0.npy"]),
    ("stated.npy", h.npy_stating("{'descr':'|u1','fortran_order':False,'shape':(10**12,)}"), []),
    (
        "large.npy",
        h.npy_stating("{'descr':'<f4','fortran_order':False,'shape':(9999999999,)}"),
        [],
    ),
    ("minus.npy", h.npy_stating("{'descr':'|u1','fortran_order':False,'shape':(-1,8)}"), []),
    ("deep.npy", h.npy_stating("(" * 9_000 + ")" * 9_000), []),
    ("minuses.npy", h.npy_stating("{'descr':" + "-" * 60_000 + "1}"), []),
    ("objects.npy", h.npy(np.array([{}], dtype=object)), ["pickled"]),
    ("records.npy", h.npy(np.zeros(3, dtype=[("a", "f4")])), []),
    ("none.npy", h.npy(np.zeros((0, 8, 8, 1), dtype=np.uint8)), ["images"]),
    ("text.npy", h.npy(np.array(["a"])), []),
    ("complex.npy", h.npy(FLOATS.astype(complex)), ["complex128"]),
    ("unit.npy", h.npy(FLOATS * 0.5 + 0.5), ["[-1, 1]", "2 * x - 1"]),
    ("far.npy", h.npy(FLOATS * 2), ["[-1, 1]"]),
    ("nan.npy", h.npy(FLOATS * np.nan), ["[-1, 1]"]),
    ("size.npy", h.npy(np.zeros((2, 9, 8, 1), dtype=np.uint8)), ["(1, 9, 8)", "(1, 8, 8)"]),
    ("wide.npy", h.npy(PIXELS.astype(np.int16)), ["int16"]),
    ("bomb.npz", h.bomb(h.npz(x=PIXELS), 2**32 - 2), ["bomb.npz"]),
    ("both.npz", h.npz(a=PIXELS, b=PIXELS), ["a, b"]),
    ("none.npz", h.archive(), []),
    ("object.npz", h.npz(samples=np.array([None])), []),
    ("no.npz", h.archive(("samples", b"text")), []),
    ("method.npz", h.patched(h.npz(samples=PIXELS), 10, b"\x63\0"), []),
    ("pipe.npz", h.fifo, ["pipe"]),
]
SOUNDS: list[tuple[str, h.Made, list[object]]] = [
    ("empty.wav", b"", ["empty.wav"]),
    ("cut.wav", h.sound()[:300], ["cut.wav"]),
    ("rate.wav", h.sound(rate=1), ["1 Hz", "8000 Hz"]),
    ("stereo.wav", h.sound(np.zeros((512, 2))), [2]),
    ("nan.wav", h.sound(np.full(512, np.nan), subtype="FLOAT"), [512]),
    ("long.flac", h.flac_of(2**35), ["34,359,738,368", "536,870,912"]),
    ("cut.flac", h.sound(kind="FLAC")[:90], []),
    ("cut.ogg", h.sound(kind="OGG", subtype="VORBIS")[:90], []),
    ("text.mp3", "nothing", []),
    ("song.m4a", b"\0\0\0\x20ftypM4A ", ["song.m4a"]),
    ("phone", h.folder({"a.wav": h.sound(), "b.m4a": b"x"}), ["b.m4a", "WAV"]),
    ("rate-run", h.array_run(16000, FLOATS.reshape(3, 64)), ["16000 Hz", "8000 Hz"]),
    ("length.npy", h.npy(FLOATS.reshape(3, 64)), [64, 512]),
    ("images.npy", h.npy(PIXELS), ["uint8"]),
]
LABELS: list[tuple[str, h.Made, list[object]]] = [
    ("text.parquet", h.parquet(image=[h.image()] * 2, label=["cat", "dog"]), ["cat"]),
    ("real.parquet", h.parquet(image=[h.image()] * 2, label=[0.0, 1.0]), ["0.0"]),
    ("some.parquet", h.parquet(image=[h.image()] * 2, label=[0, None]), ["None"]),
    ("far.parquet", h.parquet(image=[h.image()] * 2, label=[0, 7]), [7]),
]
PLANS: list[tuple[str, h.Made, list[object]]] = [
    ("deep.json", h.deep(100_000), ["deep.json", 64]),
    ("flat.json", h.deep(65), ["flat.json", 64]),
    ("pipe.json", h.fifo, ["pipe"]),
    ("dir.json", h.folder({}), ["dir.json"]),
    ("latin.json", b"\xff", ["latin.json"]),
    ("list.json", "[1]", ["list.json"]),
    ("long.json", '{"format": "fastdpm-plan", "version": ' + "9" * 5_000 + "}", ["long.json"]),
    ("none.json", '{"format": "fastdpm-plan", "version": 1}', ["level"]),
]
TOMLS: list[tuple[str, h.Made, list[object]]] = [
    ("deep.toml", f"a = {h.deep(5_000)}", ["deep.toml", 64]),
    ("keys.toml", ".".join("a" * 200_000) + " = 1", ["keys.toml", 64]),
    ("pipe.toml", h.fifo, ["pipe"]),
    ("device.toml", h.link("/dev/zero"), ["device"]),
    ("latin.toml", b"\xff", ["latin.toml"]),
    (
        "steps.toml",
        PRESET.partition("[training]")[0].replace("= 100 }", f"= {10**12} }}"),
        ["num_train_steps", "100,000"],
    ),
]
NETWORKS: list[tuple[str, object, list[object]]] = [
    ("base_channels", 10**9, []),
    ("base_channels", 2**17, ["weights", "10,000,000,000"]),
    ("num_res_blocks", 10**9, ["num_res_blocks", 200]),
    ("channel_multipliers", [1] * 9_000, ["layers", 200]),
    ("num_groups", 10**30, ["num_groups", "2,147,483,647"]),
    ("in_channels", "1", []),
]
CONFIGS: list[tuple[str, object, list[object]]] = [
    ("network", {**IMAGE.network, "base_channels": 2**20}, []),
    ("schedule", {"type": "linear", "num_train_steps": 10**12}, ["100,000"]),
    ("schedule", {"type": "betas", "betas": [0.5] * 100_001}, ["100,000"]),
    ("schedule", {"type": "linear", "beta_end": "\x1b[0m"}, []),
    ("data", {"modality": "image", "shape": [1, 10**5, 10**5]}, ["268,435,456"]),
    ("data", {"modality": "image", "shape": [1, 8, 8], "classes": 10**9}, ["1,000,000"]),
    ("name", RED, [r"\x1b"]),
    ("recipe", {"num_steps": 10**30}, [100]),
    ("recipe", json.loads(h.deep(64)), [64]),
    ("license", 5, ["license"]),
    (RED, 1, [r"\x1b"]),
]
OPTIONS: list[tuple[str, list[object]]] = [
    ("sample {image} -n 1000000000000", ["-n", "10,000,000"]),
    ("sample {image} -S 1000000000", ["--steps", 100]),
    ("sample {image} --seed " + "9" * 30, ["--seed"]),
    ("sample {image} --batch-size 0", ["--batch-size"]),
    (f"sample {RED}", [r"\x1b", r"\u202e"]),
    (f"sample {{image}} --device {RED}", [r"\x1b"]),
    (f"sample {{image}} --method {RED}", [r"\x1b"]),
    (f"sample {{image}} --{RED}", [r"\x1b"]),
    ("encode {image} {png} -n 100000000000 --out z.safetensors", ["-n", "10,000,000"]),
    ("interpolate {image} {png} {png} -n 100000000000 --out x", ["-n", "10,000,000"]),
    ("evaluate {image} -n 100000000000", ["-n", "10,000,000"]),
    ("compare {image} -n 100000000000 --out x", ["-n", "10,000,000"]),
    ("compare {image} --reference-n 100000000000 --out x", ["10,000,000"]),
    ("evaluate {image} --inception {pipe}", ["Inception-v3"]),
    ("evaluate {image} --against {pipe}", ["pipe"]),
    ("sample {preset} --checkpoint {pipe}", []),
    ("decode {image} {pipe} --out x", []),
    ("convert {pipe} --out x", []),
    ("likelihood {image} {pipe}", ["pipe"]),
]
CASES: list[tuple[str, str, h.Made, list[object]]] = [
    *((ENCODE, *case) for case in IMAGES),
    *((HEAR, *case) for case in SOUNDS),
    *((TRAIN.replace("preset", "classes"), *case) for case in LABELS),
    *((TRAIN, *case) for case in IMAGES if case[0] in ("phone", "unit.npy", "bomb.npz")),
    *((PLAN, *case) for case in PLANS),
    *((LOOK, *case) for case in TOMLS),
    (MASK, "pipe.png", h.fifo, ["pipe"]),
    (MASK, "deep.npy", h.npy_stating("(" * 9_000 + ")" * 9_000), ["deep.npy"]),
    (MASK, "huge.png", h.png(100_000, 100_000), ["huge.png"]),
    (AGAINST, "objects.npy", h.npy(np.array([{}], dtype=object)), ["objects.npy"]),
    (AGAINST, "text.npz", h.npz(mu=np.array(["a"]), sigma=PIXELS), ["text.npz"]),
    (AGAINST, "short.npz", h.npz(mu=np.zeros(3), sigma=np.zeros((3, 3))), [3, 2048]),
]


@pytest.fixture(scope="module")
def places(folders, tmp_path_factory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("hostile")
    for name, content in (("preset.toml", PRESET), ("classes.toml", CLASSIFIER)):
        (base / name).write_text(content)
    h.make(base / "a.png", h.image())
    h.fifo(base / "pipe")
    found = {name: base / f"{name}.toml" for name in ("preset", "classes")}
    return {**folders, **found, "png": base / "a.png", "pipe": base / "pipe"}


@pytest.fixture
def fail(places, tmp_path, monkeypatch, capsys):
    """Run a command that ends in one line, or succeeds if it may; returns what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(typer.main, "get_command", cache(typer.main.get_command))

    def fail(line: str, *values: object, may_succeed: bool = False, **more: Path) -> str:
        arguments = [part.format(**places, **more) for part in line.split(" ")]
        code = app.run(arguments)
        out, err = capsys.readouterr()
        assert code in ((0, 1, 2) if may_succeed else (1, 2)), out
        assert err.count("\n") == (code != 0)
        assert re.search(tells(*values), err)
        assert visible((out + err).replace("\n", "")) == (out + err).replace("\n", "")
        return str(out)

    return fail


@pytest.mark.parametrize(
    ("line", "name", "content", "values"),
    CASES,
    ids=[f"{line.split()[0]} {name}" for line, name, *_ in CASES],
)
def test_a_file_that_cannot_be_read_is_one_line(fail, tmp_path, line, name, content, values):
    h.make(tmp_path / name, content)
    fail(line, *values, file=tmp_path / name)
    left = {path.name for path in tmp_path.iterdir()} - {name, "cache"}
    assert left <= {"run"}
    assert not any(path.is_file() for path in tmp_path.glob("run/*"))


@pytest.mark.parametrize(("line", "values"), OPTIONS, ids=range(len(OPTIONS)))
def test_a_size_or_a_name_that_cannot_be_is_one_line(fail, line, values):
    fail(line, *values)


@pytest.mark.parametrize(("key", "value", "values"), NETWORKS)
def test_a_network_of_any_size_is_refused_before_it_is_built(
    fail, tmp_path, monkeypatch, key, value, values
):
    monkeypatch.setattr("fastdpm.networks.build.MAX_LAYERS", 200)
    network = {**IMAGE.network, key: value}
    start, _, rest = PRESET.partition("[network]")
    lines = [f"{name} = {json.dumps(each)}" for name, each in network.items()]
    text = "\n".join([start + "[network]", *lines, "[training]" + rest.partition("[training]")[2]])
    (tmp_path / "x.toml").write_text(text)
    fail("train {file} --data sklearn:digits --out run", *values, file=tmp_path / "x.toml")


@pytest.mark.parametrize(("key", "value", "values"), CONFIGS)
def test_a_model_that_states_too_much_is_one_line(fail, folders, tmp_path, key, value, values):
    config = json.loads((folders["image"] / "config.json").read_text())
    h.make(tmp_path / "m" / "config.json", json.dumps(config | {key: value}))
    h.make(
        tmp_path / "m" / "model.safetensors", (folders["image"] / "model.safetensors").read_bytes()
    )
    fail("sample {file} -n 1 --out x", *values, file=tmp_path / "m")


def test_a_model_folder_of_pipes_does_not_hang(fail, tmp_path):
    h.make(tmp_path / "m" / "config.json", h.fifo)
    fail("sample {file} -n 1 --out x", "config.json", file=tmp_path / "m")
    fail("evaluate {file}", file=tmp_path / "m")


WHOLE = {
    "a.png": (ENCODE, h.image()),
    "a.jpg": (ENCODE, h.image("JPEG")),
    "a.tif": (ENCODE, h.image("TIFF")),
    "a.gif": (ENCODE, h.image("GIF")),
    "a.zip": (ENCODE, h.archive(("a.png", h.image()))),
    "a.npz": (ENCODE, h.npz(samples=PIXELS)),
    "a.npy": (ENCODE, h.npy(PIXELS)),
    "a.parquet": (ENCODE, h.parquet(image=[h.image()], label=[1])),
    "a.wav": (HEAR, h.sound()),
    "a.flac": (HEAR, h.sound(kind="FLAC")),
    "a.toml": (LOOK, PRESET.encode()),
}


@pytest.mark.parametrize("name", WHOLE)
def test_flipped_bits_in_data_end_in_one_line_at_most(fail, tmp_path, name):
    line, whole = WHOLE[name]
    for seed in range(6):
        h.make(tmp_path / name, h.flipped(whole, seed))
        fail(
            line + (" --overwrite" if "encode" in line else ""),
            may_succeed=True,
            file=tmp_path / name,
        )


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_flipped_bits_in_a_model_end_in_one_line_at_most(fail, folders, tmp_path, name):
    for path in folders["image"].iterdir():
        h.make(tmp_path / "m" / path.name, path.read_bytes())
    for seed in range(6):
        h.make(tmp_path / "m" / name, h.flipped((folders["image"] / name).read_bytes(), seed))
        fail("sample {file} -n 1 -S 2 --out x --overwrite", may_succeed=True, file=tmp_path / "m")


def test_flipped_bits_in_plans_latents_and_records_end_in_one_line_at_most(
    fail, folders, tmp_path
):
    assert app.run(["plan", str(folders["image"]), "-S", "2", "--save", "plan.json"]) == 0
    assert app.run(["sample", str(folders["image"]), "-n", "2", "--out", "drawn"]) == 0
    assert (
        app.run(["encode", str(folders["image"]), "drawn", "-S", "2", "--out", "z.safetensors"])
        == 0
    )
    lines = {
        "plan.json": "sample {image} -n 1 --plan plan.json --out x --overwrite",
        "drawn/samples.json": "sample {image} -n 2 --out drawn --resume",
        "z.safetensors": "decode {image} z.safetensors --out y --overwrite",
    }
    for name, line in lines.items():
        whole = (tmp_path / name).read_bytes()
        for seed in range(8):
            h.make(tmp_path / name, h.flipped(whole, seed))
            fail(line, may_succeed=True)
