"""Finds what is likely wrong with the images of a run.

It compares all images of a finished run, in all splits, and lists near-duplicates (within and
across splits, also with different labels), likely label errors, isolated images and overlapping
classes. RUN/audit/ gets a CSV file of each, and audit.html with pictures; docs/cleaning.md explains
the rules. Nothing is changed or removed.

The config.gin of the run may only use this package, TensorFlow and Keras, and its exported model
may only compute, unless --trust is given.

example:
  python -m supcon_tf.audit --workdir=runs/mine
"""

import functools
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from supcon_tf import cli
from supcon_tf.errors import UserError, check_number
from supcon_tf.files import check_links


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options = _flags()
    cli.parse(options, argv, __doc__)
    if not options.workdir:
        raise UserError("--workdir is needed: the directory of a finished run")
    check_number("--duplicate_similarity", options.duplicate_similarity, above=0, at_most=1)
    run_dir = cli.existing_run(options.workdir)
    export = cli.trained_export(options.workdir)
    output = Path(options.output) if options.output else run_dir.root / "audit"
    cli.start_tensorflow()
    # These import TensorFlow.
    from supcon_tf.cleaning import audit, read_images, write_tables
    from supcon_tf.evaluation.prediction import load_model
    from supcon_tf.evaluation.untrusted_model import check_untrusted_model
    from supcon_tf.reporting.audit import write_page
    from supcon_tf.run_source import run_source

    if not options.trust:
        advice = "add --trust if you trust the source of this run"
        check_links(run_dir.root, within=run_dir.root, advice=advice)
        check_untrusted_model(export)
    images = read_images(
        run_source(run_dir, trust=options.trust),
        load_model(export),
        batch_size=options.batch_size,
    )
    findings = audit(
        images,
        num_neighbors=options.num_neighbors,
        duplicate_similarity=options.duplicate_similarity,
    )
    write_tables(output, images, findings)
    page = write_page(output / "audit.html", images, findings, title=str(run_dir.root))
    print(
        f"{len(images.names)} images: {len(findings.duplicates)} pairs of near-duplicates, "
        f"{len(findings.errors)} likely label errors, {len(findings.isolated)} isolated images, "
        f"{len(findings.overlaps)} pairs of overlapping classes\ndone: {page}"
    )


def _flags() -> flags.FlagValues:
    """All flags of the command."""
    options = cli.new_flags()
    flags.DEFINE_string("workdir", None, "DIR: the run directory", flag_values=options)
    flags.DEFINE_string(
        "output",
        None,
        "DIR: for the tables and the page, WORKDIR/audit by default",
        flag_values=options,
    )
    flags.DEFINE_integer(
        "num_neighbors",
        20,
        "neighbours that vote on an image's label, 20 by default",
        lower_bound=1,
        flag_values=options,
    )
    flags.DEFINE_float(
        "duplicate_similarity",
        0.97,
        "lowest correlation of near-duplicates, 0.97 by default",
        flag_values=options,
    )
    flags.DEFINE_integer(
        "batch_size", 64, "images at a time, 64 by default", lower_bound=1, flag_values=options
    )
    flags.DEFINE_boolean(
        "trust",
        False,
        "let the config.gin of the run import and call any Python code, and its model use files: "
        "only for runs whose source you trust",
        flag_values=options,
    )
    return options


run = functools.partial(cli.run, main)  # The console script supcon-audit.

if __name__ == "__main__":
    run()
