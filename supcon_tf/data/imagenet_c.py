"""Applies a corruption of ImageNet-C to an image."""

import numpy as np

from supcon_tf.errors import UserError

# The 15 corruptions of the mean corruption error, in the order of the published tables.
CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
# Four more, published for choosing settings.
EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
SEVERITIES = (1, 2, 3, 4, 5)
MIN_SIDE_PX = 32


def corrupt(
    image: np.ndarray, *, corruption: str, severity: int, seed: int, number: int
) -> np.ndarray:
    """Applies one of ImageNet-C's corruptions, as implemented by imagecorruptions-imaug.

    Hendrycks and Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions
    and Perturbations". The result depends only on the image and (seed, number, corruption,
    severity). Strengths are as in ImageNet-C for 224 px; CIFAR-10-C has weaker ones. Not
    thread-safe: the library draws from NumPy's global generator, which is seeded and restored.

    Args:
      image: uint8 [H, W, 3], with sides of at least 32 px.
      corruption: one of `CORRUPTIONS` or `EXTRA_CORRUPTIONS`.
      severity: 1 (weakest) to 5.
      seed: >= 0.
      number: position of the image in its set, >= 0.

    Returns:
      uint8 [H, W, 3].

    Raises:
      UserError: an unknown corruption or severity, an image that is too small, or
        imagecorruptions-imaug is not installed.

    Example:
      >>> import numpy as np
      >>> from supcon_tf.data.imagenet_c import corrupt
      >>> grey = np.full((32, 32, 3), 100, np.uint8)
      >>> snowy = corrupt(grey, corruption="snow", severity=3, seed=0, number=0)
      >>> bool(snowy.mean() > grey.mean())
      True
    """
    known = (*CORRUPTIONS, *EXTRA_CORRUPTIONS)
    if corruption not in known:
        raise UserError(f"corruption must be one of {known}, got {corruption!r}")
    if severity not in SEVERITIES:
        raise UserError(f"severity must be one of {SEVERITIES}, got {severity!r}")
    if min(image.shape[:2]) < MIN_SIDE_PX:
        raise UserError(
            f"image {number} is {image.shape[0]} x {image.shape[1]} px: corruptions need at least "
            f"{MIN_SIDE_PX} x {MIN_SIDE_PX}"
        )
    try:
        import imagecorruptions
    except ImportError as error:
        raise UserError(
            f"corruptions cannot be made ({error}): pip install imagecorruptions-imaug"
        ) from error

    entropy = [seed, number, known.index(corruption), severity]
    drawn = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    # These two take a seed.
    options = {"seed": drawn} if corruption in ("impulse_noise", "glass_blur") else {}
    state = np.random.get_state()
    np.random.seed(drawn)
    try:
        return imagecorruptions.corrupt(image, severity, corruption, **options)
    finally:
        np.random.set_state(state)
