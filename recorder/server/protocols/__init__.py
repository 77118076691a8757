"""The protocols in which a stream is written, one module each: a function of tokens, gaps and the end."""
