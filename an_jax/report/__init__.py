"""Reports to look at: self-contained HTML pages."""
