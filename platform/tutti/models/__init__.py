"""Networks and nothing else: their maths knows one device."""
