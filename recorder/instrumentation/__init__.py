"""Records the model calls of clients that the application has already."""
