"""The sections of the page, one file each: `section(run, ...)` gives markup, or None where its tables are absent."""
