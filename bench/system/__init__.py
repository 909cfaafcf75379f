"""This machine: devices, memory, signals, environment, and the machine-wide lock."""
