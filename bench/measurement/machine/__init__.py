"""The machine beside the figures: ceilings, noise, energy, NVML."""
