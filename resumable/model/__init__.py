"""Values and rules, without reading or writing."""
