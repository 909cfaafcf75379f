"""Pages made from the code: one module a page, each with `pages() -> {path: text}`."""
