"""The web page of a run: one file that opens offline."""

from supcon_tf.reporting.report import write_report

__all__ = ["write_report"]
