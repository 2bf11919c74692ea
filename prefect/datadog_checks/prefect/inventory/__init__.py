"""What there is on the server: fetched once in a run of the check, and remembered between runs."""
