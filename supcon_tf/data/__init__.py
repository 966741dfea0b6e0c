"""Images in: sources, splits, views, batches."""
