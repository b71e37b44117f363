"""HTML pages in one file: text, tables and plots (inline SVG) that need nothing from outside to be read."""
