"""Clocks, warm-up, sampling, intervals, and what runs a configuration."""
