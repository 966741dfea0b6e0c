"""supcon-tf: supervised contrastive learning of image encoders in TensorFlow and Keras 3."""

__version__ = "0.2.0"
