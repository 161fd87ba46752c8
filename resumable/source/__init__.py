"""HDF5 files of others, read by position."""
