"""Shared by the tests of several sources."""

from supcon_tf.data.views import decode


def first_image(split):
    image, label = next(iter(split.in_order()))
    return decode(image).numpy(), int(label)
