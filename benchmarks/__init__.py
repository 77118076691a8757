"""What recorder costs, beside what else one could do; `make bench` prints the table."""
