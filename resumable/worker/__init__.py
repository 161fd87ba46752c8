"""One batch of positions, and the processes that workers live in."""
