from __future__ import annotations
REMEDY = ""
def load():
    return None
