"""One device family a file, found by its name; files that start with an underscore are templates to copy."""
