"""What a model is worth: its music beside works that it never saw, measure by measure, on one page."""
