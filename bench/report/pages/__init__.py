"""A study's report, and what lays it out.

- `study_report`: what the report says; every writer below only lays it out.
- `terminal`, `markdown`, `html`, `notebook`: the four writers.
- `publish`: the files of `bench report`; `json_document`: the one for programs.
- `server`: the HTML page, live, for `bench report --serve`.
- `sections`: which charts a report has, in order.
- `provenance`: commands, data, machines, and what failed.
- `architecture`, `diagram`: drawings of the networks.
- `measurements`: the report of every measured speed in a results folder.
"""
