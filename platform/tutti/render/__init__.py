"""From notes to what people hear and see."""
