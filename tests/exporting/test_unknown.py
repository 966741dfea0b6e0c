"""An exported model with an index gives the unknown score of the index."""

import csv
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import export, predict
from supcon_tf.errors import UserError
from supcon_tf.evaluation.temperature import read_temperature
from supcon_tf.exporting.runtimes import load_model
from supcon_tf.exporting.unknown import mahalanobis
from supcon_tf.index import Index
from supcon_tf.json_files import check_checksums
from supcon_tf.search import class_statistics, model_checksum
from supcon_tf.search.nearest import unit_rows
from tests.exporting.conftest import PREPROCESSING, photos


@pytest.mark.parametrize("spread", [0.3, 1e-3])
def test_the_score_equals_that_of_the_index(spread):
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 5
    centers = rng.normal(size=(5, 24))
    rows = unit_rows(centers[labels] + spread * rng.normal(size=(300, 24)))
    statistics = class_statistics(rows, labels)
    embeddings = np.concatenate(
        [7 * rows[:50], 1e-30 * rng.normal(size=(50, 24)), np.zeros((1, 24))]
    )
    expected = statistics.distances(unit_rows(embeddings.astype(np.float32)))
    threshold = float(np.median(expected))
    score = mahalanobis(statistics.means, statistics.whitening, threshold)
    found = score(tf.constant(embeddings, tf.float32))
    np.testing.assert_allclose(found["unknown_score"], expected, rtol=1e-4)
    is_near = np.isclose(expected, threshold, rtol=1e-4)
    np.testing.assert_array_equal(found["is_unknown"][~is_near], (expected > threshold)[~is_near])
    assert score(tf.fill([1, 24], np.nan))["is_unknown"].numpy().all()


@pytest.fixture(scope="module")
def index(workdir, tmp_path_factory):
    """An index of photos of three brightnesses; the directory and the index."""
    images = np.concatenate([photos(9, 12, 20) // (1 + number) for number in range(3)])
    serve = tf.saved_model.load(str(workdir / "export")).signatures["serving_default"]
    embeddings = serve(images=tf.constant(images))["embedding"].numpy()
    labels = np.repeat(["light", "grey", "dark"], 20).tolist()
    index = Index(embeddings, [f"{number}.png" for number in range(60)], labels)
    index.calibrate(unknown_score="mahalanobis")
    index.model_checksum = model_checksum(workdir / "export")
    folder = tmp_path_factory.mktemp("index") / "index"
    index.save(folder)
    return folder, index


@pytest.fixture(scope="module")
def exported(workdir, index, tmp_path_factory):
    output = tmp_path_factory.mktemp("model") / "model"
    export.main([f"--workdir={workdir}", f"--output={output}", f"--index={index[0]}"])
    return output


def expected_of(index, outputs):
    scores = index.unknown_scores(outputs["embedding"].numpy())
    return scores, scores > index.calibration.thresholds["mahalanobis"]


def test_every_signature_returns_the_score_of_the_index(workdir, index, exported):
    check_checksums(exported)
    images = np.concatenate([photos(9, 12), 255 - photos(9, 12) // 9])
    inputs = {
        "serving_default": {"images": tf.constant(images)},
        "serving_pixels": {"pixels": PREPROCESSING.evaluation_view(tf.constant(images))},
        "serving_jpeg": {"encoded": tf.stack([tf.io.encode_png(image) for image in images])},
    }
    before = tf.saved_model.load(str(workdir / "export"))
    loaded = tf.saved_model.load(str(exported))
    for name, given in inputs.items():
        outputs = loaded.signatures[name](**given)
        scores, is_unknown = expected_of(index[1], outputs)
        assert 0 < is_unknown.sum() < len(images)
        np.testing.assert_allclose(outputs["unknown_score"], scores, rtol=1e-4)
        np.testing.assert_array_equal(outputs["is_unknown"], is_unknown)
        for key, value in before.signatures[name](**given).items():
            np.testing.assert_array_equal(outputs[key], value)
    empty = loaded.signatures["serving_default"](images=tf.zeros([0, 0, 0, 3], tf.uint8))
    assert (empty["unknown_score"].shape, empty["is_unknown"].shape) == ((0,), (0,))


def test_the_thresholds_are_beside_the_model(index, exported):
    calibration = index[1].calibration
    written = json.loads((exported / "calibration.json").read_text())
    assert written["unknown_threshold"] == calibration.thresholds["mahalanobis"]
    assert written["match"]["similarity"] == calibration.match.similarity
    assert (exported / "labels.txt").read_text() == "cat\ndog\nowl\n"
    assert read_temperature(exported) == 1.5


def test_predict_writes_the_score(index, exported, tmp_path):
    (tmp_path / "a.png").write_bytes(tf.io.encode_png(photos(9, 12)[0]).numpy())
    output = tmp_path / "out.csv"
    predict.main([f"--export={exported}", f"--images={tmp_path}", f"--output={output}"])
    with output.open() as file:
        [row] = csv.DictReader(file)
    embedding = [float(row[f"embedding_{number}"]) for number in range(48)]
    [score] = index[1].unknown_scores([embedding])
    assert float(row["unknown_score"]) == pytest.approx(score, rel=1e-4)
    assert row["is_unknown"] == str(score > index[1].calibration.thresholds["mahalanobis"])
    # The index is of the model that the exported one was made from.
    predict.main(
        [
            f"--export={exported}",
            f"--images={tmp_path}",
            f"--output={output}",
            f"--index={index[0]}",
        ]
    )
    with output.open() as file:
        [row] = csv.DictReader(file)
    assert row["neighbor_1_path"]
    assert float(row["unknown_score"]) == pytest.approx(score, rel=1e-4)


def test_other_formats_have_the_score(workdir, index, tmp_path):
    for package in ("onnx", "tf2onnx", "onnxruntime"):
        pytest.importorskip(package)
    output = tmp_path / "out"
    export.main(
        [
            *(f"--workdir={workdir}", f"--output={output}", f"--index={index[0]}"),
            *("--format=onnx", "--signature=serving_pixels"),
        ]
    )
    run = load_model(output / "model.onnx", threads=1)
    outputs = run(PREPROCESSING.evaluation_view(tf.constant(photos(9, 12))).numpy())
    scores = index[1].unknown_scores(outputs["embedding"])
    np.testing.assert_allclose(outputs["unknown_score"], scores, rtol=1e-4)
    assert outputs["is_unknown"].dtype == bool
    assert (output / "calibration.json").is_file()


def test_an_index_that_does_not_fit_is_rejected(workdir, index, tmp_path):
    command = [f"--workdir={workdir}", f"--output={tmp_path / 'out'}"]
    with pytest.raises(UserError, match="--index is for --quantize=none only"):
        export.main([*command, f"--index={index[0]}", "--format=onnx", "--quantize=float16"])
    plain = Index([[1.0, 0.0]], ["a.png"])
    plain.model_checksum = model_checksum(workdir / "export")
    plain.save(tmp_path / "plain")
    with pytest.raises(UserError, match="has no calibration: build it"):
        export.main([*command, f"--index={tmp_path / 'plain'}"])
    plain.model_checksum = "0" * 64
    shutil.rmtree(tmp_path / "plain")
    plain.save(tmp_path / "plain")
    with pytest.raises(UserError, match="is of another model than"):
        export.main([*command, f"--index={tmp_path / 'plain'}"])
