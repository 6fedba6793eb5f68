"""Whether hard controls hold, measured on what comes out: ``python -m benchmarks.obedience``.

An untrained model, which wants nothing that music wants, is asked for 1,000 pieces under random controls (drawn by
hypothesis, contradictory ones refused), and every control is measured on the decoded score, by rules that are written
here anew and share nothing with the grammar but the reading of names. Then it makes 10,000 pieces, of which every token
must decode.
"""

from __future__ import annotations

ROWS = 64
CONTEXT_TOKENS = 256
QUALITIES = ("", "m", "7", "m7", "maj7", "dim7", "m7b5", "sus4", "aug", "6", "m6", "9", "13", "7(b9,#11)", "7alt", "5")
IN_C = ("C", "Dm7", "Em", "Fmaj7", "G7", "Am7", "Bm7b5", "C/G", "F/A")
