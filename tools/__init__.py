"""How the course is run, saved and turned into pages; none of this is part of the package."""
