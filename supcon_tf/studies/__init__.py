"""Studies: many runs that differ in one setting or several."""
