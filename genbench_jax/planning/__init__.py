"""The cost of a run, computed from configurations without a device or weights."""
