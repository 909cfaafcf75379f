"""Study files that ship with bench, one per question."""
