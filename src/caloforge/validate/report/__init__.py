"""The HTML pages: sections, tables and interactive figures."""
