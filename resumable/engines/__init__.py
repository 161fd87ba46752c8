"""Who computes: one protocol, and an engine per way to have workers."""
