"""The drawn worlds: scenes, questions about them, styles and test sets; no model."""
