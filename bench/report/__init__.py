"""Reports: frames, statistics, the answer, tables, pictures, pages."""
