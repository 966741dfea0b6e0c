"""The examples of docs/serving.md: requests of TensorFlow Serving, and code."""

import base64
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from supcon_tf.exporting.write import write_model
from tests.exporting.conftest import PREPROCESSING, photos

PAGE = Path(__file__).parents[2].joinpath("docs", "serving.md").read_text()
REQUESTS = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.S)]
EXAMPLES = re.findall(r"runs as a test. -->\n```python\n(.*?)```", PAGE, re.S)


@pytest.fixture(scope="module")
def graph(workdir):
    content = SavedModel.FromString((workdir / "export" / "saved_model.pb").read_bytes())
    [graph] = content.meta_graphs
    assert "serve" in graph.meta_info_def.tags  # TensorFlow Serving loads this one.
    return graph


def decoded(value):
    """TensorFlow Serving takes {"b64": ...} as bytes."""
    if isinstance(value, list):
        return [decoded(each) for each in value]
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value


@pytest.mark.parametrize("request_body", REQUESTS, ids=lambda body: body["signature_name"])
def test_the_requests_fit_the_signatures(graph, workdir, request_body):
    name = request_body["signature_name"]
    definition = graph.signature_def[name]
    assert definition.method_name == "tensorflow/serving/predict"
    assert set(request_body) == {"signature_name", "inputs"}
    assert set(request_body["inputs"]) == set(definition.inputs)
    tensors = {}
    for key, value in request_body["inputs"].items():
        info = definition.inputs[key]
        tensors[key] = tf.constant(decoded(value), tf.DType(info.dtype))
        assert tensors[key].shape.is_compatible_with(tf.TensorShape(info.tensor_shape))
    outputs = tf.saved_model.load(str(workdir / "export")).signatures[name](**tensors)
    assert set(outputs) == set(definition.outputs)
    assert outputs["embedding"].shape == (1, 48)


def test_the_page_names_every_signature_and_output(graph):
    # The initialisation of a SavedModel is a signature too.
    names = {name for name in graph.signature_def if not name.startswith("__")}
    assert names == {"serving_default", "serving_jpeg", "serving_pixels"}
    for name in names:
        definition = graph.signature_def[name]
        [given] = definition.inputs
        assert re.search(rf"^\| `{name}` \| `{given}`", PAGE, re.M)
        for output in definition.outputs:
            assert f"`{output}`" in PAGE


def test_the_examples_run(model, workdir, tmp_path, monkeypatch, capsys):
    for package in ("onnx", "tf2onnx", "onnxruntime"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write_model(workdir / "export", tmp_path / "model_onnx", format="onnx")
    Image.fromarray(photos(30, 20)[0]).save("photo.jpg")
    names: dict = {}
    for code in EXAMPLES:
        exec(code, names)
    sys.modules.pop("prepare")
    pixels = PREPROCESSING.evaluation_view(tf.constant(names["images"]))
    np.testing.assert_allclose(names["pixels"], pixels, atol=1e-5)
    expected = model(pixels, training=False)
    for embedding in (names["embedding"], names["outputs"]["embedding"]):
        np.testing.assert_allclose(embedding, expected["embedding"], atol=1e-5)
    label = int(np.argmax(expected["probabilities"]))
    assert capsys.readouterr().out == ("cat", "dog", "owl")[label] + "\n"
