"""Finds near-duplicates, likely label errors, isolated images and overlapping classes."""

from supcon_tf.cleaning.audit import Audit, audit
from supcon_tf.cleaning.duplicates import DuplicatePair, duplicate_pairs
from supcon_tf.cleaning.images import AuditImages, read_images, signatures
from supcon_tf.cleaning.labels import (
    LabelError,
    Overlap,
    class_overlaps,
    label_errors,
    neighbor_probabilities,
)
from supcon_tf.cleaning.tables import write_tables

__all__ = [
    "Audit",
    "AuditImages",
    "DuplicatePair",
    "LabelError",
    "Overlap",
    "audit",
    "class_overlaps",
    "duplicate_pairs",
    "label_errors",
    "neighbor_probabilities",
    "read_images",
    "signatures",
    "write_tables",
]
