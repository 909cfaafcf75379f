"""Study files that ship with the tool, one a question."""
