"""One thread per test process (two of them share two cores), and little output."""

import gc
import os
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import numpy as np
import pytest
import tensorflow as tf

# Set here, before a test module makes its first tensor.
if "PYTEST_XDIST_WORKER" in os.environ:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

# Two logical CPUs, which must be made before TensorFlow's first operation.
import tests.replicas  # noqa: F401


def pytest_configure():
    """A test run in the background may ignore these signals, and its processes with it."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish():
    """Imported objects stay: searching them for garbage takes a twentieth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of two classes that are easy to distinguish, twenty PNGs each."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(40):
        image = np.full((20, 24, 3), 210 if number % 2 else 40, np.uint8)
        file = root / ("bright" if number % 2 else "dark") / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(tf.io.encode_png(image).numpy())
    return root


@pytest.fixture
def results_only(monkeypatch):
    """Runs write no views, export or report, which take a third of a small run's time."""
    from supcon_tf import run_checks
    from supcon_tf.training import results, view_sheet

    monkeypatch.setattr(results, "save_serving_model", lambda *_, **__: None)
    monkeypatch.setattr(view_sheet, "view_sheet", lambda *_, **__: b"")
    monkeypatch.setattr(run_checks, "write_report", lambda folder: folder)


@pytest.fixture
def image_folder(tmp_path):
    """A folder of two classes of twelve JPEGs each, of different sizes: dark and bright."""
    root = tmp_path / "photos"
    for number in range(24):
        name = "bright" if number % 2 else "dark"
        height, width = 20 + number, 44 - number
        level = tf.fill([height, width, 3], 200.0 if number % 2 else 50.0)
        noise = tf.random.stateless_uniform([height, width, 3], [number, 0], -30.0, 30.0)
        image = tf.cast(level + noise, tf.uint8)
        file = root / name / f"{number:02d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(tf.io.encode_jpeg(image).numpy())
    return root
