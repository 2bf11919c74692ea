"""What happened, each once: how far a stream is read, what of it is new, and where that is kept."""
