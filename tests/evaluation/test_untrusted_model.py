"""What the graph of a SavedModel may do if its author is not trusted."""

import pytest
import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.evaluation.untrusted_model import check_untrusted_model
from tests.stages.test_robustness import export


def saved(folder, compute):
    """A SavedModel of a function of images."""
    module = tf.Module()
    module.scale = tf.Variable(1.0)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, "images")])
    def answer(images):
        return {"probabilities": module.scale * compute(tf.cast(images, tf.float32))}

    module.answer = answer
    tf.saved_model.save(module, str(folder), signatures={"serving_default": answer})
    return folder


def means(images):
    return tf.reduce_mean(images, axis=(1, 2))


def writing(images):
    tf.io.write_file("/tmp/written", "text")
    return means(images)


def in_a_branch(images):
    return tf.cond(tf.size(images) > 9, lambda: writing(images), lambda: means(images))


def in_a_loop(images):
    return tf.map_fn(lambda image: writing(image[None])[0], images)


def reading(images):
    text = tf.io.read_file("/etc/hostname")
    return means(images) + tf.cast(tf.strings.length(text), tf.float32)


def table(images):
    keys = tf.lookup.TextFileInitializer(
        "/etc/hostname", tf.string, 0, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
    )
    found = tf.lookup.StaticHashTable(keys, -1).lookup(tf.constant("x"))
    return means(images) + tf.cast(found, tf.float32)


def printing(images):
    tf.print("text", output_stream="file:///tmp/printed")
    return means(images)


def python(images):
    return tf.numpy_function(lambda rows: rows, [means(images)], tf.float32)


@pytest.mark.parametrize(
    "compute",
    [writing, in_a_branch, in_a_loop, reading, printing, python],
    ids=lambda f: f.__name__,
)
def test_a_graph_that_uses_files_or_code_is_refused(compute, tmp_path):
    with pytest.raises(UserError, match=r"has the operation \w+, which can use files.*--trust"):
        check_untrusted_model(saved(tmp_path / "export", compute))


def test_a_graph_that_computes_is_used(tmp_path):
    check_untrusted_model(saved(tmp_path / "export", means))
    export(tmp_path / "robustness")
    check_untrusted_model(tmp_path / "robustness")


def test_a_damaged_graph_is_one_line(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"text")
    with pytest.raises(UserError, match="is damaged"):
        check_untrusted_model(tmp_path)
