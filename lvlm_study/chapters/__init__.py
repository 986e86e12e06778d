"""What the chapters show: their tables, figures and numbers, one file a notebook."""
