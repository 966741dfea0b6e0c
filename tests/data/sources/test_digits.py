"""The built-in digits: their splits, sizes and labels."""

import numpy as np

from supcon_tf.data import sources
from tests.data.sources.images import first_image


def test_digits_are_split_by_class_without_overlap():
    source = sources.digits()
    assert source.train.num_examples + source.test.num_examples == 1797
    shares = np.bincount(source.test.labels) / (
        np.bincount(source.test.labels) + np.bincount(source.train.labels)
    )
    np.testing.assert_allclose(shares, 0.25, atol=0.005)
    image, _ = first_image(source.train)
    assert image.shape == (32, 32, 3)
    assert image.dtype == np.uint8
    assert image.max() > 200
    seen = {image.numpy().tobytes() for image, _ in source.train.in_order()}
    repeated = sum(image.numpy().tobytes() in seen for image, _ in source.test.in_order())
    assert repeated == 0


def test_a_validation_share_leaves_the_test_images_alone():
    plain, split = sources.digits(), sources.digits(validation_share=0.1)
    assert split.train.num_examples + split.validation.num_examples == plain.train.num_examples
    np.testing.assert_array_equal(split.test.labels, plain.test.labels)
    assert set(np.bincount(split.validation.labels)) <= {13, 14}
