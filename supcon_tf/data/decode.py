"""Decodes images to upright RGB, whole or a window."""

import functools
from collections.abc import Callable

import tensorflow as tf

# The Exif orientation is searched in these bytes; cameras write it into the first kilobyte.
_EXIF_BYTES = 4096
# A BMP of 8 bits per pixel. \C matches any byte.
_PALETTE_BMP = r"BM\C{26}\x08\x00"
# JPEG can be decoded at a half, a quarter and an eighth of its size, which is faster.
REDUCTIONS = (1, 2, 4, 8)

# window int32 [4] (top, left, height, width), reduction int32 [] -> pixels, origin int32 [2].
Read = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def decode(image: tf.Tensor, *, palettes: bool = False) -> tf.Tensor:
    """Decodes an image to upright RGB.

    Reads JPEG (CMYK too), PNG, WebP, BMP and the first frame of a GIF. A JPEG is turned upright as
    its Exif orientation says, grey becomes RGB, 16 bits become 8, transparency is left out.

    Args:
      image: encoded (string scalar), or pixels [H, W, C], which are returned unchanged.
      palettes: look up the colours of a BMP of 8 bits per pixel, which TensorFlow alone takes for
        grey levels. Only for serving: `image_formats.read_encoded` converts such files.

    Returns:
      uint8 [H, W, 3] of an encoded image.
    """
    if image.dtype != tf.string:
        return image
    if palettes:
        has_palette = tf.strings.regex_full_match(tf.strings.substr(image, 0, 30), _PALETTE_BMP)
        return tf.cond(has_palette, lambda: _decode_palette(image), lambda: decode(image))
    return _decoded(image, exif_orientation(image))


def _decode_palette(image: tf.Tensor) -> tf.Tensor:
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(image, 0, 54), tf.uint8), tf.int32)

    def number_at(place: int) -> tf.Tensor:
        return tf.reduce_sum(header[place : place + 4] * [1, 1 << 8, 1 << 16, 1 << 24])

    uncompressed = tf.debugging.Assert(number_at(30) == 0, ["a compressed BMP is not decoded"])
    with tf.control_dependencies([uncompressed]):
        begin = 14 + number_at(14)
    colours = tf.strings.substr(image, begin, (number_at(10) - begin) // 4 * 4)
    colours = tf.reshape(tf.io.decode_raw(colours, tf.uint8), [-1, 4])[:, 2::-1]  # BGR0 -> RGB
    return tf.gather(colours, tf.cast(tf.io.decode_bmp(image)[..., 0], tf.int32))


def _decoded(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    decoded = tf.io.decode_image(image, channels=3, expand_animations=False)
    decoded.set_shape([None, None, 3])
    return tf.cond(orientation > 1, lambda: upright(decoded, orientation), lambda: decoded)


def open_image(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Read]:
    """The size of an image, and a function that reads a window of it.

    From a JPEG without rotation, only the window or a reduced image is decoded.

    Args:
      image: encoded (string scalar), or decoded [H, W, 3].

    Returns:
      Height and width, int32 [2]; whether the image can be read at a reduced size, bool []; and a
      function of a window, int32 [4] (top, left, height, width), and a reduction of 1, 2, 4 or 8.
      It returns pixels [h, w, C] that contain the window, and the position of the first pixel,
      int32 [2]. In a reduced image the window starts and ends at the `reduced` positions.
    """
    corner = tf.constant([0, 0])
    if image.dtype != tf.string:
        return tf.shape(image)[:2], tf.constant(False), lambda window, reduction: (image, corner)
    orientation = exif_orientation(image)
    by_window = tf.io.is_jpeg(image) & (orientation == 1)

    def whole_image() -> tuple[tf.Tensor, tf.Tensor]:
        pixels = _decoded(image, orientation)
        return pixels, tf.shape(pixels)[:2]

    whole, size = tf.cond(
        by_window,
        lambda: (tf.zeros([0, 0, 3], tf.uint8), tf.io.extract_jpeg_shape(image)[:2]),
        whole_image,
    )

    def read(window: tf.Tensor, reduction: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        def part() -> tuple[tf.Tensor, tf.Tensor]:
            # Two more columns on each side: a pixel's colour depends on its neighbours.
            top, left, height, width = tf.unstack(window)
            begin, end = tf.maximum(left - 2, 0), tf.minimum(left + width + 2, size[1])
            wider = tf.stack([top, begin, height, end - begin])
            return tf.io.decode_and_crop_jpeg(image, wider, channels=3), wider[:2]

        def smaller(ratio: int) -> tuple[tf.Tensor, tf.Tensor]:
            return tf.io.decode_jpeg(image, channels=3, ratio=ratio), corner

        ways = [part, *(functools.partial(smaller, ratio) for ratio in REDUCTIONS[1:])]
        which = tf.reduce_sum(tf.cast(reduction >= tf.constant(REDUCTIONS), tf.int32)) - 1
        which = tf.where(by_window, which, len(ways))
        pixels, origin = tf.switch_case(which, [*ways, lambda: (whole, corner)])
        return tf.ensure_shape(pixels, [None, None, 3]), origin

    return size, by_window, read


def reduced(position: tf.Tensor, reduction: int | tf.Tensor) -> tf.Tensor:
    """The nearest position in an image reduced by this factor."""
    return (position + reduction // 2) // reduction


def exif_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """The Exif orientation of a JPEG: int32 [], 1 (upright) to 8.

    Args:
      encoded: string scalar; the orientation is 1 if it is no JPEG or has none.
    """
    head = tf.strings.substr(encoded, 0, _EXIF_BYTES)
    # \C matches any byte. Most images have no Exif, and searching for the word is fast.
    has_exif = tf.io.is_jpeg(encoded) & tf.strings.regex_full_match(head, r"\C*Exif\C*")
    # tf.cond inlines its branches, and nodes of the branch not taken still cost time: here 1 % of
    # AutoAugment's pipeline at 224 px.
    [orientation] = tf.raw_ops.StatelessIf(
        cond=has_exif,
        input=[head],
        Tout=[tf.int32],
        then_branch=_orientation_in.get_concrete_function(),
        else_branch=_upright_orientation.get_concrete_function(),
    )
    return tf.ensure_shape(orientation, [])


_function_of_head = tf.function(autograph=False, input_signature=[tf.TensorSpec([], tf.string)])


@_function_of_head
def _upright_orientation(head: tf.Tensor) -> tf.Tensor:
    del head
    return tf.constant(1)


@_function_of_head
def _orientation_in(head: tf.Tensor) -> tf.Tensor:
    values = tf.cast(tf.io.decode_raw(head, tf.uint8), tf.int32)
    # The four bytes from each position as one number, padded with zeros at the end.
    padded = tf.pad(values, [[0, 12]])
    count = tf.size(values)
    words = sum(padded[k : k + count + 4] * 256 ** (3 - k) for k in range(4))
    first, second = words[:count], words[4:]
    little = (first == 0x12010300) & (second == 0x01000000)
    big = (first == 0x01120003) & (second == 0x00000001)
    value = tf.where(little, padded[8 : 8 + count], padded[9 : 9 + count])
    place = tf.argmax(tf.cast(little | big, tf.int32), output_type=tf.int32)
    is_found = (little | big)[place]
    return tf.where(is_found & (value[place] >= 1) & (value[place] <= 8), value[place], 1)


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Rotates and mirrors an image [H, W, 3] to undo its Exif orientation, 1 to 8."""

    def where(
        numbers: list[int], change: Callable[[tf.Tensor], tf.Tensor], image: tf.Tensor
    ) -> tf.Tensor:
        applies = tf.reduce_any(orientation == tf.constant(numbers))
        return tf.cond(applies, lambda: change(image), lambda: image)

    image = where([5, 6, 7, 8], _transposed, image)
    image = where([2, 3, 6, 7], lambda x: tf.reverse(x, [1]), image)
    return where([3, 4, 7, 8], lambda x: tf.reverse(x, [0]), image)


def _transposed(image: tf.Tensor) -> tf.Tensor:
    # [H, W, 3] -> [W, H, 3] by gathering rows: oneDNN warns about transposing bytes.
    height, width, _ = tf.unstack(tf.shape(image))
    numbers = tf.range(height) * width + tf.range(width)[:, None]  # [W, H]
    return tf.gather(tf.reshape(image, [-1, 3]), numbers)
