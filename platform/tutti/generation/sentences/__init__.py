"""Sentences read as the controls of a request: figures, words of two languages, and what sounds like known scenes."""
