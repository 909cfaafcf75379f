"""How fast a network runs: for what really ran, with an interval, beside the machine's ceiling."""
