"""One run of a model: translates its response, and reports it to handlers."""
