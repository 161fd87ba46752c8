"""The run file: its format, creation, lock, writer and tables."""
