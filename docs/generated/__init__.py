"""Pages generated from the code: one module per page, each with `pages() -> {path: text}`."""
