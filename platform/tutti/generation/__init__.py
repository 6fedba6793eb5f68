"""From a request to notes: controls, grammar, sampling, engine."""
