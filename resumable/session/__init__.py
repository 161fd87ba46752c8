"""From a wanted computation to its results: look, decide, drive, tell."""
