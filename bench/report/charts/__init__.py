"""Chart data, and the two renderers (matplotlib and plotly)."""
