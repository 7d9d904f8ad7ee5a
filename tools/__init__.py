"""Command-line programs: flags and one call of a library function each."""
