"""The GRU's step and dropout."""
