"""What users write and call: a Process, stages in a chain, a plain function."""
