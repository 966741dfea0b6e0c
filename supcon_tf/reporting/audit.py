"""The page of an audit."""

import functools
from pathlib import Path
from typing import Any

from supcon_tf.cleaning import Audit, AuditImages
from supcon_tf.reporting.page import render
from supcon_tf.reporting.scored_split import image_uri

# Findings of each kind with pictures; the CSV files have all.
_SHOWN = 50


def write_page(path: Path, images: AuditImages, findings: Audit, *, title: str) -> Path:
    """Writes one file that opens offline, with the first findings of each kind and pictures.

    Args:
      path: the page.
      images: the images.
      findings: all of them.
      title: of the page.
    """

    @functools.cache
    def shown(image: int) -> dict[str, Any]:
        return {
            "name": images.names[image],
            "split": images.split_of[image],
            "label": images.label_texts[image],
            "picture": image_uri(images.thumbnail(image)),
        }

    classes = images.class_names
    return render(
        "audit.html.jinja",
        path,
        title=title,
        limit=_SHOWN,
        num_images=len(images.names),
        has_classes=bool(classes),
        num_found=[
            ("near-duplicates", len(findings.duplicates)),
            ("label errors", len(findings.errors)),
            ("isolated images", len(findings.isolated)),
            ("overlapping classes", len(findings.overlaps)),
        ],
        duplicates=[
            (shown(pair.first), shown(pair.second), pair.similarity)
            for pair in findings.duplicates[:_SHOWN]
        ],
        errors=[
            (shown(error.image), classes[error.suggestion], error.margin)
            for error in findings.errors[:_SHOWN]
        ],
        isolated=[(shown(image), distance) for image, distance in findings.isolated[:_SHOWN]],
        overlaps=[
            (classes[pair.first], classes[pair.second], pair.share)
            for pair in findings.overlaps[:_SHOWN]
        ],
    )
