"""A recorded conversation as the memory of a chain, an agent or another framework."""
