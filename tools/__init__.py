"""Small programs that build and check the course; run them with ``python -m tools.<name>``."""
