"""What was computed: read, packed, published."""
