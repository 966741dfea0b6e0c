"""Each format gives the outputs of Keras, from images of any size and from prepared pixels."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from supcon_tf import export
from supcon_tf.errors import UserError
from supcon_tf.evaluation.temperature import read_temperature
from supcon_tf.exporting.formats import FORMATS, check_options, optional_module
from supcon_tf.exporting.runtimes import check_batch, load_model
from supcon_tf.exporting.signatures import load_export
from supcon_tf.exporting.write import write_model
from supcon_tf.json_files import check_checksums
from supcon_tf.run_dir import RunDir
from tests.exporting.conftest import PREPROCESSING, photos

RUNTIMES = {"onnx": "onnxruntime", "litert": "ai_edge_litert", "openvino": "openvino"}
WRITERS = {"onnx": ("onnx", "tf2onnx"), "litert": (), "openvino": ("openvino",)}


def outputs_of_keras(model, images):
    views = PREPROCESSING.evaluation_view(tf.constant(images))
    outputs = {name: values.numpy() for name, values in model(views, training=False).items()}
    return outputs | {"label": np.argmax(outputs["probabilities"], axis=1)}


def write(workdir, output, format, **options):
    for package in (*WRITERS[format], RUNTIMES[format]):
        pytest.importorskip(package)
    write_model(workdir / "export", output, format=format, **options)
    check_checksums(output)
    return output / FORMATS[format].file


@pytest.mark.parametrize("format", RUNTIMES)
def test_images_of_any_size_give_the_outputs_of_keras(model, workdir, tmp_path, format):
    run = load_model(write(workdir, tmp_path / "out", format), threads=1)
    # Not resized at all, smaller, resized along one side, and halved twice before. Each needs more
    # memory than the one before.
    for size in ((9, 9), (6, 17), (9, 14), (50, 37)):
        images = photos(*size)
        expected, outputs = outputs_of_keras(model, images), run(images)
        assert set(outputs) == set(expected)
        assert set(outputs) == {"embedding", "projection", "logits", "probabilities", "label"}
        for name in expected:
            np.testing.assert_allclose(outputs[name], expected[name], atol=1e-5)
    assert (tmp_path / "out" / "labels.txt").read_text() == "cat\ndog\nowl\n"
    assert read_temperature(tmp_path / "out") == 1.5


@pytest.mark.parametrize("format", RUNTIMES)
def test_float16_weights_give_nearly_the_outputs_of_keras(model, workdir, tmp_path, format):
    signature = None if format == "litert" else "serving_pixels"
    file = write(workdir, tmp_path / "out", format, quantize="float16", signature=signature)
    run = load_model(file, signature="serving_pixels", threads=1)
    images = photos(30, 20)
    expected = outputs_of_keras(model, images)
    outputs = run(PREPROCESSING.evaluation_view(tf.constant(images)).numpy())
    for name in ("embedding", "probabilities"):
        difference = np.abs(outputs[name] - expected[name]).max()
        # Rounding a weight to 11 bits changes it by 2^-12 at most, so outputs by about as much.
        assert 1e-7 < difference < 8 * 2**-12 * np.abs(expected[name]).max()


def test_int8_is_smaller_and_near_the_outputs_of_keras(
    model, workdir, photos_folder, tmp_path, capsys
):
    pytest.importorskip("ai_edge_litert")
    file = tmp_path / "out" / "model.tflite"
    options = [f"--workdir={workdir}", f"--output={file.parent}", "--format=litert"]
    export.main([*options, "--quantize=int8", f"--images={photos_folder}"])
    assert capsys.readouterr().out.endswith(f"done: {file}\n")
    assert file.stat().st_size < 4 * model.count_params()
    # The images of the folder: others may have activations outside the measured ranges.
    images = [np.asarray(Image.open(path))[None] for path in sorted(photos_folder.iterdir())]
    pixels = [PREPROCESSING.evaluation_view(tf.constant(image)).numpy() for image in images]
    for signature, batches in (("serving_default", images), ("serving_pixels", pixels)):
        run = load_model(file, signature=signature, threads=1)
        for name in ("embedding", "probabilities"):
            expected = np.concatenate([outputs_of_keras(model, image)[name] for image in images])
            difference = np.abs(np.concatenate([run(batch)[name] for batch in batches]) - expected)
            # 256 steps over the range of the values, rounded once in each of the few layers.
            assert difference.max() < 8 / 256 * np.ptp(expected)
    with pytest.raises(UserError, match="is not empty: give a new directory"):
        export.main(options)


def test_prepare_py_and_model_json_make_the_pixels(model, workdir, tmp_path, monkeypatch):
    file = write(workdir, tmp_path / "out", "onnx", signature="serving_pixels")
    with pytest.raises(UserError, match=r"takes 'pixels' and has no 'serving_default'"):
        load_model(file, signature="serving_default")
    Image.fromarray(photos(30, 20)[0]).save(tmp_path / "out" / "photo.png")
    monkeypatch.chdir(tmp_path / "out")
    described = json.loads((tmp_path / "out" / "model.json").read_text())
    code: dict = {}
    exec((tmp_path / "out" / "prepare.py").read_text(), code)
    pixels = code["prepare"](np.asarray(Image.open("photo.png")), **described["pixels"])[None]
    [name] = described["signatures"]
    assert name == "serving_pixels"
    assert described["signatures"][name]["inputs"]["pixels"]["shape"] == [None, 8, 8, 3]
    outputs = load_model(file, threads=1)(pixels)
    assert set(described["signatures"][name]["outputs"]) == set(outputs)
    expected = outputs_of_keras(model, photos(30, 20)[:1])
    np.testing.assert_allclose(outputs["embedding"], expected["embedding"], atol=1e-5)


@pytest.fixture
def photos_folder(tmp_path):
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(photos(40, 20, count=16)):
        Image.fromarray(image[: 25 + number]).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format=pickle"], "--format must be one of"),
        (["--format=onnx", "--quantize=int4"], "--quantize must be one of"),
        (["--quantize=float16"], "--format=onnx and litert and openvino"),
        (["--format=onnx", "--quantize=int8"], "has no --quantize=int8: .* --format=litert"),
        (["--format=openvino", "--signature=pixels"], "--signature must be one of"),
        (["--format=litert", "--signature=serving_pixels"], "holds all signatures"),
        (["--format=litert", "--images=photos"], "--images is for --quantize=int8 only"),
        (["--format=litert", "--quantize=int8"], "give --images=FOLDER"),
    ],
)
def test_options_that_do_not_exist_are_rejected(workdir, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        export.main([f"--workdir={workdir}", f"--output={tmp_path / 'out'}", *options])
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_reported_with_the_extra():
    check_options("onnx", quantize="float16", signature=None)
    with pytest.raises(UserError, match=r"needs no_such_package .*pip install '.\[export\]'"):
        optional_module("no_such_package.part")


def test_the_training_images_of_the_run_are_found(tmp_path):
    (tmp_path / "config.gin").write_text(
        "from __gin__ import dynamic_registration\n"
        "from supcon_tf.data import sources\n"
        "from supcon_tf.stages import pretrain\n"
        "pretrain.run.source = @sources.digits()\n"
    )
    run_dir = RunDir(tmp_path)
    run_dir.set_metrics("pretrain", {"loss": 1.0})
    images = list(export.range_images(run_dir, None, trust=False))
    assert len(images) == export.NUM_RANGE_IMAGES
    assert {image.shape for image in images} == {(32, 32, 3)}


def test_a_run_without_results_needs_images_for_int8(workdir, tmp_path):
    shutil.copytree(workdir / "export", tmp_path / "export")
    (tmp_path / "config.gin").write_text("")
    options = [f"--workdir={tmp_path}", f"--output={tmp_path / 'out'}", "--quantize=int8"]
    with pytest.raises(UserError, match="give --images=FOLDER: no results of a finished stage"):
        export.main([*options, "--format=litert"])


def test_an_export_of_an_older_version_is_reported(tmp_path):
    module = tf.Module()
    module.call = tf.function(lambda x: x, input_signature=[tf.TensorSpec([], tf.float32)])
    tf.saved_model.save(module, str(tmp_path), signatures=None)
    with pytest.raises(UserError, match="is of an older version"):
        load_export(tmp_path)


def test_wrong_files_options_and_batches_of_an_exported_model_are_refused(tmp_path):
    file = tmp_path / "model.onnx"
    with pytest.raises(UserError, match=r"no file .*model\.onnx"):
        load_model(str(file))
    file.touch()
    with pytest.raises(UserError, match="signature must be one of"):
        load_model(file, signature="pixels")
    with pytest.raises(UserError, match=r"threads must be .* got 0"):
        load_model(file, threads=0)
    for batch in (
        np.zeros((1, 8, 8, 3)),
        np.zeros((8, 8, 3), "uint8"),
        np.zeros((0, 8, 8, 3), "uint8"),
    ):
        with pytest.raises(
            UserError, match=r"images must be uint8 \[B, H, W, 3\] with B >= 1, got"
        ):
            check_batch("images", batch)
