"""Calls of every public name with good, odd and bad arguments: `python -m tests.fuzz`."""
