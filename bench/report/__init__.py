"""What a person sees: findings, tables, charts, pages, trackers."""
