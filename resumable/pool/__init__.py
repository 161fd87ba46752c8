"""Worker processes for other work than batches."""
