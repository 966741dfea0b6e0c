"""Wrong inputs of every kind: each is one line that names what is wrong, and exit code 2.

Other test files have those of single options; these are files, text and calls that are wrong.
"""

import gzip
import io
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from supcon_tf import (
    evaluate,
    evaluation,
    export,
    losses,
    models,
    optimizers,
    predict,
    study,
    train,
)
from supcon_tf.data import sources
from supcon_tf.errors import UserError
from supcon_tf.evaluation.prediction import class_names, load_model
from supcon_tf.files import expanded
from supcon_tf.reporting import write_comparison, write_report
from supcon_tf.run_dir import RunDir
from supcon_tf.stages import experiment
from supcon_tf.training.encoder_io import encoder_file, load_encoder
from supcon_tf.training.run_data import run_images
from tests.commands.test_user_errors import failure_of

_encoded = io.BytesIO()
Image.new("RGB", (8, 8)).save(_encoded, "PNG")
PNG = _encoded.getvalue()
PHOTOS = {f"{name}/{number}.png": PNG for name in ("cat", "dog") for number in range(4)}
TABLE = {f"{number}.png": PNG for number in range(4)}
PIXELS = np.zeros((12, 8, 8, 3), np.uint8)
LABELS = np.arange(12) % 3
VIEWS = np.eye(4, dtype=np.float32)[:, None]


def tree(folder, files):
    """Writes files below a folder."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def photos(folder, files, **options):
    return sources.folder(str(tree(folder, files)), **options)


def table(folder, content, **options):
    tree(folder, {**TABLE, "images.csv": content})
    return sources.table(str(folder / "images.csv"), **options)


def arrays(folder, **given):
    np.savez(folder / "images.npz", **given)
    return sources.arrays(str(folder / "images.npz"))


def changed(file, change):
    file.write_bytes(change(file.read_bytes()))
    return file


def damaged_archive(folder):
    rng = np.random.default_rng(0)
    np.savez_compressed(
        folder / "x.npz", x=rng.integers(0, 9, (99, 8, 8, 3), np.uint8), y=[0, 1] * 50
    )
    changed(folder / "x.npz", lambda data: data[:400] + bytes(40) + data[440:])
    return sources.arrays(str(folder / "x.npz"))


def chosen(folder, lines):
    tree(folder, {"list.txt": lines})
    return sources.subset(sources.digits(), list_file=str(folder / "list.txt"))


def tiny_model(folder):
    """A SavedModel from images to embeddings and classes."""

    class Model(tf.Module):
        def __init__(self):
            super().__init__()
            self.scale = tf.Variable(2.0)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "encoded")])
        def answer(self, encoded):
            values = self.scale * tf.ones([tf.size(encoded), 2])
            return {"embedding": values, "probabilities": values, "label": tf.argmax(values, 1)}

    model = Model()
    tf.saved_model.save(model, str(folder / "export"), signatures={"serving_jpeg": model.answer})
    tree(folder / "export", {"labels.txt": "a\nb\n"})
    return folder / "export"


def spoiled_model(folder, name, change):
    """Loads a SavedModel after a change of one of its files."""
    model = tiny_model(folder)
    change(model / name)
    return load_model(model)


def recorded(folder, content):
    """Images of a stage whose record is damaged."""
    tree(folder, {"checkpoints/pretrain/last/x": "", "data/pretrain.json.gz": content})
    return run_images(RunDir(folder), "pretrain", sources.digits())


def finished(folder, **files):
    """The run directory of a measured run, with other contents of its files."""
    results = {"errors": {"fog": [0.5]}, "severities": [1], "clean_error": 0.1, "seconds": 1}
    contents = {"metrics": json.dumps({"robustness": results}), "robustness": "{}", **files}
    tree(folder, {f"{name}.json": text for name, text in contents.items()})
    tree(folder, {"config.gin": ""})
    return folder


def resumed(folder, metrics):
    return experiment.run(
        RunDir(finished(folder, metrics=metrics)), stages=("pretrain",), configured=None
    )


READERS = [
    # Folders of images.
    (lambda f: photos(f, {"x.png/cat/1.png": PNG}), "at least two class folders"),
    (lambda f: sources.folder(str(tree(f, {"x.png": PNG}) / "x.png")), "x.png' is a file: point"),
    (lambda f: photos(f, {**PHOTOS, "dog/5.png": b"spoiled"}, unreadable_limit=0), "1 of 9 images cannot be read"),
    (lambda f: photos(f, dict.fromkeys(PHOTOS, b"")), "8 of 8 images cannot be read"),
    (lambda f: photos(f, {**PHOTOS, "o\nwl/1.png": PNG, "o\nwl/2.png": PNG}), "must not have line breaks"),
    (lambda f: photos(f, PHOTOS, test_share="0.2"), "sources.folder.test_share must be a number > 0 and < 1, got '0.2'"),
    (lambda f: photos(f, PHOTOS, seed=1.5), "sources.folder.seed must be an integer >= 0, got 1.5"),
    (lambda f: photos(f, {f"train/{n}": PNG for n in PHOTOS} | {"test/cat/9.png": PNG}), "found only 'cat'"),
    (lambda f: photos(f, imagenet_with("<annotation/>")), "has no <name>"),
    (lambda f: photos(f, imagenet_with(b"<name>k\xe4fer</name>")), "is not UTF-8"),
    (lambda f: expanded("~nobody_of_this_name"), "names a user without a home directory"),
    # Tables.
    (lambda f: table(f, "path,labels\n"), "lists no images"),
    (lambda f: table(f, "path,labels\n".encode("utf-16")), "not UTF-8 or not CSV"),
    (lambda f: table(f, "path;labels\n0.png;cat\n"), "must be path,labels or path,labels,split, got path;labels"),
    (lambda f: table(f, "path,path,labels\n0.png,0.png,cat\n"), "must be path,labels or"),
    (lambda f: table(f, "path,labels\n0\0.png,cat\n1.png,dog\n"), "line 2 of"),
    (lambda f: table(f, "path,labels\n.,cat\n1.png,dog\n"), "no image '"),
    (lambda f: table(f, "path,labels\n0.png\n"), "has 1 columns, 2 are needed"),
    (lambda f: table(f, 'path,labels\n0.png,"cat\ndog"\n1.png,cat\n2.png,cat\n3.png,"cat\ndog"\n'), "must not have line breaks"),
    (lambda f: table(f, "path\n0.png\n"), "at least two images are needed"),
    # Arrays.
    (damaged_archive, "x.npz' does not hold arrays saved by numpy.savez"),
    (lambda f: arrays(f, images=np.uint8(3)), "must be [n, height, width, channels], got []"),
    (lambda f: arrays(f, images=PIXELS[:0], labels=LABELS[:0]), "must be [n, height, width, channels], got [0, 8, 8, 3]"),
    (lambda f: arrays(f, images=PIXELS * 1j, labels=LABELS), "must be uint8, uint16 or floating-point, got complex128"),
    (lambda f: arrays(f, images=PIXELS, labels=np.uint8(3)), "must be integers or names [n]"),
    (lambda f: arrays(f, images=PIXELS, labels=np.array(["a", "b\n", "c"])[LABELS]), "must not have line breaks"),
    (lambda f: arrays(f, images=PIXELS, labels=np.array([b"a", b"\xe4"])[LABELS % 2]), "class names must be UTF-8"),
    (lambda f: arrays(f, images=PIXELS, labels=np.eye(3)[LABELS] * 2), "must be 0 or 1 for each of 3 classes"),
    (lambda f: arrays(f, x=PIXELS, y=LABELS, x_test=np.zeros((3, 8, 8, 4), np.uint8), y_test=LABELS[:3]), "channels"),
    # Subsets.
    (lambda f: chosen(f, ""), "is empty: it must name one image per line"),
    (lambda f: chosen(f, "99999\n"), "first '99999', which names 0 of 1347"),
    (lambda f: chosen(f, "²\n"), "first '²', which names 0 of 1347"),
    (lambda f: chosen(f, b"\xff\n"), "is not UTF-8"),
    (lambda f: sources.subset(sources.digits(), per_class=10**6), "per_class for class '0' must be a number <= "),
    (lambda f: sources.subset("digits", first=3), "must be a source such as"),
    # Files of a run.
    (lambda f: recorded(f, b"no gzip"), "pretrain.json.gz' is damaged"),
    (lambda f: recorded(f, gzip.compress(b"[1]")), "pretrain.json.gz' is damaged"),
    (lambda f: recorded(f, gzip.compress(b'{"source": 1, "splits": 2, "names": 3}')), "pretrain.json.gz' is damaged"),
    (lambda f: resumed(f, '{"pretrain": 3}'), "metrics.json' is damaged"),
    (lambda f: resumed(f, b"\xff"), "metrics.json' is damaged"),
    (lambda f: RunDir(finished(f, normalization='{"means": 1, "deviations": 2}')).normalization(), "normalization.json' is damaged"),
    (lambda f: RunDir(finished(f, normalization='{"means": ["a"], "deviations": [1]}')).normalization(), "normalization.json' is damaged"),
    (lambda f: RunDir(finished(f, curves='{"pretrain": 3}')).curve("pretrain"), "curves.json' is damaged"),
    (lambda f: write_report(finished(f, robustness="{")), "robustness.json' is damaged"),
    (lambda f: write_report(finished(f, robustness="[]")), "robustness.json' is damaged"),
    (lambda f: write_comparison([finished(f)], f / "page.html"), "robustness.json' is damaged"),
    (lambda f: write_report(tree(finished(f), {"config.gin": b"\xff"})), "config.gin' is not UTF-8"),
    (lambda f: evaluation.read_baseline(tree(f, {"b.json": b"\xff"}) / "b.json"), "b.json' has no {corruption: errors}"),
    (lambda f: evaluation.read_baseline(tree(f, {"b.json": "[1]"}) / "b.json"), "b.json' has no {corruption: errors}"),
    (lambda f: evaluation.mean_corruption_error({"fog": "high"}), "errors must have all of"),
    (lambda f: encoder_file(f), "no encoder at"),
    (lambda f: load_encoder(tree(f, {"m.keras": ""}) / "m.keras", image_shape=(8, 8, 3)), "m.keras' is damaged"),
    (lambda f: load_encoder(tree(f, {"m.h5": "text"}) / "m.h5", image_shape=(8, 8, 3)), "m.h5' cannot be loaded"),
    (lambda f: load_encoder(tree(f, {"m.pt": "text"}) / "m.pt", image_shape=(8, 8, 3)), "m.pt' cannot be loaded"),
    # Exports.
    (lambda f: spoiled_model(f, "saved_model.pb", lambda file: file.write_bytes(b"text")), "export' is damaged"),
    (lambda f: spoiled_model(f, "saved_model.pb", lambda file: file.write_bytes(file.read_bytes()[:-500])), "export' is damaged"),
    (lambda f: spoiled_model(f, "variables", shutil.rmtree), "export' is damaged"),
    (lambda f: spoiled_model(f, "variables/variables.index", lambda file: file.write_bytes(b"")), "export' is damaged"),
    (lambda f: spoiled_model(f, "labels.txt", lambda file: file.unlink()), "labels.txt' is missing"),
    (lambda f: spoiled_model(f, "labels.txt", lambda file: file.write_text("a\n")), "must have a line for each of the model's 2 classes, got 1"),
    (lambda f: class_names(tree(f, {"labels.txt": b"\xff"}), 1), "labels.txt' is not UTF-8"),
    # Scripts with a loss, an optimizer or a model.
    (lambda f: losses.supcon_loss(np.arange(4), VIEWS, temperature="0.1"), "temperature must be a number > 0, got '0.1'"),
    (lambda f: losses.supcon_loss(["cat", "dog", "cat", "dog"], VIEWS), "labels must be numbers, got string"),
    (lambda f: losses.supcon_loss([0, 1, [2], 3], VIEWS), "labels must be an array of numbers"),
    (lambda f: losses.supcon_loss(np.arange(4), VIEWS[:, 0]), "features must be [N, V, ...] with a view axis"),
    (lambda f: losses.supcon_loss(np.arange(4), VIEWS.astype("U")), "features must be numbers"),
    (lambda f: losses.supcon_loss(np.arange(4), VIEWS, implementation="fast"), "implementation must be one of"),
    (lambda f: losses.SupConLoss()(np.arange(4), VIEWS, sample_weight="1"), "sample_weight must be numbers"),
    (lambda f: losses.supcon_loss(np.zeros((4, 0)), VIEWS), "labels must be [N], [N, C] or None, got shape (4, 0)"),
    (lambda f: optimizers.warmup_schedule(base_learning_rate="0.1", batch_size=8, steps_per_epoch=2, epochs=1), "base_learning_rate must be a number"),
    (lambda f: optimizers.LARS(0.1, exclude=("(",)), "exclude must be regular expressions, got"),
    (lambda f: models.contrastive_model(None, image_shape=(8, 8, 3)), "encoder must be a Keras model, got None"),
    (lambda f: models.contrastive_model(keras.Sequential(), image_shape=(8, 8, 3)), "encoder must have layers"),
    (lambda f: models.resnet(width="1"), "width must be a number"),
    (lambda f: evaluation.top_k_accuracy(np.eye(3), ["a", "b", "c"]), "labels must be"),
    (lambda f: evaluation.expected_calibration_error(np.eye(3), [0, 1]), "need 3 labels, got 2"),
]  # fmt: skip


def imagenet_with(annotation):
    """ImageNet of one training class, with an annotation of its validation image."""
    base = "ILSVRC/Data/CLS-LOC"
    images = {f"{base}/train/n{c}/n{c}_{i}.JPEG": PNG for c in (1, 2) for i in range(2)}
    return {
        **images,
        f"{base}/val/v_1.JPEG": PNG,
        "ILSVRC/Annotations/CLS-LOC/val/v_1.xml": annotation,
    }


@pytest.mark.parametrize(
    ("read", "says"), READERS, ids=[f"{n} {s[:40]}" for n, (_, s) in enumerate(READERS)]
)
def test_wrong_input_of_a_reader_or_script_is_one_line(read, says, tmp_path):
    with pytest.raises(UserError) as raised:
        read(tmp_path)
    # gin adds lines with the place of a configured call.
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


DIGITS = "--gin_file=digits/supcon.gin"
RUN = "--workdir=DIR/run"
COMMANDS = [
    # Gin files and settings.
    (train, [DIGITS, "--gin_param=pretrain.run.epochs = 3 4"], {}, "Expected newline"),
    (train, [DIGITS, "--gin_param=pretrain.run.epochs = 1e3"], {}, "pretrain.run.epochs must be int, got 1000.0"),
    (train, [DIGITS, "--gin_param=pretrain.run.jit_compile = true"], {}, "'true' is not a value"),
    (train, [DIGITS, "--gin_param=pretrain.run.source = @digits()"], {}, "no module 'digits' to configure"),
    (train, [DIGITS, "--gin_param=pretrain.run.source = @sources.digits"], {}, "write @sources.digits() with brackets"),
    (train, [DIGITS, "--gin_param=pretrain.run.epochs"], {}, "a setting is written as name.parameter = value"),
    (train, [DIGITS, "--gin_param=pretrain.run.epochs = {[1]: 2}"], {}, "unhashable"),
    (train, [DIGITS, "--gin_param=pretrain.run.epochs = '''3"], {}, "a bracket or quote is not closed"),
    (train, [DIGITS, f"--gin_param=pretrain.run.epochs = {'(' * 50}"], {}, "a bracket or quote is not closed"),
    (train, [DIGITS, f"--gin_param=pretrain.run.epochs = {'[' * 400 + ']' * 400}"], {}, "recursion"),
    (train, [DIGITS, "--gin_param=pretrain.run.seed = 0123"], {}, "0123"),
    (train, [DIGITS, "--gin_param=import nowhere_at_all"], {}, "no module 'nowhere_at_all' to import"),
    (train, [DIGITS, "--gin_param=A = %B", "--gin_param=B = %A", "--gin_param=pretrain.run.seed = %A"], {}, "refers to itself"),
    (train, [DIGITS, "--gin_param=finetun/losses.SupConLoss.temperature = 1"], {}, "no effect, as no reference has the scope 'finetun'"),
    (train, [DIGITS, "--gin_param=pretrain.run.root = 1"], {}, "pretrain.run has no parameter 'root'"),
    (train, [DIGITS, RUN, "--gin_param=views.Preprocessing.image_px = 0"], {}, "image_px must be an integer >= "),
    (train, [DIGITS, RUN, "--gin_param=experiment.run.stages = ()"], {}, "must name at least one stage, got none"),
    (train, [DIGITS, RUN, "--gin_param=pretrain.run.batch_size = 10**3"], {}, "10**3"),
    (train, ["--gin_file=DIR/run"], {"run/x": ""}, "run' is a directory"),
    (train, ["--gin_file=DIR/a.gin"], {"a.gin": " \n"}, "is empty"),
    (train, ["--gin_file=DIR/a.gin"], {"a.gin": b"\xff\xfe"}, "is not UTF-8 text"),
    (train, ["--gin_file=DIR/a.gin"], {"a.gin": "include 'b.gin'"}, "no gin file 'b.gin'"),
    (train, ["--gin_file=DIR/a.gin"], {"a.gin": "include 'b.gin'", "b.gin": "include 'a.gin'"}, "a.gin' includes itself"),
    (train, ["--gin_file=DIR/a.gin"], {"a.gin": "if x:\n  include 'b.gin'"}, "In: "),
    (train, ["--gin_file=DIR/a.gin"], {"a.gin": PNG}, "is not UTF-8 text"),
    (train, [DIGITS, RUN], {"run/run.lock/x": ""}, "run.lock': Is a directory"),
    (train, [DIGITS, RUN], {"run/config.gin/x": "", "run/metrics.json": '{"pretrain": {}}'}, "config.gin' is missing or empty"),
    (train, [DIGITS, RUN], {"run/metrics.json": "[]"}, "metrics.json' is damaged"),
    (train, [DIGITS, RUN], {"run/metrics.json": '{"pretrain": {}}', "run/config.gin": "x"}, "config.gin' is damaged"),
    # Run directories for evaluate.
    (evaluate, [RUN], {"run/config.gin/x": ""}, "no run in"),
    (evaluate, [RUN], {"run/config.gin": ""}, "config.gin' is empty"),
    (evaluate, [RUN], {"run/config.gin": b"\xff"}, "is not UTF-8 text"),
    (evaluate, [RUN], {"run/config.gin": "a.b = ("}, "config.gin' cannot be read"),
    (evaluate, [RUN], {"run/config.gin": "a.b = {[1]: 2}"}, "config.gin' cannot be read"),
    (evaluate, [RUN, "--output=DIR/run"], {"run/config.gin": "x.y = 1"}, "--output must be"),
    (evaluate, [RUN, "--output=DIR/x/a.html"], {"run/config.gin": "x.y = 1", "x": ""}, "x': File exists"),
    (evaluate, [RUN], {"run/config.gin": "experiment.run.stages = ()", "run/metrics.json": "{", "run/robustness.json": ""}, "metrics.json' is damaged"),
    (evaluate, ["--workdir="], {}, "no run in"),
    # Exports, images and outputs.
    (export, ["--workdir=DIR"], {}, "--workdir and --output are needed"),
    (export, [RUN, "--output=DIR/x"], {"run/export/saved_model.pb": "", "x": ""}, "x': Not a directory"),
    (export, [RUN, "--output=DIR/run/export/copy"], {"run/export/saved_model.pb": ""}, "copy' is inside"),
    (export, [RUN, "--output=DIR/x/y"], {"run/export/saved_model.pb": "", "x": ""}, "y': Not a directory"),
    (predict, ["--export=DIR", "--images=DIR", "--output=DIR/x/y.npz"], {"x": ""}, "x': File exists"),
    (predict, ["--export=DIR", "--images=DIR", "--output=DIR/y.npz"], {"y.npz/z": ""}, "--output must be a file that can be written"),
    (predict, ["--export=DIR", "--images=DIR", "--output=y.npz", "--batch_size=many"], {}, "flag --batch_size=many"),
    (predict, ["--export=DIR", "--images=DIR/none", "--output=DIR/y.npz"], {"saved_model.pb": ""}, "none'"),
    (predict, ["--export=DIR", "--images=DIR", "--output=DIR/y.npz"], {"saved_model.pb": ""}, "no image in"),
    (predict, ["--export=DIR", "--images=DIR/1.png", "--output=DIR/y.npz"], {"saved_model.pb": "x", "1.png": PNG}, "is damaged"),
    # Studies.
    (study, [DIGITS, RUN], {}, "study.run.methods is not set"),
    (study, ["--gin_file=studies/digits_stability.gin", RUN, "--gin_param=study.run.processes = 0"], {}, "study.run.processes must be >= 1, got 0"),
    (study, ["--gin_file=studies/digits_stability.gin", "--list", "--gin_param=study.run.only = {}", "--gin_param=study.run.grid = {'a': {}}"], {}, "needs at least one level of 'a'"),
    (study, ["--gin_file=studies/digits_stability.gin", "--list", "--gin_param=study.run.design = 'all'"], {}, "study.run.design must be one of"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "arguments", "files", "says"),
    COMMANDS,
    ids=[f"{n} {s[:40]}" for n, (*_, s) in enumerate(COMMANDS)],
)
def test_wrong_input_of_a_command_is_one_line(command, arguments, files, says, tmp_path, capsys):
    tree(tmp_path, files)
    arguments = [argument.replace("DIR", str(tmp_path)) for argument in arguments]
    code, error = failure_of(command.main, *arguments, capsys=capsys)
    assert code == 2
    assert says in error
    assert error.count("\n") == 1
