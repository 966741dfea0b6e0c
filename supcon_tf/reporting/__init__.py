"""Web pages of runs and studies: each one file that opens offline."""

from supcon_tf.reporting.comparison import write_comparison
from supcon_tf.reporting.report import write_report

__all__ = ["write_comparison", "write_report"]
