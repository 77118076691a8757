"""Changes recordings that are stored already."""
